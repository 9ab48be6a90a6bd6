//! The scenario of `cargo xtask demo`: two groups of workers compete on a machine of
//! two LLCs, then one is squeezed into the other's LLC. It runs under the kernel's own
//! scheduler, under a BPF scheduler, and under the same one with a fault planted.

mod common;

use common::{assert_says, fails};
use ktstr::prelude::*;
use std::time::Duration;

// The verifier sweep takes the fixture out of tests/schedulers.rs, once.
declare_scheduler!(FIXTURE, {
    name = "fixture",
    binary = "scx-fixture",
    topology = (1, 2, 2, 1),
    verifier = false,
});

#[ktstr_test(llcs = 2, cores = 2, threads = 1, duration_s = 1)]
fn demo_two_groups(ctx: &Ctx) -> Result<AssertResult> {
    two_groups(ctx)
}

#[ktstr_test(scheduler = FIXTURE, duration_s = 1)]
fn demo_sound_scheduler(ctx: &Ctx) -> Result<AssertResult> {
    two_groups(ctx)
}

/// From half a second on the scheduler forgets whoever waits for CPU 3.
#[ktstr_test(scheduler = FIXTURE, extra_sched_args = ["--stall-cpu", "3", "--timeout-ms", "1000"], duration_s = 4)]
fn demo_forgotten_cpu(ctx: &Ctx) -> Result<AssertResult> {
    two_groups(ctx)
}

/// The scene of `cargo xtask demo` that must end in a failure: with the reason, the task and the CPU.
#[test]
fn the_demos_bug_is_named() {
    let text = fails("demo_forgotten_cpu", &[]);
    let summary = text.lines().find(|line| line.starts_with("BUG SUMMARY: ")).expect("a summary");
    assert_says(
        summary,
        &["fixture: runnable task stall (stall), task ", "] waited ", " on CPU 3, dispatch queue 0x57a11"],
    );
}

fn two_groups(ctx: &Ctx) -> Result<AssertResult> {
    let steps = vec![
        // Both may run anywhere: spinners beside workers that sleep and wake.
        Step::with_defs(
            vec![
                CgroupDef::named("batch").workers(4),
                CgroupDef::named("latency")
                    .workers(2)
                    .work_type(WorkType::bursty(Duration::from_millis(5), Duration::from_millis(10))),
            ],
            HoldSpec::frac(0.5),
        ),
        // The spinners are confined to the first LLC.
        Step::new(vec![Op::set_cpuset("batch", CpusetSpec::llc(0))], HoldSpec::frac(0.5)),
    ];
    let mut result = execute_steps(ctx, steps)?;
    let mut v = ctx.assert.verdict();
    for cgroup in &result.stats.cgroups {
        cgroup.claim_total_iterations(&mut v).at_least(1);
    }
    result.merge(v.into_result());
    Ok(result)
}
