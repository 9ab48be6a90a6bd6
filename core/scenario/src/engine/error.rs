//! What can go wrong with a scenario.

use crate::HoldError;
use crate::ports::{CgroupError, HostError, IrqError, SchedulerError, WorkerError};
use ktstr_topology::CpusetError;
use ktstr_workload::{AffinityError, PolicyError, WorkTypeError};
use std::fmt;

/// Where in a scenario something is: before the first step (the backdrop) or in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub(crate) u16);

impl Place {
    /// Before the first step.
    pub const BACKDROP: Self = Self(0);

    /// The step's number, from 1; 0 is the backdrop.
    pub const fn index(self) -> u16 {
        self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("before step 1"),
            n => write!(f, "step {n}"),
        }
    }
}

/// A scenario that makes no sense, or that the machine refused.
///
/// Everything that can be known beforehand is checked before the first cgroup is made;
/// after that only [`Cgroup`](Self::Cgroup), [`Spawn`](Self::Spawn),
/// [`Affinity`](Self::Affinity), [`Irq`](Self::Irq) and [`Host`](Self::Host) can come, and all that was made is taken down first.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScenarioError {
    /// More steps than can be counted.
    #[error("checking the scenario: expected at most {max} steps, got {0}; use HoldSpec::loop_at to repeat ops", max = u16::MAX)]
    TooManySteps(usize),
    /// A hold that makes no sense.
    #[error("{place}: {source}")]
    Hold {
        /// The step.
        place: Place,
        /// What is wrong with it.
        source: HoldError,
    },
    /// A name that can't be one of a cgroup.
    #[error(
        "{place}: checking cgroup name {name:?}: {why}; \
         use plain names joined by single slashes, such as \"cg_0\" or \"outer/inner\""
    )]
    Name {
        /// The step.
        place: Place,
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A name that is in use.
    #[error(
        "{place}: creating cgroup {name:?}: it exists already at that point; remove it first or use another name"
    )]
    Taken {
        /// The step.
        place: Place,
        /// The name.
        name: String,
    },
    /// An op on a cgroup that is not there when the op is applied.
    #[error(
        "{place}: {op} on cgroup {name:?}: expected one of the cgroups at that point ({live}); \
         a step applies its ops before it makes its own cgroups, so make it in an earlier step or the backdrop"
    )]
    NoCgroup {
        /// The step.
        place: Place,
        /// The op's kind.
        op: &'static str,
        /// The name.
        name: String,
        /// The names there are, or `none`.
        live: String,
    },
    /// An op on the workers of a cgroup that has none.
    #[error("{place}: {op} on cgroup {name:?}: it has no workers at that point; start some first")]
    NoWorkers {
        /// The step.
        place: Place,
        /// The op's kind.
        op: &'static str,
        /// The name.
        name: String,
    },
    /// An op that would change nothing.
    #[error("{place}: {op}: {why}")]
    Pointless {
        /// The step.
        place: Place,
        /// The op's kind.
        op: &'static str,
        /// Why it has no effect, and what to do.
        why: String,
    },
    /// A scheduler that the test does not have.
    #[error(
        "{place}: {op}: scheduler {name:?} is none of the test's ({staged}); \
         declare the test with `scheduler = …` or `staged_schedulers = […]`"
    )]
    NoScheduler {
        /// The step.
        place: Place,
        /// The op's kind.
        op: &'static str,
        /// The name.
        name: String,
        /// The names there are.
        staged: String,
    },
    /// A scheduler that did not attach, or did not leave.
    #[error("{place}: {source}")]
    Scheduler {
        /// The step.
        place: Place,
        /// What happened.
        source: SchedulerError,
    },
    /// A cpuset that this machine can't give.
    #[error("{place}, cgroup {cgroup:?}: {source}")]
    Cpuset {
        /// The step.
        place: Place,
        /// The cgroup.
        cgroup: String,
        /// Why not.
        source: CpusetError,
    },
    /// NUMA nodes that are not there or not allowed.
    #[error("{place}, cgroup {cgroup:?}: {what} names NUMA nodes {nodes}: expected some of {available}")]
    Nodes {
        /// The step.
        place: Place,
        /// The cgroup.
        cgroup: String,
        /// What names them.
        what: &'static str,
        /// Those named, as a list.
        nodes: String,
        /// Those that could be, as a list.
        available: String,
    },
    /// A limit outside what the kernel takes.
    #[error("{place}, cgroup {cgroup:?}: {what}")]
    Limit {
        /// The step.
        place: Place,
        /// The cgroup.
        cgroup: String,
        /// The limit, what was expected and what was given.
        what: String,
    },
    /// A number of workers or a work type that makes no sense.
    #[error("{place}, cgroup {cgroup:?}: {source}")]
    Workers {
        /// The step.
        place: Place,
        /// The cgroup.
        cgroup: String,
        /// What is wrong.
        source: WorkTypeError,
    },
    /// A policy that makes no sense.
    #[error("{place}, cgroup {cgroup:?}: {source}")]
    Policy {
        /// The step.
        place: Place,
        /// The cgroup.
        cgroup: String,
        /// What is wrong.
        source: PolicyError,
    },
    /// An affinity that the cgroup's CPUs can't satisfy.
    #[error("{place}, cgroup {cgroup:?}: {source}")]
    Affinity {
        /// The step.
        place: Place,
        /// The cgroup.
        cgroup: String,
        /// Why not.
        source: AffinityError,
    },
    /// A cgroup operation failed.
    #[error("{place}, cgroup {cgroup:?}: {source}")]
    Cgroup {
        /// The step.
        place: Place,
        /// The cgroup.
        cgroup: String,
        /// The operation and the kernel's answer.
        source: CgroupError,
    },
    /// A worker operation failed.
    #[error("{place}, cgroup {cgroup:?}: {source}")]
    Spawn {
        /// The step.
        place: Place,
        /// The cgroup.
        cgroup: String,
        /// The operation and the kernel's answer.
        source: WorkerError,
    },
    /// The host did not do what it was asked for.
    #[error("{place}: {op}: {source}")]
    Host {
        /// The step.
        place: Place,
        /// The op's kind.
        op: &'static str,
        /// Why not.
        source: HostError,
    },
    /// CPUs that can't take an interrupt.
    #[error("{place}: SteerIrq of interrupt {irq}: {why}; name some CPUs of the test's machine")]
    IrqCpus {
        /// The step.
        place: Place,
        /// The interrupt.
        irq: u32,
        /// Why not.
        why: String,
    },
    /// An interrupt that could not be steered.
    #[error("{place}: SteerIrq: {source}")]
    Irq {
        /// The step.
        place: Place,
        /// Why not.
        source: IrqError,
    },
    /// An error after which not everything could be taken down.
    #[error("{source}; after that, taking down failed too: {}", failures.join("; "))]
    Teardown {
        /// What came first.
        source: Box<ScenarioError>,
        /// What could not be taken down, one line each.
        failures: Vec<String>,
    },
}
