//! The kernel's word on sched_ext: sysfs, its log, its debug dump.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What `/sys/kernel/sched_ext` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scx {
    /// `disabled`, `enabling`, `enabled`, `disabling` …
    pub(crate) state: String,
    /// The kernel's name of the attached scheduler; empty without one.
    pub(crate) ops: String,
}

impl Scx {
    pub(crate) fn is_enabled(&self) -> bool {
        self.state == "enabled" && !self.ops.is_empty()
    }

    pub(crate) fn is_disabled(&self) -> bool {
        self.state == "disabled" && self.ops.is_empty()
    }

    pub(crate) fn describe(&self) -> String {
        let ops = if self.ops.is_empty() {
            "no scheduler".to_string()
        } else {
            format!("scheduler {:?}", self.ops)
        };
        format!("sched_ext is {}, {ops}", self.state)
    }
}

/// The files of one kernel; tests have their own.
pub(crate) struct Kernel {
    root: PathBuf,
}

impl Kernel {
    pub(crate) fn running() -> Self {
        Self { root: PathBuf::from("/") }
    }

    #[cfg(test)]
    pub(crate) fn at(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// `None` without sched_ext in the kernel.
    pub(crate) fn scx(&self) -> Option<Scx> {
        let state = read(&self.path("sys/kernel/sched_ext/state"))?;
        // The directory is there only while a scheduler is.
        let ops = read(&self.path("sys/kernel/sched_ext/root/ops")).unwrap_or_default();
        Some(Scx { state, ops })
    }

    /// Whether the attached scheduler takes every ordinary task.
    pub(crate) fn switch_all(&self) -> Option<bool> {
        Some(read(&self.path("sys/kernel/sched_ext/switch_all"))? == "1")
    }

    /// Tasks refused since boot.
    pub(crate) fn nr_rejected(&self) -> Option<u64> {
        read(&self.path("sys/kernel/sched_ext/nr_rejected"))?.parse().ok()
    }

    /// Event counters of the attached scheduler, `name value` a line (kernel 6.15 and later).
    pub(crate) fn events(&self) -> BTreeMap<String, u64> {
        let text = read(&self.path("sys/kernel/sched_ext/root/events")).unwrap_or_default();
        let pair = |line: &str| {
            let (name, value) = line.split_once(char::is_whitespace)?;
            Some((name.to_string(), value.trim().parse().ok()?))
        };
        text.lines().filter_map(pair).collect()
    }

    /// CPUs that are offline, as the kernel lists them; `None` if none are.
    pub(crate) fn offline_cpus(&self) -> Option<String> {
        // Beyond the possible ones the kernel lists those that its configuration allows for.
        let offline = read(&self.path("sys/devices/system/cpu/offline")).filter(|list| !list.is_empty())?;
        let present = read(&self.path("sys/devices/system/cpu/present")).unwrap_or_default();
        let most = present.rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok())?;
        let first = |part: &&str| part.split('-').next().and_then(|n| n.parse::<u32>().ok());
        let listed: Vec<&str> =
            offline.split(',').filter(|part| first(part).is_some_and(|cpu| cpu <= most)).collect();
        (!listed.is_empty()).then(|| listed.join(","))
    }

    /// Why this kernel takes no probes on its functions; `None` if it does.
    pub(crate) fn no_probes(&self) -> Option<String> {
        let path = self.tracefs().join("kprobe_events");
        let opened = std::fs::OpenOptions::new().append(true).open(&path);
        opened.err().map(|e| {
            format!("this kernel takes no probes ({}: {e}): it needs CONFIG_KPROBE_EVENTS=y", path.display())
        })
    }

    /// Writes a kernel setting.
    pub(crate) fn set(&self, key: &str, value: &str) -> Result<(), String> {
        let path = self.path("proc/sys").join(key.replace('.', "/"));
        std::fs::write(&path, value).map_err(|e| format!("setting {key} = {value} ({}): {e}", path.display()))
    }

    pub(crate) fn tracefs(&self) -> PathBuf {
        self.path("sys/kernel/tracing")
    }

    /// Has the dump of a failing scheduler written to the trace buffer; what was there goes.
    pub(crate) fn arm_dump(&self) -> std::io::Result<()> {
        let tracing = self.tracefs();
        std::fs::write(tracing.join("trace"), "")?;
        std::fs::write(tracing.join("events/sched_ext/sched_ext_dump/enable"), "1")
    }

