//! The machine shape that a test declares, and how its CPUs are numbered.

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{
    CpuSet, LOCAL_DISTANCE, NumaDistance, NumaNode, REMOTE_DISTANCE, TopologyError, UNREACHABLE_DISTANCE,
};

/// A machine shape: NUMA nodes, last-level caches (LLCs), cores and hardware threads.
///
/// CPUs are numbered thread by thread, core by core, LLC by LLC, node by node:
/// `cpu = (llc * cores_per_llc + core) * threads_per_core + thread`. So SMT siblings are neighbours
/// and each LLC and each node is one run of CPUs. Linux numbers the CPUs the same way when the MADT
/// lists them in this order (`acpi_parse_lapic()` in `arch/x86/kernel/acpi/boot.c`).
///
/// [`Topology::new`] and the `with_` methods check what they make. A value made in a `static` or
/// field by field is checked by [`validate`](Self::validate); the lookups below expect a valid one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Unchecked")]
pub struct Topology {
    /// NUMA nodes of the machine, memory-only ones included.
    pub numa_nodes: u32,
    /// LLCs of the whole machine.
    pub llcs: u32,
    /// Cores that share an LLC.
    pub cores_per_llc: u32,
    /// Hardware threads of a core; 1 is no SMT.
    pub threads_per_core: u32,
    /// The nodes one by one; `None` splits the LLCs evenly over `numa_nodes` nodes.
    pub nodes: Option<Cow<'static, [NumaNode]>>,
    /// Distances between the nodes; `None` is 10 to itself and 20 to any other.
    pub distances: Option<NumaDistance>,
}

/// [`Topology`] as it is deserialised, before it is checked. Same fields, same order.
#[derive(Deserialize)]
struct Unchecked {
    numa_nodes: u32,
    llcs: u32,
    cores_per_llc: u32,
    threads_per_core: u32,
    nodes: Option<Cow<'static, [NumaNode]>>,
    distances: Option<NumaDistance>,
}

impl TryFrom<Unchecked> for Topology {
    type Error = TopologyError;

    fn try_from(fields: Unchecked) -> Result<Self, TopologyError> {
        let Unchecked { numa_nodes, llcs, cores_per_llc, threads_per_core, nodes, distances } = fields;
        Self { numa_nodes, llcs, cores_per_llc, threads_per_core, nodes, distances }.validated()
    }
}

impl Default for Topology {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Topology {
    /// `1n1l2c1t`: two CPUs that share everything.
    pub const DEFAULT: Self = Self::uniform(1, 1, 2, 1);

    /// A machine of equal nodes.
    ///
    /// # Errors
    /// [`TopologyError`] when a count is out of range or `llcs` isn't a multiple of `numa_nodes`.
    pub fn new(numa_nodes: u32, llcs: u32, cores: u32, threads: u32) -> Result<Self, TopologyError> {
        Self::uniform(numa_nodes, llcs, cores, threads).validated()
    }

    /// [`new`](Self::new) for a `static`: unchecked.
    #[must_use]
    pub const fn uniform(numa_nodes: u32, llcs: u32, cores: u32, threads: u32) -> Self {
        Self {
            numa_nodes,
            llcs,
            cores_per_llc: cores,
            threads_per_core: threads,
            nodes: None,
            distances: None,
        }
    }

    /// A machine of the given nodes, in that order.
    ///
    /// # Errors
    /// [`TopologyError`] when a count is out of range or a node can't exist.
    pub fn with_nodes(cores: u32, threads: u32, nodes: &[NumaNode]) -> Result<Self, TopologyError> {
        Self::of_nodes(cores, threads, Cow::Owned(nodes.to_vec())).validated()
    }

    /// [`with_nodes`](Self::with_nodes) for a `static`: unchecked.
    #[must_use]
    pub const fn from_static_nodes(cores: u32, threads: u32, nodes: &'static [NumaNode]) -> Self {
        Self::of_nodes(cores, threads, Cow::Borrowed(nodes))
    }

