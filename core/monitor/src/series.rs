//! One value of the kernel's state over a run.

use crate::{Figures, FromValue, MapView, MonitorLog, Sample, Snapshot, SnapshotCause, SnapshotError};
use ktstr_assert::{Phase, SeriesField, SeriesPoint};
use std::fmt::Display;

/// The moments of a run at which the kernel was looked at, from which fields are drawn: the
/// snapshots, the monitor's samples, and what the scheduler told of itself.
///
/// Snapshots and the scheduler's figures bear guest time, the monitor's samples host time; all
/// count from the test's beginning.
#[derive(Debug, Clone)]
pub struct SampleSeries<'a> {
    snapshots: Vec<&'a Snapshot>,
    log: &'a MonitorLog,
    figures: Result<Vec<Figures>, String>,
}

impl<'a> SampleSeries<'a> {
    /// All moments of a run.
    pub fn new(snapshots: &'a [Snapshot], log: &'a MonitorLog) -> Self {
        let figures = Err("nobody asked for them".to_string());
        Self { snapshots: snapshots.iter().collect(), log, figures }
    }

    /// With what the scheduler told of itself, by time, or why there is nothing of that.
    #[must_use]
    pub fn with_figures(self, figures: Result<Vec<Figures>, String>) -> Self {
        Self { figures, ..self }
    }

    /// Only the snapshots that the clock caused (`num_snapshots`), as they are evenly spread.
    #[must_use]
    pub fn periodic_only(mut self) -> Self {
        self.snapshots.retain(|s| s.cause == SnapshotCause::Periodic);
        self
    }

    /// Only the snapshots of that name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.snapshots.retain(|s| s.name == name);
        self
    }

    /// How many snapshots there are.
    pub fn len(&self) -> usize {
        self.snapshots.len()
    }

    /// True without a snapshot.
    pub fn is_empty(&self) -> bool {
        self.snapshots.is_empty()
    }

    /// A value of the snapshots by its path, such as `runqueues[0].nr_switches`.
    pub fn value<T: FromValue>(&self, path: &str) -> SeriesField<T> {
        self.host(path, |s| s.get(path).and_then(T::from_value))
    }

    /// A variable of the BPF scheduler by its path, such as `nr_queued` or `.data.stats/stats.seen[2]`. The test's
    /// `snapshot_paths` name it as `bpf:nr_queued`.
    pub fn bpf<T: FromValue>(&self, path: &str) -> SeriesField<T> {
        self.value(&format!("bpf:{path}"))
    }

    /// Whatever `get` makes of a BPF map of the scheduler at each snapshot, such as
    /// `|counts| counts.at(0)?.cpu_sum_u64("seen")`.
    pub fn bpf_map<T>(
        &self,
        map: &str,
        get: impl Fn(MapView<'_>) -> Result<T, SnapshotError>,
    ) -> SeriesField<T> {
        self.host(map, |s| s.map(map).and_then(&get))
    }

    /// Whatever `get` makes of each answer of the scheduler over scx_stats. Where there is none, one sample is missing,
    /// with the reason.
    pub fn stats<T>(
        &self,
        name: impl Into<String>,
        get: impl Fn(&Figures) -> Result<T, SnapshotError>,
    ) -> SeriesField<T> {
        let missing = |why: &str| {
            let why = SnapshotError::NoStats(why.to_string()).to_string();
            vec![SeriesPoint::new(0, Phase::BASELINE, Err(why))]
        };
        let point = |f: &Figures| SeriesPoint::new(f.at_ms, self.phase_at(f.at_ms), text(get(f)));
        let points = match &self.figures {
            Ok(figures) if figures.is_empty() => missing("it did not answer while the test ran"),
            Ok(figures) => figures.iter().map(point).collect(),
            Err(why) => missing(why),
        };
        SeriesField::new(name, points)
    }

    /// A figure of the scheduler's by its path, such as `layers.batch.util`.
    pub fn stats_path<T: FromValue>(&self, path: &str) -> SeriesField<T> {
        self.stats(path, |f| f.get(path)?.read())
    }

    /// The part of the run at a guest time.
    fn phase_at(&self, at_ms: u64) -> Phase {
        // Turns count from the scenario's beginning, which may come after the test's: by the least that the host heard
        // of one later.
        let marks = &self.log.marks;
        let begun = marks.iter().map(|m| (m.at.as_millis() as u64).saturating_sub(m.guest_ms)).min();
        // Without samples the host's time has nothing to say, as in deterministic mode.
        let begun = begun.filter(|_| self.log.unsampled.is_none()).unwrap_or_default();
        let before = marks.partition_point(|m| m.guest_ms.saturating_add(begun) <= at_ms);
        before.checked_sub(1).map_or(Phase::BASELINE, |i| Phase::step(marks[i].step))
    }

    /// Whatever `get` makes of each snapshot.
    pub fn host<T>(
        &self,
        name: impl Into<String>,
        get: impl Fn(&Snapshot) -> Result<T, SnapshotError>,
    ) -> SeriesField<T> {
        let point = |s: &&Snapshot| SeriesPoint::new(s.at_ms, s.phase(), text(get(s)));
        SeriesField::new(name, self.snapshots.iter().map(point).collect())
    }

    /// One of sched_ext's event counters (`SCX_EV_*`) over the monitor's samples.
    pub fn event_counter_timeline(&self, name: &str) -> SeriesField<i64> {
        self.monitor(name, |sample| sample.events.as_ref()?.get(name).copied())
    }

    /// Whatever `get` makes of each of the monitor's samples, at host times.
    pub fn monitor<T>(&self, name: impl Into<String>, get: impl Fn(&Sample) -> Option<T>) -> SeriesField<T> {
        let phase = |sample: &Sample| {
            let marks = &self.log.marks;
            let before = marks.partition_point(|m| m.at <= sample.at);
            before.checked_sub(1).map_or(Phase::BASELINE, |i| Phase::step(marks[i].step))
        };
        let point = |sample: &Sample| {
            let value = get(sample).ok_or_else(|| "this sample does not tell it".to_string());
            SeriesPoint::new(sample.at.as_millis() as u64, phase(sample), value)
        };
        SeriesField::new(name, self.log.samples.iter().map(point).collect())
    }
}

