//! What each check says, and that none passes without a signal.

use crate::{Assert, AssertResult, CgroupView, DetailKind, Outcome};
use ktstr_topology::CpuSet;
use ktstr_workload::{ExitInfo, LatencyHistogram, Migration, WorkerReport};
use proptest::prelude::*;
use std::collections::BTreeMap;

/// A worker that did fine: 2 s of wall time, half of it on cpu0.
fn fine(index: u32, tid: i32) -> WorkerReport {
    WorkerReport {
        tid,
        index,
        work_units: 1000,
        iterations: 500,
        cpu_time_ns: 1_000_000_000,
        wall_time_ns: 2_000_000_000,
        off_cpu_ns: 1_000_000_000,
        cpus_used: CpuSet::from_iter([0]),
        completed: true,
        ..WorkerReport::default()
    }
}

fn cpus(list: &str) -> CpuSet {
    list.parse().unwrap()
}

/// The single detail of a result.
#[track_caller]
fn only(r: &AssertResult) -> (Outcome, DetailKind, &str) {
    assert_eq!(r.details.len(), 1, "{:?}", r.details);
    (r.details[0].outcome, r.details[0].kind, &r.details[0].message)
}

#[track_caller]
fn fails(r: &AssertResult, kind: DetailKind, message: &str) {
    assert_eq!(only(r), (Outcome::Fail, kind, message));
    assert!(r.is_fail());
}

#[track_caller]
fn is_inconclusive(r: &AssertResult, kind: DetailKind, part: &str) {
    let (outcome, seen, message) = only(r);
    assert_eq!((outcome, seen), (Outcome::Inconclusive, kind), "{message}");
    assert!(message.contains(part), "{message}");
    assert!(r.is_inconclusive());
}

const BARE: Assert = Assert::NO_OVERRIDES;

#[test]
fn good_workers_pass_every_check_with_a_signal() {
    let mut reports = vec![fine(0, 40), fine(1, 41)];
    for r in &mut reports {
        r.wake_latencies_ns = LatencyHistogram::from_values(&[5_000; 10]);
        r.numa_pages = BTreeMap::from([(0, 10)]);
    }
    let all = Assert::default_checks()
        .check_isolation()
        .max_throughput_cv(0.1)
        .min_work_rate(100.0)
        .min_iteration_rate(100.0)
        .max_p99_wake_latency_ns(10_000)
        .max_wake_latency_cv(0.5)
        .max_migration_ratio(0.1)
        .min_page_locality(0.9);
    let (set, nodes) = (cpus("0-1"), cpus("0"));
    let view = CgroupView { name: "cg_0", cpuset: Some(&set), nodes: Some(&nodes) };
    let r = all.assert_cgroup_view(&reports, &view);
    assert!(r.is_pass(), "{:?}", r.details);
    // Completed, starved, gap, spread, isolation, and the seven above.
    assert_eq!(r.passed_checks, 12);
    assert_eq!(r.stats.cgroups[0].name, "cg_0");
}

#[test]
fn no_report_is_inconclusive() {
    is_inconclusive(
        &Assert::default_checks().assert_cgroup(&[], None),
        DetailKind::Worker,
        "no worker reported",
    );
}

