//! Canned scenarios for common patterns.
//!
//! Each is a whole test body. One that the machine is too small for returns a skip that
//! says what it needs. All are laid out so that the workers of one cgroup may expect the
//! same treatment, which the default checks demand.

use crate::engine::{ScenarioError, execute_defs, execute_scenario, execute_steps};
use crate::group::diverse;
use crate::{Backdrop, CgroupDef, Ctx, HoldSpec, Op, Step};
use ktstr_assert::AssertResult;
use ktstr_topology::{CpuSet, CpusetSpec};
use ktstr_workload::{AffinityIntent, WorkSpec, WorkType};

/// What every scenario gives back.
type Played = Result<AssertResult, ScenarioError>;

/// How often a changing scenario changes something in the test's duration.
const CHANGES: u32 = 8;

/// Two cgroups of spinning workers, no cpusets.
///
/// # Errors
/// As [`execute_defs`].
pub fn steady(ctx: &Ctx<'_>) -> Played {
    execute_defs(ctx, pair(ctx).to_vec())
}

/// Two cgroups of spinning workers, each on an LLC of its own. Skipped under two LLCs.
///
/// # Errors
/// As [`execute_defs`].
pub fn steady_llc(ctx: &Ctx<'_>) -> Played {
    let llcs = ctx.topo.num_llcs();
    if llcs < 2 {
        return Ok(AssertResult::skip(format!(
            "needs at least 2 LLCs, the machine has {llcs}; declare llcs = 2"
        )));
    }
    let [a, b] = pair(ctx);
    execute_defs(ctx, vec![a.cpuset(CpusetSpec::llc(0)), b.cpuset(CpusetSpec::llc(1))])
}

/// Two cgroups of 32 workers each that spin and yield.
///
/// # Errors
/// As [`execute_defs`].
pub fn oversubscribed(ctx: &Ctx<'_>) -> Played {
    execute_defs(ctx, pair(ctx).map(|def| def.workers(32).work_type(WorkType::Mixed)).to_vec())
}

/// Two free cgroups; half-way, each gets one half of the CPUs. Skipped under two CPUs.
///
/// # Errors
/// As [`execute_steps`].
pub fn cpuset_apply(ctx: &Ctx<'_>) -> Played {
    if let Some(skip) = needs_cpus(ctx, 2) {
        return Ok(skip);
    }
    let change = vec![Op::set_cpuset("cg_0", half(0)), Op::set_cpuset("cg_1", half(1))];
    in_halves(ctx, pair(ctx).to_vec(), change)
}

/// Two cgroups on one half of the CPUs each; half-way, both are freed. Skipped under two
/// CPUs.
///
/// # Errors
/// As [`execute_steps`].
pub fn cpuset_clear(ctx: &Ctx<'_>) -> Played {
    if let Some(skip) = needs_cpus(ctx, 2) {
        return Ok(skip);
    }
    in_halves(ctx, halved(ctx), vec![Op::clear_cpuset("cg_0"), Op::clear_cpuset("cg_1")])
}

/// Two cgroups on one half of the CPUs each, grown to all CPUs and shrunk again. Skipped
/// under two CPUs.
///
/// # Errors
/// As [`execute_steps`].
pub fn cpuset_resize(ctx: &Ctx<'_>) -> Played {
    if let Some(skip) = needs_cpus(ctx, 2) {
        return Ok(skip);
    }
    let whole = CpusetSpec::range(0.0, 1.0);
    let grow = vec![Op::set_cpuset("cg_0", whole.clone()), Op::set_cpuset("cg_1", whole)];
    let shrink = vec![Op::set_cpuset("cg_0", half(0)), Op::set_cpuset("cg_1", half(1))];
    let third = HoldSpec::frac(1.0 / 3.0);
    execute_steps(
        ctx,
        vec![Step::with_defs(halved(ctx), third), Step::new(grow, third), Step::new(shrink, third)],
    )
}

/// Two cgroups; half-way, a third one joins.
///
/// # Errors
/// As [`execute_steps`].
pub fn cgroup_add(ctx: &Ctx<'_>) -> Played {
    in_halves(ctx, pair(ctx).to_vec(), vec![Op::add_cgroup_def(ctx.cgroup_def("cg_2"))])
}

/// Three cgroups; half-way, one of them ends.
///
/// # Errors
/// As [`execute_steps`].
pub fn cgroup_remove(ctx: &Ctx<'_>) -> Played {
    let [a, b] = pair(ctx);
    in_halves(ctx, vec![a, b, ctx.cgroup_def("cg_2")], vec![Op::remove_cgroup("cg_2")])
}

