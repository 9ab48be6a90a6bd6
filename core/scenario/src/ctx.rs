//! What a test function is given.

use crate::CgroupDef;
use crate::ports::{CgroupOps, Clock, EventSink, HostLink, IrqOps, SchedulerOps, WorkerOps};
use crate::step::fraction_of;
use ktstr_assert::{Assert, ScenarioStats};
use ktstr_topology::{CpusetError, CpusetSpec, TestTopology};
use ktstr_workload::{Pid, WorkType};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// The ports that a context hands to the engine.
#[derive(Clone, Copy)]
pub struct Ports<'a> {
    /// Spawns workers.
    pub workers: &'a dyn WorkerOps,
    /// Guest time.
    pub clock: &'a dyn Clock,
    /// Hears what happens.
    pub events: &'a dyn EventSink,
    /// The scheduler under test.
    pub scheduler: &'a dyn SchedulerOps,
    /// The host that watches.
    pub host: &'a dyn HostLink,
    /// The machine's interrupts.
    pub irqs: &'a dyn IrqOps,
}

/// A test's view of its machine: topology, cgroups, time and checks.
pub struct Ctx<'a> {
    /// The guest's CPUs, LLCs and NUMA nodes.
    pub topo: &'a TestTopology,
    /// cgroups below the test's own parent.
    pub cgroups: &'a dyn CgroupOps,
    /// How long the workload holds in all.
    pub duration: Duration,
    /// Time for things to settle after a start, before a hold counts.
    pub settle: Duration,
    /// Workers of a cgroup that does not say how many.
    pub workers_per_cgroup: usize,
    /// The scheduler's process id; `None` under the kernel's own.
    pub sched_pid: Option<Pid>,
    /// Replaces the work type of swappable cgroups.
    pub work_type_override: Option<WorkType>,
    /// Checks: defaults, then the scheduler's, then the test's.
    pub assert: Assert,
    /// True when the host writes a BPF map before the scenario starts.
    pub wait_for_map_write: bool,
    /// The numbers of the same test under the kernel's own scheduler: in a test with
    /// `baseline`, but for the run that makes them.
    pub baseline: Option<ScenarioStats>,
    /// Decides everything random; the same seed gives the same draws.
    pub seed: u64,
    /// What the engine works through.
    pub ports: Ports<'a>,
    step: AtomicU16,
}

impl<'a> Ctx<'a> {
    /// A context with the defaults: 2 s, no settling time, 2 workers a cgroup,
    /// the default checks, seed 0.
    pub fn new(topo: &'a TestTopology, cgroups: &'a dyn CgroupOps, ports: Ports<'a>) -> Self {
        Self {
            topo,
            cgroups,
            duration: Duration::from_secs(2),
            settle: Duration::ZERO,
            workers_per_cgroup: 2,
            sched_pid: None,
            work_type_override: None,
            assert: Assert::default_checks(),
            wait_for_map_write: false,
            baseline: None,
            seed: 0,
            ports,
            step: AtomicU16::new(0),
        }
    }

    /// A metric of the baseline; `None` without one, and if it was not measured.
    pub fn baseline_metric(&self, name: &str) -> Option<f64> {
        self.baseline.as_ref()?.metric(name)
    }

    /// The step being played: 0 before the first, then from 1.
    pub fn current_step(&self) -> u16 {
        self.step.load(Ordering::Relaxed)
    }

    /// A cgroup with this context's number of workers.
    pub fn cgroup_def(&self, name: impl Into<String>) -> CgroupDef {
        CgroupDef::named(name).workers(self.workers_per_cgroup)
    }

    /// How many CPUs a cpuset comes to on this machine.
    ///
    /// # Errors
    /// [`CpusetError`] when the machine can't give it.
    pub fn cpuset_cpus(&self, spec: &CpusetSpec) -> Result<usize, CpusetError> {
        spec.resolve(self.topo).map(|cpus| cpus.len())
    }

    /// `settle` plus a fraction of the duration.
    pub fn settled_hold(&self, fraction: f64) -> Duration {
        self.settle.saturating_add(fraction_of(self.duration, fraction))
    }

    pub(crate) fn enter_step(&self, step: u16) {
        self.step.store(step, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests;
