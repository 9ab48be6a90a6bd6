//! Each canned scenario plays on machines of several shapes and does what its name says.

use super::*;
use crate::world::World;

type Scenario = (&'static str, fn(&Ctx<'_>) -> Played);

const ALL: &[Scenario] = &[
    ("steady", steady),
    ("steady_llc", steady_llc),
    ("oversubscribed", oversubscribed),
    ("cpuset_apply", cpuset_apply),
    ("cpuset_clear", cpuset_clear),
    ("cpuset_resize", cpuset_resize),
    ("cgroup_add", cgroup_add),
    ("cgroup_remove", cgroup_remove),
    ("affinity_change", affinity_change),
    ("affinity_pinned", affinity_pinned),
    ("host_contention", host_contention),
    ("mixed_workloads", mixed_workloads),
    ("nested_steady", nested_steady),
    ("nested_task_move", nested_task_move),
];

/// The calls of a scenario that passed on this machine.
#[track_caller]
fn log(llcs: u32, cores: u32, play: fn(&Ctx<'_>) -> Played) -> Vec<String> {
    let w = World::new(llcs, cores);
    let r = play(&w.ctx()).unwrap();
    assert!(r.is_pass(), "{:?}", r.details);
    w.log()
}

fn count(log: &[String], part: &str) -> usize {
    log.iter().filter(|l| l.starts_with(part)).count()
}

#[test]
fn all_play_on_machines_of_any_shape() {
    for (llcs, cores) in [(1, 1), (1, 2), (2, 2), (4, 4)] {
        for (name, play) in ALL {
            let w = World::new(llcs, cores);
            let mut ctx = w.ctx();
            ctx.workers_per_cgroup = 3;
            let r = play(&ctx).unwrap_or_else(|e| panic!("{name} on {llcs} x {cores}: {e}"));
            assert!(r.is_pass() || r.is_skip(), "{name} on {llcs} x {cores}: {:?}", r.details);
            assert!(w.state.get().is_clean(), "{name} on {llcs} x {cores}");
        }
    }
}

#[test]
fn a_machine_that_is_too_small_is_a_skip_that_says_so() {
    let w = World::new(1, 4);
    let r = steady_llc(&w.ctx()).unwrap();
    assert!(r.is_skip());
    assert_eq!(r.details[0].message, "needs at least 2 LLCs, the machine has 1; declare llcs = 2");
    let w = World::new(1, 1);
    for play in [cpuset_apply, cpuset_clear, cpuset_resize, affinity_pinned] {
        let r = play(&w.ctx()).unwrap();
        assert_eq!(
            (r.is_skip(), r.details[0].message.as_str()),
            (true, "needs at least 2 usable CPUs, the machine has 1")
        );
    }
}

#[test]
fn steady_is_two_cgroups_of_spinners_for_the_whole_time() {
    let w = World::new(1, 2);
    let r = steady(&w.ctx()).unwrap();
    let seen: Vec<_> = r.stats.cgroups.iter().map(|c| (c.name.as_str(), c.num_workers)).collect();
    assert_eq!(seen, [("cg_0", 2), ("cg_1", 2)]);
    assert_eq!(w.state.get().now, std::time::Duration::from_secs(2));
    assert!(w.state.get().groups.iter().all(|g| g.config.work_type.name() == "SpinWait"));
}

#[test]
fn llcs_and_cpusets_are_given_out() {
    let llcs = log(2, 2, steady_llc);
    assert!(llcs.contains(&"cpuset cg_0 0-1".into()) && llcs.contains(&"cpuset cg_1 2-3".into()), "{llcs:?}");
    let applied = log(2, 4, cpuset_apply);
    assert!(
        applied.iter().position(|l| l.starts_with("cpuset")) > applied.iter().position(|l| l == "start 1")
    );
    assert_eq!((count(&applied, "cpuset"), count(&log(2, 4, cpuset_clear), "clear")), (2, 2));
    assert_eq!(count(&log(2, 4, cpuset_resize), "cpuset cg_0"), 3);
}

#[test]
fn cgroups_come_and_go_half_way() {
    let w = World::new(1, 4);
    let r = cgroup_add(&w.ctx()).unwrap();
    let iterations: Vec<_> = r.stats.cgroups.iter().map(|c| c.total_iterations).collect();
    assert_eq!(iterations, [4000, 4000, 2000]);
    let w = World::new(1, 4);
    let r = cgroup_remove(&w.ctx()).unwrap();
    assert_eq!(
        (r.stats.cgroup("cg_2").unwrap().total_iterations, r.stats.total_iterations()),
        (2000, 10_000)
    );
}

#[test]
fn affinities_are_changed_or_pinned() {
    let changed = log(1, 4, affinity_change);
    // At the beginning and after each eighth but the last, both groups.
    assert_eq!(count(&changed, "affinity"), 16, "{changed:?}");
    let w = World::new(1, 4);
    assert!(affinity_pinned(&w.ctx()).unwrap().is_pass());
    let two = Some(CpuSet::from_iter([0, 1]));
    assert!(w.state.get().groups.iter().flat_map(|g| &g.affinity).all(|set| *set == two));
}

#[test]
fn loads_are_as_named() {
    assert_eq!(count(&log(1, 4, oversubscribed), "spawn"), 2);
    let host = log(1, 4, host_contention);
    assert_eq!(host[0], "spawn 0: 3 SpinWait", "one a usable CPU, before the cgroups");
    let mixed = log(1, 4, mixed_workloads);
    let kinds = ["SpinWait", "Bursty", "Mixed", "YieldHeavy", "PipeIo"];
    assert!(
        kinds.iter().all(|k| mixed.iter().any(|l| l.starts_with("spawn") && l.ends_with(k))),
        "{mixed:?}"
    );
    let moved = log(1, 4, nested_task_move);
    assert!(moved.contains(&"move outer/cg_1 [100, 101]".into()), "{moved:?}");
    assert_eq!(count(&moved, "move outer/cg_0"), 2, "{moved:?}");
    assert!(log(1, 4, nested_steady).contains(&"create outer".into()));
}
