//! Cuts samples where the test turned.

use crate::{Mark, MonitorLog, Sample};
use std::time::Duration;

/// Phases that are told apart; later turns fall into the last.
const MAX_PHASES: usize = 64;

/// A stretch of a test with the samples taken in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Part<'a> {
    pub(crate) label: &'a str,
    pub(crate) from: Duration,
    pub(crate) step: u16,
    pub(crate) samples: &'a [Sample],
    /// Iterations a second of guest time, where it is a whole step.
    pub(crate) iteration_rate: Option<f64>,
}

/// The phases of a log, from its start; those without a sample are left out, but steps are
/// told in any case.
pub(crate) fn phases(log: &MonitorLog) -> Vec<Part<'_>> {
    let marks = &log.marks[..log.marks.len().min(MAX_PHASES)];
    let index = |at: Duration| log.samples.partition_point(|s| s.at < at);
    let end_of = |next: Option<&Mark>| next.map_or(log.samples.len(), |m| index(m.at));
    let mut found = Vec::new();
    let before = &log.samples[..end_of(marks.first())];
    if !before.is_empty() {
        let (from, label) = (Duration::ZERO, "before the scenario");
        found.push(Part { label, from, step: 0, samples: before, iteration_rate: None });
    }
    let mut counted = 0;
    for (i, mark) in marks.iter().enumerate() {
        let next = marks.get(i + 1);
        let end = end_of(next);
        let samples = &log.samples[index(mark.at).min(end)..end];
        let iteration_rate = next.and_then(|next| rate(mark, next, counted));
        counted = mark.iterations.or(next.and_then(|n| n.iterations)).unwrap_or(counted);
        if !samples.is_empty() || iteration_rate.is_some() {
            let Mark { label, at: from, step, .. } = mark;
            found.push(Part { label, from: *from, step: *step, samples, iteration_rate });
        }
    }
    found
}

/// The rate of a step that begins at a turn and ends at the next; `before` were done earlier.
fn rate(begin: &Mark, end: &Mark, before: u64) -> Option<f64> {
    let same = begin.step > 0 && begin.step == end.step && begin.iterations.is_none();
    let ms = end.guest_ms.checked_sub(begin.guest_ms).filter(|ms| *ms > 0 && same)?;
    Some(end.iterations?.saturating_sub(before) as f64 * 1000.0 / ms as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use proptest::prelude::*;

    fn log(samples: &[u64], marks: &[(u64, &str)]) -> MonitorLog {
        let mark = |(ms, label): &(u64, &str)| Mark {
            at: Duration::from_millis(*ms),
            label: (*label).into(),
            ..Mark::default()
        };
        MonitorLog {
            samples: samples.iter().map(|ms| sample(*ms, &[1])).collect(),
            marks: marks.iter().map(mark).collect(),
            ..MonitorLog::default()
        }
    }

    #[test]
    fn samples_belong_to_the_last_turn_before_them() {
        let log = log(&[0, 100, 200, 300], &[(50, "step 1"), (60, "nothing"), (200, "step 2")]);
        let found: Vec<_> = phases(&log).iter().map(|p| (p.label, p.samples.len())).collect();
        let of_nothing = ("nothing", 1);
        assert_eq!(found, [("before the scenario", 1), of_nothing, ("step 2", 2)]);
    }

    #[test]
    fn a_step_has_the_iterations_between_its_ends() {
        let turn = |step, guest_ms, iterations| Mark { step, guest_ms, iterations, ..Mark::default() };
        let log = MonitorLog {
            marks: vec![
                turn(0, 0, None),
                turn(1, 0, None),
                turn(1, 2000, Some(500)),
                turn(2, 2000, None),
                turn(2, 3000, Some(900)),
                turn(2, 3001, Some(910)),
            ],
            ..MonitorLog::default()
        };
        let rates: Vec<_> = phases(&log).iter().map(|p| (p.step, p.iteration_rate)).collect();
        assert_eq!(rates, [(1, Some(250.0)), (2, Some(400.0))]);
    }

    proptest! {
        /// Every sample is in one phase, whatever the times are.
        #[test]
        fn no_sample_is_lost(
            mut samples in prop::collection::vec(0u64..1000, 0..50),
            mut marks in prop::collection::vec(0u64..1000, 0..100),
        ) {
            samples.sort_unstable();
            marks.sort_unstable();
            let marks: Vec<(u64, &str)> = marks.into_iter().map(|ms| (ms, "x")).collect();
            let log = log(&samples, &marks);
            prop_assert_eq!(phases(&log).iter().map(|p| p.samples.len()).sum::<usize>(), samples.len());
        }
    }
}
