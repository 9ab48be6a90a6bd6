//! Reports become a verdict, cgroup by cgroup.

use crate::engine::{execute_defs, execute_scenario_with, execute_steps, execute_steps_with};
use crate::world::World;
use crate::{Backdrop, CgroupDef, HoldSpec, Op, Step};
use ktstr_assert::{Assert, AssertResult, DetailKind, Outcome};
use ktstr_topology::{CpuSet, CpusetSpec, Topology};
use ktstr_workload::{MemPolicy, WorkSpec, WorkerReport};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const HALF: HoldSpec = HoldSpec::Frac(0.5);

fn defs() -> Vec<CgroupDef> {
    vec![CgroupDef::named("cg_0"), CgroupDef::named("cg_1")]
}

#[track_caller]
fn found(r: &AssertResult) -> Vec<(Option<&str>, DetailKind)> {
    r.details.iter().map(|d| (d.cgroup.as_deref(), d.kind)).collect()
}

#[test]
fn each_cgroup_is_judged_and_named() {
    let w = World::new(1, 2);
    w.state.get().spoil = Some(|r| {
        if r.tid == 201 {
            r.work_units = 0;
        }
    });
    let r = execute_defs(&w.ctx(), defs()).unwrap();
    assert!(r.is_fail());
    assert_eq!(found(&r), [(Some("cg_1"), DetailKind::Starvation)]);
    assert_eq!(r.details[0].message, "worker 1 (tid 201) starved: 0 work units in 2000ms, last seen on cpu0");
    assert_eq!(r.stats.total_workers(), 4);
}

#[test]
fn given_checks_replace_those_of_the_context() {
    let gap = |r: &mut WorkerReport| r.max_gap_ms = 2500;
    let strict = Assert::NO_OVERRIDES.max_gap_ms(100);
    let step = || vec![Step::with_defs(defs(), HALF)];
    let w = World::new(1, 2);
    w.state.get().spoil = Some(gap);
    let mut ctx = w.ctx();
    ctx.assert = Assert::NO_OVERRIDES;
    assert!(execute_steps_with(&ctx, step(), None).unwrap().is_pass());
    assert!(execute_steps_with(&ctx, step(), Some(&strict)).unwrap().is_fail());
    let r = execute_scenario_with(&ctx, Backdrop::new(), step(), Some(&strict)).unwrap();
    assert_eq!(r.details[0].message, "stuck 2500ms on cpu0 at +0ms");
}

#[test]
fn a_scenario_without_workers_is_inconclusive() {
    let w = World::new(1, 2);
    let r = execute_steps(&w.ctx(), vec![Step::new(vec![Op::add_cgroup("empty")], HALF)]).unwrap();
    assert!(r.is_inconclusive() && r.details[0].message.contains("ran no worker"));
    assert!(execute_steps(&w.ctx(), Vec::new()).unwrap().is_inconclusive());
    assert!(w.state.get().is_clean());
}

#[test]
fn a_dead_scheduler_ends_the_scenario() {
    let w = World::new(1, 2);
    w.state.get().scheduler_dies_at = Some(Duration::from_millis(1250));
    let steps =
        vec![Step::with_defs(defs(), HALF), Step::hold(HALF), Step::new(vec![Op::add_cgroup("never")], HALF)];
    let r = execute_steps(&w.ctx(), steps).unwrap();
    assert!(r.is_fail());
    assert_eq!(found(&r), [(None, DetailKind::Scheduler)]);
    let text =
        "the scheduler failed in step 2, 1300ms into the scenario: scx_demo exited: runnable task stall";
    assert_eq!(r.details[0].message, text, "found within 100 ms");
    assert_eq!(r.stats.cgroups.len(), 2, "the workers are judged nevertheless");
    assert!(w.state.get().is_clean());
}

#[test]
fn a_scheduler_that_dies_in_the_last_slice_is_noticed() {
    let w = World::new(1, 2);
    w.state.get().scheduler_dies_at = Some(Duration::from_millis(2000));
    assert!(execute_defs(&w.ctx(), defs()).unwrap().is_fail());
}

/// Runs `steps` in which a worker is seen on CPU 3 all the time.
fn on_cpu3(steps: Vec<Step>) -> AssertResult {
    let w = World::new(1, 4);
    w.state.get().spoil = Some(|r| r.cpus_used = CpuSet::from_iter([0, 3]));
    execute_steps_with(&w.ctx(), steps, Some(&Assert::NO_OVERRIDES.check_isolation())).unwrap()
}

