//! Numbers of a cgroup and of a whole scenario.

use crate::fairness;
use ktstr_macros::Claim;
use ktstr_topology::CpuSet;
use ktstr_workload::{LatencyHistogram, WorkerReport};
use serde::{Deserialize, Serialize};

/// What the workers of one cgroup measured, taken together.
///
/// Every public field but `name` has a claim method, such as
/// [`claim_max_gap_ms`](Self::claim_max_gap_ms). Claims on a field that is `None` fail;
/// claims on a latency of 0 are inconclusive, because 0 stands for "not measured".
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, Claim)]
#[claim(crate = "crate")]
pub struct CgroupStats {
    /// The cgroup's name; empty when the reports came from no named one.
    #[claim(skip)]
    pub name: String,
    /// How many workers reported.
    pub num_workers: usize,
    /// How many CPUs they were seen on.
    pub num_cpus: usize,
    /// Those CPUs.
    pub cpus_used: CpuSet,
    /// Off-CPU time of the worst worker minus that of the best of its work group, in
    /// percent points of wall time; the worst group counts, messengers don't. `None`
    /// when no group has two workers to compare.
    pub spread: Option<f64>,
    /// Longest time a worker wanted to run and did not, ms.
    pub max_gap_ms: u64,
    /// The CPU on which it ran again; `None` without a gap.
    pub max_gap_cpu: Option<u32>,
    /// When that gap ended, ms since the worker's start; `None` without a gap.
    pub max_gap_at_ms: Option<u64>,
    /// Iterations of all workers.
    pub total_iterations: u64,
    /// Units of work of all workers.
    pub total_work_units: u64,
    /// Moves to another CPU of all workers.
    pub total_migrations: u64,
    /// Migrations an iteration; `None` without iterations.
    pub migration_ratio: Option<f64>,
    /// Wake-ups whose latency was measured.
    pub wake_samples: u64,
    /// Wake-up latency that 99 % of the wake-ups stayed within, µs; 0 without samples.
    #[claim(zero_is_none)]
    pub p99_wake_latency_us: f64,
    /// Wake-up latency that half of the wake-ups stayed within, µs; 0 without samples.
    #[claim(zero_is_none)]
    pub median_wake_latency_us: f64,
    /// Standard deviation of the wake-up latency over its mean; `None` without samples.
    pub wake_latency_cv: Option<f64>,
    /// Time a worker spent runnable but not running, mean of all workers, µs; `None`
    /// when the kernel keeps no schedstats.
    pub mean_run_delay_us: Option<f64>,
    /// The same of the worst worker.
    pub worst_run_delay_us: Option<f64>,
    /// Share of the working sets' pages on the nodes they belong on, 0 to 1; `None`
    /// when no pages were counted or those nodes are not known.
    pub page_locality: Option<f64>,
}

impl CgroupStats {
    /// The numbers of a cgroup's workers. `nodes` are the NUMA nodes that their memory
    /// belongs on, where known.
    pub fn from_reports(name: impl Into<String>, reports: &[WorkerReport], nodes: Option<&CpuSet>) -> Self {
        let wakes = wake_latencies(reports);
        let cpus_used = reports.iter().fold(CpuSet::new(), |all, r| all.union(&r.cpus_used));
        let worst_gap = reports.iter().filter(|r| r.max_gap_ms > 0).max_by_key(|r| r.max_gap_ms);
        let total_iterations = total(reports, |r| r.iterations);
        let total_migrations = total(reports, |r| r.migration_count);
        let delays_us: Vec<f64> =
            reports.iter().filter_map(|r| r.schedstat_run_delay_ns).map(|ns| ns as f64 / 1e3).collect();
        let quantile_us = |q| wakes.quantile(q).map_or(0.0, |ns| ns as f64 / 1e3);
        Self {
            name: name.into(),
            num_workers: reports.len(),
            num_cpus: cpus_used.len(),
            cpus_used,
            spread: fairness::worst_spread(reports).map(|s| s.points),
            max_gap_ms: worst_gap.map_or(0, |r| r.max_gap_ms),
            max_gap_cpu: worst_gap.map(|r| r.max_gap_cpu),
            max_gap_at_ms: worst_gap.map(|r| r.max_gap_at_ms),
            total_iterations,
            total_work_units: total(reports, |r| r.work_units),
            total_migrations,
            migration_ratio: (total_iterations > 0)
                .then(|| total_migrations as f64 / total_iterations as f64),
            wake_samples: wakes.count(),
            p99_wake_latency_us: quantile_us(0.99),
            median_wake_latency_us: quantile_us(0.5),
            wake_latency_cv: wakes.cv(),
            mean_run_delay_us: mean(&delays_us),
            worst_run_delay_us: delays_us.iter().copied().reduce(f64::max),
            page_locality: nodes.and_then(|nodes| page_locality(reports, nodes)),
        }
    }

