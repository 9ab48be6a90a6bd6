//! A series by phase of the run.

use super::{Phase, SeriesField};
use crate::{Claim, Number, Outcome, Verdict};
use std::collections::BTreeMap;

impl<T: Clone> SeriesField<T> {
    /// The first value of each phase that has one.
    pub fn first_per_phase(&self) -> BTreeMap<Phase, T> {
        let mut found = BTreeMap::new();
        for (point, value) in self.seen() {
            found.entry(point.phase).or_insert_with(|| value.clone());
        }
        found
    }

    /// The last value of each phase that has one.
    pub fn last_per_phase(&self) -> BTreeMap<Phase, T> {
        self.seen().into_iter().map(|(point, value)| (point.phase, value.clone())).collect()
    }

    /// The last value of a phase.
    pub fn value_at_phase(&self, phase: Phase) -> Option<T> {
        self.last_per_phase().remove(&phase)
    }
}

impl<T: Number> SeriesField<T> {
    /// By how much a counter grew within each phase, from its first to its last sample there.
    /// A phase with fewer than two samples tells nothing and is left out.
    pub fn counter_delta_per_phase(&self) -> BTreeMap<Phase, f64> {
        let mut ends: BTreeMap<Phase, (f64, f64, usize)> = BTreeMap::new();
        for (point, value) in self.seen() {
            let value = value.as_f64();
            let end = ends.entry(point.phase).or_insert((value, value, 0));
            (end.1, end.2) = (value, end.2 + 1);
        }
        ends.into_iter().filter(|(_, e)| e.2 >= 2).map(|(phase, e)| (phase, e.1 - e.0)).collect()
    }

    /// Opens a claim on the last value of phase `a` divided by that of phase `b`. Without
    /// both, or when `b`'s is 0, it is inconclusive.
    pub fn ratio_across_phases<'v>(&self, verdict: &'v mut Verdict, a: Phase, b: Phase) -> Claim<'v, f64> {
        self.note_missing(verdict);
        let label = format!("{} in {a} over {b}", self.name());
        let ratio = match (self.value_at_phase(a), self.value_at_phase(b)) {
            (Some(a), Some(b)) if b.as_f64() != 0.0 => Ok(a.as_f64() / b.as_f64()),
            _ => Err(Outcome::Inconclusive),
        };
        Claim::open(verdict, label, ratio)
    }
}
