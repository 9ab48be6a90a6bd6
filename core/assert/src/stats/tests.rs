//! Numbers out of reports, and none out of nothing.

use super::*;
use ktstr_workload::LatencyHistogram;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn worker(index: u32, off_pct: u64) -> WorkerReport {
    WorkerReport {
        index,
        wall_time_ns: 1_000_000_000,
        off_cpu_ns: off_pct * 10_000_000,
        work_units: 10,
        iterations: 100,
        cpus_used: CpuSet::from_iter([index]),
        ..WorkerReport::default()
    }
}

#[test]
fn nothing_measured_is_none_and_not_zero() {
    let stats = CgroupStats::from_reports("cg_0", &[], None);
    assert_eq!(stats, CgroupStats { name: "cg_0".into(), ..CgroupStats::default() });
    assert_eq!((stats.spread, stats.migration_ratio, stats.wake_latency_cv), (None, None, None));
    assert_eq!(stats.wake_latency_tail_ratio(), 0.0);
}

#[test]
fn sums_unions_and_extremes() {
    let mut reports = vec![worker(0, 10), worker(1, 30)];
    reports[1].max_gap_ms = 70;
    reports[1].max_gap_cpu = 1;
    reports[1].max_gap_at_ms = 900;
    reports[0].migration_count = 3;
    reports[0].schedstat_run_delay_ns = Some(4_000);
    reports[1].schedstat_run_delay_ns = Some(8_000);
    let stats = CgroupStats::from_reports("cg_0", &reports, None);
    assert_eq!((stats.num_workers, stats.num_cpus, stats.total_iterations), (2, 2, 200));
    assert_eq!((stats.max_gap_ms, stats.max_gap_cpu, stats.max_gap_at_ms), (70, Some(1), Some(900)));
    assert_eq!((stats.total_migrations, stats.migration_ratio), (3, Some(0.015)));
    assert_eq!((stats.mean_run_delay_us, stats.worst_run_delay_us), (Some(6.0), Some(8.0)));
    assert!((stats.spread.unwrap() - 20.0).abs() < 1e-9);
}

#[test]
fn only_like_workers_are_compared() {
    let mut other_group = worker(2, 90);
    other_group.group_idx = 1;
    let mut messenger = worker(3, 99);
    messenger.is_messenger = true;
    let alone = [worker(0, 10), other_group.clone(), messenger.clone()];
    assert_eq!(CgroupStats::from_reports("", &alone, None).spread, None);
    let pair = [worker(0, 10), worker(1, 12), other_group, messenger];
    assert!((CgroupStats::from_reports("", &pair, None).spread.unwrap() - 2.0).abs() < 1e-9);
}

#[test]
fn wake_ups_of_all_workers_count_together() {
    let mut reports = vec![worker(0, 10), worker(1, 10)];
    reports[0].wake_latencies_ns = LatencyHistogram::from_values(&[10_000; 98]);
    reports[1].wake_latencies_ns = LatencyHistogram::from_values(&[50_000; 2]);
    let stats = CgroupStats::from_reports("", &reports, None);
    assert_eq!(stats.wake_samples, 100);
    assert!((stats.median_wake_latency_us - 10.0).abs() < 0.4, "{}", stats.median_wake_latency_us);
    assert_eq!(stats.p99_wake_latency_us, 50.0);
    assert!((stats.wake_latency_tail_ratio() - 5.0).abs() < 0.2);
}

#[test]
fn page_locality_needs_nodes_and_pages() {
    let mut report = worker(0, 10);
    let nodes = CpuSet::from_iter([0]);
    assert_eq!(
        CgroupStats::from_reports("", std::slice::from_ref(&report), Some(&nodes)).page_locality,
        None
    );
    report.numa_pages = BTreeMap::from([(0, 75), (1, 25)]);
    let reports = [report];
    assert_eq!(CgroupStats::from_reports("", &reports, None).page_locality, None);
    assert_eq!(CgroupStats::from_reports("", &reports, Some(&nodes)).page_locality, Some(0.75));
}

#[test]
fn cpus_that_two_cgroups_share_count_once() {
    let cgroup = |cpus: &str| CgroupStats {
        num_cpus: cpus.parse::<CpuSet>().unwrap().len(),
        cpus_used: cpus.parse().unwrap(),
        ..CgroupStats::default()
    };
    let stats = ScenarioStats { cgroups: vec![cgroup("0-1"), cgroup("1-2")] };
    assert_eq!(stats.total_cpus(), 3);
    assert_eq!(ScenarioStats::default().total_cpus(), 0);
    assert_eq!(ScenarioStats::default().worst_spread(), None);
}

proptest! {
    #[test]
    fn every_number_is_finite(
        workers in prop::collection::vec((any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()), 0..6),
    ) {
        let reports: Vec<WorkerReport> = workers
            .into_iter()
            .map(|(wall, off, iterations, migrations, messenger)| WorkerReport {
                wall_time_ns: wall,
                off_cpu_ns: off,
                cpu_time_ns: wall.saturating_sub(off),
                iterations,
                migration_count: migrations,
                work_units: iterations,
                is_messenger: messenger,
                schedstat_run_delay_ns: Some(off),
                wake_latencies_ns: LatencyHistogram::from_values(&[off, wall]),
                ..WorkerReport::default()
            })
            .collect();
        let s = CgroupStats::from_reports("", &reports, None);
        let optional = [s.spread, s.migration_ratio, s.wake_latency_cv, s.mean_run_delay_us, s.worst_run_delay_us];
        prop_assert!(optional.into_iter().flatten().all(|v| v.is_finite() && v >= 0.0));
        prop_assert!(s.p99_wake_latency_us >= s.median_wake_latency_us);
        prop_assert!(s.wake_latency_tail_ratio().is_finite());
    }
}
