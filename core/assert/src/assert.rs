//! Which checks a test wants, and their limits.

use crate::{AssertResult, CgroupStats, Detail, DetailKind, Verdict, checks};
use ktstr_topology::CpuSet;
use ktstr_workload::WorkerReport;

/// Checks and limits. A field that is `None` is inherited; one that nobody sets is not
/// checked.
///
/// Limits are merged in the order defaults, scheduler, test: the last one set wins (see
/// [`merge`](Self::merge)). Setters are `const`, so that limits can be part of constants.
///
/// ```
/// use ktstr_assert::Assert;
/// const LAX: Assert = Assert::NO_OVERRIDES.max_gap_ms(10_000);
/// assert_eq!(Assert::default_checks().merge(&LAX).max_gap_ms, Some(10_000));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Assert {
    /// Every worker does some work.
    pub not_starved: Option<bool>,
    /// Workers stay on the CPUs of their cgroup.
    pub isolation: Option<bool>,
    /// Longest time a worker may want to run and not, ms.
    pub max_gap_ms: Option<u64>,
    /// Widest difference in off-CPU time between workers of a group, percent points.
    pub max_spread_pct: Option<f64>,
    /// Largest coefficient of variation of work a CPU-second between workers of a group.
    pub max_throughput_cv: Option<f64>,
    /// Least work of every worker, units a CPU-second.
    pub min_work_rate: Option<f64>,
    /// Least iterations of every worker a second of wall time.
    pub min_iteration_rate: Option<f64>,
    /// Largest wake-up latency that 99 % of a cgroup's wake-ups stay within, ns.
    pub max_p99_wake_latency_ns: Option<u64>,
    /// Largest coefficient of variation of a cgroup's wake-up latencies.
    pub max_wake_latency_cv: Option<f64>,
    /// Most migrations an iteration.
    pub max_migration_ratio: Option<f64>,
    /// Least share of pages on the nodes they belong on, 0 to 1.
    pub min_page_locality: Option<f64>,
    /// Host-side: a run queue whose clock stands still fails the test.
    pub fail_on_stall: Option<bool>,
    /// Host-side: longest local dispatch queue.
    pub max_local_dsq_depth: Option<u32>,
    /// Host-side: samples in a row that must violate a limit.
    pub sustained_samples: Option<usize>,
    /// Host-side: largest ratio of the longest to the shortest run queue.
    pub max_imbalance_ratio: Option<f64>,
    /// Host-side: most `select_cpu` fallbacks a second.
    pub max_fallback_rate: Option<f64>,
    /// Host-side: most keep-last dispatches a second.
    pub max_keep_last_rate: Option<f64>,
    /// Host-side: most dispatches a second in bypass mode.
    pub max_bypass_rate: Option<f64>,
    /// Host-side: most tasks on a dispatch queue that the scheduler made.
    pub max_dsq_depth: Option<u32>,
    /// Most tasks that the scheduler may leave to the kernel's own.
    pub max_rejected_tasks: Option<u64>,
    /// Longest mean time of a call of one of the scheduler's programs that ran ten times or more, ns.
    pub max_callback_ns: Option<u64>,
    /// Host-side: largest share of page migrations that cross nodes.
    pub max_cross_node_migration_ratio: Option<f64>,
    /// Host-side: largest share of pages on memory-only nodes.
    pub max_slow_tier_ratio: Option<f64>,
}

/// What the checks of a cgroup need to know besides the reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct CgroupView<'a> {
    /// Its name; empty for reports that came from no named cgroup.
    pub name: &'a str,
    /// The CPUs it could use while its workers ran; `None` when it was not restricted.
    pub cpuset: Option<&'a CpuSet>,
    /// The NUMA nodes that its memory belongs on, where known.
    pub nodes: Option<&'a CpuSet>,
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub const fn $name(mut self, value: $type) -> Self {
                self.$name = Some(value);
                self
            }
        )*
    };
}

