//! How a run had been laid out when it failed, and how often its probes fired.

use crate::drive::Observation;
use crate::render::scheduler_line;
use ktstr_monitor::{ProbeCount, ProbeCounters, SetupContext, SetupEntry};
use ktstr_scheduler::repro::ProbeTrace;
use ktstr_wire::Stimulus;

/// The kind of event that tells how a cgroup was made.
pub(crate) const SETUP: &str = "Setup";
/// Entries that are kept of each kind: of cgroups the first, of changes the last.
const MOST: usize = 256;

impl Observation {
    /// What its scenario had set up, and changed since.
    pub fn setup(&self) -> SetupContext {
        let ended = |step: u16| self.timeline.iter().any(|event| event.is_step_end && event.step == step);
        let entry = |event: &Stimulus, what: &str| SetupEntry {
            at_ms: event.elapsed_ms,
            step: event.step,
            what: what.to_string(),
            detail: event.detail.clone(),
            step_ended: event.step > 0 && ended(event.step),
        };
        let mut left_out = Vec::new();
        let cgroups: Vec<_> = self.made.iter().take(MOST).map(|event| entry(event, &event.label)).collect();
        let changed: Vec<&Stimulus> = self.timeline.iter().filter(|event| !event.kind.is_empty()).collect();
        let hidden = changed.len().saturating_sub(MOST);
        let changes = changed[hidden..].iter().map(|event| entry(event, &event.kind)).collect();
        for (number, what) in
            [(self.made.len().saturating_sub(MOST), "later cgroups"), (hidden, "earlier changes")]
        {
            if number > 0 {
                left_out.push(format!("{number} {what}"));
            }
        }
        if self.timeline.is_empty() {
            left_out.push("cgroups, workers and settings: no scenario was played yet; what a test sets up by itself isn't told".into());
        }
        let place = self.timeline.iter().rev().find(|event| event.kind.is_empty());
        let place = place.map(|event| match event.is_step_end {
            true => format!("{}, which had ended", event.label),
            false => event.label.clone(),
        });
        SetupContext {
            place: place.unwrap_or_default(),
            schedulers: self.schedulers.iter().map(scheduler_line).collect(),
            cgroups,
            changes,
            left_out,
        }
    }

    /// How often the probes of the run fired, if it had any.
    pub fn probe_counters(&self) -> ProbeCounters {
        let traces: Vec<&ProbeTrace> =
            self.schedulers.iter().filter_map(|report| report.probes.as_ref()).collect();
        if traces.is_empty() {
            let why = "only a run that repeats a crash has probes, and only one whose scheduler has ended tells of them";
            return ProbeCounters { left_out: vec![why.to_string()], ..ProbeCounters::default() };
        }
        let of_trace = |trace: &ProbeTrace| -> Vec<ProbeCount> {
            let counted = trace.probes.iter().zip(&trace.counts);
            let one =
                |(probe, count): (&ktstr_scheduler::repro::Probe, &ktstr_scheduler::repro::ProbeHits)| {
                    ProbeCount {
                        function: probe.function.clone(),
                        entries: count.entries,
                        exits: count.exits,
                        missed: count.missed,
                        exact: count.exact,
                    }
                };
            counted.map(one).collect()
        };
        ProbeCounters {
            probes: traces.iter().flat_map(|trace| of_trace(trace)).collect(),
            refused: traces.iter().flat_map(|trace| trace.refused.clone()).collect(),
            left_out: traces.iter().flat_map(|trace| trace.problems.clone()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::drive::tests_support::silent;
    use ktstr_scheduler::SchedulerReport;
    use ktstr_scheduler::repro::{Probe, ProbeHits, ProbeTrace};
    use ktstr_wire::Stimulus;

    fn event(step: u16, kind: &str, label: &str) -> Stimulus {
        Stimulus {
            step,
            kind: kind.into(),
            label: label.into(),
            detail: format!("{label}!"),
            ..Stimulus::default()
        }
    }

    #[test]
    fn what_was_made_and_changed_is_told_with_the_place() {
        let mut seen = silent();
        assert!(seen.setup().left_out[0].contains("no scenario was played"), "{:?}", seen.setup());
        seen.made = vec![event(0, "Setup", "back"), event(1, "Setup", "cg_0")];
        seen.timeline = vec![
            event(1, "", "step 1"),
            event(1, "SetCpuset", "set_cpuset"),
            Stimulus { is_step_end: true, ..event(1, "", "step 1") },
            event(2, "", "step 2"),
        ];
        seen.timeline.extend((0..300).map(|_| event(2, "FreezeCgroup", "freeze_cgroup")));
        let setup = seen.setup();
        assert_eq!(
            (setup.place.as_str(), &setup.left_out[..]),
            ("step 2", &["45 earlier changes".to_string()][..])
        );
        let made: Vec<_> =
            setup.cgroups.iter().map(|c| (c.what.as_str(), c.detail.as_str(), c.step_ended)).collect();
        assert_eq!(made, [("back", "back!", false), ("cg_0", "cg_0!", true)]);
        assert_eq!((setup.changes.len(), setup.changes[0].what.as_str()), (256, "FreezeCgroup"));
    }

    #[test]
    fn probes_are_counted_or_there_is_a_reason() {
        let mut seen = silent();
        assert!(seen.probe_counters().left_out[0].contains("only a run that repeats a crash"));
        let probes = Some(ProbeTrace {
            probes: vec![Probe { function: "enqueue".into(), ..Probe::default() }],
            counts: vec![ProbeHits { entries: 5, exits: 4, missed: Some(1), exact: true }],
            refused: vec![("gone".into(), "no symbol".into())],
            problems: vec!["reading the trace: gone".into()],
            ..ProbeTrace::default()
        });
        seen.schedulers = vec![SchedulerReport { probes, ..SchedulerReport::default() }];
        let counters = seen.probe_counters();
        let [probe] = &counters.probes[..] else { panic!("{counters:?}") };
        assert_eq!(
            (probe.function.as_str(), probe.entries, probe.exits, probe.missed),
            ("enqueue", 5, 4, Some(1))
        );
        assert_eq!((counters.refused.len(), counters.left_out.len()), (1, 1));
    }
}
