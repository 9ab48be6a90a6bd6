//! What an observer of a machine hands in to make a [`TestTopology`](crate::TestTopology), and the
//! checks that its parts agree.

use std::collections::BTreeMap;
use std::fmt;

use crate::{CpuSet, LlcInfo, NodeInfo};

/// A machine's parts, as sysfs tells them. Order doesn't matter, except that row and column `i` of
/// `distances` belong to `nodes[i]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopologyParts {
    /// The CPUs that count, online ones as a rule (`/sys/devices/system/cpu/online`).
    pub cpus: CpuSet,
    /// The LLCs (`cpu*/cache/index*/{id,shared_cpu_list}` of the highest level).
    pub llcs: Vec<LlcInfo>,
    /// The NUMA nodes (`/sys/devices/system/node/node*/{cpulist,meminfo}`).
    pub nodes: Vec<NodeInfo>,
    /// The cores, each as its threads (`cpu*/topology/thread_siblings_list`).
    pub cores: Vec<CpuSet>,
    /// Distance from each node to each (`node*/distance`); no rows when unknown.
    pub distances: Vec<Vec<u8>>,
}

/// The kinds of part that CPUs are divided into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PartKind {
    /// A last-level cache.
    Llc,
    /// A NUMA node.
    Node,
    /// A core; named by its index in [`TopologyParts::cores`].
    Core,
}

impl fmt::Display for PartKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Llc => "LLC",
            Self::Node => "NUMA node",
            Self::Core => "core",
        })
    }
}

/// How the parts of a machine contradict each other.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PartsError {
    /// There is no CPU at all.
    #[error("the machine's parts name no CPU; at least one is online wherever this runs")]
    NoCpus,
    /// Two LLCs or two nodes have the same number.
    #[error("{kind} {id} is listed twice; each has one number")]
    Twice {
        /// What is listed.
        kind: PartKind,
        /// Its number.
        id: u32,
    },
    /// A part that needs CPUs has none.
    #[error("{kind} {id} has no CPUs; leave it out")]
    Empty {
        /// What is empty.
        kind: PartKind,
        /// Its number.
        id: u32,
    },
    /// A part has CPUs that the machine hasn't.
    #[error("{kind} {id} has CPUs {extra}, which aren't among the machine's CPUs {cpus}")]
    Extra {
        /// Whose CPUs they are.
        kind: PartKind,
        /// Its number.
        id: u32,
        /// The CPUs that nobody else knows.
        extra: CpuSet,
        /// The machine's CPUs.
        cpus: CpuSet,
    },
    /// A CPU is in two parts of a kind.
    #[error("CPU {cpu} is in {kind} {first} and in {kind} {second}; expected exactly one")]
    Shared {
        /// The kind of part.
        kind: PartKind,
        /// The CPU.
        cpu: u32,
        /// The part that has it first.
        first: u32,
        /// The part that has it too.
        second: u32,
    },
    /// CPUs are in no part of a kind.
    #[error("CPUs {missing} are in no {kind}; expected exactly one for each")]
    Missing {
        /// The kind of part.
        kind: PartKind,
        /// The CPUs.
        missing: CpuSet,
    },
    /// An LLC's CPUs aren't all in its node.
    #[error("LLC {llc} is said to be of NUMA node {node}, but its CPUs {outside} aren't in that node")]
    LlcOutsideNode {
        /// The LLC's number.
        llc: u32,
        /// The node's number.
        node: u32,
        /// Its CPUs elsewhere.
        outside: CpuSet,
    },
    /// The distance table doesn't fit the nodes.
    #[error(
        "NUMA distances: expected {nodes} rows of {nodes} entries, one for each node, found {rows} rows; row {row} has {entries}"
    )]
    Distances {
        /// Number of nodes.
        nodes: usize,
        /// Number of rows.
        rows: usize,
        /// Index of the first row that is too long or too short, or 0.
        row: usize,
        /// Its entries.
        entries: usize,
    },
}

