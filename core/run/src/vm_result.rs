//! What a test's own check on the host looks at once its machine has ended.

use crate::drive::Observation;
use ktstr_assert::AssertResult;
use ktstr_monitor::{
    Figures, MonitorLog, MonitorSummary, SampleSeries, Snapshot, SnapshotCause, SnapshotError,
};
use ktstr_scheduler::SchedulerReport;
use ktstr_wire::Stimulus;
use std::collections::BTreeMap;

/// A check that a test makes on the host (`post_vm`).
pub type PostVm = fn(&VmResult<'_>) -> AssertResult;

/// A run that has ended, as it was seen from outside.
#[derive(Debug, Clone, Copy)]
pub struct VmResult<'a> {
    seen: &'a Observation,
    result: &'a AssertResult,
    summary: &'a MonitorSummary,
}

/// That a snapshot was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SnapshotEvent<'a> {
    /// ms of guest time since the test began.
    pub at_ms: u64,
    /// The step it falls into, from 1; 0 is the time before the first.
    pub step: u16,
    /// Its name.
    pub name: &'a str,
    /// What caused it.
    pub cause: SnapshotCause,
}

impl<'a> VmResult<'a> {
    pub(crate) fn new(seen: &'a Observation, result: &'a AssertResult, summary: &'a MonitorSummary) -> Self {
        Self { seen, result, summary }
    }

