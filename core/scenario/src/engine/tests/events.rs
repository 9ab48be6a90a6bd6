//! What the timeline hears.

use crate::engine::{execute_scenario, execute_steps};
use crate::world::World;
use crate::{Backdrop, CgroupDef, HoldSpec, Op, Step};
use ktstr_topology::{CpuSet, CpusetSpec};
use ktstr_workload::{AffinityIntent, SchedPolicy, WorkSpec};
use std::time::Duration;

const HALF: HoldSpec = HoldSpec::Frac(0.5);

/// The events in short: time, step, label, kind, detail, iterations, end marks.
fn short(w: &World) -> Vec<String> {
    let s = w.state.get();
    let events = s.events.iter().map(|e| {
        let iterations = e.total_iterations.map(|n| format!(" iter={n}")).unwrap_or_default();
        let end = match (e.is_step_end, e.is_terminal) {
            (true, false) => " END",
            (false, true) => " TERMINAL",
            _ => "",
        };
        let head = format!("{} #{} {} {} {}", e.elapsed_ms, e.step_index, e.label, e.op_kind, e.detail);
        format!("{}{iterations}{end}", head.split_whitespace().collect::<Vec<_>>().join(" "))
    });
    events.collect()
}

#[test]
fn steps_ops_and_the_end_are_told_with_their_time() {
    let w = World::new(1, 4);
    // Events count from the scenario's begin, not from the clock's.
    w.state.get().now = Duration::from_secs(100);
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("cg_0"), CgroupDef::named("cg_1")], HALF),
        Step::new(
            vec![Op::set_cpuset("cg_0", CpusetSpec::exact([0, 1, 2])), Op::swap_cpusets("cg_0", "cg_1")],
            HALF,
        ),
    ];
    assert!(execute_steps(&w.ctx(), steps).unwrap().is_pass());
    assert_eq!(
        short(&w),
        [
            "0 #0 scenario begin 2 steps",
            "0 #1 step 1 cg_0 cg_1",
            "0 #1 cg_0 Setup 2 workers of SpinWait",
            "0 #1 cg_1 Setup 2 workers of SpinWait",
            "1000 #1 step 1 iter=4000 END",
            "1000 #2 step 2",
            "1000 #2 set_cpuset SetCpuset cg_0 0-2",
            "1000 #2 swap_cpusets SwapCpusets cg_0 - cg_1 0-2",
            "2000 #2 step 2 iter=8000 END",
            "2000 #2 scenario end iter=8000 TERMINAL",
        ]
    );
}

#[test]
fn iterations_of_workers_that_ended_still_count() {
    let w = World::new(1, 4);
    let backdrop = Backdrop::from_cgroups(vec![CgroupDef::named("back").workers(1)])
        .push_op(Op::set_affinity("back", AffinityIntent::CrossCgroup));
    let steps = vec![Step::with_defs(vec![CgroupDef::named("a").workers(1)], HALF), Step::hold(HALF)];
    assert!(execute_scenario(&w.ctx(), backdrop, steps).unwrap().is_pass());
    let events = short(&w);
    assert_eq!(
        events[1..3],
        ["0 #0 back Setup 1 worker of SpinWait", "0 #0 set_affinity SetAffinity back CrossCgroup"]
    );
    assert_eq!(events.last().unwrap(), "2000 #2 scenario end iter=3000 TERMINAL");
    let ends: Vec<_> = events.iter().filter(|e| e.ends_with("END")).collect();
    assert_eq!(ends, ["1000 #1 step 1 iter=2000 END", "2000 #2 step 2 iter=3000 END"]);
}

#[test]
fn every_op_has_a_label_and_an_object() {
    let w = World::new(1, 2);
    let make = Step::with_defs(vec![CgroupDef::named("a")], HALF);
    let ops = vec![
        Op::add_cgroup("b"),
        Op::add_cgroup_def(CgroupDef::named("c")),
        Op::spawn("b", WorkSpec::default()),
        Op::spawn_host(WorkSpec::default()),
        Op::freeze_cgroup("b"),
        Op::unfreeze_cgroup("b"),
        Op::move_all_tasks("b", "c"),
        Op::clear_cpuset("a"),
        Op::stop_cgroup("a"),
        Op::remove_cgroup("a"),
    ];
    assert!(execute_steps(&w.ctx(), vec![make, Step::new(ops, HALF)]).unwrap().is_pass());
    let told: Vec<String> = w
        .state
        .get()
        .events
        .iter()
        .filter(|e| !e.op_kind.is_empty())
        .map(|e| format!("{} {}", e.label, e.detail))
        .collect();
    assert_eq!(
        told,
        [
            "a 2 workers of SpinWait",
            "add_cgroup b",
            "add_cgroup_def c: 2 workers of SpinWait",
            "spawn b SpinWait",
            "spawn_host SpinWait",
            "freeze_cgroup b",
            "unfreeze_cgroup b",
            "move_all_tasks b c",
            "clear_cpuset a",
            "stop_cgroup a",
            "remove_cgroup a",
        ]
    );
}

#[test]
fn an_interrupt_is_steered_and_told() {
    let w = World::new(1, 4);
    let steer = |irq| Step::new(vec![Op::steer_irq(irq, CpuSet::from_iter([1, 3]))], HoldSpec::FULL);
    assert!(execute_steps(&w.ctx(), vec![steer(24)]).is_ok());
    assert!(w.log().contains(&"steer 24 to 1,3".to_owned()), "{:?}", w.log());
    assert!(short(&w).iter().any(|e| e.contains("SteerIrq 24 1,3")), "{:?}", short(&w));
    let error = execute_steps(&w.ctx(), vec![steer(99)]).unwrap_err().to_string();
    assert!(error.starts_with("step 1: SteerIrq: there is no interrupt 99: expected one of 24"), "{error}");
}

#[test]
fn a_cgroup_is_told_with_its_settings_and_what_is_unusual_of_its_workers() {
    let w = World::new(1, 4);
    let def = CgroupDef::named("a")
        .cpuset(CpusetSpec::exact([0, 1]))
        .workers(3)
        .nice(5)
        .work(WorkSpec::default().workers(1).sched_policy(SchedPolicy::Fifo(7)));
    assert!(
        execute_steps(&w.ctx(), vec![Step::with_defs(vec![def, CgroupDef::named("b").workers(1)], HALF)])
            .is_ok()
    );
    let made: Vec<String> =
        w.state.get().events.iter().filter(|e| e.op_kind == "Setup").map(|e| e.detail.clone()).collect();
    assert_eq!(
        made,
        [
            "cpuset.cpus 0-1; 3 workers of SpinWait, nice 5; 1 worker of SpinWait, policy Fifo(7)",
            "1 worker of SpinWait"
        ]
    );
}
