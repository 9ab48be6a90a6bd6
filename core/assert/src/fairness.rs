//! How differently like workers were treated.
//!
//! Only workers of one work group are compared: groups of a cgroup may differ in work
//! type, policy or nice value, so differences between groups are intended. Messengers
//! are left out because they idle by design.

use crate::stats::mean;
use ktstr_workload::WorkerReport;
use std::collections::BTreeMap;

/// The distance between the two most different workers of a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread<'r> {
    /// Percent points between them.
    pub(crate) points: f64,
    /// The worker that was off CPU least, and its share in percent.
    pub(crate) least: (&'r WorkerReport, f64),
    /// The worker that was off CPU most, and its share in percent.
    pub(crate) most: (&'r WorkerReport, f64),
}

/// The widest spread of off-CPU time within a work group; `None` when no group has two
/// workers with wall time.
pub(crate) fn worst_spread(reports: &[WorkerReport]) -> Option<Spread<'_>> {
    comparable(reports, WorkerReport::off_cpu_pct)
        .into_iter()
        .filter_map(|group| {
            let least = *group.iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
            let most = *group.iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
            Some(Spread { points: most.1 - least.1, least, most })
        })
        .max_by(|a, b| a.points.total_cmp(&b.points))
}

/// The largest coefficient of variation (standard deviation over mean) of work done a
/// CPU-second within a work group; `None` when no group has two workers with CPU time
/// and a mean above zero.
pub(crate) fn worst_throughput_cv(reports: &[WorkerReport]) -> Option<f64> {
    comparable(reports, WorkerReport::work_per_cpu_second)
        .into_iter()
        .filter_map(|group| cv(&group.iter().map(|g| g.1).collect::<Vec<_>>()))
        .reduce(f64::max)
}

/// True when some group has two workers to compare, measured or not.
pub(crate) fn has_peers(reports: &[WorkerReport]) -> bool {
    !comparable(reports, |_| Some(0.0)).is_empty()
}

/// The work groups that have at least two workers with a value.
fn comparable(
    reports: &[WorkerReport],
    value: impl Fn(&WorkerReport) -> Option<f64>,
) -> Vec<Vec<(&WorkerReport, f64)>> {
    let mut groups: BTreeMap<u32, Vec<(&WorkerReport, f64)>> = BTreeMap::new();
    for report in reports.iter().filter(|r| !r.is_messenger) {
        if let Some(v) = value(report) {
            groups.entry(report.group_idx).or_default().push((report, v));
        }
    }
    groups.into_values().filter(|g| g.len() >= 2).collect()
}

fn cv(values: &[f64]) -> Option<f64> {
    let mean = mean(values).filter(|m| *m > 0.0)?;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
    Some(variance.sqrt() / mean)
}
