//! Absolute limits say which worker broke which.

use super::*;
use ktstr_workload::LatencyHistogram;
use std::collections::BTreeMap;

fn fine() -> WorkerReport {
    WorkerReport {
        tid: 40,
        work_units: 1,
        iterations: 1000,
        cpu_time_ns: 1_000_000_000,
        migration_count: 1000,
        wake_latencies_ns: LatencyHistogram::from_values(&[10_000_000]),
        ..WorkerReport::default()
    }
}

fn message(report: WorkerReport) -> String {
    let r = assert_thresholds(&[report], &AbsoluteThresholds::strict());
    assert_eq!(r.details.len(), 1, "{:?}", r.details);
    assert!(r.is_fail());
    r.details[0].message.clone()
}

#[test]
fn values_at_the_limits_pass() {
    let r = assert_thresholds(&[fine()], &AbsoluteThresholds::strict());
    assert!(r.is_pass(), "{:?}", r.details);
    assert_eq!(r.passed_checks, 4);
}

#[test]
fn each_limit_is_kept() {
    let late = WorkerReport { wake_latencies_ns: LatencyHistogram::from_values(&[10_000_001]), ..fine() };
    assert_eq!(
        message(late),
        "p99 wake-up latency: expected at most 10000000ns, got 10000001ns over 1 wake-ups"
    );
    assert_eq!(
        message(WorkerReport { cpu_time_ns: 2_000_000_000, ..fine() }),
        "worker 0 (tid 40): expected at most 1000000 ns of CPU time an iteration, got 2000000"
    );
    assert_eq!(
        message(WorkerReport { migration_count: 1001, ..fine() }),
        "worker 0 (tid 40): expected at most 1000 migrations, got 1001"
    );
    assert_eq!(
        message(WorkerReport { work_units: 0, ..fine() }),
        "worker 0 (tid 40): expected at least 1 work units, got 0"
    );
}

#[test]
fn what_was_not_measured_is_inconclusive() {
    assert!(assert_thresholds(&[], &AbsoluteThresholds::strict()).is_inconclusive());
    let no_wake = WorkerReport { wake_latencies_ns: LatencyHistogram::new(), ..fine() };
    assert!(assert_thresholds(&[no_wake], &AbsoluteThresholds::strict()).is_inconclusive());
    let no_iteration = WorkerReport { iterations: 0, ..fine() };
    assert!(assert_thresholds(&[no_iteration], &AbsoluteThresholds::strict()).is_inconclusive());
}

#[test]
fn scheduler_events_are_capped() {
    let events = BTreeMap::from([
        ("SCX_EV_SELECT_CPU_FALLBACK".to_owned(), 3),
        ("SCX_EV_BYPASS_ACTIVATE".to_owned(), 0),
    ]);
    assert!(assert_scx_events_clean(&events, 3).is_pass());
    let r = assert_scx_events_clean(&events, 2);
    assert_eq!(r.details[0].message, "scheduler event SCX_EV_SELECT_CPU_FALLBACK: expected at most 2, got 3");
    assert!(r.is_fail());
    assert!(assert_scx_events_clean(BTreeMap::<String, u64>::new(), 2).is_inconclusive());
    // Whatever gives names and counts.
    assert!(assert_scx_events_clean([("SCX_EV_A", 2), ("SCX_EV_B", 0)], 2).is_pass());
    let renamed = events.iter().map(|(name, count)| (name.trim_start_matches("SCX_EV_"), count));
    assert!(assert_scx_events_clean(renamed, 0).details[0].message.contains("event SELECT_CPU_FALLBACK: "));
}
