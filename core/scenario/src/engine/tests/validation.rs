//! Everything that can be known beforehand is found before anything is made.

use crate::engine::{ScenarioError, execute_defs, execute_scenario, execute_steps};
use crate::ports::CgroupLimit;
use crate::world::{World, pairs};
use crate::{Backdrop, CgroupDef, HoldSpec, Op, Step};
use ktstr_topology::{CpuSet, CpusetSpec};
use ktstr_workload::{AffinityIntent, MemPolicy, SchedPolicy, WorkSpec};
use std::collections::BTreeSet;
use std::time::Duration;

/// The error of these steps; nothing may have been done before it.
#[track_caller]
fn refused(steps: Vec<Step>) -> ScenarioError {
    let w = World::new(1, 2);
    let error = execute_steps(&w.ctx(), steps).unwrap_err();
    let s = w.state.get();
    assert_eq!((s.log.as_slice(), s.events.as_slice()), (&[][..], &[][..]), "{error}");
    error
}

#[track_caller]
fn refused_def(def: CgroupDef) -> String {
    refused(vec![Step::hold(HoldSpec::FULL), Step::with_defs(vec![def], HoldSpec::FULL)]).to_string()
}

#[track_caller]
fn refused_op(op: Op) -> String {
    let made = Step::with_defs(vec![CgroupDef::named("cg_0")], HoldSpec::frac(0.5));
    refused(vec![made, Step::new(vec![op], HoldSpec::frac(0.5))]).to_string()
}

#[test]
fn holds() {
    let text = refused(vec![Step::hold(HoldSpec::FULL), Step::hold(HoldSpec::frac(-1.0))]).to_string();
    assert!(text.starts_with("step 2: ") && text.contains("-1"), "{text}");
    refused(vec![Step::hold(HoldSpec::loop_at(Duration::ZERO))]);
}

#[test]
fn names() {
    let text = refused_def(CgroupDef::named("../evil"));
    assert!(text.starts_with("step 2: checking cgroup name \"../evil\""), "{text}");
    for name in ["", "/a", "a/", "a//b", ".", "a/../b", "cgroup.procs", "a/cpu.max", "a\nb", &"x".repeat(256)]
    {
        refused_def(CgroupDef::named(name));
    }
}

#[test]
fn names_in_use() {
    let twice = vec![CgroupDef::named("cg_0"), CgroupDef::named("cg_0")];
    let text = refused(vec![Step::with_defs(twice, HoldSpec::FULL)]).to_string();
    assert!(text.starts_with("step 1: creating cgroup \"cg_0\": it exists already"), "{text}");
    assert!(refused_op(Op::add_cgroup("cg_0")).starts_with("step 2: creating cgroup \"cg_0\""));
    // The cgroup above a nested one exists with it.
    let nested = vec![CgroupDef::named("o/a"), CgroupDef::named("o")];
    refused(vec![Step::with_defs(nested, HoldSpec::FULL)]);
}

#[test]
fn a_backdrops_names_count_in_every_step() {
    let w = World::new(1, 2);
    let backdrop = Backdrop::from_cgroups(vec![CgroupDef::named("cg_0")]);
    let steps = vec![Step::with_defs(vec![CgroupDef::named("cg_0")], HoldSpec::FULL)];
    let error = execute_scenario(&w.ctx(), backdrop, steps).unwrap_err();
    assert!(matches!(error, ScenarioError::Taken { .. }), "{error}");
    assert!(w.state.get().log.is_empty());
}

#[test]
fn cgroups_that_are_not_there() {
    let text = refused_op(Op::set_cpuset("cg_9", CpusetSpec::llc(0)));
    assert!(
        text.starts_with(
            "step 2: SetCpuset on cgroup \"cg_9\": expected one of the cgroups at that point (cg_0)"
        ),
        "{text}"
    );
    for op in [
        Op::stop_cgroup("x"),
        Op::clear_cpuset("x"),
        Op::swap_cpusets("cg_0", "x"),
        Op::spawn("x", WorkSpec::default()),
        Op::set_affinity("x", AffinityIntent::Inherit),
        Op::move_all_tasks("cg_0", "x"),
        Op::move_all_tasks("x", "cg_0"),
        Op::freeze_cgroup("x"),
        Op::unfreeze_cgroup("x"),
    ] {
        refused_op(op);
    }
}

