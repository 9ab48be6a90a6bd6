//! Tests that must fail do fail, and the detail names the right worker, CPU and number.

mod common;

use common::{assert_says, fails};
use ktstr::prelude::*;

/// A real-time hog and an ordinary worker on CPU 1 alone. Real-time throttling and
/// the fair server would let the ordinary one through now and then: both are off.
#[ktstr_test(ignore, cores = 2, max_gap_ms = 500)]
fn starves_a_worker(ctx: &Ctx) -> Result<AssertResult> {
    std::fs::write("/proc/sys/kernel/sched_rt_runtime_us", "-1")
        .context("turning real-time throttling off")?;
    for cpu in ctx.topo.all_cpus() {
        let runtime = format!("/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime");
        std::fs::write(&runtime, "0")
            .with_context(|| format!("turning the fair server off with {runtime}"))?;
    }
    execute_defs(
        ctx,
        vec![
            CgroupDef::named("hog")
                .workers(1)
                .sched_policy(SchedPolicy::Fifo(50))
                .cpuset(CpusetSpec::exact([1])),
            CgroupDef::named("starved").workers(1).cpuset(CpusetSpec::exact([1])),
        ],
    )
}

/// Workers that may run everywhere, judged as if they had to stay on CPU 0.
#[ktstr_test(ignore, cores = 2)]
fn breaks_isolation(ctx: &Ctx) -> Result<AssertResult> {
    let mut handle = WorkloadHandle::spawn(&WorkloadConfig {
        num_workers: 1,
        affinity: AffinityIntent::Exact(CpuSet::from_iter([1])),
        ..Default::default()
    })?;
    handle.start();
    std::thread::sleep(ctx.duration / 2);
    let reports = handle.stop_and_collect();
    let checks = Assert::default_checks().check_isolation();
    Ok(checks.assert_cgroup(&reports, Some(&CpuSet::from_iter([0]))))
}

/// Makes the second worker of its group as nice as can be, then spins.
fn spin_and_step_back(worker: &dyn WorkerCtx) {
    if worker.index() == 1 {
        // SAFETY: setpriority(2) takes no pointers; raising one's own nice value is always allowed.
        unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    }
    while !worker.stop_requested() {
        worker.spin(1000);
        worker.add_work(1);
        worker.iteration();
    }
}

/// Two workers on one CPU, one with 68 times the other's weight.
#[ktstr_test(ignore, cores = 2, max_spread_pct = 30.0)]
fn is_unfair(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(
        ctx,
        vec![
            CgroupDef::named("unfair")
                .workers(2)
                .work_type(WorkType::custom("spin_and_step_back", spin_and_step_back))
                .cpuset(CpusetSpec::exact([1])),
        ],
    )
}

/// A claim that can't hold.
#[ktstr_test(ignore, cores = 2)]
fn claims_too_much(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = scenarios::steady(ctx)?;
    let mut v = ctx.assert.verdict();
    let cgroup = &result.stats.cgroups[0];
    cgroup.claim_num_workers(&mut v).at_least(3);
    let migrations = cgroup.total_migrations;
    claim!(v, migrations).at_most(u64::MAX);
    result.merge(v.into_result());
    Ok(result)
}

/// The number before `unit` in the first line that holds `needle`.
fn number(text: &str, needle: &str, unit: &str) -> f64 {
    let line =
        text.lines().find(|l| l.contains(needle)).unwrap_or_else(|| panic!("no {needle:?} in:\n{text}"));
    let before = &line[..line.find(unit).unwrap_or_else(|| panic!("no {unit:?} in {line:?}"))];
    let digits = before.rsplit(|c: char| !c.is_ascii_digit() && c != '.').next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("no number before {unit:?} in {line:?}"))
}

#[test]
fn a_starved_worker_is_named() {
    let text = fails("starves_a_worker", &[]);
    assert_says(&text, &["failed:", "starved: worker 0", "cpu1"]);
    assert!(!text.contains("hog: worker 0"), "the hog did nothing wrong:\n{text}");
}

#[test]
fn a_worker_outside_its_cpuset_is_named_with_the_cpu() {
    let text = fails("breaks_isolation", &[]);
    assert_says(&text, &["worker 0", "cpu1", "outside its cpuset 0"]);
}

#[test]
fn unfairness_is_measured() {
    let text = fails("is_unfair", &[]);
    assert_says(&text, &["unfair: unfair: off-CPU spread", "(limit 30.0%)"]);
    assert!(number(&text, "off-CPU spread", "%") > 30.0, "{text}");
}

#[test]
fn a_claim_is_labelled_with_its_source() {
    let text = fails("claims_too_much", &[]);
    assert_says(&text, &["num_workers: expected at least 3, got 2"]);
    assert!(!text.contains("migrations:"), "{text}");
}
