//! [`WorkloadHandle`], a group of workers, and the ports it implements.

use crate::plan::{cpu_mask, os_error};
use crate::process::Process;
use crate::setup::StepContext;
use crate::shm::{Mapping, START_GO, START_WAIT};
use crate::spawn::{self, died};
use crate::{collect, sys};
use ktstr_scenario::ports::{WorkerError, WorkerGroup, WorkerOps};
use ktstr_topology::CpuSet;
use ktstr_workload::{AffinityIntent, Pid, WorkerReport, WorkloadConfig};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// Spawns workers by forking.
#[derive(Debug, Clone, Copy, Default)]
pub struct ForkedWorkers;

impl WorkerOps for ForkedWorkers {
    fn spawn(
        &self,
        config: &WorkloadConfig,
        affinity: &[Option<CpuSet>],
    ) -> Result<Box<dyn WorkerGroup>, WorkerError> {
        Ok(Box::new(WorkloadHandle::spawn_with_affinity(config, affinity)?))
    }
}

/// A group of workers that were spawned together.
///
/// They are set up but wait until [`start`](Self::start), so that they can be put
/// into their cgroup first. Dropping the handle kills them.
pub struct WorkloadHandle {
    /// `None` once the reports were collected.
    group: Option<Group>,
}

/// The workers and what their parent knows of them.
pub(crate) struct Group {
    /// Shared with them.
    pub(crate) mapping: Arc<Mapping>,
    /// One a worker, or one for all threads.
    pub(crate) processes: Vec<Process>,
    /// For each worker, whether it wakes the others of a fan-out group.
    pub(crate) messengers: Vec<bool>,
    /// For each worker, what a message about a failed step shows.
    pub(crate) contexts: Vec<StepContext>,
    /// When they were told to stop, once they were (`CLOCK_MONOTONIC`, ns).
    pub(crate) stop_asked_ns: Option<u64>,
}

impl Group {
    pub(crate) fn new(mapping: Arc<Mapping>, messengers: Vec<bool>, contexts: Vec<StepContext>) -> Self {
        Self { mapping, processes: Vec::new(), messengers, contexts, stop_asked_ns: None }
    }

    fn tids(&self) -> Vec<Pid> {
        self.mapping.blocks().map(|block| block.tid.load(Relaxed)).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        collect::kill(self);
    }
}

impl WorkloadHandle {
    /// Forks the workers of `config` and returns once all are set up.
    ///
    /// # Errors
    /// [`WorkerError`] when the configuration makes no sense, a fork fails, a worker
    /// can't apply its policy, affinity or identity, or not all are ready within
    /// [`READY_DEADLINE`](crate::READY_DEADLINE).
    /// [`WorkerError::NeedsTopology`] for an affinity other than `Inherit` and `Exact`.
    pub fn spawn(config: &WorkloadConfig) -> Result<Self, WorkerError> {
        let set = match &config.affinity {
            AffinityIntent::Inherit => None,
            AffinityIntent::Exact(set) => Some(set.clone()),
            AffinityIntent::RandomSubset { .. } => return Err(WorkerError::NeedsTopology("RandomSubset")),
            AffinityIntent::LlcAligned => return Err(WorkerError::NeedsTopology("LlcAligned")),
            AffinityIntent::CrossCgroup => return Err(WorkerError::NeedsTopology("CrossCgroup")),
            AffinityIntent::SingleCpu => return Err(WorkerError::NeedsTopology("SingleCpu")),
            AffinityIntent::SmtSiblingPair => return Err(WorkerError::NeedsTopology("SmtSiblingPair")),
        };
        Self::spawn_with_affinity(config, &vec![set; config.num_workers])
    }

    /// As [`spawn`](Self::spawn), with the CPUs of each worker (`None`, or no entry:
    /// as inherited) instead of `config.affinity`.
    ///
    /// # Errors
    /// As [`spawn`](Self::spawn).
    pub fn spawn_with_affinity(
        config: &WorkloadConfig,
        affinity: &[Option<CpuSet>],
    ) -> Result<Self, WorkerError> {
        Ok(Self { group: Some(spawn::spawn(config, affinity)?) })
    }

