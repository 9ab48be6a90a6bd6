//! What the kernel's log says when it drops a sched_ext scheduler.
//!
//! `scx_ops_disable_workfn()` and `scx_exit_reason()` of `kernel/sched/ext.c` (6.12) print
//!
//! ```text
//! sched_ext: BPF scheduler "demo" disabled (runnable task stall)
//! sched_ext: demo: stress[71] failed to run for 2.001s
//!    scx_watchdog_workfn+0x1a2/0x230
//! ```

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why the kernel dropped it (`enum scx_exit_kind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitKind {
    /// Its program let it go.
    Unregistered,
    /// A magic SysRq key.
    SysRq,
    /// It broke a rule of the kernel's.
    Error,
    /// It called `scx_bpf_error()` itself.
    BpfError,
    /// A runnable task was not run within the watchdog's time.
    Stall,
    /// A reason that this version does not know.
    Other,
}

impl ExitKind {
    fn of(reason: &str) -> Self {
        match reason {
            "scx_bpf_error" => Self::BpfError,
            "runtime error" => Self::Error,
            "runnable task stall" => Self::Stall,
            _ if reason.starts_with("unregistered from") => Self::Unregistered,
            _ if reason.starts_with("disabled by sysrq") => Self::SysRq,
            _ => Self::Other,
        }
    }

    /// A word for programs and summaries.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Unregistered => "unregistered",
            Self::SysRq => "sysrq",
            Self::Error => "error",
            Self::BpfError => "bpf-error",
            Self::Stall => "stall",
            Self::Other => "other",
        }
    }
}

/// A task that did not get to run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StuckTask {
    /// Its name.
    pub comm: String,
    /// Its pid.
    pub pid: u32,
    /// How long, ms.
    pub waited_ms: u64,
}

/// The end of a scheduler, in the kernel's words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScxExit {
    /// The kernel's name of the scheduler.
    pub scheduler: String,
    /// What kind of end.
    pub kind: ExitKind,
    /// The kernel's word for it.
    pub reason: String,
    /// What else it says; may be empty.
    pub message: String,
    /// Functions of the kernel's back-trace, innermost first, without offsets.
    pub backtrace: Vec<String>,
    /// The task that starved.
    pub stuck: Option<StuckTask>,
}

impl ScxExit {
    /// The last end that a kernel log tells of.
    pub fn last_in(kernel_log: &str) -> Option<Self> {
        let lines: Vec<&str> = kernel_log.lines().collect();
        let at = lines.iter().rposition(|line| headline(line).is_some())?;
        let (scheduler, reason) = headline(lines[at])?;
        let prefix = format!("sched_ext: {scheduler}: ");
        let message = lines.get(at + 1).and_then(|line| after(line, &prefix)).unwrap_or_default().trim();
        let first = at + 1 + usize::from(!message.is_empty());
        let backtrace =
            lines.get(first..).unwrap_or_default().iter().map_while(|line| function(line)).collect();
        Some(Self {
            scheduler: scheduler.to_string(),
            kind: ExitKind::of(reason),
            reason: reason.to_string(),
            message: message.to_string(),
            backtrace,
            stuck: stuck(message),
        })
    }

    /// True unless it left in order.
    pub fn is_failure(&self) -> bool {
        self.kind != ExitKind::Unregistered
    }
}

impl fmt::Display for ScxExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if !self.message.is_empty() {
            write!(f, ": {}", self.message)?;
        }
        Ok(())
    }
}

/// Scheduler and reason of a line that tells of an end.
fn headline(line: &str) -> Option<(&str, &str)> {
    let rest = after(line, "sched_ext: BPF scheduler \"")?;
    let (name, rest) = rest.split_once("\" disabled (")?;
    Some((name, rest.trim_end().strip_suffix(')')?))
}

fn after<'a>(line: &'a str, needle: &str) -> Option<&'a str> {
    line.find(needle).map(|at| &line[at + needle.len()..])
}

/// `name+0x1a2/0x230`, indented, as `stack_trace_print()` prints it.
fn function(line: &str) -> Option<String> {
    let symbol = line.split_whitespace().last()?;
    let (name, offset) = symbol.split_once("+0x")?;
    let name_is_plain =
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "_.".contains(c));
    (name_is_plain && offset.contains("/0x")).then(|| name.to_string())
}

/// `comm[pid] failed to run for 2.001s`; a task's name may hold brackets and spaces itself.
fn stuck(message: &str) -> Option<StuckTask> {
    let (task, waited) = message.split_once("] failed to run for ")?;
    let (comm, pid) = task.rsplit_once('[')?;
    let (seconds, millis) = waited.split_once('s')?.0.split_once('.')?;
    let waited_ms = seconds.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(millis.parse().ok()?)?;
    Some(StuckTask { comm: comm.to_string(), pid: pid.parse().ok()?, waited_ms })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STALL: &str = "sched_ext: BPF scheduler \"demo\" enabled\n\
        sched_ext: BPF scheduler \"demo\" disabled (runnable task stall)\n\
        sched_ext: demo: kworker/0:1 [x][71] failed to run for 2.001s\n   \
        scx_watchdog_workfn+0x1a2/0x230\n   process_one_work+0x15c/0x3c0\n\
        something else\n";

    #[test]
    fn a_stall_names_its_task() {
        let exit = ScxExit::last_in(STALL).unwrap();
        assert_eq!((exit.kind, exit.scheduler.as_str()), (ExitKind::Stall, "demo"));
        let stuck = StuckTask { comm: "kworker/0:1 [x]".to_string(), pid: 71, waited_ms: 2001 };
        assert_eq!(exit.stuck, Some(stuck));
        assert_eq!(exit.backtrace, ["scx_watchdog_workfn", "process_one_work"]);
        assert_eq!(exit.to_string(), "runnable task stall: kworker/0:1 [x][71] failed to run for 2.001s");
    }

    #[test]
    fn the_last_end_counts() {
        let log =
            format!("{STALL}sched_ext: BPF scheduler \"demo\" disabled (unregistered from user space)\n");
        let exit = ScxExit::last_in(&log).unwrap();
        assert!(!exit.is_failure());
        assert_eq!((exit.message.as_str(), exit.backtrace.len()), ("", 0));
    }

    #[test]
    fn every_reason_of_the_kernel_is_known() {
        for (reason, kind) in [
            ("unregistered from BPF", ExitKind::Unregistered),
            ("unregistered from the main kernel", ExitKind::Unregistered),
            ("disabled by sysrq-S", ExitKind::SysRq),
            ("runtime error", ExitKind::Error),
            ("scx_bpf_error", ExitKind::BpfError),
            ("<UNKNOWN>", ExitKind::Other),
        ] {
            let log = format!("[    1.2] sched_ext: BPF scheduler \"a\" disabled ({reason})");
            assert_eq!(ScxExit::last_in(&log).unwrap().kind, kind, "{reason}");
        }
        assert_eq!(ScxExit::last_in("sched_ext: BPF scheduler \"a\" enabled"), None);
    }

    proptest! {
        #[test]
        fn no_log_can_upset_the_reader(log in any::<String>()) {
            let _ = ScxExit::last_in(&log);
            let _ = ScxExit::last_in(&format!("sched_ext: BPF scheduler \"{log}\" disabled ({log})\nsched_ext: {log}: {log}[{log}] failed to run for {log}s"));
        }
    }
}
