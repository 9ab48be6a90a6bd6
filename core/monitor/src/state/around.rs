//! What else of a machine tells how its time and memory went.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a CPU spent its time on, ns (/proc/stat). `user` and `nice` include `guest` and `guest_nice`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuTimes {
    /// User space.
    pub user: u64,
    /// User space of tasks with a nice level above 0.
    pub nice: u64,
    /// The kernel.
    pub system: u64,
    /// Idle, without I/O waited for.
    pub idle: u64,
    /// Idle with a task of it waiting for I/O.
    pub iowait: u64,
    /// Interrupts.
    pub irq: u64,
    /// Softirqs.
    pub softirq: u64,
    /// Taken by the hypervisor.
    pub steal: u64,
    /// A guest's user space.
    pub guest: u64,
    /// The same of tasks with a nice level above 0.
    pub guest_nice: u64,
}

/// What a CPU was used for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuUse {
    /// The CPU.
    pub cpu: u32,
    /// Its time; `None` where it could not be read.
    pub times: Option<CpuTimes>,
    /// Softirqs that it ran, by their names in /proc/softirqs.
    pub softirqs: BTreeMap<String, u64>,
}

/// How long tasks were held up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StallState {
    /// In all, microseconds.
    pub total_us: u64,
    /// Over the last 10, 60 and 300 seconds, in hundredths of a percent.
    pub averages: [u64; 3],
}

/// Pressure on a resource (Documentation/accounting/psi.rst).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PressureState {
    /// `io`, `memory`, `cpu` or `irq`.
    pub resource: String,
    /// While some task was held up.
    pub some: Option<StallState>,
    /// While all were.
    pub full: Option<StallState>,
}

impl PressureState {
    /// How long some tasks were held up, microseconds; all of them where only that is counted.
    pub fn total_us(&self) -> u64 {
        self.some.or(self.full).map_or(0, |stall| stall.total_us)
    }
}

/// A NUMA node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// The node.
    pub node: u32,
    /// Pages by where they came from, with the names of its `numastat` in sysfs.
    pub counters: BTreeMap<String, u64>,
}
