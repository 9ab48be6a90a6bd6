//! The checks of workers' reports. Each returns what it found: nothing is a pass.

mod latency;
mod placement;
mod progress;
mod rate;

use crate::{Assert, CgroupView, Detail, DetailKind};
use ktstr_workload::{ExitInfo, WorkerReport};

/// How many workers one check names; a sentence counts the rest.
const MAX_NAMED: usize = 8;

/// The findings of every check that is switched on, one list a check.
pub(crate) fn run_all(limits: &Assert, reports: &[WorkerReport], view: &CgroupView<'_>) -> Vec<Vec<Detail>> {
    let mut found = vec![completed(reports)];
    let mut run = |findings: Option<Vec<Detail>>| found.extend(findings);
    run(limits.not_starved.unwrap_or(false).then(|| progress::not_starved(reports)));
    run(limits.max_gap_ms.map(|max| progress::gap(reports, max)));
    run(limits.max_spread_pct.map(|max| progress::spread(reports, max)));
    if let (true, Some(cpuset)) = (limits.isolation.unwrap_or(false), view.cpuset) {
        run(Some(placement::isolation(reports, cpuset)));
    }
    run(limits.max_migration_ratio.map(|max| placement::migration_ratio(reports, max)));
    run(limits.min_page_locality.map(|min| placement::page_locality(reports, view.nodes, min)));
    run(limits.max_throughput_cv.map(|max| rate::throughput_cv(reports, max)));
    run(limits.min_work_rate.map(|min| rate::work_rate(reports, min)));
    run(limits.min_iteration_rate.map(|min| rate::iteration_rate(reports, min)));
    run(limits.max_p99_wake_latency_ns.map(|max| latency::p99(reports, max)));
    run(limits.max_wake_latency_cv.map(|max| latency::cv(reports, max)));
    found
}

/// Every worker ended in order when told to.
fn completed(reports: &[WorkerReport]) -> Vec<Detail> {
    let failed = reports.iter().filter(|r| !r.completed).map(|report| {
        let why = match &report.exit_info {
            Some(ExitInfo::Exited(code)) => {
                format!("ended by itself with exit code {code} before it was told to stop")
            }
            Some(ExitInfo::Signaled { signal, by_deadline: true }) => {
                format!("did not stop when told to and was killed by signal {signal}")
            }
            Some(ExitInfo::Signaled { signal, by_deadline: false }) => {
                format!("was killed by signal {signal}")
            }
            Some(ExitInfo::SetupFailed(what)) => format!("could not be set up: {what}"),
            Some(ExitInfo::Lost(why)) => format!("was lost: {why}"),
            None => "did not complete, and nothing says why".to_owned(),
        };
        Detail::fail(DetailKind::Worker, format!("{} {why}", worker(report)))
    });
    capped(DetailKind::Worker, failed.collect())
}

/// How messages name a worker.
fn worker(report: &WorkerReport) -> String {
    format!("worker {} (tid {})", report.index, report.tid)
}

/// Milliseconds of wall time, for messages.
fn wall_ms(report: &WorkerReport) -> u64 {
    report.wall_time_ns / 1_000_000
}

/// Keeps the first [`MAX_NAMED`] findings and counts the others.
fn capped(kind: DetailKind, mut findings: Vec<Detail>) -> Vec<Detail> {
    let Some(worst) = findings.get(MAX_NAMED..).and_then(|rest| rest.iter().map(|d| d.outcome).max()) else {
        return findings;
    };
    let more = findings.len() - MAX_NAMED;
    findings.truncate(MAX_NAMED);
    let noun = if more == 1 { "worker" } else { "workers" };
    findings.push(Detail {
        outcome: worst,
        kind,
        cgroup: None,
        message: format!("and {more} more {noun} likewise"),
    });
    findings
}

#[cfg(test)]
mod tests;