impl TopologyParts {
    /// Splits each LLC whose CPUs are in several NUMA nodes into one for each node, with new numbers
    /// after the highest. CPUs report one cache for the whole package under sub-NUMA clustering,
    /// but the kernel's scheduler domains split it so (`match_llc()` in `arch/x86/kernel/smpboot.c`).
    pub fn split_llcs_by_node(&mut self) {
        let mut next_id = self.llcs.iter().map(|llc| llc.id).max().map_or(0, |id| id.saturating_add(1));
        let mut split = Vec::new();
        for llc in &self.llcs {
            let mut id = llc.id;
            for node in self.nodes.iter().filter(|node| !node.cpus.is_disjoint(&llc.cpus)) {
                let cpus = node.cpus.intersection(&llc.cpus);
                split.push(LlcInfo { id, node: node.id, cpus });
                id = next_id;
                next_id = next_id.saturating_add(1);
            }
        }
        self.llcs = split;
    }

    pub(crate) fn validate(&self) -> Result<(), PartsError> {
        if self.cpus.is_empty() {
            return Err(PartsError::NoCpus);
        }
        self.check_partition(PartKind::Llc, self.llcs.iter().map(|llc| (llc.id, &llc.cpus)))?;
        self.check_partition(PartKind::Node, self.nodes.iter().map(|node| (node.id, &node.cpus)))?;
        self.check_partition(PartKind::Core, (0..).zip(&self.cores))?;
        self.llcs.iter().try_for_each(|llc| self.check_llc_node(llc))?;
        self.check_distances()
    }

    /// Orders everything by number, as [`TestTopology`](crate::TestTopology) keeps it.
    pub(crate) fn sort(&mut self) {
        self.llcs.sort_by_key(|llc| llc.id);
        self.cores.sort_by_key(CpuSet::first);
        let mut order: Vec<usize> = (0..self.nodes.len()).collect();
        order.sort_by_key(|&index| self.nodes[index].id);
        let reordered = |row: &Vec<u8>| order.iter().map(|&index| row[index]).collect();
        if !self.distances.is_empty() {
            self.distances = order.iter().map(|&index| reordered(&self.distances[index])).collect();
        }
        self.nodes.sort_by_key(|node| node.id);
    }

    fn check_partition<'a>(
        &self,
        kind: PartKind,
        parts: impl Iterator<Item = (u32, &'a CpuSet)> + Clone,
    ) -> Result<(), PartsError> {
        let mut ids = std::collections::BTreeSet::new();
        let mut owner = BTreeMap::new();
        for (id, cpus) in parts {
            if !ids.insert(id) {
                return Err(PartsError::Twice { kind, id });
            }
            if cpus.is_empty() && kind != PartKind::Node {
                return Err(PartsError::Empty { kind, id });
            }
            let extra = cpus.difference(&self.cpus);
            if !extra.is_empty() {
                return Err(PartsError::Extra { kind, id, extra, cpus: self.cpus.clone() });
            }
            for cpu in cpus {
                if let Some(first) = owner.insert(cpu, id) {
                    return Err(PartsError::Shared { kind, cpu, first, second: id });
                }
            }
        }
        let missing: CpuSet = self.cpus.iter().filter(|cpu| !owner.contains_key(cpu)).collect();
        if missing.is_empty() { Ok(()) } else { Err(PartsError::Missing { kind, missing }) }
    }

    fn check_llc_node(&self, llc: &LlcInfo) -> Result<(), PartsError> {
        let node = self.nodes.iter().find(|node| node.id == llc.node);
        let outside = match node {
            Some(node) => llc.cpus.difference(&node.cpus),
            None => llc.cpus.clone(),
        };
        if outside.is_empty() {
            return Ok(());
        }
        Err(PartsError::LlcOutsideNode { llc: llc.id, node: llc.node, outside })
    }

    fn check_distances(&self) -> Result<(), PartsError> {
        let nodes = self.nodes.len();
        let rows = self.distances.len();
        if rows == 0 {
            return Ok(());
        }
        let row = self.distances.iter().position(|row| row.len() != nodes);
        if rows == nodes && row.is_none() {
            return Ok(());
        }
        let row = row.unwrap_or(0);
        Err(PartsError::Distances { nodes, rows, row, entries: self.distances[row].len() })
    }
}

#[cfg(test)]
mod tests;
