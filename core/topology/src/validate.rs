//! The rules that a declared topology keeps.

use crate::{NumaNode, Topology, TopologyError};

/// The most CPUs that a machine may have.
pub const MAX_CPUS: u32 = 4096;

/// The most hardware threads that a core may have: POWER has 8, x86 has 2.
pub const MAX_THREADS_PER_CORE: u32 = 8;

/// The most NUMA nodes that a machine may have: `CONFIG_NODES_SHIFT` defaults to 6 on x86-64.
pub const MAX_NUMA_NODES: u32 = 64;

impl Topology {
    /// Checks every rule: counts from 1 up to the limits, LLCs that fit the nodes, nodes that have
    /// something, distances that fit the nodes.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), TopologyError> {
        self.check_counts()?;
        match &self.nodes {
            Some(nodes) => self.check_nodes(nodes)?,
            None if !self.llcs.is_multiple_of(self.numa_nodes) => {
                let Self { llcs, numa_nodes, .. } = *self;
                return Err(TopologyError::UnevenLlcs { llcs, numa_nodes });
            }
            None => {}
        }
        let Some(distances) = &self.distances else {
            return Ok(());
        };
        distances.validate()?;
        if distances.nodes() != self.numa_nodes {
            let (numa_nodes, table) = (self.numa_nodes, distances.nodes());
            return Err(TopologyError::DistanceNodes { numa_nodes, table });
        }
        Ok(())
    }

    fn check_counts(&self) -> Result<(), TopologyError> {
        let label = || self.label();
        let counts = [
            ("numa_nodes", self.numa_nodes),
            ("llcs", self.llcs),
            ("cores_per_llc", self.cores_per_llc),
            ("threads_per_core", self.threads_per_core),
        ];
        if let Some(&(field, _)) = counts.iter().find(|(_, count)| *count == 0) {
            return Err(TopologyError::Zero { label: label(), field });
        }
        if self.threads_per_core > MAX_THREADS_PER_CORE {
            let threads = self.threads_per_core;
            return Err(TopologyError::TooManyThreads { label: label(), threads });
        }
        if self.numa_nodes > MAX_NUMA_NODES {
            return Err(TopologyError::TooManyNodes { label: label(), nodes: self.numa_nodes });
        }
        let per_llc = u64::from(self.cores_per_llc) * u64::from(self.threads_per_core);
        let cpus = per_llc.saturating_mul(u64::from(self.llcs));
        if cpus > u64::from(MAX_CPUS) {
            return Err(TopologyError::TooManyCpus { label: label(), cpus });
        }
        Ok(())
    }

    fn check_nodes(&self, nodes: &[NumaNode]) -> Result<(), TopologyError> {
        let Self { numa_nodes, llcs, .. } = *self;
        if u32::try_from(nodes.len()) != Ok(numa_nodes) {
            return Err(TopologyError::NodeCount { numa_nodes, listed: nodes.len() });
        }
        let sum = nodes.iter().map(|node| u64::from(node.llcs)).sum();
        if sum != u64::from(llcs) {
            return Err(TopologyError::NodeLlcs { llcs, sum });
        }
        if nodes.iter().all(|node| node.memory_mib == Some(0)) {
            return Err(TopologyError::NoMemory);
        }
        (0..).zip(nodes).try_for_each(|(index, node)| check_node(index, node))
    }
}

fn check_node(index: u32, node: &NumaNode) -> Result<(), TopologyError> {
    if node.is_memory_only() && node.memory_mib == Some(0) {
        return Err(TopologyError::EmptyNode { node: index });
    }
    let cache = node.mem_side_cache;
    let attributes = [
        ("latency_ns", node.latency_ns),
        ("bandwidth_mbs", node.bandwidth_mbs),
        ("mem_side_cache.size_kib", cache.map(|cache| cache.size_kib)),
        ("mem_side_cache.line_bytes", cache.map(|cache| u32::from(cache.line_bytes))),
    ];
    match attributes.iter().find(|(_, value)| *value == Some(0)) {
        Some(&(attribute, _)) => Err(TopologyError::ZeroAttribute { node: index, attribute }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