/// Two cgroups whose workers are sent to another CPU, drawn at random, eight times.
///
/// # Errors
/// As [`execute_scenario`].
pub fn affinity_change(ctx: &Ctx<'_>) -> Played {
    let one = AffinityIntent::RandomSubset { from: ctx.topo.usable_cpuset(), count: 1 };
    let change = vec![Op::set_affinity("cg_0", one.clone()), Op::set_affinity("cg_1", one)];
    let often = HoldSpec::loop_at((ctx.duration / CHANGES).max(std::time::Duration::from_millis(1)));
    execute_scenario(ctx, Backdrop::from_cgroups(pair(ctx).to_vec()), vec![Step::new(change, often)])
}

/// Two cgroups whose workers are all pinned to the same two CPUs. Skipped under two CPUs.
///
/// # Errors
/// As [`execute_defs`].
pub fn affinity_pinned(ctx: &Ctx<'_>) -> Played {
    if let Some(skip) = needs_cpus(ctx, 2) {
        return Ok(skip);
    }
    let two: CpuSet = ctx.topo.usable_cpuset().iter().take(2).collect();
    execute_defs(ctx, pair(ctx).map(|def| def.affinity(AffinityIntent::Exact(two.clone()))).to_vec())
}

/// Two cgroups beside a load of one spinning worker a usable CPU in the runner's cgroup.
///
/// # Errors
/// As [`execute_steps`].
pub fn host_contention(ctx: &Ctx<'_>) -> Played {
    let load = WorkSpec::of(WorkType::SpinWait).workers(ctx.topo.usable_cpuset().len());
    let step = Step::with_defs(pair(ctx).to_vec(), HoldSpec::FULL).with_op(Op::spawn_host(load));
    execute_steps(ctx, vec![step])
}

/// Five cgroups, each with work of another kind.
///
/// # Errors
/// As [`execute_defs`].
pub fn mixed_workloads(ctx: &Ctx<'_>) -> Played {
    let defs = diverse().into_iter().enumerate().map(|(i, work_type)| {
        let workers = ctx.workers_per_cgroup.next_multiple_of(work_type.worker_group_size());
        CgroupDef::named(format!("cg_{i}")).workers(workers).work_type(work_type)
    });
    execute_defs(ctx, defs.collect())
}

/// Two cgroups of spinning workers inside an outer one.
///
/// # Errors
/// As [`execute_defs`].
pub fn nested_steady(ctx: &Ctx<'_>) -> Played {
    execute_defs(ctx, vec![ctx.cgroup_def("outer/cg_0"), ctx.cgroup_def("outer/cg_1")])
}

/// Workers that move to a sibling cgroup and back, inside an outer one.
///
/// # Errors
/// As [`execute_steps`].
pub fn nested_task_move(ctx: &Ctx<'_>) -> Played {
    let (a, b) = ("outer/cg_0", "outer/cg_1");
    let third = HoldSpec::frac(1.0 / 3.0);
    let steps = vec![
        Step::with_defs(vec![ctx.cgroup_def(a)], third),
        Step::new(vec![Op::add_cgroup(b), Op::move_all_tasks(a, b)], third),
        Step::new(vec![Op::move_all_tasks(b, a)], third),
    ];
    execute_steps(ctx, steps)
}

fn pair(ctx: &Ctx<'_>) -> [CgroupDef; 2] {
    ["cg_0", "cg_1"].map(|name| ctx.cgroup_def(name).swappable(true))
}

fn halved(ctx: &Ctx<'_>) -> Vec<CgroupDef> {
    pair(ctx).into_iter().enumerate().map(|(i, def)| def.cpuset(half(i))).collect()
}

fn half(index: usize) -> CpusetSpec {
    CpusetSpec::disjoint(index, 2)
}

fn in_halves(ctx: &Ctx<'_>, defs: Vec<CgroupDef>, change: Vec<Op>) -> Played {
    let half = HoldSpec::frac(0.5);
    execute_steps(ctx, vec![Step::with_defs(defs, half), Step::new(change, half)])
}

/// A skip when there are fewer usable CPUs.
fn needs_cpus(ctx: &Ctx<'_>, n: usize) -> Option<AssertResult> {
    let usable = ctx.topo.usable_cpuset().len();
    (usable < n)
        .then(|| AssertResult::skip(format!("needs at least {n} usable CPUs, the machine has {usable}")))
}

#[cfg(test)]
mod tests;