#[test]
fn a_starved_worker_is_named_with_its_cpu() {
    let starved = WorkerReport { work_units: 0, ..fine(2, 41) };
    let text = "worker 2 (tid 41) starved: 0 work units in 2000ms, last seen on cpu0";
    fails(
        &BARE.check_not_starved().assert_cgroup(std::slice::from_ref(&starved), None),
        DetailKind::Starvation,
        text,
    );

    let moved = WorkerReport {
        migration_count: 1,
        migrations: vec![Migration { at_ns: 1, from: 0, to: 3 }],
        cpus_used: cpus("0,3"),
        ..starved.clone()
    };
    let text = "worker 2 (tid 41) starved: 0 work units in 2000ms, last seen on cpu3";
    fails(
        &BARE.check_not_starved().assert_cgroup(std::slice::from_ref(&moved), None),
        DetailKind::Starvation,
        text,
    );

    // More moves than were kept: the last place is not known.
    let restless = WorkerReport { migration_count: 9, ..moved };
    let text = "worker 2 (tid 41) starved: 0 work units in 2000ms, seen on cpus 0,3";
    fails(&BARE.check_not_starved().assert_cgroup(&[restless], None), DetailKind::Starvation, text);

    let unseen = WorkerReport { cpus_used: CpuSet::new(), ..starved };
    let text = "worker 2 (tid 41) starved: 0 work units in 2000ms, never seen on a CPU";
    fails(&BARE.check_not_starved().assert_cgroup(&[unseen], None), DetailKind::Starvation, text);
}

#[test]
fn a_messenger_works_by_iterating() {
    let messenger = WorkerReport { is_messenger: true, work_units: 0, ..fine(0, 40) };
    assert!(BARE.check_not_starved().assert_cgroup(std::slice::from_ref(&messenger), None).is_pass());
    let stuck = WorkerReport { iterations: 0, ..messenger };
    assert!(BARE.check_not_starved().assert_cgroup(&[stuck], None).is_fail());
}

#[test]
fn without_wall_time_nothing_is_known() {
    let never_started = WorkerReport { completed: true, ..WorkerReport::default() };
    let pair = [never_started.clone(), never_started];
    let part = "wall time";
    is_inconclusive(&BARE.max_gap_ms(1).assert_cgroup(&pair, None), DetailKind::Gap, part);
    is_inconclusive(&BARE.max_spread_pct(1.0).assert_cgroup(&pair, None), DetailKind::Fairness, part);
    is_inconclusive(&BARE.check_not_starved().assert_cgroup(&pair[..1], None), DetailKind::Starvation, part);
    is_inconclusive(
        &BARE.min_iteration_rate(1.0).assert_cgroup(&pair[..1], None),
        DetailKind::Throughput,
        part,
    );
    is_inconclusive(
        &BARE.min_work_rate(1.0).assert_cgroup(&pair[..1], None),
        DetailKind::Throughput,
        "CPU time",
    );
    is_inconclusive(
        &BARE.max_throughput_cv(1.0).assert_cgroup(&pair, None),
        DetailKind::Throughput,
        "CPU time",
    );
    is_inconclusive(
        &BARE.max_migration_ratio(1.0).assert_cgroup(&pair, None),
        DetailKind::Migration,
        "iteration",
    );
    is_inconclusive(
        &BARE.max_p99_wake_latency_ns(1).assert_cgroup(&pair, None),
        DetailKind::WakeLatency,
        "p99",
    );
    is_inconclusive(
        &BARE.max_wake_latency_cv(1.0).assert_cgroup(&pair, None),
        DetailKind::WakeLatency,
        "no wake-up",
    );
    let set = cpus("0");
    is_inconclusive(
        &BARE.check_isolation().assert_cgroup(&pair[..1], Some(&set)),
        DetailKind::Isolation,
        "never seen",
    );
}

#[test]
fn a_gap_reads_as_documented() {
    let stuck = WorkerReport { max_gap_ms: 3500, max_gap_cpu: 1, max_gap_at_ms: 1200, ..fine(0, 40) };
    let reports = [fine(1, 41), stuck];
    fails(
        &BARE.max_gap_ms(2000).assert_cgroup(&reports, None),
        DetailKind::Gap,
        "stuck 3500ms on cpu1 at +1200ms",
    );
    assert!(BARE.max_gap_ms(3500).assert_cgroup(&reports, None).is_pass());
}

#[test]
fn gaps_come_longest_first_and_are_capped() {
    let reports: Vec<_> =
        (0..11).map(|i| WorkerReport { max_gap_ms: 3000 + u64::from(i), ..fine(i, 40) }).collect();
    let r = BARE.max_gap_ms(2000).assert_cgroup(&reports, None);
    assert_eq!(r.details.len(), 9);
    assert!(r.details[0].message.starts_with("stuck 3010ms"), "{}", r.details[0].message);
    assert_eq!(r.details[8].message, "and 3 more workers likewise");
}

