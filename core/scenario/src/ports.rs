//! What a scenario needs of the world: cgroups, workers, a clock, someone to
//! tell, and the scheduler's state.
//!
//! The guest's adapters (`adapters/cgroupfs`, `adapters/workers`) implement these;
//! the engine's unit tests use mocks.

use crate::StimulusEvent;
#[cfg(test)]
pub(crate) use crate::host::MockHostLink;
pub use crate::host::{HostError, HostLink, HostRequest, NoHost};
#[cfg(test)]
pub(crate) use crate::irq::MockIrqOps;
pub use crate::irq::{IrqError, IrqOps, NoIrqs};
use ktstr_topology::CpuSet;
use ktstr_workload::{Pid, WorkerReport, WorkloadConfig};
use std::collections::BTreeMap;
use std::time::Duration;

/// A cgroup operation that failed.
///
/// `path` is the file or directory in cgroupfs, so that a reader can look.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A name with `/` at an end, `..`, or characters that cgroupfs refuses.
    #[error(
        "checking cgroup name {name:?}: {why}; use a relative path of plain names such as \"cg_0\" or \"outer/inner\""
    )]
    Name {
        /// As given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The cgroup is none that this manager made.
    #[error("{doing} cgroup {name:?}: it was not made by this test, so it is left alone; create it first")]
    NotOurs {
        /// The operation.
        doing: &'static str,
        /// The cgroup.
        name: String,
    },
    /// It exists already.
    #[error("creating cgroup {name:?}: it exists already; remove it first or use another name")]
    Exists {
        /// The cgroup.
        name: String,
    },
    /// A controller that this kernel or the parent does not offer.
    #[error("enabling controller {controller} in {path}: the kernel offers only [{available}]; {remedy}")]
    Controller {
        /// Such as `cpuset`.
        controller: String,
        /// The directory.
        path: String,
        /// What `cgroup.controllers` says.
        available: String,
        /// What to do.
        remedy: String,
    },
    /// The kernel refused a read or write.
    #[error("{doing} {path}: {source}{hint}")]
    Io {
        /// Such as `writing "0-3" to`.
        doing: String,
        /// The file.
        path: String,
        /// Empty, or `; ` and what to do.
        hint: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A write that the kernel did not finish in time.
    #[error("{doing} {path}: not finished after {after:?}; the kernel may be stuck (see its log)")]
    Timeout {
        /// What was being written.
        doing: String,
        /// The file.
        path: String,
        /// How long we waited.
        after: Duration,
    },
    /// A state that did not come about in time, such as `frozen 1`.
    #[error("waiting for cgroup {name:?} to be {state}: still not after {after:?}")]
    State {
        /// The cgroup.
        name: String,
        /// What was waited for.
        state: &'static str,
        /// How long we waited.
        after: Duration,
    },
    /// A file that holds something else than it should.
    #[error("reading {path}: expected {expected}, got {seen:?}")]
    Content {
        /// The file.
        path: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        seen: String,
    },
}

/// A resource limit of a cgroup; `None` means `max` (no limit).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CgroupLimit {
    /// `cpu.max`: quota and period in µs.
    CpuMax {
        /// CPU time a period, µs.
        quota_us: Option<u64>,
        /// Period, µs (1,000 to 1,000,000).
        period_us: u64,
    },
    /// `cpu.weight`, 1 to 10,000.
    CpuWeight(u32),
    /// `memory.max`, bytes.
    MemoryMax(Option<u64>),
    /// `memory.high`, bytes.
    MemoryHigh(Option<u64>),
    /// `memory.low`, bytes.
    MemoryLow(Option<u64>),
    /// `memory.swap.max`, bytes.
    MemorySwapMax(Option<u64>),
    /// `io.weight`, 1 to 10,000.
    IoWeight(u32),
    /// `pids.max`.
    PidsMax(Option<u64>),
}

/// cgroup v2 below a parent that belongs to the test.
///
/// Names are relative to that parent and may be nested (`outer/inner`).
/// Implementations refuse to touch a cgroup that they did not create.
#[cfg_attr(test, mockall::automock)]
pub trait CgroupOps: Send + Sync {
    /// Makes the parent and enables the controllers `cpuset cpu memory pids io`,
    /// as far as the kernel has them, along the path from the root.
    fn setup(&self) -> Result<(), CgroupError>;
    /// Makes a cgroup, and those above it that are missing.
    fn create_cgroup(&self, name: &str) -> Result<(), CgroupError>;
    /// Removes a cgroup; its tasks are first moved to the parent. Missing is fine.
    fn remove_cgroup(&self, name: &str) -> Result<(), CgroupError>;
    /// Writes `cpuset.cpus`.
    fn set_cpuset(&self, name: &str, cpus: &CpuSet) -> Result<(), CgroupError>;
    /// Empties `cpuset.cpus`: the parent's CPUs apply again.
    fn clear_cpuset(&self, name: &str) -> Result<(), CgroupError>;
    /// Writes `cpuset.mems` (NUMA node numbers).
    fn set_cpuset_mems(&self, name: &str, nodes: &CpuSet) -> Result<(), CgroupError>;
    /// Reads `cpuset.cpus.effective`.
    fn effective_cpus(&self, name: &str) -> Result<CpuSet, CgroupError>;
    /// Writes one limit.
    fn set_limit(&self, name: &str, limit: CgroupLimit) -> Result<(), CgroupError>;
    /// Moves processes into a cgroup. One that is gone already (`ESRCH`) is
    /// skipped; `EBUSY` is tried again three times, 100 ms apart.
    fn move_tasks(&self, name: &str, pids: &[Pid]) -> Result<(), CgroupError>;
    /// Moves all processes of a cgroup to the parent.
    fn drain_tasks(&self, name: &str) -> Result<(), CgroupError>;
    /// Reads `cgroup.procs`.
    fn procs(&self, name: &str) -> Result<Vec<Pid>, CgroupError>;
    /// Freezes or thaws, and waits until `cgroup.events` says so.
    fn set_frozen(&self, name: &str, frozen: bool) -> Result<(), CgroupError>;
    /// Removes everything this manager made, deepest first, and the parent.
    fn cleanup_all(&self) -> Result<(), CgroupError>;
}

