//! A scheduler that crashes is run again with probes, and the report tells what its task went through.

mod common;

use common::{assert_says, case, fails};
use ktstr::prelude::*;

declare_scheduler!(FIXTURE, { name = "fixture", binary = "scx-fixture", ops = "fixture", topology = (1, 1, 2, 1) });

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--scx-error", "the weights are off"], duration_s = 2)]
fn drill_calls_an_error(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "1000"], duration_s = 3)]
fn drill_stalls_a_cpu(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--scx-error", "once"], duration_s = 2)]
fn drill_is_run_once(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(scheduler = FIXTURE, expect_auto_repro, extra_sched_args = ["--scx-error", "again"], duration_s = 2)]
fn a_crash_that_comes_again_passes_where_it_is_expected(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}
