//! A cgroup and what runs in it, in one declaration.

use crate::ports::CgroupLimit;
use ktstr_topology::{CpuSet, CpusetSpec};
use ktstr_workload::{AffinityIntent, MemPolicy, MpolFlags, SchedPolicy, WorkSpec, WorkType};

/// A cgroup: its name, cpuset, limits and workers.
///
/// Setters that speak of workers (`workers`, `work_type`, `sched_policy` …) change
/// the main work group; [`work`](Self::work) adds further groups beside it.
#[derive(Debug, Clone)]
pub struct CgroupDef {
    /// Name below the test's parent; may be nested (`outer/inner`).
    pub name: String,
    /// CPUs; `None` leaves the parent's.
    pub cpuset: Option<CpusetSpec>,
    /// NUMA nodes for memory; `None` leaves the parent's.
    pub mems: Option<CpuSet>,
    /// Limits, in the order given.
    pub limits: Vec<CgroupLimit>,
    /// The main work group.
    pub main: WorkSpec,
    /// Further work groups.
    pub more: Vec<WorkSpec>,
    /// True if a work type override of the context applies to the main group.
    pub swappable: bool,
}

impl CgroupDef {
    /// A cgroup with the context's number of spinning workers and no limits.
    pub fn named(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            cpuset: None,
            mems: None,
            limits: Vec::new(),
            main: WorkSpec::default(),
            more: Vec::new(),
            swappable: false,
        }
    }

    fn map(mut self, change: impl FnOnce(WorkSpec) -> WorkSpec) -> Self {
        self.main = change(std::mem::take(&mut self.main));
        self
    }

    fn limit(mut self, limit: CgroupLimit) -> Self {
        self.limits.push(limit);
        self
    }

    /// Sets the number of workers. Zero is an error when the step is played.
    pub fn workers(self, n: usize) -> Self {
        self.map(|w| w.workers(n))
    }

    /// Sets the number of workers to a fraction of the cgroup's CPUs, rounded up.
    pub fn workers_pct(self, fraction: f64) -> Self {
        self.map(|w| w.workers_pct(fraction))
    }

    /// Sets what the workers do.
    pub fn work_type(self, work_type: WorkType) -> Self {
        self.map(|w| w.work_type(work_type))
    }

    /// Sets the workers' scheduling policy.
    pub fn sched_policy(self, policy: SchedPolicy) -> Self {
        self.map(|w| w.sched_policy(policy))
    }

    /// Sets the workers' CPU affinity.
    pub fn affinity(self, affinity: AffinityIntent) -> Self {
        self.map(|w| w.affinity(affinity))
    }

    /// Sets the workers' memory policy.
    pub fn mem_policy(self, policy: MemPolicy) -> Self {
        self.map(|w| w.mem_policy(policy))
    }

    /// Sets the memory policy's flags.
    pub fn mpol_flags(self, flags: MpolFlags) -> Self {
        self.map(|w| w.mpol_flags(flags))
    }

    /// Sets the workers' nice value.
    pub fn nice(self, nice: i32) -> Self {
        self.map(|w| w.nice(nice))
    }

    /// Sets the workers' thread name.
    pub fn comm(self, comm: impl Into<String>) -> Self {
        self.map(|w| w.comm(comm))
    }

    /// Sets the user id of the workers.
    pub fn uid(self, uid: u32) -> Self {
        self.map(|w| w.uid(uid))
    }

    /// Sets the group id of the workers.
    pub fn gid(self, gid: u32) -> Self {
        self.map(|w| w.gid(gid))
    }

    /// Adds a further work group.
    pub fn work(mut self, spec: WorkSpec) -> Self {
        self.more.push(spec);
        self
    }

    /// Lets a work type override of the context replace the main group's type.
    pub fn swappable(mut self, yes: bool) -> Self {
        self.swappable = yes;
        self
    }

    /// Sets the cpuset.
    pub fn cpuset(mut self, spec: CpusetSpec) -> Self {
        self.cpuset = Some(spec);
        self
    }

    /// Sets the cpuset (another name of [`cpuset`](Self::cpuset)).
    pub fn with_cpuset(self, spec: CpusetSpec) -> Self {
        self.cpuset(spec)
    }

    /// Keeps CPUs and memory to one NUMA node.
    pub fn numa_node(mut self, node: u32) -> Self {
        self.mems = Some(CpuSet::from_iter([node]));
        self.cpuset(CpusetSpec::numa(node as usize))
    }

    /// Sets the NUMA nodes that memory comes from (`cpuset.mems`).
    pub fn cpuset_mems(mut self, nodes: CpuSet) -> Self {
        self.mems = Some(nodes);
        self
    }

    /// Caps CPU time at `pct` percent of one CPU (100 ms period).
    pub fn cpu_quota_pct(self, pct: u32) -> Self {
        self.limit(CgroupLimit::CpuMax { quota_us: Some(u64::from(pct) * 1000), period_us: 100_000 })
    }

    /// Caps CPU time at `quota_us` µs in every `period_us` µs.
    pub fn cpu_quota(self, quota_us: u64, period_us: u64) -> Self {
        self.limit(CgroupLimit::CpuMax { quota_us: Some(quota_us), period_us })
    }

    /// Lifts a CPU cap.
    pub fn cpu_quota_unlimited(self) -> Self {
        self.limit(CgroupLimit::CpuMax { quota_us: None, period_us: 100_000 })
    }

    /// Sets `cpu.weight` (1 to 10,000; the kernel's default is 100).
    pub fn cpu_weight(self, weight: u32) -> Self {
        self.limit(CgroupLimit::CpuWeight(weight))
    }

    /// Sets `memory.max`, bytes.
    pub fn memory_max(self, bytes: u64) -> Self {
        self.limit(CgroupLimit::MemoryMax(Some(bytes)))
    }

    /// Lifts `memory.max`.
    pub fn memory_max_unlimited(self) -> Self {
        self.limit(CgroupLimit::MemoryMax(None))
    }

    /// Sets `memory.high`, bytes.
    pub fn memory_high(self, bytes: u64) -> Self {
        self.limit(CgroupLimit::MemoryHigh(Some(bytes)))
    }

    /// Lifts `memory.high`.
    pub fn memory_high_unlimited(self) -> Self {
        self.limit(CgroupLimit::MemoryHigh(None))
    }

    /// Sets `memory.low`, bytes.
    pub fn memory_low(self, bytes: u64) -> Self {
        self.limit(CgroupLimit::MemoryLow(Some(bytes)))
    }

    /// Sets `memory.swap.max`, bytes.
    pub fn memory_swap_max(self, bytes: u64) -> Self {
        self.limit(CgroupLimit::MemorySwapMax(Some(bytes)))
    }

    /// Sets `io.weight` (1 to 10,000).
    pub fn io_weight(self, weight: u32) -> Self {
        self.limit(CgroupLimit::IoWeight(weight))
    }

    /// Sets `pids.max`.
    pub fn pids_max(self, n: u64) -> Self {
        self.limit(CgroupLimit::PidsMax(Some(n)))
    }

    /// Lifts `pids.max`.
    pub fn pids_max_unlimited(self) -> Self {
        self.limit(CgroupLimit::PidsMax(None))
    }
}
