//! Patterns over a whole series.

use super::{Seen, SeriesField, SeriesPoint};
use crate::{DetailKind, Number, Outcome, Verdict};
use std::cmp::Ordering::{Equal, Greater};
use std::fmt::Debug;

/// Samples in a row that must be near a target.
const CONVERGED: usize = 3;

/// What a pattern found.
enum Found {
    Holds,
    /// What was seen instead.
    Broken(String),
    /// Why it can't be told.
    Unknown(String),
}

impl<T> SeriesField<T> {
    /// Writes an outcome and notes what was missing.
    fn settle<'v>(&self, verdict: &'v mut Verdict, expected: &str, found: Found) -> &'v mut Verdict {
        let name = &self.name;
        let (outcome, text) = match found {
            Found::Holds => (Outcome::Pass, format!("held over {} samples", self.seen().len())),
            Found::Broken(text) => (Outcome::Fail, format!("got {text}")),
            Found::Unknown(text) => (Outcome::Inconclusive, format!("but {text}")),
        };
        verdict.settle(outcome, DetailKind::Claim, || format!("{name}: expected {expected}, {text}"));
        self.note_missing(verdict);
        verdict
    }

    pub(super) fn note_missing(&self, verdict: &mut Verdict) {
        let why = |p: &SeriesPoint<T>| p.value.as_ref().err().map(|why| (p.at_ms, why.clone()));
        if let Some((at, why)) = self.points.iter().find_map(why) {
            let (missing, all) = (self.missing(), self.points.len());
            verdict.note(format!(
                "{}: {missing} of {all} samples are missing, the first at +{at} ms: {why}",
                self.name
            ));
        }
    }

    /// Why fewer than `needed` samples are too few; `None` when there are enough.
    fn too_few(&self, seen: usize, needed: usize) -> Option<Found> {
        let text = match (seen, self.points.len()) {
            _ if seen >= needed => return None,
            (_, 0) => "nothing was sampled".to_string(),
            (seen, all) if seen == all => format!("{seen} of the {needed} samples needed were taken"),
            (seen, all) => format!("{seen} of {all} samples have a value, {needed} are needed"),
        };
        Some(Found::Unknown(text))
    }

    /// Judges each two samples that follow one another.
    fn pairs(&self, broken: impl Fn(Seen<'_, T>, Seen<'_, T>) -> Option<String>) -> Found {
        let seen = self.seen();
        if let Some(few) = self.too_few(seen.len(), 2) {
            return few;
        }
        seen.windows(2).find_map(|pair| broken(pair[0], pair[1])).map_or(Found::Holds, Found::Broken)
    }
}

impl<T: PartialOrd + Debug> SeriesField<T> {
    /// No value is below the one before.
    pub fn nondecreasing<'v>(&self, verdict: &'v mut Verdict) -> &'v mut Verdict {
        let found = self
            .pairs(|a, b| (!matches!(b.1.partial_cmp(a.1), Some(Greater | Equal))).then(|| one_after(a, b)));
        self.settle(verdict, "values that never fall", found)
    }

    /// Every value is above the one before.
    pub fn strictly_increasing<'v>(&self, verdict: &'v mut Verdict) -> &'v mut Verdict {
        let found = self.pairs(|a, b| (b.1.partial_cmp(a.1) != Some(Greater)).then(|| one_after(a, b)));
        self.settle(verdict, "values that rise every time", found)
    }
}

