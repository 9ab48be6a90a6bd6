//! A latency histogram whose buckets can live in shared memory.
//!
//! Log-linear: 32 buckets for every power of two, so a value is known to within
//! 1/32 (3.2 %) of itself over the whole `u64` range with 1,920 buckets. A worker
//! records by adding one to a bucket of a shared mapping, which needs no
//! allocation and survives the worker's death; that is why no histogram type with
//! a heap of its own is used.

use serde::{Deserialize, Serialize};

const SUB_BITS: u32 = 5;
const SUB: u64 = 1 << SUB_BITS;

/// Number of buckets that cover all of `u64`.
pub const BUCKETS: usize = ((64 - SUB_BITS as usize) + 1) * SUB as usize;

/// The bucket a value (in ns, or any unit) falls into; always below [`BUCKETS`].
pub const fn bucket_index(value: u64) -> usize {
    if value < SUB {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros();
    let sub = (value >> (exponent - SUB_BITS)) & (SUB - 1);
    ((exponent - SUB_BITS + 1) as u64 * SUB + sub) as usize
}

/// Lowest and highest value of bucket `index`, both inclusive.
///
/// An index of [`BUCKETS`] or more gives the last bucket.
pub const fn bucket_range(index: usize) -> (u64, u64) {
    let index = if index < BUCKETS { index } else { BUCKETS - 1 } as u64;
    if index < SUB {
        return (index, index);
    }
    let shift = (index / SUB - 1) as u32;
    let low = (SUB + index % SUB) << shift;
    (low, low + ((1u64 << shift) - 1))
}

/// Counts of values by bucket, with the exact count, sum, minimum and maximum.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LatencyHistogram {
    /// `(bucket, count)`, ascending, counts never zero.
    buckets: Vec<(u16, u64)>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

impl LatencyHistogram {
    /// An empty histogram.
    pub fn new() -> Self {
        Self::default()
    }

    /// A histogram of plain values.
    pub fn from_values(values: &[u64]) -> Self {
        let mut counts = vec![0u64; BUCKETS];
        for &v in values {
            counts[bucket_index(v)] += 1;
        }
        let sum = values.iter().fold(0u64, |a, &v| a.saturating_add(v));
        let min = values.iter().copied().min().unwrap_or(0);
        let max = values.iter().copied().max().unwrap_or(0);
        Self::from_counts(&counts, sum, min, max)
    }

    /// A histogram of counts by bucket, as a worker left them in shared memory.
    ///
    /// `sum`, `min` and `max` are of the recorded values; counts past
    /// [`BUCKETS`] are ignored.
    pub fn from_counts(counts: &[u64], sum: u64, min: u64, max: u64) -> Self {
        let buckets: Vec<(u16, u64)> = counts
            .iter()
            .take(BUCKETS)
            .enumerate()
            .filter(|&(_, &n)| n > 0)
            .map(|(i, &n)| (i as u16, n))
            .collect();
        let count = buckets.iter().fold(0u64, |a, b| a.saturating_add(b.1));
        if count == 0 {
            return Self::default();
        }
        Self { buckets, count, sum, min, max }
    }

    /// How many values were recorded.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// True when nothing was recorded: every statistic is then `None`.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The smallest value recorded.
    pub fn min(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.min)
    }

    /// The largest value recorded.
    pub fn max(&self) -> Option<u64> {
        (!self.is_empty()).then_some(self.max)
    }

    /// Arithmetic mean of the values recorded (exact sum over count).
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum as f64 / self.count as f64)
    }

    /// The value below or at which a fraction `q` (0 to 1) of the values lies,
    /// to within one bucket (3.2 %), never outside `min..=max`.
    pub fn quantile(&self, q: f64) -> Option<u64> {
        if self.is_empty() || !q.is_finite() {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64).ceil() as u64).max(1);
        let mut seen = 0u64;
        for &(bucket, n) in &self.buckets {
            seen = seen.saturating_add(n);
            if seen >= rank {
                let (_, high) = bucket_range(usize::from(bucket));
                return Some(high.clamp(self.min, self.max));
            }
        }
        Some(self.max)
    }

    /// Standard deviation over mean, from bucket mid-points.
    ///
    /// `None` without values or when the mean is zero.
    pub fn cv(&self) -> Option<f64> {
        let mean = self.mean().filter(|m| *m > 0.0)?;
        let variance = self
            .buckets
            .iter()
            .map(|&(bucket, n)| {
                let (low, high) = bucket_range(usize::from(bucket));
                let mid = low as f64 + (high - low) as f64 / 2.0;
                (mid - mean).powi(2) * n as f64
            })
            .sum::<f64>()
            / self.count as f64;
        Some(variance.sqrt() / mean)
    }

    /// Adds the values of another histogram to this one.
    pub fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() {
            *self = other.clone();
            return;
        }
        let mut counts = std::collections::BTreeMap::new();
        for &(bucket, n) in self.buckets.iter().chain(&other.buckets) {
            let slot = counts.entry(bucket).or_insert(0u64);
            *slot = slot.saturating_add(n);
        }
        self.buckets = counts.into_iter().collect();
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_recorded_has_no_statistics() {
        let h = LatencyHistogram::new();
        assert_eq!((h.min(), h.max(), h.quantile(0.5)), (None, None, None));
        assert_eq!((h.mean(), h.cv()), (None, None));
    }

    #[test]
    fn the_last_bucket_ends_at_u64_max() {
        assert_eq!(bucket_index(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket_range(BUCKETS - 1).1, u64::MAX);
    }

    #[test]
    fn equal_values_have_no_spread() {
        let h = LatencyHistogram::from_values(&[7; 100]);
        assert_eq!(h.cv(), Some(0.0));
        assert_eq!(h.quantile(0.99), Some(7));
    }

    proptest! {
        #[test]
        fn a_value_lies_in_its_bucket(v in any::<u64>()) {
            let (low, high) = bucket_range(bucket_index(v));
            prop_assert!(low <= v && v <= high);
            prop_assert!(high - low <= low / SUB);
        }

        #[test]
        fn buckets_touch(i in 0..BUCKETS - 1) {
            prop_assert_eq!(bucket_range(i).1 + 1, bucket_range(i + 1).0);
        }

        #[test]
        fn quantiles_are_within_a_bucket_of_the_sorted_truth(
            mut values in prop::collection::vec(0u64..10_000_000_000, 1..200), q in 0.0f64..=1.0,
        ) {
            let h = LatencyHistogram::from_values(&values);
            values.sort_unstable();
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let truth = values[rank - 1];
            let got = h.quantile(q).unwrap();
            prop_assert!(got >= truth && got - truth <= truth / SUB, "{} vs {}", got, truth);
        }

        #[test]
        fn merging_equals_recording_together(
            a in prop::collection::vec(0u64..1 << 40, 0..50), b in prop::collection::vec(0u64..1 << 40, 0..50),
        ) {
            let mut merged = LatencyHistogram::from_values(&a);
            merged.merge(&LatencyHistogram::from_values(&b));
            let together: Vec<u64> = a.into_iter().chain(b).collect();
            prop_assert_eq!(merged, LatencyHistogram::from_values(&together));
        }
    }
}
