//! What is done, and in which order.

use crate::engine::{execute_defs, execute_scenario, execute_steps};
use crate::world::{World, pairs};
use crate::{Backdrop, CgroupDef, HoldSpec, Op, Step};
use ktstr_topology::{CpuSet, CpusetSpec};
use ktstr_workload::{AffinityIntent, WorkSpec, WorkType};
use std::time::Duration;

const HALF: HoldSpec = HoldSpec::Frac(0.5);

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn all_groups_are_placed_before_any_starts() {
    let w = World::new(1, 4);
    let first =
        CgroupDef::named("cg_0").cpuset(CpusetSpec::exact([0, 1])).cpuset_mems(CpuSet::from_iter([0]));
    let defs = vec![
        first.cpu_weight(50).work(WorkSpec::of(WorkType::Mixed).workers(1)),
        CgroupDef::named("outer/cg_1").workers(4),
    ];
    let r = execute_defs(&w.ctx(), defs).unwrap();
    assert!(r.is_pass(), "{:?}", r.details);
    assert_eq!(
        w.log(),
        [
            "create cg_0",
            "cpuset cg_0 0-1",
            "mems cg_0 0",
            "limit cg_0 CpuWeight(50)",
            "spawn 0: 2 SpinWait",
            "move cg_0 [100, 101]",
            "spawn 1: 1 Mixed",
            "move cg_0 [200]",
            "create outer",
            "create outer/cg_1",
            "spawn 2: 4 SpinWait",
            "move outer/cg_1 [300, 301, 302, 303]",
            "start 0",
            "start 1",
            "start 2",
            "stop 0",
            "stop 1",
            "stop 2",
            "remove outer/cg_1",
            "remove outer",
            "remove cg_0",
        ]
    );
    assert_eq!(w.state.get().now, ms(2000), "the full duration was held");
    assert!(w.state.get().is_clean());
}

#[test]
fn what_a_step_makes_lasts_to_the_end() {
    let w = World::new(1, 4);
    let ctx = w.ctx();
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("cg_0"), CgroupDef::named("cg_1")], HALF),
        Step::with_defs(vec![CgroupDef::named("cg_2")], HALF),
    ];
    let r = execute_steps(&ctx, steps).unwrap();
    assert!(r.is_pass(), "{:?}", r.details);
    let stats: Vec<_> = r.stats.cgroups.iter().map(|c| (c.name.as_str(), c.total_iterations)).collect();
    // Iterations of the mocks are ms: two workers for 2 s, and for 1 s.
    assert_eq!(stats, [("cg_0", 4000), ("cg_1", 4000), ("cg_2", 2000)]);
    assert_eq!(ctx.current_step(), 2);
}

#[test]
fn an_op_can_end_a_cgroup_early() {
    let w = World::new(1, 2);
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("cg_0").workers(4)], HALF),
        Step::new(vec![Op::stop_cgroup("cg_0"), Op::remove_cgroup("cg_0"), Op::remove_cgroup("cg_0")], HALF),
    ];
    let r = execute_steps(&w.ctx(), steps).unwrap();
    assert!(r.is_pass(), "{:?}", r.details);
    assert_eq!(r.stats.cgroups.len(), 1);
    let tail = ["start 0", "stop 0", "remove cg_0"];
    assert_eq!(w.log()[3..], tail, "removed once; a missing one is fine");
    assert_eq!(w.state.get().now, ms(2000));
}

#[test]
fn a_scenarios_steps_end_and_its_backdrop_stays() {
    let w = World::new(1, 4);
    let backdrop = Backdrop::from_cgroups(vec![CgroupDef::named("back")]).push_op(Op::add_cgroup("empty"));
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("cg_0")], HALF)
            .with_op(Op::spawn("back", WorkSpec::default().workers(1)))
            .with_op(Op::spawn_host(WorkSpec::default().workers(3))),
        // The same name again: the first one ended with its step.
        Step::with_defs(vec![CgroupDef::named("cg_0")], HALF),
    ];
    let r = execute_scenario(&w.ctx(), backdrop, steps).unwrap();
    assert!(r.is_pass(), "{:?}", r.details);
    assert_eq!(
        w.log(),
        [
            "create back",
            "spawn 0: 2 SpinWait",
            "move back [100, 101]",
            "start 0",
            "create empty",
            "spawn 1: 1 SpinWait",
            "move back [200]",
            "start 1",
            "spawn 2: 3 SpinWait",
            "start 2",
            "create cg_0",
            "spawn 3: 2 SpinWait",
            "move cg_0 [400, 401]",
            "start 3",
            "stop 3",
            "remove cg_0",
            "stop 1",
            "stop 2",
            "create cg_0",
            "spawn 4: 2 SpinWait",
            "move cg_0 [500, 501]",
            "start 4",
            "stop 4",
            "remove cg_0",
            "stop 0",
            "remove empty",
            "remove back",
        ]
    );
    let names: Vec<_> = r.stats.cgroups.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["cg_0", "back", "host", "cg_0", "back"]);
}