    /// [`from_static_nodes`](Self::from_static_nodes) with distances, row after row, unchecked.
    #[must_use]
    pub const fn from_static_nodes_with_distances(
        cores: u32,
        threads: u32,
        nodes: &'static [NumaNode],
        distances: &'static [u8],
    ) -> Self {
        let mut machine = Self::of_nodes(cores, threads, Cow::Borrowed(nodes));
        // A static's value can't be dropped, so the empty slot is forgotten, not replaced.
        let table = NumaDistance::from_static(machine.numa_nodes, distances);
        std::mem::forget(machine.distances.replace(table));
        machine
    }

    /// The same machine with other distances between its nodes.
    ///
    /// # Errors
    /// [`TopologyError`] when the table is for another number of nodes.
    pub fn with_distances(mut self, distances: NumaDistance) -> Result<Self, TopologyError> {
        self.distances = Some(distances);
        self.validated()
    }

    const fn of_nodes(cores: u32, threads: u32, nodes: Cow<'static, [NumaNode]>) -> Self {
        let listed: &[NumaNode] = match &nodes {
            Cow::Borrowed(nodes) => nodes,
            Cow::Owned(nodes) => nodes.as_slice(),
        };
        let mut llcs: u32 = 0;
        let mut index = 0;
        while index < listed.len() {
            llcs = llcs.saturating_add(listed[index].llcs);
            index += 1;
        }
        // Saturates far beyond MAX_NUMA_NODES, so validate() still refuses it.
        let numa_nodes = if listed.len() > u32::MAX as usize { u32::MAX } else { listed.len() as u32 };
        Self {
            numa_nodes,
            llcs,
            cores_per_llc: cores,
            threads_per_core: threads,
            nodes: Some(nodes),
            distances: None,
        }
    }

    fn validated(self) -> Result<Self, TopologyError> {
        self.validate()?;
        Ok(self)
    }

    /// CPUs of the machine.
    #[must_use]
    pub const fn total_cpus(&self) -> u32 {
        self.llcs.saturating_mul(self.cpus_per_llc())
    }

    /// LLCs of the machine.
    #[must_use]
    pub const fn num_llcs(&self) -> u32 {
        self.llcs
    }

    /// NUMA nodes of the machine, memory-only ones included.
    #[must_use]
    pub const fn num_numa_nodes(&self) -> u32 {
        self.numa_nodes
    }

    /// CPUs that share an LLC.
    #[must_use]
    pub const fn cpus_per_llc(&self) -> u32 {
        self.cores_per_llc.saturating_mul(self.threads_per_core)
    }

    /// The CPUs that share LLC `llc`; empty when there is no such LLC.
    #[must_use]
    pub fn cpus_in_llc(&self, llc: u32) -> CpuSet {
        if llc >= self.llcs { CpuSet::new() } else { self.cpus_of_llcs(llc..llc + 1) }
    }

    /// The CPUs of NUMA node `node`; empty when it is memory-only or doesn't exist.
    #[must_use]
    pub fn cpus_in_node(&self, node: u32) -> CpuSet {
        self.cpus_of_llcs(self.llcs_in_node(node))
    }

    /// The LLCs of NUMA node `node`; empty when it is memory-only or doesn't exist.
    #[must_use]
    pub fn llcs_in_node(&self, node: u32) -> Range<u32> {
        if node >= self.numa_nodes {
            return 0..0;
        }
        let Some(nodes) = &self.nodes else {
            let share = self.llcs / self.numa_nodes;
            return node * share..(node + 1) * share;
        };
        let mut start = 0;
        for (index, listed) in (0..).zip(nodes.iter()) {
            if index == node {
                return start..start + listed.llcs;
            }
            start += listed.llcs;
        }
        0..0
    }

    /// The NUMA node that LLC `llc` belongs to.
    #[must_use]
    pub fn node_of_llc(&self, llc: u32) -> Option<u32> {
        (0..self.numa_nodes).find(|&node| self.llcs_in_node(node).contains(&llc))
    }

