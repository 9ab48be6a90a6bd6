//! Any list of steps leaves the machine as it found it.

use crate::engine::{execute_scenario, execute_steps};
use crate::world::World;
use crate::{Backdrop, CgroupDef, HoldSpec, Op, Step};
use ktstr_topology::CpusetSpec;
use ktstr_workload::{AffinityIntent, WorkSpec};
use proptest::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

fn name() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "c", "a/x", "a/y", "b/x/z"]).prop_map(str::to_owned)
}

fn def() -> impl Strategy<Value = CgroupDef> {
    (name(), 1usize..4, prop::option::of(0usize..2)).prop_map(|(name, workers, half)| {
        let def = CgroupDef::named(name).workers(workers);
        match half {
            Some(i) => def.cpuset(CpusetSpec::disjoint(i, 2)).affinity(AffinityIntent::SingleCpu),
            None => def,
        }
    })
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        name().prop_map(Op::add_cgroup),
        def().prop_map(Op::add_cgroup_def),
        name().prop_map(Op::remove_cgroup),
        name().prop_map(Op::stop_cgroup),
        (name(), 0usize..2).prop_map(|(n, i)| Op::set_cpuset(n, CpusetSpec::disjoint(i, 2))),
        name().prop_map(Op::clear_cpuset),
        (name(), name()).prop_map(|(a, b)| Op::swap_cpusets(a, b)),
        name().prop_map(|n| Op::spawn(n, WorkSpec::default().workers(1))),
        Just(Op::spawn_host(WorkSpec::default().workers(2))),
        name().prop_map(|n| Op::set_affinity(n, AffinityIntent::SingleCpu)),
        (name(), name()).prop_map(|(a, b)| Op::move_all_tasks(a, b)),
        name().prop_map(Op::freeze_cgroup),
        name().prop_map(Op::unfreeze_cgroup),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let hold = prop_oneof![
        Just(HoldSpec::frac(0.25)),
        Just(HoldSpec::fixed(Duration::from_millis(30))),
        Just(HoldSpec::loop_at(Duration::from_millis(700))),
    ];
    (prop::collection::vec(op(), 0..5), prop::collection::vec(def(), 0..2), hold)
        .prop_map(|(ops, defs, hold)| Step::with_defs(defs, hold).set_ops(ops))
}

/// Drops, one by one, what the engine refuses, so that most lists come to be played.
fn playable(backdrop: &Backdrop, steps: Vec<Step>, scoped: bool) -> Vec<Step> {
    let mut kept: Vec<Step> = Vec::new();
    let accepted = |steps: &[Step]| {
        let w = World::new(1, 4);
        // The first thing that is done fails, so that only the check is run.
        w.state.get().fail_at = Some(0);
        let result = if scoped {
            execute_scenario(&w.ctx(), backdrop.clone(), steps.to_vec())
        } else {
            execute_steps(&w.ctx(), steps.to_vec())
        };
        let refused = result.is_err() && w.state.get().log.is_empty();
        !refused
    };
    for step in steps {
        kept.push(Step { ops: Vec::new(), ..step.clone() });
        let last = kept.len() - 1;
        if !accepted(&kept) {
            kept[last] = Step::hold(step.hold);
        }
        for op in step.ops {
            kept[last].ops.push(op);
            if !accepted(&kept) {
                kept[last].ops.pop();
            }
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn everything_made_is_taken_down(
        steps in prop::collection::vec(step(), 0..5),
        back in def(),
        scoped: bool,
        fail_at in prop::option::of(any::<prop::sample::Index>()),
        panic_at in prop::option::weighted(0.2, 0u64..2000),
        dies_at in prop::option::weighted(0.2, 0u64..4000),
    ) {
        let backdrop = Backdrop::from_cgroups(vec![back]);
        let steps = playable(&backdrop, steps, scoped);
        let play = |w: &World| {
            let (backdrop, steps) = (backdrop.clone(), steps.clone());
            if scoped { execute_scenario(&w.ctx(), backdrop, steps) } else { execute_steps(&w.ctx(), steps) }
        };
        let undisturbed = World::new(1, 4);
        let result = play(&undisturbed);
        prop_assert!(result.is_ok(), "{:?}", result);
        prop_assert!(undisturbed.state.get().is_clean());
        let calls = undisturbed.state.get().fallible;

        let w = World::new(1, 4);
        {
            let mut s = w.state.get();
            s.fail_at = fail_at.filter(|_| calls > 0).map(|i| i.index(calls));
            s.panic_at = panic_at.map(Duration::from_millis);
            s.scheduler_dies_at = dies_at.map(Duration::from_millis);
        }
        let played = catch_unwind(AssertUnwindSafe(|| play(&w)));
        let s = w.state.get();
        let failed = s.log.iter().find(|l| l.ends_with("FAILS")).cloned().unwrap_or_default();
        for (id, group) in s.groups.iter().enumerate() {
            prop_assert!(group.stopped, "group {} was not stopped", id);
        }
        // A cgroup whose last removal is the call that fails stays, with those above it.
        if !failed.starts_with("remove") {
            prop_assert!(s.cgroups.is_empty(), "{:?} stay after {:?}", s.cgroups, failed);
        }
        if let Ok(Ok(result)) = &played {
            let ran = s.groups.iter().any(|g| g.started_at.is_some());
            prop_assert!(ran || !result.is_pass(), "a pass without workers");
            prop_assert!(failed.is_empty() || result.is_fail(), "{failed} was swallowed");
        }
    }
}