/// A worker operation that failed.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The configuration makes no sense.
    #[error(transparent)]
    WorkType(#[from] ktstr_workload::WorkTypeError),
    /// A policy makes no sense.
    #[error(transparent)]
    Policy(#[from] ktstr_workload::PolicyError),
    /// A system call failed.
    #[error("{doing}: {source}{hint}")]
    Os {
        /// Such as `forking worker 3 of 8`.
        doing: String,
        /// Empty, or `; ` and what to do.
        hint: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A worker was not ready in time.
    #[error("waiting for {ready} of {total} workers to be ready: only {ready} were after {after:?}{detail}")]
    NotReady {
        /// How many were.
        ready: usize,
        /// How many there are.
        total: usize,
        /// How long we waited.
        after: Duration,
        /// Empty, or what those that failed said.
        detail: String,
    },
    /// A worker could not apply its policy, affinity or identity.
    #[error("setting up worker {index} (pid {pid}): {what}")]
    Setup {
        /// Worker of its group.
        index: usize,
        /// Its pid.
        pid: Pid,
        /// Which step, and the kernel's answer.
        what: String,
    },
    /// An affinity that needs the machine's topology, asked of a bare spawn.
    #[error("spawning workers: affinity {0} needs the topology; use it in a CgroupDef or pass an exact set")]
    NeedsTopology(&'static str),
}

/// Spawns workers.
#[cfg_attr(test, mockall::automock)]
pub trait WorkerOps: Send + Sync {
    /// Forks the workers of `config`, each with the affinity of the same index
    /// (`None`: leave it), set up but waiting for [`WorkerGroup::start`].
    ///
    /// `config.affinity` has been resolved into `affinity` already.
    fn spawn(
        &self,
        config: &WorkloadConfig,
        affinity: &[Option<CpuSet>],
    ) -> Result<Box<dyn WorkerGroup>, WorkerError>;
}

/// Workers that were spawned together. Dropping it kills them.
#[cfg_attr(test, mockall::automock)]
pub trait WorkerGroup: Send {
    /// Ids to write to `cgroup.procs`: one a process.
    fn pids(&self) -> Vec<Pid>;
    /// Lets all workers begin at the same moment.
    fn start(&mut self);
    /// Changes the affinity of all workers while they run.
    fn set_affinity(&mut self, cpus: &CpuSet) -> Result<(), WorkerError>;
    /// Iterations of each worker so far.
    fn iterations(&self) -> Vec<u64>;
    /// Tells the workers to stop, without waiting: what they do from here on does not
    /// count. So several groups end at the same moment, and one that was starved by
    /// another is not fed by that one's end.
    fn request_stop(&mut self);
    /// Tells the workers to stop, waits (5 s, then `SIGKILL`) and returns one
    /// report a worker, also for one that died. A second call returns nothing.
    fn stop_and_collect(&mut self) -> Vec<WorkerReport>;
}

/// Guest time.
#[cfg_attr(test, mockall::automock)]
pub trait Clock: Send + Sync {
    /// Monotonic time since some fixed instant.
    fn now(&self) -> Duration;
    /// Returns once `now() >= deadline`.
    fn sleep_until(&self, deadline: Duration);
}

/// Hears what the scenario does, as it does it.
#[cfg_attr(test, mockall::automock)]
pub trait EventSink: Send + Sync {
    /// A step began or ended, an op was applied.
    fn stimulus(&self, event: &StimulusEvent);
}

/// A scheduler that could not be changed, or a map of its that could not be pinned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{doing} scheduler {name:?}: {why}")]
pub struct SchedulerError {
    /// Such as `attaching`.
    pub doing: &'static str,
    /// Its declared name.
    pub name: String,
    /// Why not, and what to do.
    pub why: String,
}

/// The schedulers under test, as far as a scenario must know of them.
#[cfg_attr(test, mockall::automock)]
pub trait SchedulerOps: Send + Sync {
    /// `None` while all is well, and while none is attached on purpose; a reason once the
    /// attached scheduler died or was ejected.
    fn failure(&self) -> Option<String>;
    /// Counters of the scheduler by name, where it has any.
    fn counters(&self) -> BTreeMap<String, u64>;
    /// Names of those that can be attached: the test's own first.
    fn staged(&self) -> Vec<String>;
    /// The name of the attached one.
    fn attached(&self) -> Option<String>;
    /// Starts a scheduler and returns once the kernel has it.
    fn attach(&self, name: &str) -> Result<(), SchedulerError>;
    /// Stops the attached scheduler and returns once the kernel has its own again.
    fn detach(&self) -> Result<(), SchedulerError>;
    /// Has the scheduler's program say how it stands (SIGUSR2), since a worker is stuck; what came of it, for the
    /// timeline. `None` where nobody is to be asked.
    fn prompt(&self) -> Option<String>;
    /// Pins the map whose name ends so at `path` below `/sys/fs/bpf`; of several the one made last.
    fn pin_map(&self, map: &str, path: &str) -> Result<(), SchedulerError>;
}
