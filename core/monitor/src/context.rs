//! What else goes with a failure: how the scenario had been laid out, and how often probes fired.

use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Entries of each kind that have a line for people.
const LINES: usize = 24;

/// How a scenario had been laid out when the failure came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupContext {
    /// Where the scenario stood: the last step that began, or ended.
    pub place: String,
    /// The schedulers, one a start: what was attached, and what became of it.
    pub schedulers: Vec<String>,
    /// The cgroups with their workers and settings, in the order made.
    pub cgroups: Vec<SetupEntry>,
    /// Ops that were applied since, in order.
    pub changes: Vec<SetupEntry>,
    /// What of it is missing, and why.
    pub left_out: Vec<String>,
}

/// Something that was set up or changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetupEntry {
    /// When, ms of guest time since the scenario began.
    pub at_ms: u64,
    /// The step that did it; 0 is the backdrop.
    pub step: u16,
    /// A cgroup's name, or an op's kind.
    pub what: String,
    /// A cgroup's settings and workers, or what the op was applied to.
    pub detail: String,
    /// Whether that step had ended.
    pub step_ended: bool,
}

/// How often the probes of a run fired that repeats a crash.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeCounters {
    /// The probes, as they were set.
    pub probes: Vec<ProbeCount>,
    /// Functions that could not be probed, and why.
    pub refused: Vec<(String, String)>,
    /// What is missing, and why.
    pub left_out: Vec<String>,
}

/// A probe.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeCount {
    /// The function that it is on.
    pub function: String,
    /// How often the function was entered.
    pub entries: u64,
    /// How often it returned.
    pub exits: u64,
    /// Entries and returns that the kernel had to let pass (`nmissed` of kprobes, Documentation/trace/kprobes.rst);
    /// `None` where it doesn't count that.
    pub missed: Option<u64>,
    /// Whether this is the kernel's count, from when the probe was set; else events that were still in the trace.
    pub exact: bool,
}

/// The layout in lines; empty where there is nothing to tell.
pub fn render_setup(setup: &SetupContext) -> String {
    let mut text = String::new();
    if !setup.place.is_empty() {
        let _ = writeln!(text, "stood in: {}", setup.place);
    }
    for scheduler in &setup.schedulers {
        let _ = writeln!(text, "scheduler: {scheduler}");
    }
    for (title, entries) in [("cgroup", &setup.cgroups), ("then", &setup.changes)] {
        // What came last tells most of a failure.
        let hidden = entries.len().saturating_sub(LINES);
        if hidden > 0 {
            let _ = writeln!(text, "… {hidden} earlier ones …");
        }
        for entry in &entries[hidden..] {
            let SetupEntry { at_ms, step, what, detail, step_ended } = entry;
            let of = if *step == 0 { "backdrop".to_string() } else { format!("step {step}") };
            let ended = if *step_ended { ", which had ended" } else { "" };
            let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
            let _ = writeln!(text, "{title} {what}{detail} (+{at_ms} ms, {of}{ended})");
        }
    }
    for reason in &setup.left_out {
        let _ = writeln!(text, "left out: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_reads_from_the_place_to_the_last_change() {
        let entry = |step, what: &str, detail: &str| SetupEntry {
            at_ms: 10,
            step,
            what: what.into(),
            detail: detail.into(),
            step_ended: step == 1,
        };
        let setup = SetupContext {
            place: "step 2".into(),
            schedulers: vec!["demo attached as \"demo\" in 12 ms".into()],
            cgroups: vec![entry(0, "back", "1 worker of SpinWait"), entry(1, "cg_0", "CPUs 0-1")],
            changes: (0..LINES + 2).map(|i| entry(2, "SetCpuset", &format!("cg_0 {i}"))).collect(),
            left_out: vec!["3 changes".into()],
        };
        let text = render_setup(&setup);
        assert!(
            text.starts_with(
                "stood in: step 2\nscheduler: demo attached as \"demo\" in 12 ms\n\
                 cgroup back: 1 worker of SpinWait (+10 ms, backdrop)\n\
                 cgroup cg_0: CPUs 0-1 (+10 ms, step 1, which had ended)\n\
                 … 2 earlier ones …\nthen SetCpuset: cg_0 2 (+10 ms, step 2)\n"
            ),
            "{text}"
        );
        assert!(text.ends_with("cg_0 25 (+10 ms, step 2)\nleft out: 3 changes\n"), "{text}");
        assert_eq!(render_setup(&SetupContext::default()), "");
    }
}