    /// The verdict so far: the guest's, and that of the monitor's checks.
    pub fn result(&self) -> &'a AssertResult {
        self.result
    }

    /// The last snapshot of that name.
    pub fn snapshot(&self, name: &str) -> Option<&'a Snapshot> {
        self.seen.snapshots.get(name)
    }

    /// All snapshots that were kept, by time.
    pub fn snapshots(&self) -> &'a [Snapshot] {
        self.seen.snapshots.all()
    }

    /// The last snapshot of each name. Like the other `drain`s it takes nothing away: a check looks at a run that is
    /// over, and another may look after it.
    pub fn drain(&self) -> BTreeMap<&'a str, &'a Snapshot> {
        self.snapshots().iter().map(|s| (s.name.as_str(), s)).collect()
    }

    /// All snapshots that were kept, by guest time; those of one moment in the order that they were taken in.
    pub fn drain_ordered(&self) -> Vec<&'a Snapshot> {
        let mut all: Vec<&Snapshot> = self.snapshots().iter().collect();
        all.sort_by_key(|s| s.at_ms);
        all
    }

    /// The same, each with what the scheduler had told of itself last by then.
    ///
    /// What it lacks is [`SnapshotError::NoStats`], with the cause.
    pub fn drain_ordered_with_stats(&self) -> Vec<(&'a Snapshot, Result<Figures, SnapshotError>)> {
        let figures = self.figures();
        let told = |at_ms| match &figures {
            Err(why) => Err(SnapshotError::NoStats(why.clone())),
            Ok(figures) => {
                let last = figures.iter().rev().find(|f| f.at_ms <= at_ms).cloned();
                last.ok_or_else(|| SnapshotError::NoStats(format!("it had told nothing by +{at_ms} ms")))
            }
        };
        self.drain_ordered().into_iter().map(|s| (s, told(s.at_ms))).collect()
    }

    /// When which snapshot was taken, and what caused it, by guest time.
    pub fn drain_events(&self) -> Vec<SnapshotEvent<'a>> {
        let event =
            |s: &'a Snapshot| SnapshotEvent { at_ms: s.at_ms, step: s.step, name: &s.name, cause: s.cause };
        self.drain_ordered().into_iter().map(event).collect()
    }

    /// The moments at which the kernel was looked at and the scheduler told of itself, to draw a value over time from.
    pub fn series(&self) -> SampleSeries<'a> {
        SampleSeries::new(self.snapshots(), &self.seen.monitor).with_figures(self.figures())
    }

    /// What the monitor saw.
    pub fn monitor(&self) -> &'a MonitorLog {
        &self.seen.monitor
    }

    /// The same in numbers, of all of the run and by phase: `vm.stats().phase(Phase::step(1))`.
    pub fn stats(&self) -> &'a MonitorSummary {
        self.summary
    }

    /// What the scenario did.
    pub fn timeline(&self) -> &'a [Stimulus] {
        &self.seen.timeline
    }

    /// What became of the schedulers, one report a start: how each ended, its BPF programs, its scx_stats.
    pub fn schedulers(&self) -> &'a [SchedulerReport] {
        &self.seen.schedulers
    }

    /// sched_ext's event counters (`SCX_EV_*`) by name: of all schedulers together, by what the kernel said as each was
    /// about to stop; where it said nothing, what the monitor saw last. Empty on kernels that don't count.
    pub fn scx_events(&self) -> BTreeMap<String, u64> {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for (name, count) in self.schedulers().iter().flat_map(|report| &report.events) {
            let sum = counts.entry(name.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        if counts.is_empty() {
            let last = self.monitor().samples.iter().rev().find_map(|sample| sample.events.as_ref());
            let counted = last.into_iter().flatten();
            counts.extend(counted.map(|(name, count)| (name.clone(), u64::try_from(*count).unwrap_or(0))));
        }
        counts
    }

    /// What the schedulers told of themselves while the test ran, by time; why there is nothing of that.
    fn figures(&self) -> Result<Vec<Figures>, String> {
        let (mut found, mut lacking) = (Vec::new(), Vec::new());
        for report in self.schedulers() {
            let (stats, started) = match (&report.stats, report.started_ms) {
                (Some(stats), Some(started)) => (stats, started),
                (None, _) => {
                    lacking.push(format!("{} offers no scx_stats, or never attached", report.name));
                    continue;
                }
                (_, None) => {
                    lacking.push(format!("it is not known when {} was started", report.name));
                    continue;
                }
            };
            lacking.extend(stats.problem.clone());
            // What it told before the test began has no place in it.
            let since = |at_ms: u64| u64::try_from(started.checked_add_unsigned(at_ms)?).ok();
            let told = |sample: &ktstr_scheduler::StatsSample| {
                Some(Figures::new(since(sample.at_ms)?, &sample.figures))
            };
            found.extend(stats.samples.iter().filter_map(told));
        }
        found.sort_by_key(|f| f.at_ms);
        match (found.is_empty(), lacking.is_empty()) {
            (false, _) => Ok(found),
            (true, true) => Err("no scheduler was under test, or it answered nothing".to_string()),
            (true, false) => Err(lacking.join("; ")),
        }
    }

    /// The kernel's log, where the guest sent it.
    pub fn guest_kmsg(&self) -> String {
        String::from_utf8_lossy(&self.seen.kernel_log).into_owned()
    }

    /// The end of what the guest said over its second serial port: its last words, where the data port failed, and
    /// whatever the test wrote to `/dev/ttyS1`.
    pub fn last_words(&self) -> String {
        self.seen.last_words.last(usize::MAX).join("\n")
    }

    /// The end of the console.
    pub fn stderr(&self) -> String {
        self.seen.console.last(usize::MAX).join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::tests_support::silent;
    use ktstr_monitor::Sample;
    use ktstr_scheduler::{SchedulerStats, StatsSample};

    fn answer(at_ms: u64, n: f64) -> StatsSample {
        StatsSample { at_ms, figures: [("layers.a.util".to_string(), n)].into() }
    }

    /// A scheduler that was started so long before the test, with what it told.
    fn report(name: &str, started_ms: Option<i64>, answers: &[StatsSample]) -> SchedulerReport {
        let mut stats = SchedulerStats::default();
        answers.iter().cloned().for_each(|answer| stats.push(answer));
        SchedulerReport { name: name.into(), started_ms, stats: Some(stats), ..SchedulerReport::default() }
    }

    fn with<T>(seen: &Observation, look: impl FnOnce(VmResult<'_>) -> T) -> T {
        look(VmResult::new(seen, &AssertResult::pass(), &MonitorSummary::default()))
    }

    fn snapshot(name: &str, at_ms: u64) -> Snapshot {
        Snapshot::new(name, at_ms, 1, SnapshotCause::Op)
    }

    #[test]
    fn a_snapshot_goes_with_what_the_scheduler_told_last() {
        let mut seen = silent();
        // Started 300 ms before the test, and another in its middle.
        seen.schedulers = vec![
            report("b", Some(1000), &[answer(500, 3.0)]),
            report("a", Some(-300), &[answer(200, 0.0), answer(700, 1.0), answer(1200, 2.0)]),
        ];
        for (name, at_ms) in [("late", 1600), ("early", 100), ("mid", 400), ("mid", 950)] {
            seen.snapshots.push(snapshot(name, at_ms));
        }
        with(&seen, |vm| {
            let told: Vec<_> = vm
                .drain_ordered_with_stats()
                .into_iter()
                .map(|(s, f)| (s.at_ms, f.and_then(|f| f.get("layers.a.util")?.as_f64()).ok()))
                .collect();
            assert_eq!(told, [(100, None), (400, Some(1.0)), (950, Some(2.0)), (1600, Some(3.0))]);
            let why = vm.drain_ordered_with_stats().remove(0).1.unwrap_err().to_string();
            assert_eq!(why, "there are no figures of a scheduler: it had told nothing by +100 ms");
            let names: Vec<&str> = vm.drain_events().iter().map(|e| e.name).collect();
            assert_eq!(names, ["early", "mid", "mid", "late"]);
            assert_eq!((vm.drain()["mid"].at_ms, vm.drain().len()), (950, 3));
            let over_time = vm.series().stats_path::<f64>("layers.a.util");
            let seen: Vec<_> = over_time.points().iter().map(|p| (p.at_ms, p.value.clone().ok())).collect();
            assert_eq!(seen, [(400, Some(1.0)), (900, Some(2.0)), (1500, Some(3.0))]);
        });
    }

    #[test]
    fn why_there_are_no_figures_is_told() {
        let why = |schedulers: Vec<SchedulerReport>| {
            let mut seen = silent();
            seen.schedulers = schedulers;
            seen.snapshots.push(snapshot("s", 5));
            with(&seen, |vm| vm.drain_ordered_with_stats().remove(0).1.unwrap_err().to_string())
        };
        assert!(why(vec![]).ends_with("no scheduler was under test, or it answered nothing"));
        let mute = SchedulerReport { name: "mute".into(), ..SchedulerReport::default() };
        assert!(why(vec![mute]).ends_with(": mute offers no scx_stats, or never attached"));
        let lost = report("lost", None, &[answer(1, 1.0)]);
        assert!(why(vec![lost]).ends_with(": it is not known when lost was started"));
        let mut broken = report("broken", Some(0), &[]);
        if let Some(stats) = &mut broken.stats {
            stats.problem = Some("no answer within 2 s".into());
        }
        assert!(why(vec![broken]).ends_with(": no answer within 2 s"));
    }

    #[test]
    fn events_are_the_schedulers_or_else_the_monitors() {
        let mut seen = silent();
        let sample = |n| Sample { events: Some([("SCX_EV_A".to_string(), n)].into()), ..Sample::default() };
        seen.monitor.samples = vec![sample(1), sample(4), Sample::default()];
        assert_eq!(with(&seen, |vm| vm.scx_events()), [("SCX_EV_A".to_string(), 4)].into());
        let report = |n| SchedulerReport {
            events: [("SCX_EV_A".to_string(), n)].into(),
            ..SchedulerReport::default()
        };
        seen.schedulers = vec![report(2), report(5)];
        assert_eq!(with(&seen, |vm| vm.scx_events()), [("SCX_EV_A".to_string(), 7)].into());
        let clean = with(&seen, |vm| ktstr_assert::assert_scx_events_clean(vm.scx_events(), 7));
        assert!(clean.is_pass());
        assert_eq!(with(&silent(), |vm| vm.scx_events().len()), 0);
    }
}
