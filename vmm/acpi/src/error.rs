//! What can go wrong with ACPI tables.

/// Tables that could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AcpiError {
    /// The shape makes no sense.
    #[error(transparent)]
    Topology(#[from] ktstr_topology::TopologyError),
    /// Another number of interrupt controller ids than of CPUs.
    #[error("building ACPI tables for {cpus} CPUs: {ids} interrupt controller ids given; give one a CPU")]
    CpuIds {
        /// CPUs of the shape.
        cpus: usize,
        /// Ids given.
        ids: usize,
    },
    /// RAM of a node that the shape hasn't.
    #[error("building ACPI tables: RAM of node {node} given, but the shape has {nodes} nodes")]
    NoSuchNode {
        /// The node.
        node: u32,
        /// Nodes of the shape.
        nodes: u32,
    },
    /// The tables don't fit.
    #[error("placing the {table} of {bytes} bytes at {at:#x}: the room for ACPI tables ends at {end:#x}")]
    NoRoom {
        /// Its signature.
        table: &'static str,
        /// Its length.
        bytes: usize,
        /// Where it would go.
        at: u64,
        /// End of the room.
        end: u64,
    },
}
