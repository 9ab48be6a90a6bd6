//! Scheduling and memory policies of a worker, and how it is cloned.

use std::collections::BTreeSet;

/// A policy parameter outside what the kernel takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// `SCHED_FIFO` and `SCHED_RR` take 1 to 99.
    #[error("checking a real-time policy: expected a priority from 1 to 99, got {0}; use one in that range")]
    Priority(u32),
    /// `sched_setattr(2)` wants 1024 ns <= runtime <= deadline <= period.
    #[error(
        "checking a deadline policy: expected 1024 <= runtime <= deadline <= period (ns), \
         got runtime={runtime_ns} deadline={deadline_ns} period={period_ns}"
    )]
    Deadline {
        /// As given, in ns.
        runtime_ns: u64,
        /// As given, in ns.
        deadline_ns: u64,
        /// As given, in ns.
        period_ns: u64,
    },
    /// Nice values go from -20 to 19.
    #[error("checking a nice value: expected -20 to 19, got {0}")]
    Nice(i32),
    /// A node-based memory policy without a node.
    #[error("checking memory policy {0}: expected at least one NUMA node, got none")]
    NoNode(&'static str),
}

/// Scheduling policy of a worker (`sched_setattr(2)`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SchedPolicy {
    /// `SCHED_OTHER` (EEVDF, or a sched_ext scheduler that takes all tasks).
    #[default]
    Normal,
    /// `SCHED_BATCH`.
    Batch,
    /// `SCHED_IDLE`.
    Idle,
    /// `SCHED_FIFO` with a priority from 1 to 99.
    Fifo(u32),
    /// `SCHED_RR` with a priority from 1 to 99.
    RoundRobin(u32),
    /// `SCHED_DEADLINE`, all in ns.
    Deadline {
        /// CPU time a period.
        runtime_ns: u64,
        /// Within this time of the period's start.
        deadline_ns: u64,
        /// The period.
        period_ns: u64,
    },
    /// `SCHED_EXT`: only useful where the scheduler runs in partial mode.
    Ext,
}

impl SchedPolicy {
    /// Checks the parameters against what the kernel takes.
    pub fn validate(&self) -> Result<(), PolicyError> {
        match *self {
            Self::Fifo(p) | Self::RoundRobin(p) if !(1..=99).contains(&p) => Err(PolicyError::Priority(p)),
            Self::Deadline { runtime_ns, deadline_ns, period_ns }
                if runtime_ns < 1024 || runtime_ns > deadline_ns || deadline_ns > period_ns =>
            {
                Err(PolicyError::Deadline { runtime_ns, deadline_ns, period_ns })
            }
            _ => Ok(()),
        }
    }
}

/// Where a worker's memory comes from (`set_mempolicy(2)`).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum MemPolicy {
    /// Leave the inherited policy alone.
    #[default]
    Default,
    /// `MPOL_BIND`.
    Bind(BTreeSet<u32>),
    /// `MPOL_PREFERRED`.
    Preferred(u32),
    /// `MPOL_INTERLEAVE`.
    Interleave(BTreeSet<u32>),
    /// `MPOL_LOCAL`.
    Local,
    /// `MPOL_PREFERRED_MANY`.
    PreferredMany(BTreeSet<u32>),
    /// `MPOL_WEIGHTED_INTERLEAVE` (6.9 and later).
    WeightedInterleave(BTreeSet<u32>),
}

impl MemPolicy {
    /// Nodes that the policy names.
    pub fn nodes(&self) -> BTreeSet<u32> {
        match self {
            Self::Default | Self::Local => BTreeSet::new(),
            Self::Preferred(n) => BTreeSet::from([*n]),
            Self::Bind(s) | Self::Interleave(s) | Self::PreferredMany(s) | Self::WeightedInterleave(s) => {
                s.clone()
            }
        }
    }

    /// Rejects a node-based policy without nodes.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let name = match self {
            Self::Bind(_) => "bind",
            Self::Interleave(_) => "interleave",
            Self::PreferredMany(_) => "preferred-many",
            Self::WeightedInterleave(_) => "weighted-interleave",
            _ => return Ok(()),
        };
        if self.nodes().is_empty() { Err(PolicyError::NoNode(name)) } else { Ok(()) }
    }
}

/// Mode flags of a memory policy; `|` combines them (`uapi/linux/mempolicy.h`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MpolFlags(u32);

impl MpolFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// `MPOL_F_STATIC_NODES`.
    pub const STATIC_NODES: Self = Self(1 << 15);
    /// `MPOL_F_RELATIVE_NODES`.
    pub const RELATIVE_NODES: Self = Self(1 << 14);
    /// `MPOL_F_NUMA_BALANCING`.
    pub const NUMA_BALANCING: Self = Self(1 << 13);

    /// The bits as `set_mempolicy(2)` takes them.
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl std::ops::BitOr for MpolFlags {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// How a worker comes into being.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CloneMode {
    /// A process of its own.
    #[default]
    Fork,
    /// A thread of one process that hosts the whole group.
    Thread,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn real_time_priorities_are_1_to_99() {
        assert_eq!(SchedPolicy::Fifo(0).validate(), Err(PolicyError::Priority(0)));
        assert_eq!(SchedPolicy::RoundRobin(100).validate(), Err(PolicyError::Priority(100)));
        assert!(SchedPolicy::Fifo(99).validate().is_ok());
    }

    #[test]
    fn deadline_parameters_are_ordered() {
        let bad = SchedPolicy::Deadline { runtime_ns: 2000, deadline_ns: 1500, period_ns: 3000 };
        assert!(bad.validate().unwrap_err().to_string().contains("runtime=2000"));
        let good = SchedPolicy::Deadline { runtime_ns: 2000, deadline_ns: 3000, period_ns: 3000 };
        assert!(good.validate().is_ok());
    }

    #[test]
    fn a_node_policy_needs_a_node() {
        assert_eq!(MemPolicy::Bind(BTreeSet::new()).validate(), Err(PolicyError::NoNode("bind")));
        assert!(MemPolicy::Local.validate().is_ok());
    }

    #[test]
    fn flags_combine() {
        assert_eq!((MpolFlags::STATIC_NODES | MpolFlags::NUMA_BALANCING).bits(), 0xa000);
    }
}
