//! A claim on one value, and the comparisons that settle it.

use crate::{Collection, DetailKind, Number, Outcome, Verdict};
use std::borrow::Cow;
use std::fmt::Debug;

/// An open claim: one comparison settles it and writes the outcome into the verdict.
///
/// Values that are not comparable with themselves (NaN) satisfy no comparison.
#[must_use = "a claim checks nothing until it is compared, as in `.at_most(100)`"]
#[derive(Debug)]
pub struct Claim<'v, T> {
    verdict: &'v mut Verdict,
    label: Cow<'static, str>,
    /// The value, or what its absence makes of the claim.
    value: Option<Result<T, Outcome>>,
    kind: DetailKind,
    reason: Option<String>,
}

impl<'v, T> Claim<'v, T> {
    pub(crate) fn open(
        verdict: &'v mut Verdict,
        label: impl Into<Cow<'static, str>>,
        value: Result<T, Outcome>,
    ) -> Self {
        let label = label.into();
        Self { verdict, label, value: Some(value), kind: DetailKind::Claim, reason: None }
    }

    /// Says why the claim should hold; shown when it does not. Comes before the comparison.
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Says what the claim is about, in place of [`DetailKind::Claim`]. Comes before the
    /// comparison.
    pub fn kind(mut self, kind: DetailKind) -> Self {
        self.kind = kind;
        self
    }

    /// Settles the claim: `holds` compares, `expected` says what with, `show` shows the value.
    fn settle(
        mut self,
        expected: impl FnOnce() -> String,
        holds: impl FnOnce(&T) -> bool,
        show: impl FnOnce(&T) -> String,
    ) {
        let Some(value) = self.value.take() else { return };
        let reason = self.reason.take().map(|r| format!(" (because {r})")).unwrap_or_default();
        let label = self.label.clone();
        match value {
            Ok(value) => {
                let outcome = if holds(&value) { Outcome::Pass } else { Outcome::Fail };
                self.verdict.settle(outcome, self.kind, || {
                    format!("{label}: expected {}, got {}{reason}", expected(), show(&value))
                });
            }
            Err(outcome) => self.verdict.settle(outcome, self.kind, || {
                let why = if outcome == Outcome::Fail { "there is no value" } else { "nothing was measured" };
                format!("{label}: expected {}, but {why}{reason}", expected())
            }),
        }
    }
}

impl<T> Drop for Claim<'_, T> {
    fn drop(&mut self) {
        if self.value.is_some() {
            let label = self.label.clone();
            self.verdict.settle(Outcome::Inconclusive, self.kind, || {
                format!(
                    "{label}: a claim was opened but never compared; add a comparison such as .at_most(..)"
                )
            });
        }
    }
}

/// True when a value equals itself, which NaN does not.
#[allow(clippy::eq_op)]
fn sane<T: PartialEq>(value: &T) -> bool {
    value == value
}

impl<T: PartialEq + Debug> Claim<'_, T> {
    /// The value equals `expected`.
    pub fn eq(self, expected: T) {
        self.settle(|| format!("{expected:?}"), |v| *v == expected, |v| format!("{v:?}"));
    }

    /// The value differs from `other`.
    pub fn ne(self, other: T) {
        let differs = |v: &T| *v != other && sane(v) && sane(&other);
        self.settle(|| format!("anything but {other:?}"), differs, |v| format!("{v:?}"));
    }
}

impl<T: PartialOrd + Debug> Claim<'_, T> {
    /// The value is `low` or more.
    pub fn at_least(self, low: T) {
        self.settle(|| format!("at least {low:?}"), |v| *v >= low, |v| format!("{v:?}"));
    }

    /// The value is `high` or less.
    pub fn at_most(self, high: T) {
        self.settle(|| format!("at most {high:?}"), |v| *v <= high, |v| format!("{v:?}"));
    }

    /// The value is more than `low`.
    pub fn gt(self, low: T) {
        self.settle(|| format!("more than {low:?}"), |v| *v > low, |v| format!("{v:?}"));
    }

    /// The value is less than `high`.
    pub fn lt(self, high: T) {
        self.settle(|| format!("less than {high:?}"), |v| *v < high, |v| format!("{v:?}"));
    }

    /// The value lies from `low` to `high`, both included.
    pub fn between(self, low: T, high: T) {
        self.settle(
            || format!("between {low:?} and {high:?}"),
            |v| *v >= low && *v <= high,
            |v| format!("{v:?}"),
        );
    }
}

impl<T: Number> Claim<'_, T> {
    /// The value is neither NaN nor infinite.
    pub fn is_finite(self) {
        self.settle(|| "a finite number".to_owned(), |v| v.finite(), |v| format!("{v:?}"));
    }

    /// The value lies within `tolerance` of `target`. A negative tolerance admits nothing.
    pub fn near(self, target: T, tolerance: T) {
        self.settle(
            || format!("{target:?} within {tolerance:?}"),
            |v| v.within(target, tolerance),
            |v| format!("{v:?}"),
        );
    }
}

/// How many items a message shows.
const MAX_SHOWN: usize = 16;

fn show<'a, C: Collection + 'a>(items: &C) -> String {
    let all = items.items();
    let shown: Vec<String> = all.iter().take(MAX_SHOWN).map(|i| format!("{i:?}")).collect();
    let more = match all.len() - shown.len() {
        0 => String::new(),
        n => format!(", and {n} more"),
    };
    format!("[{}{more}]", shown.join(", "))
}

fn show_with_len<C: Collection>(items: &C) -> String {
    format!("{} in {}", items.count(), show(items))
}

impl<C: Collection> Claim<'_, C> {
    /// There are no items.
    pub fn empty(self) {
        self.settle(|| "no items".to_owned(), |v| v.count() == 0, show_with_len);
    }

    /// There is at least one item.
    pub fn nonempty(self) {
        self.settle(|| "at least one item".to_owned(), |v| v.count() > 0, |_| "none".to_owned());
    }

    /// This item is among them.
    pub fn contains(self, item: C::Item) {
        self.settle(|| format!("{item:?} among the items"), |v| v.has(&item), |v| show(v));
    }

    /// There are exactly `n` items.
    pub fn len_eq(self, n: usize) {
        self.settle(|| format!("{n} items"), |v| v.count() == n, show_with_len);
    }

    /// There are at most `n` items.
    pub fn len_at_most(self, n: usize) {
        self.settle(|| format!("at most {n} items"), |v| v.count() <= n, show_with_len);
    }

    /// There are at least `n` items.
    pub fn len_at_least(self, n: usize) {
        self.settle(|| format!("at least {n} items"), |v| v.count() >= n, show_with_len);
    }

    /// All items are among those of `other`.
    pub fn subset_of(self, other: &C) {
        self.settle(
            || format!("a subset of {}", show(other)),
            |v| v.items().iter().all(|i| other.has(i)),
            |v| show(v),
        );
    }

    /// No item is among those of `other`.
    pub fn disjoint_from(self, other: &C) {
        self.settle(
            || format!("nothing of {}", show(other)),
            |v| v.items().iter().all(|i| !other.has(i)),
            |v| show(v),
        );
    }
}
