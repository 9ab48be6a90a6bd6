//! What became of a scheduler, as the guest tells it.

use crate::repro::ProbeTrace;
use crate::{SchedulerStats, ScxDump, ScxExit, WatchdogReport};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How it went when it was asked to stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detach {
    /// It was not running any more, or never was.
    NotRunning,
    /// It stopped and the kernel has its own scheduler again; how its program ended.
    InOrder(String),
    /// Something went wrong with it.
    Failed(String),
}

/// How a start of a scheduler came out, for programs; in words it is [`SchedulerReport::not_attached`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartOutcome {
    /// The kernel said that it was enabled, under the declared name where there is one.
    Attached,
    /// Its program ended before that.
    Died,
    /// It did not attach, though its program did not die of itself.
    NotAttached(Refusal),
    /// It was switched on, and nobody said that it schedules.
    #[default]
    Unconfirmed,
}

/// Why a scheduler did not attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    /// The kernel has no sched_ext.
    NoSchedExt,
    /// Another one was attached.
    Taken,
    /// A setting or a command that goes before was refused.
    NotPrepared,
    /// The system would not start its program.
    NotStarted,
    /// The time was over.
    TimedOut,
    /// The kernel took it and dropped it.
    Dropped,
    /// It came under another name than declared.
    OtherName,
}

/// A BPF program of the scheduler, by what the kernel tells of it (`struct bpf_prog_info`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramStats {
    /// Its name in the source, or as far as the kernel keeps it (15 bytes).
    pub name: String,
    /// Instructions that the verifier went through.
    pub verified_insns: u32,
    /// How often it ran, while statistics were on.
    pub run_cnt: u64,
    /// How long it ran in all, ns.
    pub run_time_ns: u64,
}

/// One life of a scheduler in a guest.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SchedulerReport {
    /// Its declared name.
    pub name: String,
    /// The kernel's name of it, once it was attached.
    pub ops: Option<String>,
    /// How its start came out.
    #[serde(default)]
    pub outcome: StartOutcome,
    /// Why it did not attach.
    pub not_attached: Option<String>,
    /// Start of its program to its being attached, ms of guest time.
    pub attach_ms: u64,
    /// When its program was started, ms of guest time since the test began, negative for before; `None` where it did
    /// not attach, or the test did not begin.
    #[serde(default)]
    pub started_ms: Option<i64>,
    /// What ended it before it was asked to stop.
    pub failure: Option<String>,
    /// When that was noticed, ms of guest time after it had attached.
    #[serde(default)]
    pub failed_after_ms: Option<u64>,
    /// CPUs that were offline then, as the kernel lists them; `None` if none were.
    #[serde(default)]
    pub offline_cpus: Option<String>,
    /// Why its crash can't be repeated with probes on this kernel; `None` if it can.
    #[serde(default)]
    pub no_probes: Option<String>,
    /// The kernel's words on that.
    pub exit: Option<ScxExit>,
    /// The kernel's debug dump, as text.
    pub dump_text: String,
    /// As data.
    pub dump: Option<ScxDump>,
    /// How it went when it was asked to stop; `None` if that did not happen.
    pub detach: Option<Detach>,
    /// Its BPF programs.
    pub programs: Vec<ProgramStats>,
    /// Whether it schedules every ordinary task (`/sys/kernel/sched_ext/switch_all`) rather
    /// than only those of policy `SCHED_EXT`; `None` if the kernel doesn't say.
    pub switch_all: Option<bool>,
    /// Tasks that it refused (`/sys/kernel/sched_ext/nr_rejected`, which begins at 0 with each scheduler).
    pub nr_rejected: Option<u64>,
    /// The kernel's event counters, where it has any (`/sys/kernel/sched_ext/root/events`).
    pub events: BTreeMap<String, u64>,
    /// What its program told of itself over scx_stats; `None` if it offers none.
    #[serde(default)]
    pub stats: Option<SchedulerStats>,
    /// The kernel's watchdog while it was attached, where its timeout was set.
    #[serde(default)]
    pub watchdog: Option<WatchdogReport>,
    /// The end of its log (what did not go to the host as it was written).
    pub log_tail: String,
    /// The kernel's log from its start to its end; empty unless it failed.
    #[serde(default)]
    pub kernel_log: String,
    /// What probes saw of its end, in a run that repeats a crash.
    pub probes: Option<ProbeTrace>,
}