macro_rules! last_some {
    ($base:expr, $over:expr; $($field:ident),* $(,)?) => {
        Assert { $($field: match $over.$field { None => $base.$field, some => some }),* }
    };
}

impl Assert {
    /// Nothing set: everything is inherited.
    pub const NO_OVERRIDES: Self = Self {
        not_starved: None,
        isolation: None,
        max_gap_ms: None,
        max_spread_pct: None,
        max_throughput_cv: None,
        min_work_rate: None,
        min_iteration_rate: None,
        max_p99_wake_latency_ns: None,
        max_wake_latency_cv: None,
        max_migration_ratio: None,
        min_page_locality: None,
        fail_on_stall: None,
        max_local_dsq_depth: None,
        sustained_samples: None,
        max_imbalance_ratio: None,
        max_fallback_rate: None,
        max_keep_last_rate: None,
        max_bypass_rate: None,
        max_dsq_depth: None,
        max_rejected_tasks: None,
        max_callback_ns: None,
        max_cross_node_migration_ratio: None,
        max_slow_tier_ratio: None,
    };

    /// What every test checks of its workers unless told otherwise: no starved worker,
    /// no gap over 2000 ms, no spread over 15 %. A build with debug assertions measures
    /// with slower workers and allows 3000 ms and 35 %.
    pub const fn default_checks() -> Self {
        Self::default_checks_of_build(cfg!(debug_assertions))
    }

    /// [`default_checks`](Self::default_checks) where software emulation runs the vCPUs at
    /// the host's pace: they share its cores unevenly, so twice the spread is allowed.
    pub const fn default_checks_emulated() -> Self {
        let defaults = Self::default_checks();
        match defaults.max_spread_pct {
            Some(limit) => defaults.max_spread_pct(limit * 2.0),
            None => defaults,
        }
    }

    /// [`default_checks`](Self::default_checks) of a debug or a release build.
    pub const fn default_checks_of_build(debug: bool) -> Self {
        let (gap_ms, spread_pct) = if debug { (3000, 35.0) } else { (2000, 15.0) };
        Self::NO_OVERRIDES.not_starved(true).max_gap_ms(gap_ms).max_spread_pct(spread_pct)
    }

    /// Adds the limits of the host-side checks that no one has set yet: stalls fail, a
    /// ratio of 4 between run queues, 50 tasks in a local dispatch queue, 200 fallbacks
    /// and 100 keep-last dispatches a second, each over 5 samples in a row.
    ///
    /// [`assert_cgroup`](Self::assert_cgroup) does not look at them.
    #[must_use]
    pub const fn with_monitor_defaults(self) -> Self {
        Self::NO_OVERRIDES
            .fail_on_stall(true)
            .max_imbalance_ratio(4.0)
            .max_local_dsq_depth(50)
            .max_fallback_rate(200.0)
            .max_keep_last_rate(100.0)
            .sustained_samples(5)
            .merge(&self)
    }

