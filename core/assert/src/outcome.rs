//! The four ways a check or a test can end.

use serde::{Deserialize, Serialize};
use std::fmt;

/// How a check or a whole test ended, in merging order: the greatest wins.
///
/// ```
/// use ktstr_assert::Outcome;
/// assert!(Outcome::Fail > Outcome::Inconclusive);
/// assert!(Outcome::Inconclusive > Outcome::Pass);
/// assert!(Outcome::Pass > Outcome::Skip);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// Not run, for a reason known beforehand.
    Skip,
    /// All that was expected was seen.
    Pass,
    /// There was no signal to judge by.
    Inconclusive,
    /// Something expected was not seen.
    Fail,
}

impl Outcome {
    /// The process exit code: 0 for pass and skip, 1 for fail, 2 for inconclusive.
    pub const fn exit_code(self) -> i32 {
        match self {
            Self::Pass | Self::Skip => 0,
            Self::Fail => 1,
            Self::Inconclusive => 2,
        }
    }

    /// The word for it in reports: `passed`, `failed`, `inconclusive`, `skipped`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Skip => "skipped",
            Self::Pass => "passed",
            Self::Inconclusive => "inconclusive",
            Self::Fail => "failed",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}
