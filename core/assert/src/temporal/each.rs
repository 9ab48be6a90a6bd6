//! A comparison that every sample must satisfy.

use super::{SeriesField, SeriesPoint};
use crate::{DetailKind, Outcome, Verdict};
use std::fmt::Debug;

/// An open claim on every sample of a series; one comparison settles it. A missing sample
/// fails, a series without samples is inconclusive.
#[must_use = "nothing is checked until it is compared, as in `.at_most(100)`"]
#[derive(Debug)]
pub struct Each<'s, 'v, T> {
    series: &'s SeriesField<T>,
    verdict: &'v mut Verdict,
}

impl<T> SeriesField<T> {
    /// Opens a claim on every sample.
    pub fn each<'s, 'v>(&'s self, verdict: &'v mut Verdict) -> Each<'s, 'v, T> {
        Each { series: self, verdict }
    }
}

impl<T: PartialOrd + Debug> Each<'_, '_, T> {
    /// Every value equals `expected`.
    pub fn eq(self, expected: T) {
        self.settle(&format!("{expected:?}"), |v| *v == expected);
    }

    /// Every value is `low` or more.
    pub fn at_least(self, low: T) {
        self.settle(&format!("at least {low:?}"), |v| *v >= low);
    }

    /// Every value is `high` or less.
    pub fn at_most(self, high: T) {
        self.settle(&format!("at most {high:?}"), |v| *v <= high);
    }

    /// Every value is more than `low`.
    pub fn gt(self, low: T) {
        self.settle(&format!("more than {low:?}"), |v| *v > low);
    }

    /// Every value is less than `high`.
    pub fn lt(self, high: T) {
        self.settle(&format!("less than {high:?}"), |v| *v < high);
    }

    /// Every value lies from `low` to `high`, both included.
    pub fn between(self, low: T, high: T) {
        self.settle(&format!("between {low:?} and {high:?}"), |v| *v >= low && *v <= high);
    }

    fn settle(self, expected: &str, holds: impl Fn(&T) -> bool) {
        let Self { series, verdict } = self;
        let points = series.points();
        let wrong: Vec<&SeriesPoint<T>> =
            points.iter().filter(|p| !p.value.as_ref().is_ok_and(&holds)).collect();
        let (outcome, seen) = match (points.len(), wrong.first()) {
            (0, _) => (Outcome::Inconclusive, "but nothing was sampled".to_string()),
            (all, None) => (Outcome::Pass, format!("held in {all} samples")),
            (all, Some(first)) => {
                let what = match &first.value {
                    Ok(value) => format!("got {value:?}"),
                    Err(why) => format!("but there is no value ({why})"),
                };
                let more = format!("{} of {all} samples", wrong.len());
                (Outcome::Fail, format!("{what} at +{} ms ({more})", first.at_ms))
            }
        };
        let name = series.name();
        verdict.settle(outcome, DetailKind::Claim, || {
            format!("{name}: expected {expected} in every sample, {seen}")
        });
    }
}
