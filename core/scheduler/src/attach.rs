//! Why a scheduler did not attach, as far as its own words and its end tell.

use crate::{Refusal, StartOutcome, without_colours};
use std::fmt;

/// How its program stood when the wait for it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAttached {
    /// The kernel has no sched_ext.
    NoSchedExt,
    /// Another scheduler holds the place.
    Taken {
        /// The kernel's name of it.
        by: String,
    },
    /// The program could not be started.
    NotStarted {
        /// The program.
        path: String,
        /// `errno`, where the system gave one.
        errno: Option<i32>,
        /// The system's answer.
        why: String,
    },
    /// The program ended.
    Exited {
        /// In words, such as `exit code 1`.
        how: String,
        /// It ended well.
        success: bool,
        /// The kernel meanwhile has a scheduler attached, of this name.
        attached: Option<String>,
    },
    /// The time was over.
    TimedOut {
        /// How long it had, ms of guest time.
        after_ms: u64,
        /// What the kernel said last: `state`, and the scheduler's name where there was one.
        state: String,
    },
    /// It is part of the kernel and was switched on, but the time was over.
    NotEnabled {
        /// How long it had, ms of guest time.
        after_ms: u64,
        /// What the kernel said last.
        state: String,
    },
    /// The kernel dropped it at once.
    Dropped {
        /// In the kernel's words.
        why: String,
    },
    /// It attached under another name than declared.
    OtherName {
        /// How it should begin.
        expected: String,
        /// What it is.
        seen: String,
    },
}

impl fmt::Display for NotAttached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSchedExt => f.write_str(
                "this kernel has no sched_ext (no /sys/kernel/sched_ext): use one with CONFIG_SCHED_CLASS_EXT=y, for \
                 instance from `cargo ktstr kernel build apt:6.12`",
            ),
            Self::Taken { by } => {
                write!(f, "another scheduler is attached already: {by:?}; detach it first (Op::DetachScheduler)")
            }
            Self::NotStarted { path, errno, why } => match errno {
                // ENOEXEC and ENOENT of execve(2): the file is there, since it was packed.
                Some(8) => write!(
                    f,
                    "{path} is no program for this machine (exec: {why}); is it built for another architecture?"
                ),
                Some(2) => write!(
                    f,
                    "{path} can't be started (exec: {why}): its interpreter or dynamic loader is not in the guest"
                ),
                _ => write!(f, "{path} can't be started: {why}"),
            },
            Self::Exited { how, success: true, attached: Some(ops) } => write!(
                f,
                "its program ended with {how} while a scheduler {ops:?} is attached: it seems to run in the background; \
                 have it stay in the foreground, or nobody could tell when it dies"
            ),
            Self::Exited { how, success: true, attached: None } => {
                write!(f, "its program ended with {how} without attaching a scheduler; a scheduler runs until told to stop")
            }
            Self::Exited { how, .. } => write!(f, "its program ended with {how}"),
            Self::TimedOut { after_ms, state } => write!(
                f,
                "not attached after {:.1} s of guest time, though its program runs; the kernel says: {state}",
                *after_ms as f64 / 1000.0
            ),
            Self::NotEnabled { after_ms, state } => write!(
                f,
                "not enabled {:.1} s of guest time after it was switched on; the kernel says: {state}",
                *after_ms as f64 / 1000.0
            ),
            Self::Dropped { why } => write!(f, "the kernel dropped it at once: {why}"),
            Self::OtherName { expected, seen } => {
                write!(f, "it attached as {seen:?}, but its declaration says `ops = {expected:?}`")
            }
        }
    }
}

impl NotAttached {
    /// The same for programs.
    pub const fn outcome(&self) -> StartOutcome {
        StartOutcome::NotAttached(match self {
            Self::Exited { .. } => return StartOutcome::Died,
            Self::NoSchedExt => Refusal::NoSchedExt,
            Self::Taken { .. } => Refusal::Taken,
            Self::NotStarted { .. } => Refusal::NotStarted,
            Self::TimedOut { .. } | Self::NotEnabled { .. } => Refusal::TimedOut,
            Self::Dropped { .. } => Refusal::Dropped,
            Self::OtherName { .. } => Refusal::OtherName,
        })
    }
}

