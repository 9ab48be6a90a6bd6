//! Were the workers and their memory where they belong.

use super::{capped, worker};
use crate::{Detail, DetailKind, stats};
use ktstr_topology::CpuSet;
use ktstr_workload::WorkerReport;

/// No worker was seen outside `cpuset`.
pub(super) fn isolation(reports: &[WorkerReport], cpuset: &CpuSet) -> Vec<Detail> {
    let found = reports.iter().filter_map(|report| {
        let who = worker(report);
        if report.cpus_used.is_empty() {
            let text = format!("{who} was never seen on a CPU, so nothing says whether it kept to {cpuset}");
            return Some(Detail::inconclusive(DetailKind::Isolation, text));
        }
        let outside = report.cpus_used.difference(cpuset);
        let on = match (outside.len(), outside.first()) {
            (0, _) | (_, None) => return None,
            (1, Some(cpu)) => format!("cpu{cpu}"),
            _ => format!("cpus {outside}"),
        };
        Some(Detail::fail(DetailKind::Isolation, format!("{who} ran on {on}, outside its cpuset {cpuset}")))
    });
    capped(DetailKind::Isolation, found.collect())
}

/// Workers did not move more than `max` times an iteration.
pub(super) fn migration_ratio(reports: &[WorkerReport], max: f64) -> Vec<Detail> {
    let migrations = stats::total(reports, |r| r.migration_count);
    let iterations = stats::total(reports, |r| r.iterations);
    if iterations == 0 {
        let text = "no worker finished an iteration, so there are no migrations an iteration to judge";
        return vec![Detail::inconclusive(DetailKind::Migration, text)];
    }
    let ratio = migrations as f64 / iterations as f64;
    if ratio <= max {
        return Vec::new();
    }
    let text = format!(
        "restless: {migrations} migrations in {iterations} iterations, {ratio:.4} an iteration (limit {max:.4})"
    );
    vec![Detail::fail(DetailKind::Migration, text)]
}

/// At least a share of `min` of the pages lies on `nodes`.
pub(super) fn page_locality(reports: &[WorkerReport], nodes: Option<&CpuSet>, min: f64) -> Vec<Detail> {
    let Some(nodes) = nodes else {
        let text = "page locality can't be judged: the nodes that the memory belongs on are not known; \
                    give the cgroup a cpuset or cpuset_mems";
        return vec![Detail::inconclusive(DetailKind::Numa, text)];
    };
    let Some(share) = stats::page_locality(reports, nodes) else {
        let text = "no worker counted its pages by node, so page locality can't be judged";
        return vec![Detail::inconclusive(DetailKind::Numa, text)];
    };
    if share >= min {
        return Vec::new();
    }
    let (share, min) = (share * 100.0, min * 100.0);
    let text =
        format!("remote memory: {share:.1}% of the pages on nodes {nodes} (expected at least {min:.1}%)");
    vec![Detail::fail(DetailKind::Numa, text)]
}