#[test]
fn a_loop_repeats_its_ops_but_not_its_setup() {
    let w = World::new(1, 2);
    let backdrop = Backdrop::from_cgroups(vec![
        CgroupDef::named("a").cpuset(CpusetSpec::exact([0])),
        CgroupDef::named("b").cpuset(CpusetSpec::exact([1])),
    ]);
    let looped = Step::with_defs(vec![CgroupDef::named("c")], HoldSpec::loop_at(ms(600)))
        .with_op(Op::swap_cpusets("a", "b"));
    assert!(execute_scenario(&w.ctx(), backdrop, vec![looped]).unwrap().is_pass());
    let log = w.log();
    let sets: Vec<_> = log.iter().filter(|l| l.starts_with("cpuset a")).collect();
    // At 0 ms, then every 600 ms until the 2000 ms are over.
    assert_eq!(sets, ["cpuset a 0", "cpuset a 1", "cpuset a 0", "cpuset a 1", "cpuset a 0"]);
    assert_eq!(log.iter().filter(|l| *l == "create c").count(), 1);
    assert_eq!(w.state.get().now, ms(2000));
}

#[test]
fn a_loop_after_other_steps_fills_what_is_left() {
    let w = World::new(1, 2);
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("a")], HoldSpec::frac(0.75)),
        Step::new(vec![Op::freeze_cgroup("a"), Op::unfreeze_cgroup("a")], HoldSpec::loop_at(ms(200))),
    ];
    assert!(execute_steps(&w.ctx(), steps).unwrap().is_pass());
    assert_eq!(w.state.get().now, ms(2000));
    assert_eq!(w.log().iter().filter(|l| *l == "freeze a").count(), 3);

    let w = World::new(1, 2);
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("a")], HoldSpec::FULL),
        Step::new(vec![Op::clear_cpuset("a")], HoldSpec::loop_at(ms(300))),
    ];
    assert!(execute_steps(&w.ctx(), steps).unwrap().is_pass());
    assert_eq!(w.state.get().now, ms(2600), "two intervals at least");
    assert_eq!(w.log().iter().filter(|l| *l == "clear a").count(), 2, "a loop repeats once at least");
}

#[test]
fn rounds_that_take_too_long_are_not_made_up_for() {
    let w = World::new(1, 2);
    let backdrop = Backdrop::from_cgroups(vec![CgroupDef::named("a")]);
    w.state.get().cost = ms(250);
    // Three calls make the backdrop; the first round and four more fit after that.
    let looped = Step::new(vec![Op::clear_cpuset("a")], HoldSpec::loop_at(ms(100)));
    assert!(execute_scenario(&w.ctx(), backdrop, vec![looped]).unwrap().is_pass());
    assert_eq!(w.log().iter().filter(|l| *l == "clear a").count(), 5);
}

#[test]
fn things_settle_before_a_hold_counts() {
    let w = World::new(1, 2);
    let mut ctx = w.ctx();
    ctx.settle = ms(250);
    let steps = vec![Step::with_defs(vec![CgroupDef::named("a")], HALF), Step::hold(HALF)];
    assert!(execute_steps(&ctx, steps).unwrap().is_pass());
    assert_eq!(w.state.get().now, ms(2250), "only the step that starts workers settles");
}

#[test]
fn affinity_comes_from_the_cgroups_cpus_and_the_seed() {
    let play = |seed| {
        let w = World::new(2, 4);
        let mut ctx = w.ctx();
        ctx.seed = seed;
        let two = AffinityIntent::RandomSubset { from: CpuSet::new(), count: 2 };
        let def =
            |name: &str| CgroupDef::named(name).cpuset(CpusetSpec::llc(1)).affinity(two.clone()).workers(3);
        assert!(execute_defs(&ctx, vec![def("a"), def("b")]).unwrap().is_pass());
        let s = w.state.get();
        s.groups.iter().map(|g| g.affinity.iter().flatten().cloned().collect::<Vec<_>>()).collect::<Vec<_>>()
    };
    let drawn = play(7);
    let llc1: CpuSet = "4-7".parse().unwrap();
    assert!(drawn.iter().flatten().all(|set| set.len() == 2 && set.is_subset(&llc1)), "{drawn:?}");
    assert_eq!(drawn, play(7), "the same seed draws the same");
    assert_ne!(drawn, play(8));
    assert_ne!(drawn[0], drawn[1], "groups draw for themselves");
}

#[test]
fn affinity_of_running_workers_changes() {
    let w = World::new(1, 4);
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("a").cpuset(CpusetSpec::exact([1, 2]))], HALF),
        Step::new(
            vec![
                Op::set_affinity("a", AffinityIntent::SingleCpu),
                Op::set_affinity("a", AffinityIntent::Inherit),
                Op::set_affinity("a", AffinityIntent::Exact(CpuSet::from_iter([2]))),
            ],
            HALF,
        ),
    ];
    assert!(execute_steps(&w.ctx(), steps).unwrap().is_pass());
    let log = w.log();
    let set: Vec<_> = log.iter().filter(|l| l.starts_with("affinity")).collect();
    assert_eq!(set, ["affinity 0 1", "affinity 0 1-2", "affinity 0 2"]);
}