    /// The NUMA node that CPU `cpu` belongs to.
    #[must_use]
    pub fn node_of_cpu(&self, cpu: u32) -> Option<u32> {
        self.node_of_llc(self.llc_of_cpu(cpu)?)
    }

    /// The LLC that CPU `cpu` shares.
    #[must_use]
    pub fn llc_of_cpu(&self, cpu: u32) -> Option<u32> {
        self.known(cpu).map(|cpu| cpu / self.cpus_per_llc())
    }

    /// The core that CPU `cpu` is a thread of, counted over the whole machine.
    #[must_use]
    pub fn core_of_cpu(&self, cpu: u32) -> Option<u32> {
        self.known(cpu).map(|cpu| cpu / self.threads_per_core)
    }

    /// Which thread of its core CPU `cpu` is, from 0.
    #[must_use]
    pub fn thread_of_cpu(&self, cpu: u32) -> Option<u32> {
        self.known(cpu).map(|cpu| cpu % self.threads_per_core)
    }

    /// The threads of `cpu`'s core, itself included; empty when there is no such CPU.
    #[must_use]
    pub fn siblings_of(&self, cpu: u32) -> CpuSet {
        let Some(core) = self.core_of_cpu(cpu) else {
            return CpuSet::new();
        };
        let first = core * self.threads_per_core;
        (first..first + self.threads_per_core).collect()
    }

    /// Distance from NUMA node `from` to node `to`: the declared one, else 10 to itself and 20 to any
    /// other; 255 when either doesn't exist.
    #[must_use]
    pub fn distance(&self, from: u32, to: u32) -> u8 {
        if from >= self.numa_nodes || to >= self.numa_nodes {
            return UNREACHABLE_DISTANCE;
        }
        match &self.distances {
            Some(table) => table.get(from, to).unwrap_or(UNREACHABLE_DISTANCE),
            None if from == to => LOCAL_DISTANCE,
            None => REMOTE_DISTANCE,
        }
    }

    /// Memory of each node in MiB, for a machine of `total_mib`. A node's own `memory_mib` is kept;
    /// the others split what is left evenly, the first of them taking the remainder. When every node
    /// names its size, `total_mib` doesn't count: the machine is as large as their sum.
    ///
    /// # Errors
    /// [`TopologyError::MemorySplit`] when a node without a size would get nothing.
    pub fn node_memory_mib(&self, total_mib: u64) -> Result<Vec<u64>, TopologyError> {
        let sizes = self.explicit_memory_mib();
        let explicit_mib = sizes.iter().flatten().sum();
        let unset: u64 = sizes.iter().map(|size| u64::from(size.is_none())).sum();
        let left = total_mib.saturating_sub(explicit_mib);
        if left < unset {
            return Err(TopologyError::MemorySplit { total_mib, explicit_mib, unset });
        }
        let share = left.checked_div(unset).unwrap_or(0);
        let mut remainder = left.checked_rem(unset).unwrap_or(0);
        let fill = |size: Option<u64>| size.unwrap_or_else(|| share + std::mem::take(&mut remainder));
        Ok(sizes.into_iter().map(fill).collect())
    }

    /// Each node's own `memory_mib`.
    pub(crate) fn explicit_memory_mib(&self) -> Vec<Option<u64>> {
        match &self.nodes {
            Some(nodes) => nodes.iter().map(|node| node.memory_mib.map(u64::from)).collect(),
            None => (0..self.numa_nodes).map(|_| None).collect(),
        }
    }

    fn cpus_of_llcs(&self, llcs: Range<u32>) -> CpuSet {
        let per_llc = self.cpus_per_llc();
        (llcs.start * per_llc..llcs.end * per_llc).collect()
    }

    fn known(&self, cpu: u32) -> Option<u32> {
        (cpu < self.total_cpus()).then_some(cpu)
    }
}

#[cfg(test)]
mod tests;