#[test]
fn an_unfair_pair_is_named() {
    let off = |index, pct: f64| WorkerReport { off_cpu_ns: (pct * 2e7) as u64, ..fine(index, 40) };
    let reports = [off(0, 12.1), off(1, 30.0), off(3, 60.3)];
    let text = "unfair: off-CPU spread 48.2% (limit 15.0%): worker 0 12.1%, worker 3 60.3%";
    fails(&BARE.max_spread_pct(15.0).assert_cgroup(&reports, None), DetailKind::Fairness, text);
    // A single worker, or a worker beside messengers, has nobody to be compared with.
    assert!(BARE.max_spread_pct(15.0).assert_cgroup(&reports[..1], None).is_pass());
    let messenger = WorkerReport { is_messenger: true, ..off(1, 99.0) };
    assert!(BARE.max_spread_pct(15.0).assert_cgroup(&[off(0, 1.0), messenger], None).is_pass());
}

#[test]
fn a_stray_worker_is_named_with_its_cpus() {
    let stray = WorkerReport { cpus_used: cpus("1,3"), ..fine(1, 12) };
    let set = cpus("0-1");
    let text = "worker 1 (tid 12) ran on cpu3, outside its cpuset 0-1";
    let isolation = BARE.check_isolation();
    fails(&isolation.assert_cgroup(&[fine(0, 11), stray.clone()], Some(&set)), DetailKind::Isolation, text);
    let far = WorkerReport { cpus_used: cpus("1-4"), ..stray };
    let text = "worker 1 (tid 12) ran on cpus 2-4, outside its cpuset 0-1";
    fails(&isolation.assert_cgroup(std::slice::from_ref(&far), Some(&set)), DetailKind::Isolation, text);
    assert!(isolation.assert_cgroup(&[far], None).is_pass(), "no cpuset, nothing to violate");
}

#[test]
fn rates_and_ratios_name_the_number_and_the_limit() {
    let r = BARE.min_work_rate(2000.0).assert_cgroup(&[fine(0, 40)], None);
    let text = "worker 0 (tid 40) too slow: 1000.0 work units a CPU-second (expected at least 2000.0)";
    fails(&r, DetailKind::Throughput, text);
    let r = BARE.min_iteration_rate(400.0).assert_cgroup(&[fine(0, 40)], None);
    let text = "worker 0 (tid 40) too slow: 250.0 iterations a second in 2000ms (expected at least 400.0)";
    fails(&r, DetailKind::Throughput, text);
    let restless = WorkerReport { migration_count: 100, ..fine(0, 40) };
    let r = BARE.max_migration_ratio(0.1).assert_cgroup(&[restless], None);
    let text = "restless: 100 migrations in 500 iterations, 0.2000 an iteration (limit 0.1000)";
    fails(&r, DetailKind::Migration, text);
    let quick = WorkerReport { work_units: 3000, ..fine(1, 41) };
    let r = BARE.max_throughput_cv(0.25).assert_cgroup(&[fine(0, 40), quick], None);
    fails(&r, DetailKind::Throughput, "uneven throughput: coefficient of variation 0.500 (limit 0.250)");
}

#[test]
fn slow_wake_ups_are_counted_over_the_cgroup() {
    let woken = |values: &[u64]| WorkerReport {
        wake_latencies_ns: LatencyHistogram::from_values(values),
        ..fine(0, 40)
    };
    let reports = [woken(&[1_000; 90]), woken(&[2_500_000; 10])];
    let r = BARE.max_p99_wake_latency_ns(1_000_000).assert_cgroup(&reports, None);
    let text = "slow wake-ups: p99 2500.0us over 100 wake-ups (limit 1000.0us)";
    fails(&r, DetailKind::WakeLatency, text);
    let r = BARE.max_wake_latency_cv(1.0).assert_cgroup(&reports, None);
    assert!(
        r.is_fail() && r.details[0].message.contains("over 100 wake-ups (limit 1.000)"),
        "{:?}",
        r.details
    );
}

