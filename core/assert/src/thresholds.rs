//! Absolute limits on single workers, and on the scheduler's own event counters.

use crate::{AssertResult, Detail, DetailKind, stats};
use ktstr_workload::WorkerReport;
use std::borrow::Borrow;

/// Limits in absolute numbers, independent of what other workers did. `None` is not checked.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct AbsoluteThresholds {
    /// Largest wake-up latency that 99 % of all wake-ups stay within, ns. Only checked
    /// when wake-ups were measured; see [`assert_thresholds`].
    pub max_p99_wake_latency_ns: Option<u64>,
    /// Most CPU time an iteration of a worker may cost on average, ns.
    pub max_iteration_cost_ns: Option<u64>,
    /// Most migrations of a worker.
    pub max_migrations: Option<u64>,
    /// Least units of work of a worker.
    pub min_work_units: Option<u64>,
}

impl AbsoluteThresholds {
    /// 10 ms p99 wake-up latency, 1 ms an iteration, 1000 migrations, at least 1 unit of work.
    pub const fn strict() -> Self {
        Self {
            max_p99_wake_latency_ns: Some(10_000_000),
            max_iteration_cost_ns: Some(1_000_000),
            max_migrations: Some(1000),
            min_work_units: Some(1),
        }
    }
}

/// Judges every worker by absolute limits.
///
/// No report at all is inconclusive, and so is a limit on wake-up latency without a
/// wake-up measured or on iteration cost without an iteration.
pub fn assert_thresholds(reports: &[WorkerReport], limits: &AbsoluteThresholds) -> AssertResult {
    if reports.is_empty() {
        return AssertResult::inconclusive(
            "no worker reported, so there is nothing to hold against the thresholds",
        );
    }
    let mut result = AssertResult::pass();
    let mut settle = |finding: Option<Detail>| match finding {
        Some(detail) => result.push(detail),
        None => result.passed_checks += 1,
    };
    if let Some(max) = limits.max_p99_wake_latency_ns {
        settle(wake_latency(reports, max));
    }
    for report in reports {
        if let Some(max) = limits.max_iteration_cost_ns {
            settle(iteration_cost(report, max));
        }
        if let Some(max) = limits.max_migrations {
            settle(at_most(report, DetailKind::Migration, report.migration_count, max, "migrations"));
        }
        if let Some(min) = limits.min_work_units {
            settle(work_units(report, min));
        }
    }
    result
}

fn wake_latency(reports: &[WorkerReport], max: u64) -> Option<Detail> {
    let wakes = stats::wake_latencies(reports);
    let text = match wakes.quantile(0.99) {
        Some(ns) if ns <= max => return None,
        Some(ns) => format!(
            "p99 wake-up latency: expected at most {max}ns, got {ns}ns over {} wake-ups",
            wakes.count()
        ),
        None => {
            let text = format!("p99 wake-up latency: expected at most {max}ns, but no wake-up was measured");
            return Some(Detail::inconclusive(DetailKind::WakeLatency, text));
        }
    };
    Some(Detail::fail(DetailKind::WakeLatency, text))
}

fn iteration_cost(report: &WorkerReport, max: u64) -> Option<Detail> {
    match report.cpu_time_ns.checked_div(report.iterations) {
        Some(cost) => at_most(report, DetailKind::Throughput, cost, max, "ns of CPU time an iteration"),
        None => Some(Detail::inconclusive(
            DetailKind::Throughput,
            format!("worker {} (tid {}): no iteration finished, so it has no cost", report.index, report.tid),
        )),
    }
}

fn at_most(report: &WorkerReport, kind: DetailKind, seen: u64, max: u64, what: &str) -> Option<Detail> {
    (seen > max).then(|| {
        let text = format!(
            "worker {} (tid {}): expected at most {max} {what}, got {seen}",
            report.index, report.tid
        );
        Detail::fail(kind, text)
    })
}

fn work_units(report: &WorkerReport, min: u64) -> Option<Detail> {
    (report.work_units < min).then(|| {
        let (index, tid, seen) = (report.index, report.tid, report.work_units);
        let text = format!("worker {index} (tid {tid}): expected at least {min} work units, got {seen}");
        Detail::fail(DetailKind::Starvation, text)
    })
}

/// Judges the scheduler's event counters (`SCX_EV_*`, `kernel/sched/ext.c`, such as
/// fallbacks and keep-last dispatches), by name and count: none may exceed `cap`. No counter at
/// all is inconclusive.
pub fn assert_scx_events_clean<N: AsRef<str>, C: Borrow<u64>>(
    events: impl IntoIterator<Item = (N, C)>,
    cap: u64,
) -> AssertResult {
    let (mut result, mut any) = (AssertResult::pass(), false);
    for (name, count) in events {
        any = true;
        let (name, count) = (name.as_ref(), *count.borrow());
        if count > cap {
            let text = format!("scheduler event {name}: expected at most {cap}, got {count}");
            result.push(Detail::fail(DetailKind::Scheduler, text));
        } else {
            result.passed_checks += 1;
        }
    }
    if !any {
        return AssertResult::inconclusive(
            "the scheduler has no event counters, so nothing says whether it ran clean",
        );
    }
    result
}

#[cfg(test)]
mod tests;