    /// The dump, if there was one, without the trace's own columns.
    pub(crate) fn dump(&self) -> String {
        let trace = std::fs::read(self.tracefs().join("trace")).unwrap_or_default();
        dump_in(&String::from_utf8_lossy(&trace))
    }

    /// A line in the kernel's log, from which on it is about this scheduler.
    pub(crate) fn mark(&self, line: &str) -> std::io::Result<()> {
        let mut log = std::fs::OpenOptions::new().write(true).open(self.path("dev/kmsg"))?;
        // <6>: KERN_INFO
        log.write_all(format!("<6>{line}\n").as_bytes())
    }
}

/// The text of the `sched_ext_dump` events of a trace.
fn dump_in(trace: &str) -> String {
    let mut text = String::new();
    for line in trace.lines() {
        if let Some((_, dump)) = line.split_once(": sched_ext_dump: ") {
            text.push_str(dump);
            text.push('\n');
        } else if line.ends_with(": sched_ext_dump:") {
            text.push('\n');
        }
    }
    text
}

fn read(path: &Path) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernel(files: &[(&str, &str)]) -> (tempfile::TempDir, Kernel) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let kernel = Kernel { root: dir.path().to_path_buf() };
        (dir, kernel)
    }

    #[test]
    fn state_and_name_are_read() {
        let (_dir, none) = kernel(&[]);
        assert_eq!(none.scx(), None);
        let (_dir, off) = kernel(&[("sys/kernel/sched_ext/state", "disabled\n")]);
        assert!(off.scx().unwrap().is_disabled());
        let (_dir, on) = kernel(&[
            ("sys/kernel/sched_ext/state", "enabled\n"),
            ("sys/kernel/sched_ext/root/ops", "demo\n"),
            ("sys/kernel/sched_ext/root/events", "SCX_EV_A 3\nSCX_EV_B 4\nodd\n"),
        ]);
        assert!(on.scx().unwrap().is_enabled());
        let events: Vec<(String, u64)> = on.events().into_iter().collect();
        assert_eq!(events, [("SCX_EV_A".to_string(), 3), ("SCX_EV_B".to_string(), 4)]);
    }

    #[test]
    fn offline_cpus_are_those_of_the_machine() {
        let offline = |list, present| {
            let files =
                [("sys/devices/system/cpu/offline", list), ("sys/devices/system/cpu/present", present)];
            kernel(&files).1.offline_cpus()
        };
        assert_eq!(offline("1\n", "0-3\n").as_deref(), Some("1"));
        assert_eq!(offline("1,3,8-63\n", "0-3\n").as_deref(), Some("1,3"));
        assert_eq!(offline("8-63\n", "0-7\n"), None);
        assert_eq!(offline("\n", "0\n"), None);
        assert_eq!(kernel(&[]).1.offline_cpus(), None);
    }

    #[test]
    fn a_kernel_without_probes_says_what_it_lacks() {
        assert!(kernel(&[]).1.no_probes().unwrap().contains("CONFIG_KPROBE_EVENTS=y"));
        let (_dir, with) = kernel(&[("sys/kernel/tracing/kprobe_events", "")]);
        assert_eq!(with.no_probes(), None);
    }

    #[test]
    fn a_setting_that_is_not_there_is_named() {
        let (_dir, kernel) = kernel(&[("proc/sys/kernel/x", "0")]);
        kernel.set("kernel.x", "1").unwrap();
        assert!(kernel.set("vm.none", "1").unwrap_err().starts_with("setting vm.none = 1"));
    }

    #[test]
    fn a_dump_loses_the_columns_of_its_trace() {
        let trace = "# tracer: nop\n   kworker/0:1-12      [000] d..1.     1.2: sched_ext_dump: CPU states\n   \
                     kworker/0:1-12      [000] d..1.     1.2: sched_ext_dump: \n    other-1 [000] ...: sched_switch: x\n   \
                     kworker/0:1-12      [000] d..1.     1.2: sched_ext_dump:  R a[1] -3ms\n";
        assert_eq!(dump_in(trace), "CPU states\n\n R a[1] -3ms\n");
    }
}
