//! How much the workers got done in the time they had.

use super::{capped, wall_ms, worker};
use crate::{Detail, DetailKind, fairness};
use ktstr_workload::WorkerReport;

/// Like workers did like amounts of work a CPU-second.
pub(super) fn throughput_cv(reports: &[WorkerReport], max: f64) -> Vec<Detail> {
    if !fairness::has_peers(reports) {
        return Vec::new();
    }
    match fairness::worst_throughput_cv(reports) {
        None => vec![Detail::inconclusive(
            DetailKind::Throughput,
            "no two like workers have CPU time and work, so their throughput can't be compared",
        )],
        Some(cv) if cv <= max => Vec::new(),
        Some(cv) => vec![Detail::fail(
            DetailKind::Throughput,
            format!("uneven throughput: coefficient of variation {cv:.3} (limit {max:.3})"),
        )],
    }
}

/// Every worker did at least `min` units of work a CPU-second.
pub(super) fn work_rate(reports: &[WorkerReport], min: f64) -> Vec<Detail> {
    let found = reports.iter().filter(|r| !r.is_messenger).filter_map(|report| {
        let who = worker(report);
        match report.work_per_cpu_second() {
            None => Some(Detail::inconclusive(
                DetailKind::Throughput,
                format!("{who} had no CPU time in {}ms, so it has no work rate to judge", wall_ms(report)),
            )),
            Some(rate) if rate >= min => None,
            Some(rate) => Some(Detail::fail(
                DetailKind::Throughput,
                format!("{who} too slow: {rate:.1} work units a CPU-second (expected at least {min:.1})"),
            )),
        }
    });
    capped(DetailKind::Throughput, found.collect())
}

/// Every worker iterated at least `min` times a second.
pub(super) fn iteration_rate(reports: &[WorkerReport], min: f64) -> Vec<Detail> {
    let found = reports.iter().filter(|r| !r.is_messenger).filter_map(|report| {
        let who = worker(report);
        match report.iteration_rate() {
            None => Some(Detail::inconclusive(
                DetailKind::Throughput,
                format!("{who} has no wall time, so it has no iteration rate to judge"),
            )),
            Some(rate) if rate >= min => None,
            Some(rate) => Some(Detail::fail(
                DetailKind::Throughput,
                format!(
                    "{who} too slow: {rate:.1} iterations a second in {}ms (expected at least {min:.1})",
                    wall_ms(report)
                ),
            )),
        }
    });
    capped(DetailKind::Throughput, found.collect())
}
