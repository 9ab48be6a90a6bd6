//! The scenario engine under `anyhow::Result`, as test functions return it.

use anyhow::Result;
use ktstr_assert::{Assert, AssertResult};
use ktstr_scenario::{Backdrop, CgroupDef, Ctx, Step};

pub use ktstr_scenario::{CgroupGroup, collect_all, dfl_wl, setup_cgroups, spawn_diverse};

/// Plays one step that holds for the whole duration.
pub fn execute_defs(ctx: &Ctx<'_>, defs: Vec<CgroupDef>) -> Result<AssertResult> {
    Ok(ktstr_scenario::execute_defs(ctx, defs)?)
}

/// Plays steps one after the other; what a step makes lasts until the end.
pub fn execute_steps(ctx: &Ctx<'_>, steps: Vec<Step>) -> Result<AssertResult> {
    Ok(ktstr_scenario::execute_steps(ctx, steps)?)
}

/// [`execute_steps`] with checks that replace those of the context.
pub fn execute_steps_with(ctx: &Ctx<'_>, steps: Vec<Step>, checks: Option<&Assert>) -> Result<AssertResult> {
    Ok(ktstr_scenario::execute_steps_with(ctx, steps, checks)?)
}

/// Plays steps before a backdrop; what a step makes ends with it.
pub fn execute_scenario(ctx: &Ctx<'_>, backdrop: Backdrop, steps: Vec<Step>) -> Result<AssertResult> {
    Ok(ktstr_scenario::execute_scenario(ctx, backdrop, steps)?)
}

/// [`execute_scenario`] with checks that replace those of the context.
pub fn execute_scenario_with(
    ctx: &Ctx<'_>,
    backdrop: Backdrop,
    steps: Vec<Step>,
    checks: Option<&Assert>,
) -> Result<AssertResult> {
    Ok(ktstr_scenario::execute_scenario_with(ctx, backdrop, steps, checks)?)
}

/// Canned scenarios for common patterns.
pub mod scenarios {
    use super::{AssertResult, Ctx, Result};

    macro_rules! canned {
        ($($name:ident)*) => {$(
            #[doc = concat!("See `ktstr_scenario::scenarios::", stringify!($name), "`.")]
            pub fn $name(ctx: &Ctx<'_>) -> Result<AssertResult> {
                Ok(ktstr_scenario::scenarios::$name(ctx)?)
            }
        )*};
    }

    canned! {
        steady steady_llc oversubscribed cpuset_apply cpuset_clear cpuset_resize cgroup_add cgroup_remove
        affinity_change affinity_pinned host_contention mixed_workloads nested_steady nested_task_move
    }
}