#[test]
fn page_locality_needs_to_know_the_nodes() {
    let away = WorkerReport { numa_pages: BTreeMap::from([(0, 30), (1, 70)]), ..fine(0, 40) };
    let reports = [away];
    let limits = BARE.min_page_locality(0.5);
    is_inconclusive(&limits.assert_cgroup(&reports, None), DetailKind::Numa, "cpuset_mems");
    let nodes = cpus("0");
    let view = CgroupView { nodes: Some(&nodes), ..CgroupView::default() };
    let text = "remote memory: 30.0% of the pages on nodes 0 (expected at least 50.0%)";
    fails(&limits.assert_cgroup_view(&reports, &view), DetailKind::Numa, text);
    is_inconclusive(&limits.assert_cgroup_view(&[fine(0, 40)], &view), DetailKind::Numa, "no worker counted");
}

#[test]
fn a_worker_that_did_not_complete_fails_and_says_why() {
    let ended = |exit_info| {
        let report = WorkerReport { completed: false, exit_info, ..fine(1, 12) };
        BARE.assert_cgroup(&[report], None)
    };
    let signaled = |by_deadline| Some(ExitInfo::Signaled { signal: 9, by_deadline });
    for (exit_info, text) in [
        (signaled(false), "worker 1 (tid 12) was killed by signal 9"),
        (signaled(true), "worker 1 (tid 12) did not stop when told to and was killed by signal 9"),
        (
            Some(ExitInfo::Exited(3)),
            "worker 1 (tid 12) ended by itself with exit code 3 before it was told to stop",
        ),
        (
            Some(ExitInfo::SetupFailed("nice: EPERM".into())),
            "worker 1 (tid 12) could not be set up: nice: EPERM",
        ),
        (None, "worker 1 (tid 12) did not complete, and nothing says why"),
    ] {
        fails(&ended(exit_info), DetailKind::Worker, text);
    }
}

#[test]
fn details_carry_the_cgroup() {
    let starved = WorkerReport { work_units: 0, ..fine(0, 40) };
    let view = CgroupView { name: "cg_7", ..CgroupView::default() };
    let r = BARE.check_not_starved().assert_cgroup_view(&[starved], &view);
    assert_eq!(r.details[0].cgroup.as_deref(), Some("cg_7"));
}

proptest! {
    /// Whatever the workers report, no check panics, and an idle report never passes the
    /// default checks.
    #[test]
    fn an_empty_report_never_passes(n in 1usize..6, limit in any::<f64>()) {
        let reports = vec![WorkerReport { completed: true, ..WorkerReport::default() }; n];
        let limits = Assert::default_checks()
            .max_throughput_cv(limit).min_work_rate(limit).min_iteration_rate(limit).max_wake_latency_cv(limit)
            .max_migration_ratio(limit).min_page_locality(limit);
        prop_assert!(limits.assert_cgroup(&reports, None).is_inconclusive());
    }

    #[test]
    fn a_nan_limit_is_never_met(pages in 1u64..100) {
        let mut reports = vec![fine(0, 1), fine(1, 2)];
        reports[0].numa_pages = BTreeMap::from([(0, pages)]);
        let (nan, nodes) = (f64::NAN, cpus("0"));
        let view = CgroupView { nodes: Some(&nodes), ..CgroupView::default() };
        for limits in [
            BARE.max_spread_pct(nan), BARE.max_throughput_cv(nan), BARE.min_work_rate(nan),
            BARE.min_iteration_rate(nan), BARE.max_migration_ratio(nan), BARE.min_page_locality(nan),
        ] {
            prop_assert!(limits.assert_cgroup_view(&reports, &view).is_fail(), "{limits:?}");
        }
    }
}
