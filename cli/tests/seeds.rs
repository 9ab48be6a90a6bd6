//! The examples of the documents that the project started from, as they stand
//! there: they must compile and run.

use ktstr::prelude::*;
use std::time::Duration;

#[ktstr_test(llcs = 1, cores = 2, threads = 1)]
fn my_scheduler_test(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(2), CgroupDef::named("cg_1").workers(2)])
}

#[ktstr_test(llcs = 1, cores = 2, threads = 1)]
fn my_dynamic_test(ctx: &Ctx) -> Result<AssertResult> {
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("cg_0").workers(4)], HoldSpec::frac(0.5)),
        Step::new(vec![Op::stop_cgroup("cg_0"), Op::remove_cgroup("cg_0")], HoldSpec::frac(0.5)),
    ];
    execute_steps(ctx, steps)
}

#[ktstr_test(llcs = 1, cores = 2, threads = 1)]
fn my_low_level_test(ctx: &Ctx) -> Result<AssertResult> {
    let mut group = CgroupGroup::new(ctx.cgroups);
    group.add_cgroup_no_cpuset("workers")?;
    let cpus = ctx.topo.all_cpuset();
    ctx.cgroups.set_cpuset("workers", &cpus)?;

    let cfg = WorkloadConfig { num_workers: 2, work_type: WorkType::SpinWait, ..Default::default() };
    let mut handle = WorkloadHandle::spawn(&cfg)?;
    ctx.cgroups.move_tasks("workers", &handle.worker_pids_for_cgroup_procs()?)?;
    handle.start();

    std::thread::sleep(ctx.duration);
    let reports = handle.stop_and_collect();

    let a = Assert::default_checks();
    Ok(a.assert_cgroup(&reports, None))
}

#[test]
fn pointwise_claims() {
    // A test author would obtain `cg` and `report` from `ctx`-driven
    // execution; the literal here just illustrates the assertion shape.
    let cg = CgroupStats {
        num_workers: 2,
        num_cpus: 2,
        max_gap_ms: 50,
        p99_wake_latency_us: 25.0,
        median_wake_latency_us: 10.0,
        total_iterations: 5_000,
        ..Default::default()
    };
    let work_units = 10_000u64;
    let throughput = work_units as f64 / 5.0;

    let mut v = Assert::default_checks().verdict();
    cg.claim_max_gap_ms(&mut v).at_most(100); // typed CgroupStats accessor
    cg.claim_p99_wake_latency_us(&mut v).at_most(50.0);
    cg.claim_total_iterations(&mut v).at_least(1_000);
    claim!(v, work_units).at_least(5_000); // local-binding label
    claim!(v, throughput).is_finite(); // expression label
    claim!(v, cg.wake_latency_tail_ratio()).between(1.0, 5.0);
    let r = v.into_result();
    assert!(r.is_pass());
}

mod getting_started {
    use super::*;

    #[ktstr_test(llcs = 1, cores = 2, threads = 1)] // llcs = last-level caches
    fn my_test(ctx: &Ctx) -> Result<AssertResult> {
        // `scenarios::steady` is a canned scenario: two cgroups of equal
        // CPU-spin workers, no cpuset restrictions, run for the default
        // duration.
        scenarios::steady(ctx)
    }

    #[ktstr_test(llcs = 1, cores = 2, threads = 1)]
    fn my_bursty_test(ctx: &Ctx) -> Result<AssertResult> {
        execute_defs(
            ctx,
            vec![
                CgroupDef::named("cg_0").workers(4),
                CgroupDef::named("cg_1")
                    .workers(2)
                    // CPU burst for 50 ms, sleep for 100 ms, repeat.
                    .work_type(WorkType::bursty(Duration::from_millis(50), Duration::from_millis(100))),
            ],
        )
    }

    #[ktstr_test(llcs = 1, cores = 4, threads = 1)]
    fn my_phases_test(ctx: &Ctx) -> Result<AssertResult> {
        let steps = vec![
            // Phase 1: two cgroups for the first half.
            Step::with_defs(
                vec![CgroupDef::named("cg_0").workers(2), CgroupDef::named("cg_1").workers(2)],
                HoldSpec::Frac(0.5),
            ),
            // Phase 2: add a third cgroup for the remaining half.
            Step::with_defs(vec![CgroupDef::named("cg_2").workers(2)], HoldSpec::Frac(0.5)),
        ];
        execute_steps(ctx, steps)
    }
}

/// Names of the public crate that the documents have.
#[test]
fn public_names_mean_what_the_documents_say() {
    let variables = [
        (ktstr::KTSTR_SCHEDULER_ENV, "KTSTR_SCHEDULER"),
        (ktstr::KTSTR_SCHEDULER_PROFILE_ENV, "KTSTR_SCHEDULER_PROFILE"),
        (ktstr::KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK_ENV, "KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK"),
        (ktstr::KTSTR_VERIFIER_RAW_ENV, "KTSTR_VERIFIER_RAW"),
        (ktstr::KTSTR_VERIFIER_RESULT_DIR_ENV, "KTSTR_VERIFIER_RESULT_DIR"),
        (ktstr::KTSTR_VERIFIER_SCHEDULER_ENV, "KTSTR_VERIFIER_SCHEDULER"),
    ];
    assert!(variables.iter().all(|(constant, name)| constant == name), "{variables:?}");
    assert_eq!(ktstr::per_name_scheduler_env("scx_layered"), "KTSTR_SCHEDULER_BIN_SCX_LAYERED");
    let said = std::env::var(ktstr::KTSTR_SCHEDULER_PROFILE_ENV).ok().filter(|profile| !profile.is_empty());
    assert_eq!(ktstr::scheduler_profile_name(), said.unwrap_or_else(|| "release".to_string()));
    let error = ktstr::build_and_find_binary("no-such-package").expect_err("there is no such package");
    assert!(format!("{error:#}").contains("no-such-package"), "{error:#}");
    let log =
        "processed 42 insns (limit 1000000) max_states_per_insn 1 total_states 4 peak_states 3 mark_read 2";
    let stats = ktstr::verifier::Stats::parse(log.lines()).expect("statistics");
    assert_eq!((stats.processed, stats.total_states), (42, 4));
}
