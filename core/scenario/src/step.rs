//! Steps: ops, cgroups to start, and how long to hold.

use crate::{CgroupDef, Ctx, Op};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A hold that makes no sense.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HoldError {
    /// Not above 0, or not finite.
    #[error("checking a hold: expected a finite fraction above 0 of the test's duration, got {0}")]
    Fraction(f64),
    /// A loop that would spin.
    #[error("checking a hold: expected a loop interval above 0, got 0")]
    ZeroInterval,
}

/// How long a step lasts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HoldSpec {
    /// A fraction of the test's duration.
    Frac(f64),
    /// This long.
    Fixed(Duration),
    /// Until the test's duration is over, two intervals at least: the setup is done
    /// once, the ops are applied again every `interval`.
    Loop {
        /// Time between rounds.
        interval: Duration,
    },
}

impl HoldSpec {
    /// The whole duration.
    pub const FULL: Self = Self::Frac(1.0);

    /// A fraction of the test's duration.
    pub fn frac(fraction: f64) -> Self {
        Self::Frac(fraction)
    }

    /// This long.
    pub fn fixed(time: Duration) -> Self {
        Self::Fixed(time)
    }

    /// The ops again every `interval`, until the duration is over.
    pub fn loop_at(interval: Duration) -> Self {
        Self::Loop { interval }
    }

    /// Rejects a fraction that is not above 0 and a zero interval.
    pub fn validate(&self) -> Result<(), HoldError> {
        match *self {
            Self::Frac(f) if !(f.is_finite() && f > 0.0) => Err(HoldError::Fraction(f)),
            Self::Loop { interval } if interval.is_zero() => Err(HoldError::ZeroInterval),
            _ => Ok(()),
        }
    }

    /// The length, given the test's duration. That of a loop is what one as the first step
    /// lasts; a later one fills what is left.
    pub fn length(&self, duration: Duration) -> Duration {
        match *self {
            Self::Frac(f) => fraction_of(duration, f),
            Self::Fixed(time) => time,
            Self::Loop { .. } => duration,
        }
    }
}

/// `fraction` of a time: nothing of a fraction that is not above 0, and the longest
/// time there is of one too large.
pub(crate) fn fraction_of(time: Duration, fraction: f64) -> Duration {
    if fraction > 0.0 {
        Duration::try_from_secs_f64(time.as_secs_f64() * fraction).unwrap_or(Duration::MAX)
    } else {
        Duration::ZERO
    }
}

/// The cgroups that a step starts: given, or made from the context. A factory is called
/// once, before the scenario begins, so that what it makes is checked with the rest.
#[derive(Clone)]
pub enum Setup {
    /// Known beforehand.
    Defs(Vec<CgroupDef>),
    /// Made from the context (topology, duration …).
    Factory(Factory),
}

/// Makes cgroup definitions from the context.
pub type Factory = Arc<dyn Fn(&Ctx<'_>) -> Vec<CgroupDef> + Send + Sync>;

impl Setup {
    /// The definitions.
    pub fn defs(&self, ctx: &Ctx<'_>) -> Vec<CgroupDef> {
        match self {
            Self::Defs(defs) => defs.clone(),
            Self::Factory(make) => make(ctx),
        }
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defs(defs) => f.debug_tuple("Defs").field(defs).finish(),
            Self::Factory(_) => f.write_str("Factory(..)"),
        }
    }
}

impl From<Vec<CgroupDef>> for Setup {
    fn from(defs: Vec<CgroupDef>) -> Self {
        Self::Defs(defs)
    }
}

/// One phase of a scenario: ops are applied, then cgroups are started, then the
/// step holds.
#[derive(Debug, Clone)]
pub struct Step {
    /// Applied first, in order.
    pub ops: Vec<Op>,
    /// Started next.
    pub setup: Setup,
    /// How long the step lasts after that.
    pub hold: HoldSpec,
}

impl Step {
    /// A step of ops.
    pub fn new(ops: Vec<Op>, hold: HoldSpec) -> Self {
        Self { ops, setup: Setup::Defs(Vec::new()), hold }
    }

    /// A step that starts cgroups.
    pub fn with_defs(defs: Vec<CgroupDef>, hold: HoldSpec) -> Self {
        Self { ops: Vec::new(), setup: Setup::Defs(defs), hold }
    }

    /// A step whose cgroups are made from the context; `current_step` is that step.
    pub fn with_factory(
        make: impl Fn(&Ctx<'_>) -> Vec<CgroupDef> + Send + Sync + 'static,
        hold: HoldSpec,
    ) -> Self {
        Self { ops: Vec::new(), setup: Setup::Factory(Arc::new(make)), hold }
    }

    /// A step that only holds.
    pub fn hold(hold: HoldSpec) -> Self {
        Self::new(Vec::new(), hold)
    }

    /// Adds an op.
    pub fn with_op(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Replaces the ops.
    pub fn set_ops(mut self, ops: Vec<Op>) -> Self {
        self.ops = ops;
        self
    }

    /// Replaces the hold.
    pub fn set_hold(mut self, hold: HoldSpec) -> Self {
        self.hold = hold;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_are_checked() {
        assert_eq!(HoldSpec::frac(0.0).validate(), Err(HoldError::Fraction(0.0)));
        assert!(HoldSpec::frac(f64::NAN).validate().is_err());
        assert_eq!(HoldSpec::loop_at(Duration::ZERO).validate(), Err(HoldError::ZeroInterval));
        assert!(HoldSpec::FULL.validate().is_ok());
    }

    #[test]
    fn a_fraction_is_of_the_duration() {
        assert_eq!(HoldSpec::frac(0.25).length(Duration::from_secs(4)), Duration::from_secs(1));
        assert_eq!(HoldSpec::frac(1e300).length(Duration::from_secs(4)), Duration::MAX);
        assert_eq!(HoldSpec::fixed(Duration::from_secs(9)).length(Duration::ZERO), Duration::from_secs(9));
    }
}