#[test]
fn worker_counts_follow_the_cpuset_and_the_context() {
    let w = World::new(1, 8);
    let mut ctx = w.ctx();
    ctx.workers_per_cgroup = 3;
    ctx.work_type_override = Some(WorkType::YieldHeavy);
    let defs = vec![
        CgroupDef::named("a"),
        CgroupDef::named("b").cpuset(CpusetSpec::exact([0, 1, 2])).workers_pct(0.5).swappable(true),
        CgroupDef::named("b/c").workers_pct(1.0),
        CgroupDef::named("d").work_type(pairs()).workers(2),
    ];
    let step = Step::with_defs(defs, HALF).with_op(Op::spawn_host(WorkSpec::default().workers_pct(0.25)));
    assert!(execute_steps(&ctx, vec![step]).unwrap().is_pass());
    let s = w.state.get();
    let seen: Vec<_> = s.groups.iter().map(|g| (g.config.num_workers, g.config.work_type.name())).collect();
    assert_eq!(seen, [(2, "SpinWait"), (3, "SpinWait"), (2, "YieldHeavy"), (3, "SpinWait"), (2, "PipeIo")]);
}

#[test]
fn removing_an_outer_cgroup_ends_what_is_inside() {
    let w = World::new(1, 2);
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("o/a"), CgroupDef::named("o/b/c")], HALF),
        Step::new(vec![Op::remove_cgroup("o"), Op::add_cgroup("o")], HALF),
    ];
    let r = execute_steps(&w.ctx(), steps).unwrap();
    assert!(r.is_pass(), "{:?}", r.details);
    let log = w.log();
    let from = log.iter().position(|l| l.starts_with("stop")).unwrap();
    assert_eq!(
        log[from..],
        ["stop 1", "remove o/b/c", "stop 0", "remove o/a", "remove o/b", "remove o", "create o", "remove o"]
    );
}

#[test]
fn tasks_move_with_all_that_they_forked() {
    let w = World::new(1, 2);
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("a")], HALF),
        Step::new(vec![Op::add_cgroup("b"), Op::move_all_tasks("a", "b"), Op::remove_cgroup("a")], HALF),
    ];
    let r = execute_steps(&w.ctx(), steps).unwrap();
    assert!(w.log().contains(&"move b [100, 101]".to_owned()));
    let names: Vec<_> = r.stats.cgroups.iter().map(|c| (c.name.as_str(), c.total_iterations)).collect();
    assert_eq!(names, [("b", 4000)], "workers belong to where they end");
}

#[test]
fn a_factory_is_asked_once_with_its_step() {
    let w = World::new(1, 2);
    let asked = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let heard = asked.clone();
    let step = Step::with_factory(
        move |ctx| {
            heard.lock().unwrap().push(ctx.current_step());
            vec![ctx.cgroup_def("made")]
        },
        HALF,
    );
    assert!(execute_steps(&w.ctx(), vec![Step::hold(HALF), step]).unwrap().is_pass());
    assert_eq!(*asked.lock().unwrap(), [2]);
    assert!(w.log().contains(&"create made".to_owned()));
}

#[test]
fn the_host_is_asked_where_the_op_stands_and_its_refusal_ends_the_scenario() {
    let w = World::new(1, 2);
    let ops = vec![
        Op::capture_snapshot("before"),
        Op::set_cpuset("cg_0", CpusetSpec::exact([1])),
        Op::write_kernel_cold("x", 3),
        Op::capture_cgroup_procs("members", "cg_0"),
    ];
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("cg_0").workers(1)], HoldSpec::frac(0.5)),
        Step::new(ops, HoldSpec::frac(0.5)),
    ];
    assert!(execute_steps(&w.ctx(), steps.clone()).unwrap().is_pass());
    let log = w.log();
    let of_step: Vec<&String> =
        log.iter().filter(|l| l.starts_with("ask") || l.starts_with("cpuset")).collect();
    assert_eq!(
        of_step,
        [
            "ask in step 2: Capture { name: \"before\" }",
            "cpuset cg_0 1",
            "ask in step 2: WriteKernel { path: \"x\", value: 3, frozen: true }",
            "ask in step 2: KeepPids { tag: \"members\", pids: [100] }",
        ]
    );
    let asked_first = w.state.get().log.iter().position(|l| l.starts_with("ask")).unwrap();
    let w = World::new(1, 2);
    // Calls that can't fail are in the log too; the first ask is the only fallible one after spawning.
    let fallible = |log: &[String]| log.iter().filter(|l| !l.starts_with("start")).count();
    let before = fallible(&log_until(&w, steps.clone(), asked_first));
    let w = World::new(1, 2);
    w.state.get().fail_at = Some(before);
    let error = execute_steps(&w.ctx(), steps).unwrap_err();
    assert!(error.to_string().contains("CaptureSnapshot: the host answered: no such variable"), "{error}");
    assert!(w.state.get().is_clean());
}

fn log_until(w: &World, steps: Vec<Step>, end: usize) -> Vec<String> {
    assert!(execute_steps(&w.ctx(), steps).is_ok());
    w.state.get().log[..end].to_vec()
}
