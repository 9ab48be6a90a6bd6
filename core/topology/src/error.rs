//! What can be wrong with a declared topology.

use crate::{MAX_CPUS, MAX_NUMA_NODES, MAX_THREADS_PER_CORE};

/// Why a [`Topology`](crate::Topology), its label or its NUMA description is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TopologyError {
    /// A count that must be at least 1 is 0.
    #[error("topology {label}: {field} is 0; a machine has at least 1")]
    Zero {
        /// The topology's label.
        label: String,
        /// The field's name.
        field: &'static str,
    },
    /// More hardware threads per core than any CPU has.
    #[error(
        "topology {label}: threads_per_core = {threads} is more than {MAX_THREADS_PER_CORE}; \
         use more cores instead"
    )]
    TooManyThreads {
        /// The topology's label.
        label: String,
        /// The declared count.
        threads: u32,
    },
    /// More NUMA nodes than the kernel is built for.
    #[error(
        "topology {label}: numa_nodes = {nodes} is more than {MAX_NUMA_NODES}, what a default x86 kernel has room for"
    )]
    TooManyNodes {
        /// The topology's label.
        label: String,
        /// The declared count.
        nodes: u32,
    },
    /// More CPUs in all than are supported.
    #[error(
        "topology {label}: llcs x cores_per_llc x threads_per_core = {cpus} CPUs is more than \
         {MAX_CPUS}; make one of them smaller"
    )]
    TooManyCpus {
        /// The topology's label.
        label: String,
        /// The product.
        cpus: u64,
    },
    /// The LLCs don't divide evenly over the nodes and no explicit nodes say how to split them.
    #[error(
        "llcs = {llcs} can't be split evenly over numa_nodes = {numa_nodes}: use a multiple, or \
         give explicit nodes"
    )]
    UnevenLlcs {
        /// LLCs of the whole machine.
        llcs: u32,
        /// NUMA nodes of the whole machine.
        numa_nodes: u32,
    },
    /// `numa_nodes` and the explicit node list disagree.
    #[error("numa_nodes = {numa_nodes}, but {listed} nodes are listed; make them equal")]
    NodeCount {
        /// The declared count.
        numa_nodes: u32,
        /// Length of the list.
        listed: usize,
    },
    /// `llcs` and the explicit nodes' LLCs disagree.
    #[error("llcs = {llcs} for the whole machine, but the listed nodes have {sum} in all; make them equal")]
    NodeLlcs {
        /// The declared total.
        llcs: u32,
        /// Sum over the listed nodes.
        sum: u64,
    },
    /// A node has neither CPUs nor memory.
    #[error("node {node} has no LLC and memory_mib = 0: give it one or the other, or drop the node")]
    EmptyNode {
        /// Index of the node.
        node: u32,
    },
    /// Every node is declared without memory.
    #[error("all nodes have memory_mib = 0: give at least one node memory")]
    NoMemory,
    /// An attribute of a node that must be positive is 0.
    #[error("node {node}: {attribute} = 0; leave it out to say nothing, or give at least 1")]
    ZeroAttribute {
        /// Index of the node.
        node: u32,
        /// The attribute's name.
        attribute: &'static str,
    },
    /// A distance table isn't square.
    #[error("NUMA distances: row {row} has {seen} entries, expected {expected}, one for each row")]
    DistanceRow {
        /// Index of the row.
        row: usize,
        /// Entries in it.
        seen: usize,
        /// Number of rows.
        expected: usize,
    },
    /// A distance table has the wrong number of entries for its size.
    #[error("NUMA distances for {nodes} nodes: expected {nodes} x {nodes} entries, found {seen}")]
    DistanceCells {
        /// Nodes that the table is for.
        nodes: u32,
        /// Entries in it.
        seen: usize,
    },
    /// A distance table is for another number of nodes than the topology has.
    #[error("the machine has {numa_nodes} NUMA nodes, but the distance table is for {table}")]
    DistanceNodes {
        /// Nodes of the topology.
        numa_nodes: u32,
        /// Nodes of the table.
        table: u32,
    },
    /// A distance is out of range.
    #[error("NUMA distance from node {from} to node {to} is {seen}, expected {expected}")]
    DistanceValue {
        /// Index of the row.
        from: u32,
        /// Index of the column.
        to: u32,
        /// The entry.
        seen: u8,
        /// What it may be.
        expected: &'static str,
    },
    /// A distance differs from the one of the way back.
    #[error(
        "NUMA distance from node {from} to node {to} is {there}, but {back} on the way back; make them equal"
    )]
    DistanceAsymmetric {
        /// Index of the row.
        from: u32,
        /// Index of the column.
        to: u32,
        /// The entry.
        there: u8,
        /// The mirrored entry.
        back: u8,
    },
    /// A text isn't a topology label.
    #[error(
        "can't read {label:?} as a topology: expected {expected} at byte {position}; a label looks \
         like 1n2l4c1t (NUMA nodes, LLCs in all, cores per LLC, threads per core)"
    )]
    Label {
        /// The text.
        label: String,
        /// Byte offset of what is wrong.
        position: usize,
        /// What is wanted there.
        expected: &'static str,
    },
    /// The nodes that name no size would get no memory.
    #[error(
        "{total_mib} MiB of memory can't be split: {explicit_mib} MiB are claimed by nodes with \
         memory_mib, and {unset} other nodes need at least 1 MiB each; give the machine more \
         memory or every node a memory_mib"
    )]
    MemorySplit {
        /// Memory of the whole machine.
        total_mib: u64,
        /// Sum of the explicit sizes.
        explicit_mib: u64,
        /// Nodes without an explicit size.
        unset: u64,
    },
}
