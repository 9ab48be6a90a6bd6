//! What the kernel says of one process.

use ktstr_monitor::{Processes, RunFigures};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// Frames of a stack that are shown.
const FRAMES: usize = 16;
/// What of `/proc/PID/status` is shown.
const STATUS: [&str; 6] =
    ["State", "Threads", "SigPnd", "ShdPnd", "Cpus_allowed_list", "voluntary_ctxt_switches"];

/// The processes of the running system, by `/proc` and cgroupfs.
#[derive(Debug, Clone)]
pub struct HostProcesses {
    root: PathBuf,
}

impl Default for HostProcesses {
    fn default() -> Self {
        Self { root: PathBuf::from("/") }
    }
}

impl HostProcesses {
    fn of(&self, pid: i32) -> PathBuf {
        self.root.join(format!("proc/{pid}"))
    }

    /// Its cgroup of version 2, from the root.
    fn cgroup(&self, pid: i32) -> Option<String> {
        let text = fs::read_to_string(self.of(pid).join("cgroup")).ok()?;
        text.lines().find_map(|line| line.strip_prefix("0::")).map(String::from)
    }

    /// Nobody expects it to run while that says 1 (Documentation/admin-guide/cgroup-v2.rst, `cgroup.events`).
    fn is_frozen(&self, pid: i32) -> bool {
        let Some(cgroup) = self.cgroup(pid) else { return false };
        let events =
            self.root.join("sys/fs/cgroup").join(cgroup.trim_start_matches('/')).join("cgroup.events");
        fs::read_to_string(events).is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    }

    fn is_gone(&self, pid: i32) -> bool {
        let state = fs::read_to_string(self.of(pid).join("status")).ok();
        let state = state.as_deref().and_then(|status| line(status, "State"));
        // A zombie has ended, too.
        state.is_none_or(|state| state.starts_with(['Z', 'X']))
    }
}

impl Processes for HostProcesses {
    fn figures(&self, pid: i32) -> Result<Option<RunFigures>, String> {
        if self.is_gone(pid) || self.is_frozen(pid) {
            return Ok(None);
        }
        let tasks = self.of(pid).join("task");
        let failed = |path: &Path, e: &io::Error| {
            let path = path.display();
            format!(
                "whether workers get on can't be told: reading {path}: {e} (CONFIG_SCHED_DEBUG, a mounted /proc)"
            )
        };
        let mut sum = RunFigures::default();
        for task in fs::read_dir(&tasks).map_err(|e| failed(&tasks, &e))?.flatten() {
            let path = task.path().join("sched");
            match fs::read_to_string(&path) {
                Ok(text) => {
                    let figures = RunFigures::parse(&text);
                    let odd = || {
                        format!(
                            "whether workers get on can't be told: {} lacks nr_switches or se.sum_exec_runtime",
                            path.display()
                        )
                    };
                    sum = sum.plus(figures.ok_or_else(odd)?);
                }
                // A thread that ended meanwhile has no directory any more.
                Err(e) if is_missing(&e) && !task.path().exists() => {}
                Err(e) => return Err(failed(&path, &e)),
            }
        }
        Ok(Some(sum))
    }

    fn evidence(&self, pid: i32) -> Vec<(String, String)> {
        let of = self.of(pid);
        let read = |file: &str| match fs::read_to_string(of.join(file)) {
            Ok(text) => text.trim().to_string(),
            Err(e) => format!("? ({e})"),
        };
        let status = read("status");
        let status = STATUS.iter().filter_map(|name| Some(format!("{name}={}", line(&status, name)?)));
        let status = status.collect::<Vec<_>>().join(" ");
        let stack = read("stack");
        let frames: Vec<&str> = stack.lines().take(FRAMES).map(|l| l.trim_start_matches("[<0>] ")).collect();
        let cgroup = self.cgroup(pid).unwrap_or_else(|| "?".to_string());
        [
            ("comm", read("comm")),
            ("status", status),
            ("wchan", read("wchan")),
            ("syscall", read("syscall")),
            ("cgroup", cgroup),
            ("stack", frames.join("\n")),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_string(), value))
        .collect()
    }
}

fn is_missing(e: &io::Error) -> bool {
    // ESRCH: the task ended between opening and reading.
    e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(3)
}

/// The value of `name:` in a file of such lines.
fn line<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.split_once(':').filter(|(n, _)| *n == name))
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, HostProcesses) {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let processes = HostProcesses { root: dir.path().to_path_buf() };
        (dir, processes)
    }

    const RUNNING: (&str, &str) = ("proc/7/status", "Name:\ta\nState:\tR (running)\n");

    #[test]
    fn threads_are_added_up() {
        let sched = |ms: &str| format!("se.sum_exec_runtime : {ms}.000000\nnr_switches : 2\n");
        let (first, second) = (sched("1"), sched("4"));
        let files = [RUNNING, ("proc/7/task/7/sched", first.as_str()), ("proc/7/task/8/sched", &second)];
        let (_dir, processes) = system(&files);
        let figures = RunFigures { switches: 4, runtime_ns: 5_000_000 };
        assert_eq!(processes.figures(7), Ok(Some(figures)));
        assert_eq!(processes.figures(8), Ok(None), "there is none");
    }

    #[test]
    fn who_has_ended_or_is_frozen_is_not_meant_to_run() {
        let (_dir, processes) = system(&[("proc/7/status", "State:\tZ (zombie)\n")]);
        assert_eq!(processes.figures(7), Ok(None));
        let files = [
            RUNNING,
            ("proc/7/cgroup", "1:cpu:/x\n0::/ktstr/cg_0\n"),
            ("sys/fs/cgroup/ktstr/cg_0/cgroup.events", "populated 1\nfrozen 1\n"),
        ];
        let (_dir, processes) = system(&files);
        assert_eq!(processes.figures(7), Ok(None));
    }

    #[test]
    fn a_kernel_that_does_not_tell_is_named() {
        let (dir, processes) = system(&[RUNNING]);
        fs::create_dir_all(dir.path().join("proc/7/task/7")).unwrap();
        assert!(processes.figures(7).unwrap_err().contains("CONFIG_SCHED_DEBUG"));
        fs::write(dir.path().join("proc/7/task/7/sched"), "nothing\n").unwrap();
        assert!(processes.figures(7).unwrap_err().contains("lacks nr_switches"));
    }

    /// The kernel that runs the tests.
    #[test]
    fn a_sleeper_gets_no_further_and_is_told() {
        let mut sleeper = std::process::Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let (pid, processes) = (i32::try_from(sleeper.id()).unwrap(), HostProcesses::default());
        let figures = processes.figures(pid);
        let evidence = processes.evidence(pid);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        assert!(matches!(figures, Ok(Some(RunFigures { runtime_ns: 1.., .. }))), "{figures:?}");
        let of =
            |name: &str| evidence.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str()).unwrap();
        assert!(of("status").contains("State=") && of("status").contains("Threads=1"), "{evidence:?}");
        assert!(of("cgroup").starts_with('/'), "{evidence:?}");
        assert_eq!(processes.figures(pid), Ok(None), "it has ended");
    }
}
