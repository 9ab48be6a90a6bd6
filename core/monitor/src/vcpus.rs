//! What the host knows of the threads that run a machine's vCPUs.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Why a deterministic run has no counters of the host's.
pub const COUNTERS_DIFFER: &str = "performance counters of the vCPUs: what a host counts differs from run to run, which nothing in \
                                 the record of a deterministic run may";

/// What the host counted for one vCPU since the machine was found, or how that grew. Of what can't be counted there is
/// nothing. Under KVM the first four are of guest code alone; under emulation they are the emulator's, guest code among it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VcpuCounters {
    /// Cycles of the host's CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cycles: Option<u64>,
    /// Instructions that it retired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instructions: Option<u64>,
    /// Misses of its last-level cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_misses: Option<u64>,
    /// Branches that it foresaw wrongly.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub branch_misses: Option<u64>,
    /// Time that the thread ran on the host, ns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task_clock_ns: Option<u64>,
    /// How often it left a CPU of the host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_switches: Option<u64>,
    /// Page faults that the host's kernel took for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page_faults: Option<u64>,
    /// How often it changed the host's CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_migrations: Option<u64>,
}

impl VcpuCounters {
    /// How all grew since `before`; what is missing on either side is missing.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        self.zip(before, u64::saturating_sub)
    }

    /// Both together; what is missing on either side is missing.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        self.zip(other, u64::saturating_add)
    }

    fn zip(self, other: Self, f: fn(u64, u64) -> u64) -> Self {
        let both = |a: Option<u64>, b: Option<u64>| Some(f(a?, b?));
        Self {
            cycles: both(self.cycles, other.cycles),
            instructions: both(self.instructions, other.instructions),
            cache_misses: both(self.cache_misses, other.cache_misses),
            branch_misses: both(self.branch_misses, other.branch_misses),
            task_clock_ns: both(self.task_clock_ns, other.task_clock_ns),
            context_switches: both(self.context_switches, other.context_switches),
            page_faults: both(self.page_faults, other.page_faults),
            cpu_migrations: both(self.cpu_migrations, other.cpu_migrations),
        }
    }

    /// Whether nothing could be counted.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// In words: time first, the rest as far as it was counted.
    pub(crate) fn in_words(&self) -> String {
        let mut parts = Vec::new();
        if let Some(ns) = self.task_clock_ns {
            parts.push(format!("ran {:.3} s", ns as f64 / 1e9));
        }
        for (count, name) in [
            (self.context_switches, "context switches"),
            (self.cpu_migrations, "migrations"),
            (self.page_faults, "page faults"),
            (self.cycles, "cycles"),
            (self.instructions, "instructions"),
            (self.cache_misses, "cache misses"),
            (self.branch_misses, "branch misses"),
        ] {
            if let Some(count) = count {
                parts.push(format!("{count} {name}"));
            }
        }
        if let (Some(cycles @ 1..), Some(instructions)) = (self.cycles, self.instructions) {
            parts.push(format!("{:.2} instructions a cycle", instructions as f64 / cycles as f64));
        }
        parts.join(", ")
    }
}

/// What the host tells of the vCPUs at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VcpuReadings {
    /// CPU time that it has given to each so far, where known.
    pub times: Option<Vec<Duration>>,
    /// What it counted for each; empty where it counts nothing, or nobody asked.
    pub counters: Vec<VcpuCounters>,
    /// What it does not count, and why.
    pub left_out: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_counted_on_either_side_is_missing() {
        let then = VcpuCounters { task_clock_ns: Some(5), page_faults: Some(7), ..VcpuCounters::default() };
        let now = VcpuCounters { task_clock_ns: Some(9), cycles: Some(3), ..VcpuCounters::default() };
        assert_eq!(now.since(then), VcpuCounters { task_clock_ns: Some(4), ..VcpuCounters::default() });
        assert_eq!(now.plus(now).cycles, Some(6));
        assert!(VcpuCounters::default().is_empty() && !now.is_empty());
    }

    #[test]
    fn words_tell_what_there_is_and_records_likewise() {
        let counters = VcpuCounters {
            cycles: Some(200),
            instructions: Some(300),
            task_clock_ns: Some(1_500_000_000),
            cpu_migrations: Some(0),
            ..VcpuCounters::default()
        };
        assert_eq!(
            counters.in_words(),
            "ran 1.500 s, 0 migrations, 200 cycles, 300 instructions, 1.50 instructions a cycle"
        );
        assert_eq!(VcpuCounters::default().in_words(), "");
        let json = serde_json::to_string(&counters).unwrap();
        assert_eq!(
            json,
            r#"{"cycles":200,"instructions":300,"task_clock_ns":1500000000,"cpu_migrations":0}"#
        );
        assert_eq!(serde_json::from_str::<VcpuCounters>(&json).unwrap(), counters);
    }
}