#[test]
fn a_steps_ops_come_before_its_own_cgroups() {
    let step = Step::with_defs(vec![CgroupDef::named("cg_0")], HoldSpec::FULL);
    let text = refused(vec![step.with_op(Op::freeze_cgroup("cg_0"))]).to_string();
    assert!(text.contains("before it makes its own cgroups") && text.contains("(none)"), "{text}");
}

fn looped(ops: Vec<Op>) -> Step {
    Step::new(ops, HoldSpec::loop_at(Duration::from_millis(100)))
}

#[test]
fn a_loop_whose_second_round_can_not_be_played() {
    let again = looped(vec![Op::add_cgroup("again")]);
    assert!(refused(vec![again]).to_string().contains("\"again\": it exists already"));
}

#[test]
fn a_loop_whose_third_round_can_not_be_played() {
    // Its own setup makes the outer cgroup that the second round removes.
    let made = Step::with_defs(vec![CgroupDef::named("a")], HoldSpec::frac(0.5));
    let mut step = looped(vec![Op::clear_cpuset("a"), Op::remove_cgroup("a")]);
    step.setup = vec![CgroupDef::named("a/x")].into();
    assert!(matches!(refused(vec![made, step]), ScenarioError::NoCgroup { .. }));
    // The only cpuset goes to and fro until it is cleared.
    let made = vec![CgroupDef::named("a").cpuset(CpusetSpec::llc(0)), CgroupDef::named("b")];
    let step = looped(vec![Op::swap_cpusets("a", "b"), Op::clear_cpuset("a")]);
    let error = refused(vec![Step::with_defs(made, HoldSpec::frac(0.5)), step]);
    assert!(matches!(error, ScenarioError::Pointless { .. }), "{error}");
}

#[test]
fn ops_on_workers_need_some() {
    let made = Step::with_defs(vec![CgroupDef::named("cg_0")], HoldSpec::frac(0.5));
    let ops = vec![Op::stop_cgroup("cg_0"), Op::set_affinity("cg_0", AffinityIntent::Inherit)];
    let error = refused(vec![made, Step::new(ops, HoldSpec::frac(0.5))]);
    assert!(matches!(error, ScenarioError::NoWorkers { .. }), "{error}");
    let text = refused_op(Op::swap_cpusets("cg_0", "cg_0"));
    assert!(text.contains("no cpusets to exchange"), "{text}");
}

#[test]
fn cpusets_and_nodes() {
    let text = refused_def(CgroupDef::named("a").cpuset(CpusetSpec::llc(5)));
    assert!(text.starts_with("step 2, cgroup \"a\": "), "{text}");
    refused_def(CgroupDef::named("a").cpuset(CpusetSpec::exact([])));
    refused_def(CgroupDef::named("a").numa_node(3));
    let text = refused_def(CgroupDef::named("a").cpuset_mems(CpuSet::from_iter([1])));
    assert!(text.contains("cpuset.mems names NUMA nodes [1]: expected some of [0]"), "{text}");
    let text = refused_def(CgroupDef::named("a").mem_policy(MemPolicy::Bind(BTreeSet::from([4]))));
    assert!(text.contains("memory policy names NUMA nodes [4]"), "{text}");
}

#[test]
fn worker_counts() {
    let text = refused_def(CgroupDef::named("a").workers(0));
    assert!(text.starts_with("step 2, cgroup \"a\": ") && text.contains("at least one"), "{text}");
    refused_def(CgroupDef::named("a").work_type(pairs()).workers(3));
    refused_def(CgroupDef::named("a").workers_pct(0.0));
    refused_def(CgroupDef::named("a").work(WorkSpec::default().workers(0)));
    let text = refused_op(Op::spawn_host(WorkSpec::default().workers(0)));
    assert!(text.starts_with("step 2, cgroup \"host\": "), "{text}");
}

