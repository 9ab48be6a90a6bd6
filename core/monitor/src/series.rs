//! One value of the kernel's state over a run.

use crate::{FromValue, MonitorLog, Sample, Snapshot, SnapshotCause, SnapshotError};
use ktstr_assert::{Phase, SeriesField, SeriesPoint};
use std::fmt::Display;

/// The moments of a run at which the kernel was looked at, from which fields are drawn: the
/// snapshots, and the monitor's samples.
///
/// Snapshots bear guest time, the monitor's samples host time; both count from the test's
/// beginning.
#[derive(Debug, Clone)]
pub struct SampleSeries<'a> {
    snapshots: Vec<&'a Snapshot>,
    log: &'a MonitorLog,
}

impl<'a> SampleSeries<'a> {
    /// All moments of a run.
    pub fn new(snapshots: &'a [Snapshot], log: &'a MonitorLog) -> Self {
        Self { snapshots: snapshots.iter().collect(), log }
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

    /// Whatever `get` makes of each snapshot.
    pub fn host<T>(
        &self,
        name: impl Into<String>,
        get: impl Fn(&Snapshot) -> Result<T, SnapshotError>,
    ) -> SeriesField<T> {
        let point = |s: &&Snapshot| SeriesPoint::new(s.at_ms, s.phase(), text(get(s)));
        SeriesField::new(name, self.snapshots.iter().map(point).collect())
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
    use crate::{Mark, Value};
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
    }
}
