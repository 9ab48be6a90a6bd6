//! Did the workers get on: starvation, gaps, fairness.

use super::{capped, wall_ms, worker};
use crate::{Detail, DetailKind, fairness};
use ktstr_workload::WorkerReport;
use std::cmp::Reverse;

/// Every worker did some work. A messenger counts as working when it iterates.
pub(super) fn not_starved(reports: &[WorkerReport]) -> Vec<Detail> {
    let idle = reports.iter().filter(|r| r.work_units == 0 && !(r.is_messenger && r.iterations > 0));
    let found = idle.map(|report| {
        let who = worker(report);
        if report.wall_time_ns == 0 {
            let text = format!("{who} has no wall time, so nothing says whether it starved; was it started?");
            return Detail::inconclusive(DetailKind::Starvation, text);
        }
        let text = format!("{who} starved: 0 work units in {}ms, {}", wall_ms(report), last_seen(report));
        Detail::fail(DetailKind::Starvation, text)
    });
    capped(DetailKind::Starvation, found.collect())
}

/// Where a worker was last, as far as its report says.
fn last_seen(report: &WorkerReport) -> String {
    let complete = report.migration_count == report.migrations.len() as u64;
    match report.migrations.last() {
        Some(last) if complete => return format!("last seen on cpu{}", last.to),
        _ => {}
    }
    match (report.cpus_used.len(), report.cpus_used.first()) {
        (0, _) | (_, None) => "never seen on a CPU".to_owned(),
        (1, Some(cpu)) => format!("last seen on cpu{cpu}"),
        _ => format!("seen on cpus {}", report.cpus_used),
    }
}

/// No worker wanted to run for longer than `max_ms` without running.
pub(super) fn gap(reports: &[WorkerReport], max_ms: u64) -> Vec<Detail> {
    if reports.iter().all(|r| r.wall_time_ns == 0) {
        return vec![Detail::inconclusive(
            DetailKind::Gap,
            format!("no worker has wall time, so nothing was measured to hold against a gap of {max_ms}ms"),
        )];
    }
    let mut stuck: Vec<&WorkerReport> = reports.iter().filter(|r| r.max_gap_ms > max_ms).collect();
    stuck.sort_by_key(|r| Reverse(r.max_gap_ms));
    let found = stuck.into_iter().map(|r| {
        let text = format!("stuck {}ms on cpu{} at +{}ms", r.max_gap_ms, r.max_gap_cpu, r.max_gap_at_ms);
        Detail::fail(DetailKind::Gap, text)
    });
    capped(DetailKind::Gap, found.collect())
}

/// Like workers were off CPU for like shares of the time.
pub(super) fn spread(reports: &[WorkerReport], max_points: f64) -> Vec<Detail> {
    if !fairness::has_peers(reports) {
        return Vec::new();
    }
    let Some(spread) = fairness::worst_spread(reports) else {
        return vec![Detail::inconclusive(
            DetailKind::Fairness,
            "no two like workers have wall time, so there is no off-CPU spread to judge",
        )];
    };
    if spread.points <= max_points {
        return Vec::new();
    }
    let text = format!(
        "unfair: off-CPU spread {:.1}% (limit {max_points:.1}%): worker {} {:.1}%, worker {} {:.1}%",
        spread.points, spread.least.0.index, spread.least.1, spread.most.0.index, spread.most.1,
    );
    vec![Detail::fail(DetailKind::Fairness, text)]
}
