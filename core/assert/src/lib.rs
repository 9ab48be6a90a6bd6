//! Checks and verdicts: worker checks, claims, pass / fail / inconclusive / skip.
//!
//! Two ways lead to an [`AssertResult`]: [`Assert`] judges the workers' reports by
//! thresholds, and a [`Verdict`] collects what the author of a test claims about any
//! value with [`claim!`], or about a value over time with a [`SeriesField`]. Neither ever
//! passes on missing data: that is [`Outcome::Inconclusive`].
//!
//! Everything here is a function of its arguments; nothing reads a clock, a file or an
//! environment variable.

mod assert;
mod checks;
mod claim;
mod collection;
mod fairness;
mod metrics;
mod number;
mod outcome;
mod render;
mod result;
mod stats;
mod temporal;
mod thresholds;
mod verdict;

pub use assert::{Assert, CgroupView};
pub use claim::Claim;
pub use collection::Collection;
pub use ktstr_macros::Claim;
pub use metrics::{BetterClaim, METRICS, Metric, Polarity, render_comparison};
pub use number::Number;
pub use outcome::Outcome;
pub use render::{render_failure, render_stats};
pub use result::{AssertResult, Detail, DetailKind};
pub use stats::{CgroupStats, ScenarioStats};
pub use temporal::{Each, Phase, SeriesField, SeriesPoint};
pub use thresholds::{AbsoluteThresholds, assert_scx_events_clean, assert_thresholds};
pub use verdict::{Verdict, set_log_passes};
