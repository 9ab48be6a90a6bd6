//! Probes on kernel functions, by tracefs: kprobe events in a trace buffer of their own; what programs attached to the
//! scheduler's print comes to the same buffer.

use crate::callbacks::{Attached, attach};
use ktstr_scheduler::repro::{AtTheEnd, Callbacks, Probe, ProbeProfile, ProbeTrace, Selection, Task};
use ktstr_scheduler::{ScxDump, ScxExit};
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The trace buffer, beside the one that takes the debug dump.
const BUFFER: &str = "instances/ktstr";
/// Of each CPU: some thousand events. A machine has 64 MiB of RAM a CPU or more.
const BUFFER_KIB: u32 = 2048;

/// The probes of a run that repeats a crash.
pub(crate) struct Probes {
    tracefs: PathBuf,
    /// The probes that the kernel took, and what it said of the others.
    armed: ProbeTrace,
    callbacks: Callbacks,
    /// On the scheduler's own programs, while there is one.
    own: Mutex<Attached>,
}

impl Probes {
    /// Sets the probes on the kernel whose tracefs that is. What can't be had is noted, and costs nothing else.
    pub(crate) fn arm(tracefs: &Path, wanted: Vec<Probe>, callbacks: Callbacks) -> Self {
        let (armed, own) = (ProbeTrace::default(), Mutex::default());
        let mut probes = Self { tracefs: tracefs.to_path_buf(), armed, callbacks, own };
        for probe in wanted {
            probes.define(probe);
        }
        let problems = match probes.armed.probes.is_empty() {
            true => vec!["the kernel takes none of the probes".to_string()],
            false => probes.open_buffer(),
        };
        probes.armed.problems.extend(problems);
        probes
    }

    fn define(&mut self, probe: Probe) {
        let number = self.armed.probes.len();
        let events = self.tracefs.join("kprobe_events");
        if let Err(e) = append(&events, &probe.at_entry(number)) {
            let why = self.last_complaint().unwrap_or_else(|| e.to_string());
            self.armed.refused.push((probe.function, why));
            return;
        }
        let at_exit = append(&events, &probe.at_exit(number, true))
            .or_else(|_| append(&events, &probe.at_exit(number, false)));
        if let Err(e) = at_exit {
            self.armed.problems.push(format!("no exits of {}: {e}", probe.function));
        }
        self.armed.probes.push(probe);
    }

    /// The kernel's word on the last event that it did not take.
    fn last_complaint(&self) -> Option<String> {
        let log = std::fs::read_to_string(self.tracefs.join("error_log")).ok()?;
        let (_, complaint) = log.lines().rev().find_map(|line| line.split_once(": error: "))?;
        Some(complaint.trim().to_string())
    }

    /// The trace buffer, with the probes switched on; what went wrong.
    fn open_buffer(&self) -> Vec<String> {
        let buffer = self.tracefs.join(BUFFER);
        let made = match std::fs::create_dir(&buffer) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
            _ => Ok(()),
        };
        let set = |file: &str, value: &str| std::fs::write(buffer.join(file), value);
        let on = format!("events/{}/enable", Probe::GROUP);
        let steps = [
            ("making a trace buffer", made),
            ("setting its size", set("buffer_size_kb", &BUFFER_KIB.to_string())),
            // The kernel's log counts by the same clock, and it is one for all CPUs.
            ("setting its clock", set("trace_clock", "mono")),
            // What follows the dump is no longer about the crash.
            (
                "having the trace end with the crash",
                set("events/sched_ext/sched_ext_dump/trigger", "traceoff"),
            ),
            ("switching the probes on", set(&on, "1")),
        ];
        steps
            .into_iter()
            .filter_map(|(doing, done)| Some(format!("{doing} ({}): {}", buffer.display(), done.err()?)))
            .collect()
    }

    /// Attaches to the programs of the scheduler that has just been attached.
    pub(crate) fn attach_callbacks(&self) {
        let (printed, buffer) = ("events/bpf_trace/bpf_trace_printk", self.tracefs.join(BUFFER));
        let set = |path: PathBuf, value: &str| {
            std::fs::write(&path, value)
                .err()
                .map(|e| format!("writing {value:?} to {}: {e}", path.display()))
        };
        let problems = [
            // The kernel switches it on there, too, for whoever loads such a program: the dump must not drown in it.
            set(self.tracefs.join(printed).join("filter"), "common_pid < 0"),
            set(buffer.join(printed).join("enable"), "1"),
        ];
        let mut attached = attach(&self.callbacks, self.armed.probes.len());
        attached.problems.extend(problems.into_iter().flatten());
        *self.own() = attached;
    }

    fn own(&self) -> MutexGuard<'_, Attached> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was traced so far is of an earlier scheduler.
    pub(crate) fn start_over(&self) {
        *self.own() = Attached::default();
        let buffer = self.tracefs.join(BUFFER);
        // Without it the trace shows too much, not too little.
        let _ = std::fs::write(buffer.join("trace"), "");
        let _ = std::fs::write(buffer.join("tracing_on"), "1");
    }

    /// Ends the trace; what it says of the task that a scheduler's end is about.
    pub(crate) fn of_end(&self, exit: &ScxExit, dump: Option<&ScxDump>) -> ProbeTrace {
        let mut trace = self.armed.clone();
        let own = std::mem::take(&mut *self.own());
        trace.probes.extend(own.probes);
        trace.problems.extend(own.problems);
        let buffer = self.tracefs.join(BUFFER);
        let _ = std::fs::write(buffer.join("tracing_on"), "0");
        // Before anything of ours runs through the probed functions.
        let profile = std::fs::read_to_string(self.tracefs.join("kprobe_profile"));
        trace.task = Task::named(exit).or_else(|| self.at_the_end()).or_else(|| Task::of_dump(dump?));
        let Some(task) = &trace.task else {
            trace.problems.push("the kernel does not say which task its end is about".to_string());
            return trace;
        };
        let probes = trace.probes.clone();
        let mut selection = Selection::new(&probes, task.pid);
        if let Err(e) = each_line(&buffer.join("trace"), |line| selection.push(line)) {
            trace.problems.push(format!("reading the trace: {e}"));
        }
        selection.finish(&mut trace);
        match profile {
            Ok(text) => {
                let profile = ProbeProfile::of(&text);
                for (number, count) in trace.counts.iter_mut().enumerate() {
                    // BPF programs that print aren't among them.
                    *count = profile.hits(number).unwrap_or(*count);
                }
            }
            Err(e) => trace.problems.push(format!("reading how often probes fired: {e}")),
        }
        trace.overwritten = overwritten(&buffer);
        trace
    }

    /// The task that ran when the kernel ended the scheduler.
    fn at_the_end(&self) -> Option<Task> {
        let mut found = AtTheEnd::new(&self.armed.probes);
        // Whatever is wrong with the trace shows when it is read for the task.
        each_line(&self.tracefs.join(BUFFER).join("trace"), |line| found.push(line)).ok()?;
        found.finish()
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    OpenOptions::new().append(true).open(path)?.write_all(format!("{line}\n").as_bytes())
}