    /// How much longer the slowest 1 % of wake-ups take than the middle one: p99 over
    /// median; 0 without a median.
    pub fn wake_latency_tail_ratio(&self) -> f64 {
        if self.median_wake_latency_us > 0.0 {
            self.p99_wake_latency_us / self.median_wake_latency_us
        } else {
            0.0
        }
    }
}

/// Numbers of a scenario: those of its cgroups, and totals over them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScenarioStats {
    /// One entry a cgroup, in the order judged; a cgroup whose workers were stopped
    /// and started again has several.
    pub cgroups: Vec<CgroupStats>,
}

impl ScenarioStats {
    /// True when nothing was measured.
    pub fn is_empty(&self) -> bool {
        self.cgroups.is_empty()
    }

    /// The first entry of a cgroup.
    pub fn cgroup(&self, name: &str) -> Option<&CgroupStats> {
        self.cgroups.iter().find(|c| c.name == name)
    }

    /// Workers of all cgroups.
    pub fn total_workers(&self) -> usize {
        self.cgroups.iter().map(|c| c.num_workers).sum()
    }

    /// Different CPUs that workers were seen on. Cgroups that give a number of CPUs
    /// but not which count as overlapping.
    pub fn total_cpus(&self) -> usize {
        let seen = self.cgroups.iter().fold(CpuSet::new(), |all, c| all.union(&c.cpus_used));
        self.cgroups.iter().map(|c| c.num_cpus).fold(seen.len(), usize::max)
    }

    /// Migrations of all cgroups.
    pub fn total_migrations(&self) -> u64 {
        self.cgroups.iter().fold(0, |sum, c| sum.saturating_add(c.total_migrations))
    }

    /// Iterations of all cgroups.
    pub fn total_iterations(&self) -> u64 {
        self.cgroups.iter().fold(0, |sum, c| sum.saturating_add(c.total_iterations))
    }

    /// The widest spread of a cgroup; `None` when no cgroup has one.
    pub fn worst_spread(&self) -> Option<f64> {
        self.cgroups.iter().filter_map(|c| c.spread).reduce(f64::max)
    }

    /// The longest gap of a cgroup, ms.
    pub fn worst_gap_ms(&self) -> u64 {
        self.cgroups.iter().map(|c| c.max_gap_ms).max().unwrap_or(0)
    }

    /// The metric of that name ([`METRICS`](crate::METRICS)); `None` if it is not known or was
    /// not measured.
    pub fn metric(&self, name: &str) -> Option<f64> {
        crate::Metric::by_name(name)?.of(self)
    }

    /// Appends the cgroups of another scenario's numbers.
    pub fn merge(&mut self, other: Self) {
        self.cgroups.extend(other.cgroups);
    }
}

/// The wake-up latencies of all workers in one histogram.
pub(crate) fn wake_latencies(reports: &[WorkerReport]) -> LatencyHistogram {
    let mut all = LatencyHistogram::new();
    for report in reports {
        all.merge(&report.wake_latencies_ns);
    }
    all
}

/// The share of counted pages that lie on `nodes`; `None` when none were counted.
pub(crate) fn page_locality(reports: &[WorkerReport], nodes: &CpuSet) -> Option<f64> {
    let (mut local, mut all) = (0u64, 0u64);
    for (&node, &pages) in reports.iter().flat_map(|r| &r.numa_pages) {
        all = all.saturating_add(pages);
        if nodes.contains(node) {
            local = local.saturating_add(pages);
        }
    }
    (all > 0).then(|| local as f64 / all as f64)
}

pub(crate) fn total(reports: &[WorkerReport], of: impl Fn(&WorkerReport) -> u64) -> u64 {
    reports.iter().fold(0, |sum, r| sum.saturating_add(of(r)))
}

pub(crate) fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

#[cfg(test)]
mod tests;