    fn processes(&self) -> &[Process] {
        self.group.as_ref().map_or(&[], |group| &group.processes)
    }

    /// Ids to write to `cgroup.procs`: one a process, which for
    /// [`CloneMode::Thread`](ktstr_workload::CloneMode::Thread) is the one that hosts all.
    ///
    /// # Errors
    /// [`WorkerError::Setup`] when a worker has died since it was spawned.
    pub fn worker_pids_for_cgroup_procs(&self) -> Result<Vec<Pid>, WorkerError> {
        for process in self.processes() {
            if process.has_ended() {
                let what =
                    process.exit().map_or_else(|| "it died before it was placed in a cgroup".into(), died);
                return Err(WorkerError::Setup { index: process.workers.start, pid: process.pid(), what });
            }
        }
        Ok(WorkerGroup::pids(self))
    }

    /// Thread id of each worker, by index. For forked workers these are process ids.
    pub fn worker_pids(&self) -> Vec<Pid> {
        self.group.as_ref().map(Group::tids).unwrap_or_default()
    }

    /// Lets all workers begin at the same moment. A second call does nothing.
    pub fn start(&mut self) {
        let Some(group) = &self.group else { return };
        let control = group.mapping.control();
        if control.start.load(Relaxed) != START_WAIT {
            return;
        }
        control.started_at_ns.store(sys::now_ns(), Relaxed);
        control.start.store(START_GO, Release);
        sys::futex_wake(&control.start, i32::MAX);
    }

    /// Changes the affinity of all workers. Workers that have ended are skipped.
    ///
    /// # Errors
    /// [`WorkerError::Os`] when the kernel refuses, such as for CPUs outside the cpuset.
    pub fn set_affinity(&mut self, cpus: &CpuSet) -> Result<(), WorkerError> {
        let Some(group) = &self.group else { return Ok(()) };
        let mask = cpu_mask(cpus);
        let running = group.processes.iter().filter(|process| !process.has_ended());
        for index in running.flat_map(|process| process.workers.clone()) {
            let Some(tid) = group.mapping.worker(index).live_tid() else { continue };
            match sys::set_affinity(tid, &mask) {
                Ok(()) | Err(libc::ESRCH) => {}
                Err(errno) => {
                    let hint =
                        if errno == libc::EINVAL { "; none of them is online and in its cpuset" } else { "" };
                    let doing = format!("setting the CPU affinity of worker {index} (tid {tid}) to {cpus}");
                    return Err(os_error(doing, hint, io::Error::from_raw_os_error(errno)));
                }
            }
        }
        Ok(())
    }

    /// Iterations of each worker so far, by index.
    pub fn snapshot_iterations(&self) -> Vec<u64> {
        let Some(group) = &self.group else { return Vec::new() };
        group.mapping.blocks().map(|block| block.iterations.load(Acquire)).collect()
    }

    /// Tells the workers to stop, waits [`STOP_DEADLINE`](crate::STOP_DEADLINE), kills
    /// those still there, and returns one report a worker, by index.
    pub fn stop_and_collect(mut self) -> Vec<WorkerReport> {
        self.collect()
    }

    fn collect(&mut self) -> Vec<WorkerReport> {
        self.group.take().map(collect::stop_and_collect).unwrap_or_default()
    }
}

impl std::fmt::Debug for WorkloadHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WorkloadHandle").field("worker_pids", &self.worker_pids()).finish()
    }
}

impl WorkerGroup for WorkloadHandle {
    fn pids(&self) -> Vec<Pid> {
        self.processes().iter().map(Process::pid).collect()
    }

    fn start(&mut self) {
        Self::start(self);
    }

    fn set_affinity(&mut self, cpus: &CpuSet) -> Result<(), WorkerError> {
        Self::set_affinity(self, cpus)
    }

    fn iterations(&self) -> Vec<u64> {
        self.snapshot_iterations()
    }

    fn request_stop(&mut self) {
        if let Some(group) = &mut self.group {
            collect::request_stop(group);
        }
    }

    fn stop_and_collect(&mut self) -> Vec<WorkerReport> {
        self.collect()
    }
}

#[cfg(test)]
mod tests;