/// What in its log explains that it did not attach, in one sentence.
pub fn why_not_attached(log: &str) -> Option<String> {
    let log = &without_colours(log);
    let line = |needles: &[&str]| {
        let line = log.lines().find(|line| needles.iter().all(|n| line.contains(n)))?;
        // A logger's own words (time, thread, source file) come before libbpf's.
        Some(line.find("libbpf: ").map_or(line, |at| &line[at..]).trim().to_string())
    };
    if let Some(seen) = line(&["error while loading shared libraries"]) {
        return Some(format!("a shared library is missing in the guest: {seen}"));
    }
    if let Some(seen) = line(&["not found in kernel or module BTFs"]) {
        return Some(format!("the kernel lacks a function that it calls (kfunc): {seen}"));
    }
    if let Some(seen) = line(&["extern (var ksym)", "not found in kernel BTF"]) {
        return Some(format!(
            "the kernel lacks a variable that it reads (ksym), so a part of it is not built in: {seen}"
        ));
    }
    if let Some(seen) = line(&["failed to find valid kernel BTF"]) {
        return Some(format!("the kernel has no BTF (CONFIG_DEBUG_INFO_BTF): {seen}"));
    }
    if let Some(seen) = line(&["struct_ops", "is not found in kernel BTF"]) {
        return Some(format!("the kernel has no sched_ext: {seen}"));
    }
    let rejected = log.lines().find_map(rejected_program);
    if let Some(seen) = line(&["failed to resolve CO-RE relocation"]) {
        let program =
            rejected.map(|program| format!("its program {program}")).unwrap_or_else(|| "it".to_string());
        return Some(format!(
            "the kernel has no such member or type as {program} was built for (CO-RE): {seen}"
        ));
    }
    if let Some(program) = rejected {
        return Some(format!("the verifier rejected its program {program}; its log says why"));
    }
    if line(&["processed ", " insns (limit "]).is_some() && line(&["failed to load"]).is_some() {
        return Some("the verifier rejected one of its programs; its log says why".to_string());
    }
    // How a program in Rust tells of the error that ended it.
    log.lines().find(|line| line.starts_with("Error: ")).map(|said| format!("it said {:?}", said.trim()))
}

/// `libbpf: prog 'x': BPF program load failed: Permission denied`
fn rejected_program(line: &str) -> Option<&str> {
    let rest = line.split_once("prog '")?.1;
    let (name, rest) = rest.split_once('\'')?;
    (rest.contains("BPF program load failed") || rest.contains("failed to load")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_explains_itself() {
        let why = |log: &str| why_not_attached(log).unwrap_or_default();
        assert!(
            why("libbpf: prog 'demo_init': BPF program load failed: Permission denied\n")
                .contains("demo_init")
        );
        assert!(
            why("libbpf: extern (func ksym) 'scx_bpf_x': not found in kernel or module BTFs")
                .contains("scx_bpf_x")
        );
        assert!(
            why("a: error while loading shared libraries: libelf.so.1: cannot open").contains("libelf.so.1")
        );
        assert!(why("libbpf: failed to find valid kernel BTF").contains("CONFIG_DEBUG_INFO_BTF"));
        // As scx_lavd's logger prints it.
        let coloured = "\x1b[2m13:02:04\x1b[0m \x1b[33m WARN\x1b[0m log.rs:12: libbpf: extern (var ksym) \
                        'cpufreq_cpu_data': not found in kernel BTF\nError: Failed to load BPF program\n";
        assert!(
            why(coloured)
                .ends_with(": libbpf: extern (var ksym) 'cpufreq_cpu_data': not found in kernel BTF"),
            "{}",
            why(coloured)
        );
        assert_eq!(why("INFO: a\nError: no such topology\n"), "it said \"Error: no such topology\"");
        assert_eq!(why_not_attached("hello"), None);
    }

    /// Logs of schedulers that met a kernel without what they need.
    #[test]
    fn logs_of_kernels_that_lack_something_explain_themselves() {
        let why = |log| why_not_attached(log).unwrap_or_default();
        let no_sched_ext = why(include_str!("../tests/logs/no-sched-ext.log"));
        assert_eq!(
            no_sched_ext,
            "the kernel lacks a function that it calls (kfunc): libbpf: extern (func ksym) 'scx_bpf_create_dsq': not \
             found in kernel or module BTFs"
        );
        let co_re = why(include_str!("../../verifier/tests/logs/invalid-co-re.log"));
        assert_eq!(
            co_re,
            "the kernel has no such member or type as its program fixture_exit was built for (CO-RE): failed to resolve \
             CO-RE relocation <byte_off> [97] struct scx_exit_info.kind (0:0 @ offset 0)"
        );
    }

    #[test]
    fn an_end_has_a_word_for_programs() {
        let died = NotAttached::Exited { how: "exit code 0".to_string(), success: true, attached: None };
        assert_eq!(died.outcome(), StartOutcome::Died);
        let late = NotAttached::NotEnabled { after_ms: 1500, state: "sched_ext is disabled".to_string() };
        assert_eq!(late.outcome(), StartOutcome::NotAttached(Refusal::TimedOut));
        assert!(late.to_string().starts_with("not enabled 1.5 s of guest time after it was switched on"));
    }

    #[test]
    fn each_end_says_what_to_do() {
        let exec = |errno| NotAttached::NotStarted {
            path: "/s".to_string(),
            errno: Some(errno),
            why: "x".to_string(),
        };
        assert!(exec(8).to_string().contains("another architecture"));
        assert!(exec(2).to_string().contains("dynamic loader"));
        let ended = |attached: Option<&str>| NotAttached::Exited {
            how: "exit code 0".to_string(),
            success: true,
            attached: attached.map(String::from),
        };
        assert!(ended(Some("demo")).to_string().contains("foreground"));
        assert!(ended(None).to_string().contains("runs until told to stop"));
        assert!(NotAttached::NoSchedExt.to_string().contains("kernel build"));
    }
}
