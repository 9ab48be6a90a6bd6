//! The low level: cgroups and workers by hand, for tests that drive them themselves.

use crate::Ctx;
use crate::engine::{Place, ScenarioError};
use crate::ports::{CgroupError, CgroupOps, WorkerGroup};
use crate::seed::mix;
use ktstr_assert::{Assert, AssertResult, CgroupView};
use ktstr_topology::CpuSet;
use ktstr_workload::{WorkSpec, WorkType, WorkloadConfig};
use std::time::Duration;

/// cgroups that are removed, the latest first, when this goes out of scope.
pub struct CgroupGroup<'a> {
    cgroups: &'a dyn CgroupOps,
    names: Vec<String>,
}

impl<'a> CgroupGroup<'a> {
    /// No cgroups yet.
    pub fn new(cgroups: &'a dyn CgroupOps) -> Self {
        Self { cgroups, names: Vec::new() }
    }

    /// Makes a cgroup that may use its parent's CPUs.
    ///
    /// # Errors
    /// [`CgroupError`] when it can't be made.
    pub fn add_cgroup_no_cpuset(&mut self, name: &str) -> Result<(), CgroupError> {
        self.cgroups.create_cgroup(name)?;
        self.names.push(name.to_owned());
        Ok(())
    }

    /// Makes a cgroup that may use `cpus`.
    ///
    /// # Errors
    /// [`CgroupError`] when it can't be made or the CPUs can't be set; once made it is
    /// removed with the others.
    pub fn add_cgroup(&mut self, name: &str, cpus: &CpuSet) -> Result<(), CgroupError> {
        self.add_cgroup_no_cpuset(name)?;
        self.cgroups.set_cpuset(name, cpus)
    }

    /// Their names, in the order made.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Removes them now, the latest first, and says what failed; dropping can't say so.
    pub fn remove_all(&mut self) -> Vec<CgroupError> {
        let names = std::mem::take(&mut self.names);
        names.iter().rev().filter_map(|name| self.cgroups.remove_cgroup(name).err()).collect()
    }
}

impl Drop for CgroupGroup<'_> {
    fn drop(&mut self) {
        // Nothing to tell it to; the manager's own cleanup removes what is left.
        let _ = self.remove_all();
    }
}

/// One group of workers a cgroup.
pub type Handles = Vec<Box<dyn WorkerGroup>>;

/// The default workload: the context's number of spinning workers.
pub fn dfl_wl(ctx: &Ctx<'_>) -> WorkloadConfig {
    WorkloadConfig { num_workers: ctx.workers_per_cgroup, ..WorkloadConfig::default() }
}

/// Makes `n` cgroups `cg_0`, `cg_1` …, each with the workers of `wl`, and starts them all
/// together.
///
/// # Errors
/// [`ScenarioError`] when one can't be made or filled; what was made is removed.
pub fn setup_cgroups<'a>(
    ctx: &Ctx<'a>,
    n: usize,
    wl: &WorkloadConfig,
) -> Result<(Handles, CgroupGroup<'a>), ScenarioError> {
    let mut cgroups = CgroupGroup::new(ctx.cgroups);
    let mut handles = Handles::new();
    for i in 0..n {
        let name = format!("cg_{i}");
        let made = cgroups.add_cgroup_no_cpuset(&name);
        made.map_err(|source| ScenarioError::Cgroup { place: place(ctx), cgroup: name.clone(), source })?;
        handles.push(spawn_into(ctx, &name, wl, i)?);
    }
    handles.iter_mut().for_each(|h| h.start());
    Ok((handles, cgroups))
}

/// Fills cgroups that exist with workers of different types, going round spinning,
/// bursty, mixed, yielding and pipe-exchanging ones, and starts them all together.
///
/// # Errors
/// [`ScenarioError`] when workers can't be spawned or moved.
pub fn spawn_diverse(ctx: &Ctx<'_>, names: &[&str]) -> Result<Handles, ScenarioError> {
    let types = diverse();
    let mut handles = Handles::new();
    for (i, name) in names.iter().enumerate() {
        let work_type = types[i % types.len()].clone();
        let workers = ctx.workers_per_cgroup.next_multiple_of(work_type.worker_group_size());
        let config = WorkloadConfig::from_spec(&WorkSpec::of(work_type), workers);
        handles.push(spawn_into(ctx, name, &config, i)?);
    }
    handles.iter_mut().for_each(|h| h.start());
    Ok(handles)
}

/// Stops all workers and judges them, one handle a cgroup.
pub fn collect_all(mut handles: Handles, assert: &Assert) -> AssertResult {
    // All are stopped before any is judged, so that none runs longer for it.
    handles.iter_mut().for_each(|handle| handle.request_stop());
    let reports: Vec<_> = handles.into_iter().map(|mut handle| handle.stop_and_collect()).collect();
    AssertResult::all_of(reports.iter().enumerate().map(|(i, reports)| {
        let name = format!("cg_{i}");
        assert.assert_cgroup_view(reports, &CgroupView { name: &name, ..CgroupView::default() })
    }))
}

pub(crate) fn diverse() -> [WorkType; 5] {
    [
        WorkType::SpinWait,
        WorkType::bursty(Duration::from_millis(50), Duration::from_millis(100)),
        WorkType::Mixed,
        WorkType::YieldHeavy,
        WorkType::pipe_io(1024),
    ]
}

fn place(ctx: &Ctx<'_>) -> Place {
    Place(ctx.current_step())
}

/// Spawns workers and moves them into a cgroup; they wait to be started.
fn spawn_into(
    ctx: &Ctx<'_>,
    name: &str,
    config: &WorkloadConfig,
    index: usize,
) -> Result<Box<dyn WorkerGroup>, ScenarioError> {
    let place = place(ctx);
    let cgroup = || name.to_owned();
    let cgroup_failed = |source| ScenarioError::Cgroup { place, cgroup: cgroup(), source };
    let cpus = ctx.cgroups.effective_cpus(name).map_err(cgroup_failed)?;
    let seed = mix(ctx.seed, index as u64);
    let affinity = config
        .affinity
        .resolve(ctx.topo, &cpus, config.num_workers, seed)
        .map_err(|source| ScenarioError::Affinity { place, cgroup: cgroup(), source })?;
    let spawned = ctx.ports.workers.spawn(config, &affinity);
    let handle = spawned.map_err(|source| ScenarioError::Spawn { place, cgroup: cgroup(), source })?;
    ctx.cgroups.move_tasks(name, &handle.pids()).map_err(cgroup_failed)?;
    Ok(handle)
}

#[cfg(test)]
mod tests;
