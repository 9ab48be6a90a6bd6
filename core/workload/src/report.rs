//! What one worker measured.

use crate::{LatencyHistogram, Pid};
use ktstr_topology::CpuSet;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many migrations a report keeps one by one; the count goes on beyond.
pub const MAX_MIGRATIONS: usize = 256;

/// One move of a worker to another CPU, as the worker itself saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Migration {
    /// Time since the worker's start, in ns.
    pub at_ns: u64,
    /// The CPU it ran on before.
    pub from: u32,
    /// The CPU it runs on now.
    pub to: u32,
}

/// Why a worker ended other than by finishing when told to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitInfo {
    /// It exited by itself with this code.
    Exited(i32),
    /// A signal killed it (number, and whether it was our own SIGKILL after the
    /// stop deadline).
    Signaled {
        /// Signal number.
        signal: i32,
        /// True when it did not stop within the deadline and we killed it.
        by_deadline: bool,
    },
    /// It could not be set up, or a step of its work failed; the text says which
    /// step and why.
    SetupFailed(String),
    /// What became of it is not known: it did not end after SIGKILL, or something
    /// else reaped it. The text says which.
    Lost(String),
}

/// What one worker did and how the scheduler treated it.
///
/// Times are of `CLOCK_MONOTONIC`; everything is filled even when the worker was
/// killed, as far as it had got.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerReport {
    /// Thread id in the guest.
    pub tid: Pid,
    /// Which worker of its group (0-based).
    pub index: u32,
    /// Which work group of its cgroup (0-based; several `work` specs).
    pub group_idx: u32,
    /// True for the one of a fan-out group that wakes the others: it idles by
    /// design and is left out of fairness.
    pub is_messenger: bool,
    /// Units of work done (what a unit is depends on the work type).
    pub work_units: u64,
    /// Rounds of the work type's outer loop.
    pub iterations: u64,
    /// CPU time used, ns (`CLOCK_THREAD_CPUTIME_ID`).
    pub cpu_time_ns: u64,
    /// From start to stop, ns.
    pub wall_time_ns: u64,
    /// `wall_time_ns - cpu_time_ns`.
    pub off_cpu_ns: u64,
    /// Moves to another CPU that the worker noticed.
    pub migration_count: u64,
    /// The first [`MAX_MIGRATIONS`] of them.
    pub migrations: Vec<Migration>,
    /// CPUs it was seen on.
    pub cpus_used: CpuSet,
    /// Longest time it wanted to run and did not, ms.
    pub max_gap_ms: u64,
    /// The CPU on which it ran again after that gap.
    pub max_gap_cpu: u32,
    /// When that gap ended, ms since the worker's start.
    pub max_gap_at_ms: u64,
    /// Time from a wake-up's due moment to running again, ns.
    pub wake_latencies_ns: LatencyHistogram,
    /// Time spent runnable but not running, ns (`/proc/<tid>/schedstat`, second
    /// field; difference over the run). `None` when the kernel has no schedstats.
    pub schedstat_run_delay_ns: Option<u64>,
    /// Times it was put on a CPU (third field; difference).
    pub schedstat_run_count: Option<u64>,
    /// CPU time by the scheduler's account, ns (first field; difference).
    pub schedstat_cpu_time_ns: Option<u64>,
    /// True when it stopped in order when asked to.
    pub completed: bool,
    /// Set when it did not.
    pub exit_info: Option<ExitInfo>,
    /// Pages of its working set by NUMA node, where measured.
    pub numa_pages: BTreeMap<u32, u64>,
}

impl WorkerReport {
    /// Share of the wall time not spent on a CPU, in percent.
    ///
    /// `None` when no wall time passed.
    pub fn off_cpu_pct(&self) -> Option<f64> {
        (self.wall_time_ns > 0).then(|| self.off_cpu_ns as f64 / self.wall_time_ns as f64 * 100.0)
    }

    /// Units of work a CPU-second; `None` when it had no CPU time.
    pub fn work_per_cpu_second(&self) -> Option<f64> {
        (self.cpu_time_ns > 0).then(|| self.work_units as f64 / (self.cpu_time_ns as f64 / 1e9))
    }

    /// Iterations a second of wall time; `None` when no wall time passed.
    pub fn iteration_rate(&self) -> Option<f64> {
        (self.wall_time_ns > 0).then(|| self.iterations as f64 / (self.wall_time_ns as f64 / 1e9))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_need_a_denominator() {
        let r = WorkerReport::default();
        assert_eq!((r.off_cpu_pct(), r.work_per_cpu_second(), r.iteration_rate()), (None, None, None));
    }

    #[test]
    fn rates_are_per_second() {
        let r = WorkerReport {
            work_units: 10,
            iterations: 4,
            cpu_time_ns: 500_000_000,
            wall_time_ns: 2_000_000_000,
            off_cpu_ns: 1_500_000_000,
            ..Default::default()
        };
        assert_eq!(r.off_cpu_pct(), Some(75.0));
        assert_eq!(r.work_per_cpu_second(), Some(20.0));
        assert_eq!(r.iteration_rate(), Some(2.0));
    }
}
