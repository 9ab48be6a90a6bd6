//! The machine that a test runs on: its CPUs, and the LLC, node and core of each.

use std::collections::BTreeSet;

use crate::cpuset_spec::overlap;
use crate::{
    CpuSet, CpusetError, LOCAL_DISTANCE, PartsError, REMOTE_DISTANCE, Topology, TopologyError, TopologyParts,
    UNREACHABLE_DISTANCE,
};

/// A last-level cache and the CPUs that share it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LlcInfo {
    /// The kernel's number for it (`cache/index3/id`); unique in the machine, not always dense.
    pub id: u32,
    /// The NUMA node that all its CPUs belong to.
    pub node: u32,
    /// The CPUs that share it.
    pub cpus: CpuSet,
}

/// A NUMA node, its CPUs and its memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// The kernel's number for it; unique in the machine, not always dense.
    pub id: u32,
    /// Its CPUs; none when it is memory-only.
    pub cpus: CpuSet,
    /// Its memory, where known.
    pub memory: Option<NodeMemInfo>,
}

/// Memory of a NUMA node, as in `/sys/devices/system/node/node*/meminfo`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeMemInfo {
    /// `MemTotal` in KiB.
    pub total_kib: u64,
    /// `MemFree` in KiB.
    pub free_kib: u64,
}

/// A machine as a test sees it (`ctx.topo`). Each CPU belongs to exactly one LLC, node and core.
///
/// LLCs are named by their index in [`llcs`](Self::llcs), nodes by the kernel's node number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestTopology {
    parts: TopologyParts,
}

impl TestTopology {
    /// The machine that a declared topology becomes. A node's memory is known where its declaration
    /// says it, and counts as all free.
    ///
    /// # Errors
    /// [`TopologyError`] when the topology isn't valid.
    pub fn from_vm_topology(topology: &Topology) -> Result<Self, TopologyError> {
        topology.validate()?;
        Ok(Self::declared(topology, &topology.explicit_memory_mib()))
    }

    /// [`from_vm_topology`](Self::from_vm_topology) for a machine with `total_mib` MiB of memory.
    ///
    /// # Errors
    /// [`TopologyError`] when the topology isn't valid or the memory can't be split over its nodes.
    pub fn from_vm_topology_with_memory(topology: &Topology, total_mib: u64) -> Result<Self, TopologyError> {
        topology.validate()?;
        let memory_mib = topology.node_memory_mib(total_mib)?;
        Ok(Self::declared(topology, &memory_mib.into_iter().map(Some).collect::<Vec<_>>()))
    }

    /// A machine that was looked at from inside.
    ///
    /// # Errors
    /// [`PartsError`] when the parts contradict each other.
    pub fn from_parts(mut parts: TopologyParts) -> Result<Self, PartsError> {
        parts.validate()?;
        parts.sort();
        Ok(Self { parts })
    }

    fn declared(topology: &Topology, memory_mib: &[Option<u64>]) -> Self {
        let cpus: CpuSet = (0..topology.total_cpus()).collect();
        let nodes = (0..topology.num_numa_nodes()).zip(memory_mib).map(|(id, mib)| NodeInfo {
            id,
            cpus: topology.cpus_in_node(id),
            memory: mib.map(|mib| {
                let kib = mib.saturating_mul(1024);
                NodeMemInfo { total_kib: kib, free_kib: kib }
            }),
        });
        let llcs = (0..topology.num_numa_nodes()).flat_map(|node| {
            topology.llcs_in_node(node).map(move |id| LlcInfo { id, node, cpus: topology.cpus_in_llc(id) })
        });
        let first_threads = cpus.iter().filter(|&cpu| topology.thread_of_cpu(cpu) == Some(0));
        let ids = 0..topology.num_numa_nodes();
        let row = |from| ids.clone().map(|to| topology.distance(from, to)).collect();
        let parts = TopologyParts {
            llcs: llcs.collect(),
            nodes: nodes.collect(),
            cores: first_threads.map(|cpu| topology.siblings_of(cpu)).collect(),
            distances: ids.clone().map(row).collect(),
            cpus,
        };
        Self { parts }
    }

    /// Every CPU of the machine.
    #[must_use]
    pub fn all_cpuset(&self) -> CpuSet {
        self.parts.cpus.clone()
    }

    /// Every CPU of the machine, in ascending order.
    #[must_use]
    pub fn all_cpus(&self) -> Vec<u32> {
        self.parts.cpus.iter().collect()
    }

    /// The CPUs that a test should load: all but the last one, which is left to the test itself,
    /// when there are more than 2; else all.
    #[must_use]
    pub fn usable_cpuset(&self) -> CpuSet {
        let mut cpus = self.all_cpuset();
        if cpus.len() > 2
            && let Some(last) = cpus.last()
        {
            cpus.remove(last);
        }
        cpus
    }

    /// [`usable_cpuset`](Self::usable_cpuset) in ascending order.
    #[must_use]
    pub fn usable_cpus(&self) -> Vec<u32> {
        self.usable_cpuset().into_iter().collect()
    }

    /// How many CPUs the machine has.
    #[must_use]
    pub fn total_cpus(&self) -> usize {
        self.parts.cpus.len()
    }

