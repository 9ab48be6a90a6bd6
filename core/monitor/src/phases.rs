//! Cuts samples where the test turned.

use crate::{MonitorLog, Sample};
use std::time::Duration;

/// Phases that are told apart; later turns fall into the last.
const MAX_PHASES: usize = 64;

/// A stretch of a test with the samples taken in it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Phase<'a> {
    pub(crate) label: &'a str,
    pub(crate) from: Duration,
    pub(crate) samples: &'a [Sample],
}

/// The phases of a log, from its start; those without a sample are left out.
pub(crate) fn phases(log: &MonitorLog) -> Vec<Phase<'_>> {
    let start = Duration::ZERO;
    let marks = &log.marks[..log.marks.len().min(MAX_PHASES)];
    let begins: Vec<(Duration, &str)> = std::iter::once((start, "before the scenario"))
        .chain(marks.iter().map(|m| (m.at, m.label.as_str())))
        .collect();
    let index = |at: Duration| log.samples.partition_point(|s| s.at < at);
    let mut found = Vec::new();
    for (i, (from, label)) in begins.iter().enumerate() {
        let end = begins.get(i + 1).map_or(log.samples.len(), |(at, _)| index(*at));
        let begin = index(*from).min(end);
        if begin < end {
            found.push(Phase { label, from: *from, samples: &log.samples[begin..end] });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Mark;
    use crate::testing::sample;
    use proptest::prelude::*;

    fn log(samples: &[u64], marks: &[(u64, &str)]) -> MonitorLog {
        let mark = |(ms, label): &(u64, &str)| Mark {
            at: Duration::from_millis(*ms),
            label: (*label).into(),
            step: 0,
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
