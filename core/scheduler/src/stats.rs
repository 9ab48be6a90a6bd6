//! Figures that a scheduler's program tells of itself over its scx_stats socket.
//!
//! The protocol is that of the scx project's crate `scx_stats`: a request is a line of JSON with `req` and `args`, and the
//! answer another with `errno` (0 for success) and `args.resp`. A session is one connection: schedulers that tell rates
//! count from the session's previous answer.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Answers that are kept; beyond, every second one goes.
const MOST_SAMPLES: usize = 128;

/// An answer, as far as it is numbers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct StatsSample {
    /// When, ms of guest time since the scheduler's start.
    pub at_ms: u64,
    /// By path, such as `layers.batch.util`; `true` is 1.
    pub figures: BTreeMap<String, f64>,
}

/// What came of asking a scheduler for its figures.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct SchedulerStats {
    /// Answers, evenly spread over the time; the last one always.
    pub samples: Vec<StatsSample>,
    /// How many came.
    pub answers: u64,
    /// Why there are no more.
    pub problem: Option<String>,
    /// One in so many is kept.
    every: u64,
}

impl SchedulerStats {
    /// What is sent to ask for all figures, a line.
    pub const REQUEST: &'static str = "{\"req\":\"stats\",\"args\":{\"target\":\"top\"}}\n";

    /// Takes the next answer.
    pub fn push(&mut self, sample: StatsSample) {
        let every = self.every.max(1);
        // The one before it was kept only as the last.
        if self.answers > 0 && !(self.answers - 1).is_multiple_of(every) {
            self.samples.pop();
        }
        self.samples.push(sample);
        self.answers += 1;
        if self.samples.len() > MOST_SAMPLES {
            // Kept are those numbered by multiples of `every`, from 0, and the last.
            let mut number = 0;
            self.samples.retain(|_| {
                number += 1;
                (number - 1) % 2 == 0
            });
            self.every = every * 2;
        }
    }

    /// The last answer.
    pub fn last(&self) -> Option<&StatsSample> {
        self.samples.last()
    }

    /// True if there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty() && self.problem.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn answers_are_kept_evenly(count in 1u64..2000) {
            let mut stats = SchedulerStats::default();
            for at_ms in 0..count {
                stats.push(StatsSample { at_ms, ..StatsSample::default() });
            }
            let kept: Vec<u64> = stats.samples.iter().map(|s| s.at_ms).collect();
            prop_assert!(kept.len() <= MOST_SAMPLES && stats.answers == count);
            prop_assert_eq!((kept[0], kept[kept.len() - 1]), (0, count - 1));
            let apart: Vec<u64> = kept.windows(2).map(|two| two[1] - two[0]).collect();
            let even = apart.len().saturating_sub(1);
            prop_assert!(apart[..even].iter().all(|a| *a == apart[0]), "{:?}", kept);
        }
    }
}