#[test]
fn policies_affinities_and_limits() {
    refused_def(CgroupDef::named("a").sched_policy(SchedPolicy::Fifo(0)));
    refused_def(CgroupDef::named("a").nice(40));
    refused_def(CgroupDef::named("a").affinity(AffinityIntent::SmtSiblingPair));
    refused_op(Op::set_affinity("cg_0", AffinityIntent::Exact(CpuSet::new())));
    let text = refused_def(CgroupDef::named("a").cpu_weight(0));
    assert!(text.contains("cpu.weight: expected a weight from 1 to 10000, got 0"), "{text}");
    refused_def(CgroupDef::named("a").io_weight(10_001));
    refused_def(CgroupDef::named("a").cpu_quota(500, 100_000));
    refused_def(CgroupDef::named("a").cpu_quota(5_000, 100));
    refused_def(CgroupDef::named("a").cpu_quota_pct(0));
    let mut odd = CgroupDef::named("a");
    odd.limits.push(CgroupLimit::CpuMax { quota_us: None, period_us: 2_000_000 });
    refused_def(odd);
}

#[test]
fn too_many_steps() {
    let steps = vec![Step::hold(HoldSpec::fixed(Duration::ZERO)); usize::from(u16::MAX) + 1];
    assert!(matches!(refused(steps), ScenarioError::TooManySteps(65_536)));
}

#[test]
fn an_absurdly_long_hold_is_no_panic() {
    let w = World::new(1, 2);
    w.state.get().scheduler_dies_at = Some(Duration::from_secs(1));
    let steps = vec![Step::with_defs(vec![CgroupDef::named("a")], HoldSpec::frac(1e300))];
    assert!(execute_steps(&w.ctx(), steps).unwrap().is_fail());
}

#[test]
fn a_sound_scenario_is_not_refused() {
    let w = World::new(2, 2);
    let def = CgroupDef::named("a")
        .numa_node(0)
        .mem_policy(MemPolicy::Bind(BTreeSet::from([0])))
        .cpu_quota_pct(50)
        .cpu_quota_unlimited()
        .memory_max(1 << 20)
        .pids_max_unlimited()
        .sched_policy(SchedPolicy::Fifo(1))
        .nice(-20);
    assert!(execute_defs(&w.ctx(), vec![def]).unwrap().is_pass());
}

#[test]
fn what_is_asked_of_the_host_is_checked_before_anything_is_made() {
    for op in [
        Op::capture_snapshot(""),
        Op::read_kernel_cold("tag", ""),
        Op::read_kernel_hot("", "jiffies"),
        Op::write_kernel_hot("", 1),
        Op::watch_snapshot(""),
        Op::capture_cgroup_procs("", "cg_0"),
    ] {
        assert!(refused_op(op).contains("a name or path is empty"));
    }
    assert!(refused_op(Op::capture_cgroup_procs("tag", "cg_9")).contains("(cg_0)"));
    let four = ["a", "b", "c", "d"].map(Op::watch_snapshot).to_vec();
    let error = refused(vec![Step::new(four, HoldSpec::FULL)]);
    assert!(error.to_string().contains("4 variables are watched: expected at most 3"), "{error}");
}

#[test]
fn cpus_that_take_an_interrupt() {
    let refused = |cpus: &[u32]| refused_op(Op::steer_irq(24, cpus.iter().copied().collect()));
    assert!(refused(&[]).contains("SteerIrq of interrupt 24: no CPU would take it"), "{}", refused(&[]));
    assert!(
        refused(&[1, 7]).contains("CPUs 1,7 are not all among the machine's, 0-1"),
        "{}",
        refused(&[1, 7])
    );
}