    /// How many LLCs the machine has.
    #[must_use]
    pub fn num_llcs(&self) -> usize {
        self.parts.llcs.len()
    }

    /// How many NUMA nodes the machine has, memory-only ones included.
    #[must_use]
    pub fn num_numa_nodes(&self) -> usize {
        self.parts.nodes.len()
    }

    /// The LLCs, by ascending number.
    #[must_use]
    pub fn llcs(&self) -> &[LlcInfo] {
        &self.parts.llcs
    }

    /// The NUMA nodes, by ascending number.
    #[must_use]
    pub fn nodes(&self) -> &[NodeInfo] {
        &self.parts.nodes
    }

    /// The CPUs of the LLC at `index`, in ascending order; none when there is no such LLC.
    #[must_use]
    pub fn cpus_in_llc(&self, index: usize) -> Vec<u32> {
        self.llc_aligned_cpuset(index).into_iter().collect()
    }

    /// The CPUs of the LLC at `index`; empty when there is no such LLC.
    #[must_use]
    pub fn llc_aligned_cpuset(&self, index: usize) -> CpuSet {
        self.parts.llcs.get(index).map(|llc| llc.cpus.clone()).unwrap_or_default()
    }

    /// The CPUs of NUMA node `node`; empty when it is memory-only or doesn't exist.
    #[must_use]
    pub fn numa_aligned_cpuset(&self, node: u32) -> CpuSet {
        self.node(node).map(|node| node.cpus.clone()).unwrap_or_default()
    }

    /// The NUMA nodes that the CPUs of `cpus` belong to. CPUs that the machine doesn't have add none.
    #[must_use]
    pub fn numa_nodes_for_cpuset(&self, cpus: &CpuSet) -> BTreeSet<u32> {
        let touched = self.parts.nodes.iter().filter(|node| !node.cpus.is_disjoint(cpus));
        touched.map(|node| node.id).collect()
    }

    /// Memory of NUMA node `node`; `None` when it isn't known or the node doesn't exist.
    #[must_use]
    pub fn node_meminfo(&self, node: u32) -> Option<NodeMemInfo> {
        self.node(node)?.memory
    }

    /// Distance from NUMA node `from` to node `to`: the machine's table, else 10 to itself and 20 to
    /// any other; 255 when either doesn't exist.
    #[must_use]
    pub fn numa_distance(&self, from: u32, to: u32) -> u8 {
        let (Some(row), Some(column)) = (self.node_index(from), self.node_index(to)) else {
            return UNREACHABLE_DISTANCE;
        };
        match self.parts.distances.get(row).and_then(|row| row.get(column)) {
            Some(&distance) => distance,
            None if from == to => LOCAL_DISTANCE,
            None => REMOTE_DISTANCE,
        }
    }

    /// Whether NUMA node `node` exists and has no CPUs.
    #[must_use]
    pub fn is_memory_only(&self, node: u32) -> bool {
        self.node(node).is_some_and(|node| node.cpus.is_empty())
    }

    /// The CPUs of each LLC.
    #[must_use]
    pub fn split_by_llc(&self) -> Vec<CpuSet> {
        self.parts.llcs.iter().map(|llc| llc.cpus.clone()).collect()
    }

    /// The usable CPUs in `n` runs, each widened by `frac` of its size on both sides, so that
    /// neighbours overlap: [`CpusetSpec::overlap`](crate::CpusetSpec::overlap) for each index.
    ///
    /// # Errors
    /// [`CpusetError`] when `n` is 0 or more than the usable CPUs, or `frac` isn't from 0 to 1.
    pub fn overlapping_cpusets(&self, n: usize, frac: f64) -> Result<Vec<CpuSet>, CpusetError> {
        let usable = self.usable_cpus();
        // Index 0 is asked for even when n is 0, so that the error is the same for every n.
        (0..n.max(1)).map(|index| overlap(&usable, index, n, frac)).collect()
    }

    /// `cpus` as a cpulist, `0-3,8`.
    #[must_use]
    pub fn cpuset_string(&self, cpus: &CpuSet) -> String {
        cpus.to_string()
    }

    /// The threads of `cpu`'s core, itself included; empty when there is no such CPU.
    #[must_use]
    pub fn siblings_of(&self, cpu: u32) -> CpuSet {
        let core = self.parts.cores.iter().find(|core| core.contains(cpu));
        core.cloned().unwrap_or_default()
    }

    /// Index of the LLC that `cpu` shares.
    #[must_use]
    pub fn llc_of_cpu(&self, cpu: u32) -> Option<usize> {
        self.parts.llcs.iter().position(|llc| llc.cpus.contains(cpu))
    }

    /// Number of the NUMA node that `cpu` belongs to.
    #[must_use]
    pub fn node_of_cpu(&self, cpu: u32) -> Option<u32> {
        self.parts.nodes.iter().find(|node| node.cpus.contains(cpu)).map(|node| node.id)
    }

    fn node(&self, id: u32) -> Option<&NodeInfo> {
        self.parts.nodes.get(self.node_index(id)?)
    }

    fn node_index(&self, id: u32) -> Option<usize> {
        self.parts.nodes.binary_search_by_key(&id, |node| node.id).ok()
    }
}

#[cfg(test)]
mod tests;