impl SchedulerReport {
    /// Without the texts that are shown elsewhere: for a result file.
    #[must_use]
    pub fn without_texts(&self) -> Self {
        Self { dump_text: String::new(), log_tail: String::new(), kernel_log: String::new(), ..self.clone() }
    }

    /// What a reader of the test's numbers must know.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.switch_all == Some(false) {
            remarks.push(format!(
                "scheduler {:?} takes only tasks of policy SCHED_EXT (SCX_OPS_SWITCH_PARTIAL): ordinary workers ran \
                 under the kernel's own",
                self.name
            ));
        }
        if let Some(n) = self.nr_rejected.filter(|n| *n > 0) {
            remarks.push(format!(
                "scheduler {:?} refused {n} tasks: they ran under the kernel's own",
                self.name
            ));
        }
        if self.outcome == StartOutcome::Unconfirmed && self.not_attached.is_none() {
            remarks.push(format!(
                "scheduler {:?} was switched on, but nobody confirmed that it schedules: declare its `ops` to have the \
                 kernel asked",
                self.name
            ));
        }
        // What a test asked for and did not get is more than a remark.
        let watchdog = self.watchdog.as_ref().filter(|w| w.problem.is_none());
        if let Some(watchdog) = watchdog {
            remarks.push(format!("scheduler {:?}: {watchdog}", self.name));
        }
        remarks
    }

    /// One line on a bug that was found: what, who, where.
    pub fn bug_summary(&self) -> Option<String> {
        let Some(exit) = self.exit.as_ref().filter(|e| e.is_failure()) else {
            let what = self.failure.as_ref()?.lines().next().unwrap_or_default();
            return Some(format!("{}: {what}", self.name));
        };
        let mut text = format!("{}: {} ({})", exit.scheduler, exit.reason, exit.kind.word());
        match &exit.stuck {
            Some(stuck) => {
                text += &format!(
                    ", task {}[{}] waited {:.1} s",
                    stuck.comm,
                    stuck.pid,
                    stuck.waited_ms as f64 / 1e3
                );
                if let Some(cpu) = self.dump.as_ref().and_then(|d| d.cpu_of(stuck.pid)) {
                    text += &format!(" on CPU {cpu}");
                }
                if let Some(task) = self.dump.as_ref().and_then(|d| d.task(stuck.pid)) {
                    text += &format!(", dispatch queue {}, allowed CPUs {}", task.dsq, task.cpus);
                }
            }
            None if !exit.message.is_empty() => text += &format!(", {}", exit.message),
            None => {}
        }
        if let Some(cpus) = &self.offline_cpus {
            text += &format!(", offline CPUs {cpus}");
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_a_word_for_programs() {
        let json = |outcome| serde_json::to_string(&outcome).unwrap();
        assert_eq!(json(StartOutcome::Attached), "\"attached\"");
        assert_eq!(json(StartOutcome::NotAttached(Refusal::OtherName)), "{\"not_attached\":\"other_name\"}");
        let unconfirmed = SchedulerReport { name: "a".to_string(), ..SchedulerReport::default() };
        assert!(unconfirmed.remarks()[0].contains("nobody confirmed"));
        let attached = SchedulerReport { outcome: StartOutcome::Attached, ..unconfirmed };
        assert!(attached.remarks().is_empty());
    }

    #[test]
    fn a_stall_is_told_with_task_and_cpu() {
        let exit = ScxExit::last_in(
            "sched_ext: BPF scheduler \"demo\" disabled (runnable task stall)\nsched_ext: demo: w[7] failed to run for 2.500s",
        );
        let dump = ScxDump::parse("CPU 3   : nr_run=1\n  R w[7] -2500ms\n      dsq_id=0x1\n      cpus=8\n");
        let failure = Some("gone".to_string());
        let report = SchedulerReport {
            name: "scx_demo".to_string(),
            failure,
            exit,
            dump,
            ..SchedulerReport::default()
        };
        assert_eq!(
            report.bug_summary().unwrap(),
            "demo: runnable task stall (stall), task w[7] waited 2.5 s on CPU 3, dispatch queue 0x1, allowed CPUs 8"
        );
        let offline = SchedulerReport { offline_cpus: Some("3".to_string()), ..report };
        assert!(offline.bug_summary().unwrap().ends_with("allowed CPUs 8, offline CPUs 3"));
        let alive = SchedulerReport { name: "scx_demo".to_string(), ..SchedulerReport::default() };
        assert_eq!(alive.bug_summary(), None);
    }
}
