//! The file that a failed run leaves of its kernel: what it looked like, how whole that is, and
//! where a scheduler let a task wait too long, what it looked like before the kernel acted on it.

use crate::{EventTimeline, KernelState, ProbeCounters, SetupContext};
use serde::{Deserialize, Serialize};

/// How much there is in a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DumpSchema {
    /// One look at the whole kernel.
    Single,
    /// The same, and an earlier one in `early`.
    Dual,
    /// Registers at most: the machine could not be stopped, or its kernel not be read.
    Degraded,
}

/// A task that has been runnable for long without running, under a sched_ext scheduler.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LongestWait {
    /// The CPU on whose runqueue it is.
    pub cpu: u32,
    /// Its thread id.
    pub pid: i64,
    /// Its name.
    pub comm: String,
    /// How long it has waited, jiffies.
    pub waited: u64,
    /// How long the kernel's watchdog lets it, jiffies.
    pub limit: u64,
}

impl LongestWait {
    /// Whether half of what the watchdog allows is over: the time for an early look.
    pub const fn is_past_half(&self) -> bool {
        self.limit > 0 && self.waited.saturating_mul(2) >= self.limit
    }
}

/// A failed run's kernel, as it goes to the file beside the sidecar. The members of
/// [`KernelState`] stand at the top level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailureDump {
    /// What there is.
    pub schema: DumpSchema,
    /// How the machine ended, in words.
    pub exit: String,
    /// Host time from the machine's start to its end, ms.
    pub elapsed_ms: u64,
    /// What the kernel looked like at the moment that tells most of the failure.
    #[serde(flatten)]
    pub state: KernelState,
    /// What it looked like when a task had waited for half of what the sched_ext watchdog allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early: Option<KernelState>,
    /// How counters grew over the run.
    #[serde(default)]
    pub event_timeline: EventTimeline,
    /// How the scenario had been laid out.
    #[serde(default)]
    pub setup: SetupContext,
    /// How often probes fired, where the run had any.
    #[serde(default)]
    pub probe_counters: ProbeCounters,
}

impl FailureDump {
    /// The dump of these looks at a kernel, without what else goes with them.
    pub fn new(state: KernelState, early: Option<KernelState>, exit: String, elapsed_ms: u64) -> Self {
        let schema = match (&state.unread, &early) {
            (Some(_), _) => DumpSchema::Degraded,
            (None, Some(_)) => DumpSchema::Dual,
            (None, None) => DumpSchema::Single,
        };
        Self {
            schema,
            exit,
            elapsed_ms,
            state,
            early,
            event_timeline: EventTimeline::default(),
            setup: SetupContext::default(),
            probe_counters: ProbeCounters::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_says_what_there_is_and_the_state_stands_at_the_top() {
        let state = KernelState { moment: "at the end:".into(), ..KernelState::default() };
        let early = KernelState { moment: "before:".into(), ..KernelState::default() };
        let unread = KernelState { unread: Some("no answer".into()), ..KernelState::default() };
        for (late, early, schema) in [
            (&state, None, "single"),
            (&state, Some(early.clone()), "dual"),
            (&unread, None, "degraded"),
            (&unread, Some(early), "degraded"),
        ] {
            let dump = FailureDump::new(late.clone(), early, "reset".into(), 12);
            let json = serde_json::to_value(&dump).unwrap();
            assert_eq!(json["schema"], schema);
            assert_eq!((&json["moment"], &json["exit"]), (&late.moment.as_str().into(), &"reset".into()));
            assert_eq!(json.get("early").is_some(), dump.early.is_some());
            assert_eq!(serde_json::from_value::<FailureDump>(json).unwrap(), dump);
        }
    }

    #[test]
    fn half_of_the_watchdogs_time_is_told_without_overflow() {
        let wait = |waited, limit| LongestWait { waited, limit, ..LongestWait::default() };
        assert!(wait(500, 1000).is_past_half() && wait(u64::MAX, u64::MAX).is_past_half());
        assert!(!wait(499, 1000).is_past_half());
        assert!(!wait(5, 0).is_past_half(), "there is no watchdog");
    }
}
