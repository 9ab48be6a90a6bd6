//! Checks of a value over time.
//!
//! A [`SeriesField`] is one value as it was seen at several moments of a run, each with its
//! time and its [`Phase`]. Its patterns write their outcome into a [`Verdict`], as claims do:
//!
//! ```
//! use ktstr_assert::{Phase, SeriesField, SeriesPoint, Verdict};
//! let point = |ms: u64, value: u64| SeriesPoint::new(ms, Phase::BASELINE, Ok(value));
//! let switches = SeriesField::new("nr_switches", vec![point(0, 10), point(100, 60), point(200, 55)]);
//! let mut v = Verdict::new();
//! switches.nondecreasing(&mut v);
//! assert_eq!(
//!     v.into_result().details[0].message,
//!     "nr_switches: expected values that never fall, got 55 at +200 ms after 60 at +100 ms"
//! );
//! ```
//!
//! A moment at which the value could not be read is a missing sample: it is noted, and skipped
//! by all patterns but [`each`](SeriesField::each) and [`always_true`](SeriesField::always_true),
//! which fail. Too few samples to judge by are inconclusive, never a pass.

mod each;
mod patterns;
mod phases;

pub use each::Each;

use std::fmt;

/// A part of a run: the time before the first step, or a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Phase(u16);

impl Phase {
    /// Before the first step.
    pub const BASELINE: Self = Self(0);

    /// Step `k`, from 1; `step(0)` is the baseline.
    pub const fn step(k: u16) -> Self {
        Self(k)
    }

    /// The step's number; 0 for the baseline.
    pub const fn index(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.pad("baseline"),
            k => f.pad(&format!("step {k}")),
        }
    }
}

/// One moment of a series.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesPoint<T> {
    /// ms since the scenario began.
    pub at_ms: u64,
    /// The part of the run that it falls into.
    pub phase: Phase,
    /// The value, or why there is none.
    pub value: Result<T, String>,
}

impl<T> SeriesPoint<T> {
    /// A moment with its value, or the reason why there is none.
    pub fn new(at_ms: u64, phase: Phase, value: Result<T, String>) -> Self {
        Self { at_ms, phase, value }
    }
}

/// One value over time.
#[derive(Debug, Clone, PartialEq)]
pub struct SeriesField<T> {
    name: String,
    points: Vec<SeriesPoint<T>>,
}

/// A moment that has a value.
type Seen<'a, T> = (&'a SeriesPoint<T>, &'a T);

impl<T> SeriesField<T> {
    /// A series under the name that messages give it; the points are sorted by time.
    pub fn new(name: impl Into<String>, mut points: Vec<SeriesPoint<T>>) -> Self {
        points.sort_by_key(|p| p.at_ms);
        Self { name: name.into(), points }
    }

    /// Its name in messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The moments, by time.
    pub fn points(&self) -> &[SeriesPoint<T>] {
        &self.points
    }

    /// The values, without the missing ones.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.points.iter().filter_map(|p| p.value.as_ref().ok())
    }

    /// How many moments have no value.
    pub fn missing(&self) -> usize {
        self.points.iter().filter(|p| p.value.is_err()).count()
    }

    /// The series with every value changed by `change`.
    pub fn map<U>(self, mut change: impl FnMut(T) -> U) -> SeriesField<U> {
        let point = |p: SeriesPoint<T>| SeriesPoint {
            at_ms: p.at_ms,
            phase: p.phase,
            value: p.value.map(&mut change),
        };
        SeriesField { name: self.name, points: self.points.into_iter().map(point).collect() }
    }

    fn seen(&self) -> Vec<Seen<'_, T>> {
        self.points.iter().filter_map(|p| Some((p, p.value.as_ref().ok()?))).collect()
    }
}

#[cfg(test)]
mod tests;
