//! Collecting claims into a result.

use crate::{AssertResult, Claim, Detail, DetailKind, Number, Outcome};
use std::sync::atomic::{AtomicBool, Ordering};

static LOG_PASSES: AtomicBool = AtomicBool::new(false);

/// Sets, for the whole process, whether new verdicts record claims that pass. The
/// composition root calls it once, from what the user asked for.
pub fn set_log_passes(yes: bool) {
    LOG_PASSES.store(yes, Ordering::Relaxed);
}

/// Collects claims and turns them into an [`AssertResult`].
///
/// Claims are opened with [`claim!`](crate::claim), [`claim_present!`](crate::claim_present)
/// or the methods that `derive(Claim)` makes; their labels always come from the source text.
///
/// ```
/// use ktstr_assert::{Assert, claim};
/// let retries = 3;
/// let mut v = Assert::default_checks().verdict();
/// claim!(v, retries).at_most(2);
/// let r = v.into_result();
/// assert_eq!(r.details[0].message, "retries: expected at most 2, got 3");
/// ```
#[derive(Debug)]
#[must_use = "a verdict says nothing until it is turned into a result with into_result()"]
pub struct Verdict {
    /// What was found so far; `None` until the first claim, skip or merge.
    outcome: Option<Outcome>,
    found: AssertResult,
    log_passes: bool,
}

impl Default for Verdict {
    fn default() -> Self {
        Self::new()
    }
}

impl Verdict {
    /// No claims yet; passes are counted, and recorded where [`set_log_passes`] said so.
    pub fn new() -> Self {
        Self { outcome: None, found: AssertResult::pass(), log_passes: LOG_PASSES.load(Ordering::Relaxed) }
    }

    /// Sets whether each claim that passes is recorded in [`AssertResult::passes`].
    pub fn log_passes(mut self, yes: bool) -> Self {
        self.log_passes = yes;
        self
    }

    /// Marks the test as skipped when `condition` holds, and says whether it does, so
    /// that the caller can return early. Claims made beside it still count.
    pub fn skip_if(&mut self, condition: bool, reason: impl Into<String>) -> bool {
        if condition {
            self.merge(AssertResult::skip(reason));
        }
        condition
    }

    /// Marks the test as inconclusive when `condition` holds (a signal is missing), and
    /// says whether it does.
    pub fn inconclusive_if(&mut self, condition: bool, reason: impl Into<String>) -> bool {
        if condition {
            self.merge(AssertResult::inconclusive(reason));
        }
        condition
    }

    /// Adds a remark that changes no outcome.
    pub fn note(&mut self, text: impl Into<String>) -> &mut Self {
        self.found.note(text);
        self
    }

    /// Joins a result that was found otherwise, such as that of a scenario.
    pub fn merge(&mut self, other: AssertResult) -> &mut Self {
        self.outcome = self.outcome.max(Some(other.outcome));
        self.found.merge(other);
        self
    }

    /// The result of all claims. Without a single one it is inconclusive.
    pub fn into_result(self) -> AssertResult {
        let Self { outcome, mut found, .. } = self;
        match outcome {
            Some(outcome) => found.outcome = outcome,
            None => found.push(Detail::inconclusive(
                DetailKind::Claim,
                "nothing was claimed: make a claim such as claim!(v, value).at_least(1)",
            )),
        }
        found
    }

    /// Opens a claim. For `claim!` and `derive(Claim)`, which take the label from the source.
    #[doc(hidden)]
    pub fn __open<T>(&mut self, label: &'static str, value: T) -> Claim<'_, T> {
        Claim::open(self, label, Ok(value))
    }

    /// Opens a claim that fails without a value. For `claim_present!` and `derive(Claim)`.
    #[doc(hidden)]
    pub fn __open_present<T>(&mut self, label: &'static str, value: Option<T>) -> Claim<'_, T> {
        Claim::open(self, label, value.ok_or(Outcome::Fail))
    }

    /// Opens a claim that is inconclusive when the value is 0. For `derive(Claim)`.
    #[doc(hidden)]
    pub fn __open_unless_zero<T: Number>(&mut self, label: &'static str, value: T) -> Claim<'_, T> {
        let value = if value == T::ZERO { Err(Outcome::Inconclusive) } else { Ok(value) };
        Claim::open(self, label, value)
    }

    /// Takes in the outcome of one comparison; `message` is only made when needed.
    pub(crate) fn settle(&mut self, outcome: Outcome, kind: DetailKind, message: impl FnOnce() -> String) {
        self.outcome = self.outcome.max(Some(outcome));
        if outcome == Outcome::Pass {
            self.found.passed_checks += 1;
            if self.log_passes {
                self.found.passes.push(message());
            }
        } else {
            self.found.details.push(Detail { outcome, kind, cgroup: None, message: message() });
        }
    }
}

/// Opens a claim on a value: `claim!(v, expr).at_least(5)`.
///
/// The value is cloned; the label is the source text of the expression. A claim that is
/// opened and never compared makes the verdict inconclusive, and the compiler warns of it:
///
/// ```
/// #![deny(unused_must_use)]
/// let mut v = ktstr_assert::Verdict::new();
/// ktstr_assert::claim!(v, 1 + 1).eq(2);
/// assert!(v.into_result().is_pass());
/// ```
///
/// ```compile_fail
/// #![deny(unused_must_use)]
/// let mut v = ktstr_assert::Verdict::new();
/// ktstr_assert::claim!(v, 1 + 1);
/// assert!(v.into_result().is_inconclusive());
/// ```
#[macro_export]
macro_rules! claim {
    ($verdict:expr, $value:expr $(,)?) => {
        $verdict.__open(::core::stringify!($value), ::core::clone::Clone::clone(&$value))
    };
}

/// Opens a claim on the value inside an `Option`; `None` fails.
#[macro_export]
macro_rules! claim_present {
    ($verdict:expr, $value:expr $(,)?) => {
        $verdict.__open_present(::core::stringify!($value), ::core::clone::Clone::clone(&$value))
    };
}

#[cfg(test)]
mod tests;