impl<T: Number> SeriesField<T> {
    /// Between each two samples the value changes by `low` to `high` a millisecond.
    pub fn rate_within<'v>(&self, verdict: &'v mut Verdict, low: f64, high: f64) -> &'v mut Verdict {
        let rate = |a: Seen<'_, T>, b: Seen<'_, T>| {
            let ms = b.0.at_ms - a.0.at_ms;
            (ms > 0).then(|| (b.1.as_f64() - a.1.as_f64()) / ms as f64)
        };
        let seen = self.seen();
        let apart = seen.windows(2).any(|p| p[1].0.at_ms > p[0].0.at_ms);
        let found = match self.too_few(seen.len(), 2) {
            Some(few) => few,
            None if !apart => Found::Unknown("all samples were taken in the same millisecond".to_string()),
            None => self.pairs(|a, b| {
                let rate = rate(a, b).filter(|r| !(low..=high).contains(r))?;
                Some(format!("{rate:.3} a ms: {}", one_after(a, b)))
            }),
        };
        self.settle(verdict, &format!("a rate of {low} to {high} a ms"), found)
    }

    /// From `warmup_ms` after the first sample on, every value lies within `tolerance` times
    /// the mean of theirs (0.1 is 10 %).
    pub fn steady_within<'v>(
        &self,
        verdict: &'v mut Verdict,
        warmup_ms: u64,
        tolerance: f64,
    ) -> &'v mut Verdict {
        let begin = self.points.first().map_or(0, |p| p.at_ms).saturating_add(warmup_ms);
        let seen: Vec<_> = self.seen().into_iter().filter(|(p, _)| p.at_ms >= begin).collect();
        let mean = seen.iter().map(|(_, v)| v.as_f64()).sum::<f64>() / seen.len().max(1) as f64;
        let off = |v: &T| !v.as_f64().within(mean, tolerance * mean.abs());
        let found = self.too_few(seen.len(), 2).unwrap_or_else(|| {
            let broken = seen.iter().find(|(_, v)| off(v)).map(|s| format!("{}, mean {mean:.3}", one(*s)));
            broken.map_or(Found::Holds, Found::Broken)
        });
        let expected = format!("values within {tolerance} of their mean after {warmup_ms} ms");
        self.settle(verdict, &expected, found)
    }

    /// Three samples in a row lie within `tolerance` of `target`, the last of them at most
    /// `deadline_ms` after the first sample of all. A missing sample breaks a row.
    pub fn converges_to<'v>(
        &self,
        verdict: &'v mut Verdict,
        target: T,
        tolerance: T,
        deadline_ms: u64,
    ) -> &'v mut Verdict {
        let end = self.points.first().map_or(0, |p| p.at_ms).saturating_add(deadline_ms);
        let in_time: Vec<_> = self.points.iter().filter(|p| p.at_ms <= end).collect();
        let near = |p: &&SeriesPoint<T>| p.value.as_ref().is_ok_and(|v| v.within(target, tolerance));
        let seen = in_time.iter().filter(|p| p.value.is_ok()).count();
        let found = self.too_few(seen, CONVERGED).unwrap_or_else(|| {
            if in_time.windows(CONVERGED).any(|row| row.iter().all(near)) {
                return Found::Holds;
            }
            let last = in_time.iter().rev().find_map(|p| Some((*p, p.value.as_ref().ok()?)));
            Found::Broken(last.map_or_else(|| "none".to_string(), |last| format!("{} at last", one(last))))
        });
        let expected = format!(
            "{CONVERGED} samples in a row within {tolerance:?} of {target:?} in the first {deadline_ms} ms"
        );
        self.settle(verdict, &expected, found)
    }

    /// At every moment the value is `low` to `high` times the other series'. Moments at which
    /// one of them is missing, or both are 0, are skipped.
    pub fn ratio_within<'v, U: Number>(
        &self,
        verdict: &'v mut Verdict,
        other: &SeriesField<U>,
        low: f64,
        high: f64,
    ) -> &'v mut Verdict {
        let pairs = self.points.iter().zip(&other.points).filter(|(a, b)| a.at_ms == b.at_ms);
        let both: Vec<_> = pairs
            .filter_map(|(a, b)| Some((a, a.value.as_ref().ok()?.as_f64(), b.value.as_ref().ok()?.as_f64())))
            .filter(|(_, a, b)| *a != 0.0 || *b != 0.0)
            .collect();
        let found = if both.is_empty() {
            Found::Unknown("there is no moment at which both have a value to compare".to_string())
        } else {
            let off = both.iter().find(|(_, a, b)| !(low..=high).contains(&(a / b)));
            let say = |(p, a, b): &(&SeriesPoint<T>, f64, f64)| {
                format!("{:.3} at +{} ms: {a} to {b}", a / b, p.at_ms)
            };
            off.map(say).map_or(Found::Holds, Found::Broken)
        };
        let expected = format!("{low} to {high} times {}", other.name);
        self.settle(verdict, &expected, found);
        other.note_missing(verdict);
        verdict
    }
}

impl SeriesField<bool> {
    /// It holds at every moment; a missing sample fails.
    pub fn always_true<'v>(&self, verdict: &'v mut Verdict) -> &'v mut Verdict {
        let wrong = self.points.iter().find(|p| p.value != Ok(true));
        let found = match (wrong, self.points.is_empty()) {
            (_, true) => Found::Unknown("nothing was sampled".to_string()),
            (None, _) => Found::Holds,
            (Some(SeriesPoint { at_ms, value: Err(why), .. }), _) => {
                Found::Broken(format!("no value at +{at_ms} ms ({why})"))
            }
            (Some(p), _) => Found::Broken(format!("false at +{} ms", p.at_ms)),
        };
        self.settle(verdict, "it to hold at every moment", found)
    }
}

fn one<T: Debug>((point, value): Seen<'_, T>) -> String {
    format!("{value:?} at +{} ms", point.at_ms)
}

fn one_after<T: Debug>(before: Seen<'_, T>, after: Seen<'_, T>) -> String {
    format!("{} after {}", one(after), one(before))
}
