//! Tests that run on the host, without a machine.

use super::stalls::WatchedWorkers;
use crate::registry::{KernelsOwn, KtstrTestEntry};
use crate::settings::Settings;
use anyhow::{Result, bail};
use ktstr_assert::{Assert, AssertResult};
use ktstr_cgroupfs::CgroupManager;
use ktstr_run::{CaseResult, TestReturn};
use ktstr_scenario::ports::{CgroupOps, EventSink, NoHost, NoIrqs};
use ktstr_scenario::{Ctx, Ports, StimulusEvent};
use ktstr_workers::MonotonicClock;
use ktstr_workload::WorkType;
use std::path::Path;

const CGROUP_ROOT: &str = "/sys/fs/cgroup";

/// Runs the test function here; its cgroups are made below
/// `KTSTR_HOST_CGROUP_PARENT`, or a directory of this process.
pub(crate) fn run(entry: &KtstrTestEntry, settings: &Settings) -> CaseResult {
    let (result, broken) = match call(entry, settings) {
        Ok(TestReturn::Judged(result)) => (result, false),
        Ok(TestReturn::Error(text)) => (AssertResult::fail(text), true),
        Ok(TestReturn::Panicked(text)) => {
            (AssertResult::fail(format!("the test function panicked: {text}")), false)
        }
        Err(e) => (AssertResult::fail(format!("{e:#}")), true),
    };
    CaseResult { result, broken, monitor: None }
}

fn call(entry: &KtstrTestEntry, settings: &Settings) -> Result<TestReturn> {
    let topo = ktstr_procfs::test_topology_from_sysfs(Path::new("/sys"))?;
    let parent = parent(settings.host_cgroup_parent.as_deref())?;
    let cgroups = CgroupManager::new(Path::new(CGROUP_ROOT), &parent)?;
    let watched = WatchedWorkers::default();
    let ports = Ports {
        workers: &watched,
        clock: &MonotonicClock,
        events: &Quiet,
        scheduler: &KernelsOwn,
        host: &NoHost,
        irqs: &NoIrqs,
    };
    let mut ctx = Ctx::new(&topo, &cgroups, ports);
    ctx.duration = settings.duration.unwrap_or(entry.spec.duration);
    ctx.workers_per_cgroup = entry.spec.workers_per_cgroup;
    ctx.seed = settings.seed;
    ctx.assert = Assert::default_checks().merge(&entry.spec.checks);
    if let Some(name) = &settings.work_type {
        ctx.work_type_override = Some(WorkType::from_name(name)?);
    }
    ktstr_assert::set_log_passes(settings.log_passes);
    let (mut returned, stalls) = watched.while_calling(settings.stall_poll, || entry.call(&ctx));
    if let (Err(e), TestReturn::Judged(result)) = (cgroups.cleanup_all(), &mut returned) {
        result.note(format!("cleaning up after the test: {e}"));
    }
    if let TestReturn::Judged(result) = &mut returned {
        result.notes.extend(stalls);
    } else {
        // Beside what went wrong otherwise there is no place for notes.
        stalls.iter().for_each(|stall| eprintln!("ktstr: {stall}"));
    }
    Ok(returned)
}

/// The parent's name below the cgroup root.
fn parent(chosen: Option<&str>) -> Result<String> {
    let Some(path) = chosen else { return Ok(format!("ktstr-{}", std::process::id())) };
    match path.strip_prefix(CGROUP_ROOT).map(|p| p.trim_matches('/')) {
        Some(name) if !name.is_empty() => Ok(name.to_string()),
        _ => bail!(
            "reading KTSTR_HOST_CGROUP_PARENT={path:?}: expected a directory below {CGROUP_ROOT}, \
             such as {CGROUP_ROOT}/ktstr"
        ),
    }
}

/// Nobody listens to the events of a host test.
struct Quiet;

impl EventSink for Quiet {
    fn stimulus(&self, _event: &StimulusEvent) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_must_lie_below_the_cgroup_root() {
        assert_eq!(parent(Some("/sys/fs/cgroup/a/b/")).unwrap(), "a/b");
        assert!(parent(Some("/sys/fs/cgroup")).unwrap_err().to_string().contains("KTSTR_HOST_CGROUP_PARENT"));
        assert!(parent(Some("/tmp/x")).is_err());
        assert!(parent(None).unwrap().starts_with("ktstr-"));
    }
}