    setters! {
        /// Sets whether a worker without work fails.
        not_starved: bool,
        /// Sets whether a worker outside its cpuset fails. A cgroup without a cpuset
        /// can't violate it.
        isolation: bool,
        /// Sets the longest gap, ms.
        max_gap_ms: u64,
        /// Sets the widest off-CPU spread, percent points.
        max_spread_pct: f64,
        /// Sets the largest coefficient of variation of throughput.
        max_throughput_cv: f64,
        /// Sets the least work a CPU-second.
        min_work_rate: f64,
        /// Sets the least iterations a second.
        min_iteration_rate: f64,
        /// Sets the largest p99 wake-up latency, ns.
        max_p99_wake_latency_ns: u64,
        /// Sets the largest coefficient of variation of wake-up latencies.
        max_wake_latency_cv: f64,
        /// Sets the most migrations an iteration.
        max_migration_ratio: f64,
        /// Sets the least share of pages on their nodes, 0 to 1.
        min_page_locality: f64,
        /// Sets whether a stalled run queue fails (host-side).
        fail_on_stall: bool,
        /// Sets the longest local dispatch queue (host-side).
        max_local_dsq_depth: u32,
        /// Sets how many samples in a row must violate a limit (host-side).
        sustained_samples: usize,
        /// Sets the largest ratio between run queues (host-side).
        max_imbalance_ratio: f64,
        /// Sets the most `select_cpu` fallbacks a second (host-side).
        max_fallback_rate: f64,
        /// Sets the most keep-last dispatches a second (host-side).
        max_keep_last_rate: f64,
        /// Sets the most dispatches a second in bypass mode, when the kernel schedules in the scheduler's place
        /// (host-side).
        max_bypass_rate: f64,
        /// Sets the most tasks on any dispatch queue that the scheduler made (host-side).
        max_dsq_depth: u32,
        /// Sets the most tasks that the scheduler may refuse; one that takes only those of policy `SCHED_EXT` fails.
        max_rejected_tasks: u64,
        /// Sets the longest mean time that a call of any of the scheduler's programs may take, ns; one that ran fewer than
        /// ten times is left out.
        max_callback_ns: u64,
        /// Sets the largest share of page migrations across nodes (host-side).
        max_cross_node_migration_ratio: f64,
        /// Sets the largest share of pages on memory-only nodes (host-side).
        max_slow_tier_ratio: f64,
    }

    /// Fails a worker without work.
    #[must_use]
    pub const fn check_not_starved(self) -> Self {
        self.not_starved(true)
    }

    /// Fails a worker outside its cpuset.
    #[must_use]
    pub const fn check_isolation(self) -> Self {
        self.isolation(true)
    }

    /// These limits with those of `over` on top: what `over` sets, wins.
    #[must_use]
    pub const fn merge(self, over: &Self) -> Self {
        last_some!(self, over;
            not_starved, isolation, max_gap_ms, max_spread_pct, max_throughput_cv, min_work_rate,
            min_iteration_rate, max_p99_wake_latency_ns, max_wake_latency_cv, max_migration_ratio,
            min_page_locality, fail_on_stall, max_local_dsq_depth, sustained_samples, max_imbalance_ratio,
            max_fallback_rate, max_keep_last_rate, max_bypass_rate, max_dsq_depth, max_rejected_tasks, max_callback_ns,
            max_cross_node_migration_ratio, max_slow_tier_ratio,
        )
    }

    /// An empty verdict to make claims on.
    pub fn verdict(&self) -> Verdict {
        Verdict::new()
    }

    /// Judges the reports of one cgroup's workers; `cpuset` are the CPUs they had to
    /// stay on, `None` when there was no restriction.
    pub fn assert_cgroup(&self, reports: &[WorkerReport], cpuset: Option<&CpuSet>) -> AssertResult {
        self.assert_cgroup_view(reports, &CgroupView { cpuset, ..CgroupView::default() })
    }

    /// Judges the reports of the workers of a cgroup that has a name and maybe nodes of
    /// its own.
    ///
    /// A worker that did not end in order fails whatever the limits are. No report at
    /// all, or a limit on something that was not measured, is inconclusive.
    pub fn assert_cgroup_view(&self, reports: &[WorkerReport], view: &CgroupView<'_>) -> AssertResult {
        let mut result = AssertResult::pass();
        if reports.is_empty() {
            let text = "no worker reported, so there is nothing to judge: give the cgroup workers";
            result.push(Detail::inconclusive(DetailKind::Worker, text).in_cgroup(view.name));
            return result;
        }
        for findings in checks::run_all(self, reports, view) {
            if findings.is_empty() {
                result.passed_checks += 1;
            }
            for detail in findings {
                result.push(detail.in_cgroup(view.name));
            }
        }
        result.push_stats(CgroupStats::from_reports(view.name, reports, view.nodes));
        result
    }
}

#[cfg(test)]
mod tests;
