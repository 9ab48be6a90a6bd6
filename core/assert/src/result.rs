//! The result of a test: its outcome, what led to it, and the numbers behind it.

use crate::{CgroupStats, Outcome, ScenarioStats};
use serde::{Deserialize, Serialize};

/// What a detail is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum DetailKind {
    /// A worker that did no work.
    Starvation,
    /// Workers of one group that were treated differently.
    Fairness,
    /// A worker that wanted to run and did not for too long.
    Gap,
    /// A worker outside its cpuset.
    Isolation,
    /// Work or iterations a second.
    Throughput,
    /// Time from a wake-up to running.
    WakeLatency,
    /// Moves between CPUs.
    Migration,
    /// Memory on the wrong node.
    Numa,
    /// A claim of the test's author.
    Claim,
    /// A worker that died or could not be set up.
    Worker,
    /// The scheduler died, was ejected or complained.
    Scheduler,
    /// A cgroup could not be taken down.
    Teardown,
    /// A host-side check of kernel state.
    Monitor,
    /// Anything else.
    #[default]
    Other,
}

/// One reason for an outcome that is not a plain pass.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// What this alone would make of the test.
    pub outcome: Outcome,
    /// What it is about.
    pub kind: DetailKind,
    /// The cgroup concerned; `None` when it is about no single one.
    pub cgroup: Option<String>,
    /// What was seen and what was expected, in one line.
    pub message: String,
}

impl Detail {
    /// A failure.
    pub fn fail(kind: DetailKind, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Fail, kind, cgroup: None, message: message.into() }
    }

    /// A check without a signal.
    pub fn inconclusive(kind: DetailKind, message: impl Into<String>) -> Self {
        Self { outcome: Outcome::Inconclusive, kind, cgroup: None, message: message.into() }
    }

    /// Says which cgroup it is about; an empty name says none.
    #[must_use]
    pub fn in_cgroup(mut self, name: &str) -> Self {
        self.cgroup = (!name.is_empty()).then(|| name.to_owned());
        self
    }
}

/// The result of a test or of one part of it.
///
/// Results are joined with [`merge`](Self::merge); it travels from guest to host, so
/// it holds plain data only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[must_use = "a result that nobody looks at checks nothing"]
pub struct AssertResult {
    /// The worst of everything merged in.
    pub outcome: Outcome,
    /// Why, in the order found.
    pub details: Vec<Detail>,
    /// Remarks that change no outcome.
    pub notes: Vec<String>,
    /// What passed, one line each, where the author asked for it.
    pub passes: Vec<String>,
    /// How many checks passed, recorded or not.
    pub passed_checks: u64,
    /// The numbers behind it.
    pub stats: ScenarioStats,
}

impl AssertResult {
    fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            details: Vec::new(),
            notes: Vec::new(),
            passes: Vec::new(),
            passed_checks: 0,
            stats: ScenarioStats::default(),
        }
    }

    /// A pass.
    pub fn pass() -> Self {
        Self::new(Outcome::Pass)
    }

    /// A failure with its reason.
    pub fn fail(message: impl Into<String>) -> Self {
        Self::from_detail(Detail::fail(DetailKind::Other, message))
    }

    /// No signal to judge by, and which one was missing.
    pub fn inconclusive(message: impl Into<String>) -> Self {
        Self::from_detail(Detail::inconclusive(DetailKind::Other, message))
    }

    /// Not run, and why.
    pub fn skip(reason: impl Into<String>) -> Self {
        Self::from_detail(Detail {
            outcome: Outcome::Skip,
            kind: DetailKind::Other,
            cgroup: None,
            message: reason.into(),
        })
    }

    /// The result that one detail stands for.
    pub fn from_detail(detail: Detail) -> Self {
        let mut result = Self::new(detail.outcome);
        result.details.push(detail);
        result
    }

    /// The result of these details: a pass when there are none.
    pub fn from_details(details: Vec<Detail>) -> Self {
        let mut result = Self::pass();
        for detail in details {
            result.push(detail);
        }
        result
    }

    /// True for [`Outcome::Pass`].
    pub fn is_pass(&self) -> bool {
        self.outcome == Outcome::Pass
    }

    /// True for [`Outcome::Fail`].
    pub fn is_fail(&self) -> bool {
        self.outcome == Outcome::Fail
    }

    /// True for [`Outcome::Inconclusive`].
    pub fn is_inconclusive(&self) -> bool {
        self.outcome == Outcome::Inconclusive
    }

    /// True for [`Outcome::Skip`].
    pub fn is_skip(&self) -> bool {
        self.outcome == Outcome::Skip
    }

    /// Adds a detail; the outcome becomes the worse of the two.
    pub fn push(&mut self, detail: Detail) {
        self.outcome = self.outcome.max(detail.outcome);
        self.details.push(detail);
    }

    /// Adds a remark that changes no outcome.
    pub fn note(&mut self, text: impl Into<String>) -> &mut Self {
        self.notes.push(text.into());
        self
    }

    /// Joins another result into this one: the worse outcome stays, details, notes,
    /// passes and stats are appended, counters added.
    pub fn merge(&mut self, other: Self) -> &mut Self {
        self.outcome = self.outcome.max(other.outcome);
        self.details.extend(other.details);
        self.notes.extend(other.notes);
        self.passes.extend(other.passes);
        self.passed_checks += other.passed_checks;
        self.stats.merge(other.stats);
        self
    }

    /// All of these have to hold: they are merged. Of none, the result is inconclusive.
    pub fn all_of(results: impl IntoIterator<Item = Self>) -> Self {
        let mut results = results.into_iter();
        let Some(mut all) = results.next() else {
            return Self::inconclusive("nothing was checked: no result to join with all_of");
        };
        for result in results {
            all.merge(result);
        }
        all
    }

    /// One of these is enough.
    ///
    /// With a pass among them the result passes, and why the others did not becomes
    /// notes. Without one it is inconclusive if any of them was (with its signal it
    /// might have passed), else a failure if any failed, else skipped. Of none, the
    /// result is inconclusive.
    pub fn any_of(results: impl IntoIterator<Item = Self>) -> Self {
        let results: Vec<Self> = results.into_iter().collect();
        if results.is_empty() {
            return Self::inconclusive("nothing was checked: no result to choose from with any_of");
        }
        let passed = results.iter().any(Self::is_pass);
        let unsure = results.iter().any(Self::is_inconclusive);
        let mut any = Self::all_of(results);
        if passed {
            any.outcome = Outcome::Pass;
            let others = any.details.drain(..).map(|d| format!("alternative {}: {}", d.outcome, d.message));
            any.notes.extend(others);
        } else if unsure {
            any.outcome = Outcome::Inconclusive;
        }
        any
    }

    /// Appends the numbers of a cgroup.
    pub fn push_stats(&mut self, stats: CgroupStats) {
        self.stats.cgroups.push(stats);
    }
}

#[cfg(test)]
mod tests;