fn each_line(path: &Path, mut take: impl FnMut(&str)) -> io::Result<()> {
    let mut file = BufReader::with_capacity(1 << 16, File::open(path)?);
    let mut line = Vec::new();
    while file.read_until(b'\n', &mut line)? > 0 {
        take(String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
    Ok(())
}

/// Events that the buffer had no more room for, all CPUs together.
fn overwritten(buffer: &Path) -> u64 {
    let cpus = std::fs::read_dir(buffer.join("per_cpu")).into_iter().flatten().flatten();
    cpus.filter_map(|cpu| {
        let stats = std::fs::read_to_string(cpu.path().join("stats")).ok()?;
        stats.lines().find_map(|line| line.strip_prefix("overrun: ")?.trim().parse::<u64>().ok())
    })
    .sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_scheduler::repro::{Field, Part, Show};

    fn probe(function: &str) -> Probe {
        let pid = Field {
            argument: "p".to_string(),
            member: "pid".to_string(),
            fetch: "+0x10($arg1):s32".to_string(),
            show: Show::Decimal,
            part: Part::Pid,
            guard: None,
            again: false,
        };
        Probe { function: function.to_string(), fields: vec![pid], ..Probe::default() }
    }

    fn tracefs() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["events/ktstr", "events/sched_ext/sched_ext_dump", "per_cpu/cpu0"] {
            std::fs::create_dir_all(dir.path().join(BUFFER).join(folder)).unwrap();
        }
        std::fs::write(dir.path().join("kprobe_events"), "").unwrap();
        let profile = "  e0        9        1\n  x0        8        2\n";
        std::fs::write(dir.path().join("kprobe_profile"), profile).unwrap();
        dir
    }

    #[test]
    fn probes_are_set_and_their_events_read_back() {
        let dir = tracefs();
        let probes = Probes::arm(dir.path(), vec![probe("enqueue")], Callbacks::default());
        let events = std::fs::read_to_string(dir.path().join("kprobe_events")).unwrap();
        assert_eq!(events, "p:ktstr/e0 enqueue a0=+0x10($arg1):s32\nr:ktstr/x0 enqueue\n");
        let buffer = dir.path().join(BUFFER);
        let on = std::fs::read_to_string(buffer.join("events/ktstr/enable")).unwrap();
        assert_eq!((on.as_str(), probes.armed.problems.len()), ("1", 0));
        let trace = "# tracer: nop\n a-9 [000] d..2. 1.000001: e0: (enqueue+0x0/0x1) a0=7\n \
                     a-9 [000] d..2. 1.000002: e0: (enqueue+0x0/0x1) a0=8\n";
        std::fs::write(buffer.join("trace"), trace).unwrap();
        std::fs::write(buffer.join("per_cpu/cpu0/stats"), "entries: 2\noverrun: 5\n").unwrap();
        let end = "sched_ext: BPF scheduler \"a\" disabled (runtime error)\nsched_ext: a: CPU 0 not allowed for w[7]";
        let seen = probes.of_end(&ScxExit::last_in(end).unwrap(), None);
        assert_eq!((seen.seen, seen.of_task, seen.overwritten, seen.lines.len()), (2, 1, 5, 1));
        assert!(seen.lines[0].ends_with("a0=7"), "{:?}", seen.lines);
        let count = seen.counts[0];
        assert_eq!((count.entries, count.exits, count.missed, count.exact), (9, 8, Some(3), true));
        let vague = ScxExit::last_in("sched_ext: BPF scheduler \"a\" disabled (runtime error)").unwrap();
        assert!(probes.of_end(&vague, None).problems[0].contains("which task"));
    }

    #[test]
    fn a_kernel_that_takes_no_probes_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let probes = Probes::arm(dir.path(), vec![probe("enqueue")], Callbacks::default());
        assert_eq!(probes.armed.refused[0].0, "enqueue");
        assert_eq!(probes.armed.problems, ["the kernel takes none of the probes"]);
    }
}
