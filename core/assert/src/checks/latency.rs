//! How long wake-ups took, over all workers of a cgroup.

use crate::{Detail, DetailKind, stats};
use ktstr_workload::WorkerReport;

/// 99 % of the wake-ups took at most `max_ns`.
pub(super) fn p99(reports: &[WorkerReport], max_ns: u64) -> Vec<Detail> {
    let wakes = stats::wake_latencies(reports);
    match wakes.quantile(0.99) {
        None => vec![no_samples("p99")],
        Some(ns) if ns <= max_ns => Vec::new(),
        Some(ns) => vec![Detail::fail(
            DetailKind::WakeLatency,
            format!(
                "slow wake-ups: p99 {} over {} wake-ups (limit {})",
                micros(ns),
                wakes.count(),
                micros(max_ns)
            ),
        )],
    }
}

/// The wake-up latencies vary at most by `max` (standard deviation over mean).
pub(super) fn cv(reports: &[WorkerReport], max: f64) -> Vec<Detail> {
    let wakes = stats::wake_latencies(reports);
    match wakes.cv() {
        None => vec![no_samples("coefficient of variation")],
        Some(cv) if cv <= max => Vec::new(),
        Some(cv) => vec![Detail::fail(
            DetailKind::WakeLatency,
            format!(
                "uneven wake-ups: coefficient of variation {cv:.3} over {} wake-ups (limit {max:.3})",
                wakes.count()
            ),
        )],
    }
}

fn no_samples(what: &str) -> Detail {
    Detail::inconclusive(
        DetailKind::WakeLatency,
        format!(
            "no wake-up latency was measured, so there is no {what} to judge; \
             use a work type that sleeps or blocks"
        ),
    )
}

fn micros(ns: u64) -> String {
    format!("{:.1}us", ns as f64 / 1e3)
}