fn text<T, E: Display>(value: Result<T, E>) -> Result<T, String> {
    value.map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use crate::{EntryState, EntryValue, KernelState, MapState, Mark, SchedExtState, Value};
    use ktstr_assert::Verdict;
    use std::time::Duration;

    fn snapshots() -> Vec<Snapshot> {
        let one = |(i, cause): (u64, SnapshotCause)| {
            let mut s = Snapshot::new(format!("s{i}"), i * 100, i as u16, cause);
            if i != 2 {
                s.values.insert("jiffies".into(), Value::Unsigned(i * 10));
                s.values.insert("bpf:nr".into(), Value::Unsigned(i));
            }
            s
        };
        let causes = [SnapshotCause::Op, SnapshotCause::Periodic, SnapshotCause::Periodic];
        (0..).zip(causes).map(one).collect()
    }

    #[test]
    fn values_bear_time_and_phase_and_holes_their_reason() {
        let (snapshots, log) = (snapshots(), MonitorLog::default());
        let field = SampleSeries::new(&snapshots, &log).value::<u64>("jiffies");
        let seen: Vec<_> = field.points().iter().map(|p| (p.at_ms, p.phase, p.value.as_ref().ok())).collect();
        let phase = Phase::step;
        assert_eq!(seen, [(0, phase(0), Some(&0)), (100, phase(1), Some(&10)), (200, phase(2), None)]);
        assert!(field.points()[2].value.as_ref().unwrap_err().contains("has no value \"jiffies\""));
        let periodic = SampleSeries::new(&snapshots, &log).periodic_only();
        assert_eq!((periodic.len(), periodic.value::<u64>("jiffies").missing()), (2, 1));
        assert_eq!(SampleSeries::new(&snapshots, &log).named("s1").len(), 1);
        let of_bpf = SampleSeries::new(&snapshots, &log).named("s1").bpf::<u64>("nr");
        assert_eq!(of_bpf.points()[0].value.as_ref().ok(), Some(&1));
    }

    #[test]
    fn the_schedulers_figures_bear_guest_time_and_its_phase() {
        let mark =
            |at, guest_ms, step| Mark { at: Duration::from_millis(at), guest_ms, step, ..Mark::default() };
        // The scenario began 500 ms after the test.
        let log = MonitorLog { marks: vec![mark(520, 0, 1), mark(1500, 1000, 2)], ..MonitorLog::default() };
        let one = |at_ms, n| Figures::new(at_ms, &[("layers.a.util".to_string(), n)].into());
        let figures = vec![one(400, 0.25), one(600, 0.5), one(1600, 1.0)];
        let series = SampleSeries::new(&[], &log).with_figures(Ok(figures));
        let field = series.stats_path::<f64>("layers.a.util");
        let expected = [(Phase::BASELINE, 0.25), (Phase::step(1), 0.5), (Phase::step(2), 1.0)];
        assert_eq!(field.last_per_phase(), expected.into());
        let absent = series.stats_path::<f64>("layers.b.util");
        let why = absent.points()[0].value.as_ref().unwrap_err();
        assert_eq!(why, "figures at +400 ms.layers.b.util: no field \"b\"; there is a");
        let unsampled = MonitorLog { unsampled: Some("why".into()), ..log.clone() };
        let series = SampleSeries::new(&[], &unsampled).with_figures(Ok(vec![one(600, 0.5), one(1000, 1.0)]));
        let phases: Vec<_> =
            series.stats_path::<f64>("layers.a.util").points().iter().map(|p| p.phase).collect();
        assert_eq!(phases, [Phase::step(1), Phase::step(2)]);
    }

    #[test]
    fn without_figures_a_sample_is_missing_with_its_reason() {
        let log = MonitorLog::default();
        let none = SampleSeries::new(&[], &log).with_figures(Err("it offers no scx_stats".into()));
        let field = none.stats_path::<u64>("nr");
        let why = field.points()[0].value.as_ref().unwrap_err();
        assert_eq!(why, "there are no figures of a scheduler: it offers no scx_stats");
        let mut v = Verdict::new();
        field.nondecreasing(&mut v);
        assert!(v.into_result().is_inconclusive());
        let silent = SampleSeries::new(&[], &log).with_figures(Ok(Vec::new())).stats_path::<u64>("nr");
        assert_eq!((silent.points().len(), silent.missing()), (1, 1));
    }

    #[test]
    fn a_maps_contents_are_a_series() {
        let mut snapshots = snapshots();
        let entry = |n| EntryState {
            typed_key: Value::Unsigned(0),
            typed: EntryValue::Shared(Value::Unsigned(n)),
            ..EntryState::default()
        };
        for (n, snapshot) in (0..).zip(&mut snapshots[..2]) {
            let map = MapState {
                name: "counts".into(),
                kind: "array".into(),
                looked_at: 1,
                entries: vec![entry(n)],
                ..MapState::default()
            };
            let scx = SchedExtState { maps: vec![map], ..SchedExtState::default() };
            snapshot.state = Some(KernelState { sched_ext: Some(scx), ..KernelState::default() });
        }
        let log = MonitorLog::default();
        let field = SampleSeries::new(&snapshots, &log).bpf_map("counts", |map| map.at(0)?.value()?.as_u64());
        let seen: Vec<u64> = field.values().copied().collect();
        assert_eq!((seen, field.missing()), (vec![0, 1], 1));
        let why = field.points()[2].value.as_ref().unwrap_err();
        assert_eq!(why, "snapshot \"s2\" holds values only: nobody asked for the kernel's state");
    }

    #[test]
    fn the_monitors_samples_fall_into_the_steps_that_were_marked() {
        let mark = |ms, step| Mark { at: Duration::from_millis(ms), step, ..Mark::default() };
        let log = MonitorLog {
            samples: vec![sample(0, &[1]), sample(100, &[2]), sample(200, &[3])],
            marks: vec![mark(50, 1), mark(150, 2)],
            ..MonitorLog::default()
        };
        let running = |s: &Sample| s.cpu(0).map(|c| c.nr_running);
        let field = SampleSeries::new(&[], &log).monitor("nr_running", running);
        let expected = [(Phase::BASELINE, 1), (Phase::step(1), 2), (Phase::step(2), 3)];
        assert_eq!(field.last_per_phase(), expected.into());
        let mut log = log;
        log.samples[1].events = Some([("SCX_EV_A".to_string(), 7)].into());
        let events = SampleSeries::new(&[], &log).event_counter_timeline("SCX_EV_A");
        assert_eq!((events.values().copied().collect::<Vec<_>>(), events.missing()), (vec![7], 2));
    }
}
