//! Tests that drive cgroups and workers by hand.

use super::*;
use crate::world::{World, pairs};
use std::time::Duration;

/// The documented low-level test, with the ports of the mocks.
#[test]
fn cgroups_and_workers_can_be_driven_by_hand() {
    let w = World::new(1, 2);
    let ctx = w.ctx();
    let r = (|| -> Result<AssertResult, Box<dyn std::error::Error>> {
        let mut group = CgroupGroup::new(ctx.cgroups);
        group.add_cgroup_no_cpuset("workers")?;
        let cpus = ctx.topo.all_cpuset();
        ctx.cgroups.set_cpuset("workers", &cpus)?;

        let cfg = WorkloadConfig { num_workers: 2, work_type: WorkType::SpinWait, ..Default::default() };
        let mut handle = ctx.ports.workers.spawn(&cfg, &[None, None])?;
        ctx.cgroups.move_tasks("workers", &handle.pids())?;
        handle.start();
        ctx.ports.clock.sleep_until(ctx.duration);
        let reports = handle.stop_and_collect();

        let a = Assert::default_checks();
        Ok(a.assert_cgroup(&reports, None))
    })()
    .unwrap();
    assert!(r.is_pass(), "{:?}", r.details);
    assert!(w.state.get().is_clean());
}

#[test]
fn cgroups_go_in_reverse_when_dropped() {
    let w = World::new(1, 2);
    let ctx = w.ctx();
    let mut group = CgroupGroup::new(ctx.cgroups);
    group.add_cgroup("a", &CpuSet::from_iter([1])).unwrap();
    group.add_cgroup_no_cpuset("a/b").unwrap();
    assert_eq!(group.names(), ["a", "a/b"]);
    drop(group);
    assert_eq!(w.log(), ["create a", "cpuset a 1", "create a/b", "remove a/b", "remove a"]);
}

#[test]
fn a_cgroup_without_its_cpuset_is_removed_too() {
    let w = World::new(1, 2);
    w.state.get().fail_at = Some(1);
    let ctx = w.ctx();
    let mut group = CgroupGroup::new(ctx.cgroups);
    group.add_cgroup("a", &CpuSet::from_iter([1])).unwrap_err();
    drop(group);
    assert!(w.state.get().is_clean());
}

#[test]
fn removing_says_what_stayed() {
    let w = World::new(1, 2);
    w.state.get().stuck.insert("a".to_owned());
    let ctx = w.ctx();
    let mut group = CgroupGroup::new(ctx.cgroups);
    group.add_cgroup_no_cpuset("a").unwrap();
    group.add_cgroup_no_cpuset("b").unwrap();
    let failures = group.remove_all();
    assert_eq!(failures.len(), 1);
    assert!(failures[0].to_string().contains("removing a"), "{}", failures[0]);
    assert!(group.remove_all().is_empty(), "once is enough");
}

#[test]
fn like_cgroups_start_together_and_are_judged_one_by_one() {
    let w = World::new(1, 2);
    let ctx = w.ctx();
    let (handles, group) = setup_cgroups(&ctx, 2, &dfl_wl(&ctx)).unwrap();
    assert_eq!(group.names(), ["cg_0", "cg_1"]);
    ctx.ports.clock.sleep_until(Duration::from_secs(1));
    let r = collect_all(handles, &ctx.assert);
    drop(group);
    assert!(r.is_pass(), "{:?}", r.details);
    assert_eq!(r.stats.cgroup("cg_1").map(|c| c.num_workers), Some(2));
    let log = w.log();
    assert!(log.iter().position(|l| l == "start 0") > log.iter().position(|l| l.starts_with("move cg_1")));
    assert!(w.state.get().is_clean());
    assert!(collect_all(Vec::new(), &ctx.assert).is_inconclusive());
}

#[test]
fn a_failed_setup_leaves_nothing() {
    for fail_at in 0..8 {
        let w = World::new(1, 2);
        w.state.get().fail_at = Some(fail_at);
        let ctx = w.ctx();
        let error =
            setup_cgroups(&ctx, 2, &dfl_wl(&ctx)).err().unwrap_or_else(|| panic!("call {fail_at} fails"));
        assert!(error.to_string().contains("cgroup \"cg_"), "{error}");
        assert!(w.state.get().is_clean(), "call {fail_at}: {error}");
    }
}

#[test]
fn diverse_work_goes_round_the_types() {
    let w = World::new(1, 2);
    let mut ctx = w.ctx();
    ctx.workers_per_cgroup = 3;
    let names = ["a", "b", "c", "d", "e", "f"];
    let mut group = CgroupGroup::new(ctx.cgroups);
    for name in names {
        group.add_cgroup_no_cpuset(name).unwrap();
    }
    let handles = spawn_diverse(&ctx, &names).unwrap();
    assert_eq!(handles.len(), 6);
    let s = w.state.get();
    let seen: Vec<_> = s.groups.iter().map(|g| (g.config.work_type.name(), g.config.num_workers)).collect();
    // Pipes need pairs, so 3 becomes 4.
    assert_eq!(
        seen,
        [("SpinWait", 3), ("Bursty", 3), ("Mixed", 3), ("YieldHeavy", 3), ("PipeIo", 4), ("SpinWait", 3)]
    );
    assert!(s.groups.iter().all(|g| g.started_at.is_some()));
    drop(s);
    assert_eq!(pairs().worker_group_size(), 2);
}