#[test]
fn isolation_is_judged_by_all_cpus_that_were_allowed() {
    let on = |cpus: [u32; 2]| CgroupDef::named("a").cpuset(CpusetSpec::exact(cpus));
    let to = |cpus: [u32; 2]| Step::new(vec![Op::set_cpuset("a", CpusetSpec::exact(cpus))], HALF);
    let r = on_cpu3(vec![Step::with_defs(vec![on([0, 1])], HALF)]);
    assert_eq!(found(&r), [(Some("a"), DetailKind::Isolation); 2]);
    assert_eq!(r.details[0].message, "worker 0 (tid 100) ran on cpu3, outside its cpuset 0-1");
    // It was allowed there later, or earlier, or was once not restricted.
    assert!(on_cpu3(vec![Step::with_defs(vec![on([0, 1])], HALF), to([2, 3])]).is_pass());
    assert!(on_cpu3(vec![Step::with_defs(vec![on([0, 3])], HALF), to([0, 1])]).is_pass());
    let freed = Step::new(vec![Op::clear_cpuset("a")], HALF);
    assert!(on_cpu3(vec![Step::with_defs(vec![on([0, 1])], HALF), freed, to([0, 1])]).is_pass());
}

#[test]
fn isolation_follows_the_cgroups_above() {
    let outer = CgroupDef::named("o").cpuset(CpusetSpec::exact([0, 1]));
    let r = on_cpu3(vec![Step::with_defs(vec![outer.clone(), CgroupDef::named("o/a")], HALF)]);
    assert_eq!(found(&r).len(), 4);
    // CPUs that the outer cgroup does not have fall back to the outer ones.
    let stray = CgroupDef::named("o/a").cpuset(CpusetSpec::exact([2, 3]));
    let r = on_cpu3(vec![Step::with_defs(vec![outer, stray], HALF)]);
    assert!(r.details.iter().all(|d| d.message.ends_with("outside its cpuset 0-1")), "{:?}", r.details);
}

#[test]
fn moved_workers_may_have_been_in_both_places() {
    let on = |name: &str, cpus: [u32; 2]| CgroupDef::named(name).cpuset(CpusetSpec::exact(cpus));
    let steps = vec![
        Step::with_defs(vec![on("a", [0, 1]), on("b", [2, 3])], HALF),
        Step::new(vec![Op::stop_cgroup("b"), Op::move_all_tasks("a", "b")], HALF),
    ];
    let r = on_cpu3(steps);
    // Those that were in b from the beginning had no business on CPU 0.
    assert!(
        r.details.iter().all(|d| d.message.contains("ran on cpu0, outside its cpuset 2-3")),
        "{:?}",
        r.details
    );
    assert_eq!(r.details.len(), 2);
}

#[test]
fn groups_of_a_cgroup_are_judged_apart() {
    let w = World::new(1, 2);
    w.state.get().spoil = Some(|r| {
        if r.tid >= 200 {
            r.off_cpu_ns = r.wall_time_ns / 100 * 95;
        }
    });
    let def = CgroupDef::named("a").work(WorkSpec::default().workers(2));
    let r = execute_defs(&w.ctx(), vec![def]).unwrap();
    assert!(r.is_pass(), "95 % beside 50 % is no unfairness between groups: {:?}", r.details);
}

#[test]
fn lost_reports_are_no_pass() {
    let w = World::new(1, 2);
    w.state.get().lose = 1;
    let r = execute_defs(&w.ctx(), defs()).unwrap();
    assert!(r.is_inconclusive());
    assert_eq!(r.details[0].message, "expected the reports of 2 workers, got 1");
    let w = World::new(1, 2);
    w.state.get().lose = 2;
    assert!(execute_defs(&w.ctx(), defs()).unwrap().is_inconclusive());
}

#[test]
fn memory_is_local_to_the_cgroups_nodes_or_to_the_policys() {
    let judge = |def: CgroupDef| {
        let w = World::with_topology(&Topology::new(2, 2, 2, 1).unwrap());
        w.state.get().spoil = Some(|r| r.numa_pages = BTreeMap::from([(0, 25), (1, 75)]));
        let limits = Assert::NO_OVERRIDES.min_page_locality(0.5);
        let r = execute_steps_with(&w.ctx(), vec![Step::with_defs(vec![def], HALF)], Some(&limits)).unwrap();
        (r.outcome, r.stats.cgroups[0].page_locality)
    };
    assert_eq!(judge(CgroupDef::named("a").numa_node(0)), (Outcome::Fail, Some(0.25)));
    assert_eq!(judge(CgroupDef::named("a").cpuset(CpusetSpec::numa(1))), (Outcome::Pass, Some(0.75)));
    assert_eq!(judge(CgroupDef::named("a")), (Outcome::Inconclusive, None));
    let bound = CgroupDef::named("a").mem_policy(MemPolicy::Bind(BTreeSet::from([1])));
    assert_eq!(judge(bound), (Outcome::Pass, Some(0.75)));
}
