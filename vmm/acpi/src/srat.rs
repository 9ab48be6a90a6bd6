//! SRAT and SLIT: which CPUs and which memory belong to which node, and how far
//! nodes are from each other.

use crate::table::with_header;
use crate::{Machine, arch};
use ktstr_topology::Topology;

/// Memory Affinity Structure (ACPI 6.5, 5.2.16.2).
const MEMORY_AFFINITY: u8 = 1;
const MEMORY_AFFINITY_BYTES: u8 = 40;
const ENABLED: u32 = 1;

pub(crate) fn build(machine: &Machine<'_>) -> Vec<u8> {
    // Reserved: "1 for backward compatibility", then eight zeros.
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for (cpu, &id) in (0u32..).zip(machine.cpu_ids) {
        // Every CPU of a valid shape has a node.
        let node = machine.topology.node_of_cpu(cpu).unwrap_or(0);
        body.extend(arch::cpu_affinity(cpu, id, node));
    }
    for ram in machine.ram {
        body.extend([MEMORY_AFFINITY, MEMORY_AFFINITY_BYTES]);
        body.extend(ram.node.to_le_bytes());
        body.extend([0; 2]);
        body.extend(ram.start.to_le_bytes());
        body.extend(ram.bytes.to_le_bytes());
        body.extend([0; 4]);
        body.extend(ENABLED.to_le_bytes());
        body.extend([0; 8]);
    }
    with_header(*b"SRAT", 3, &body)
}

/// Row after row of distances (ACPI 6.5, 5.2.17).
pub(crate) fn slit(topology: &Topology) -> Vec<u8> {
    let nodes = topology.num_numa_nodes();
    let mut body = u64::from(nodes).to_le_bytes().to_vec();
    for from in 0..nodes {
        body.extend((0..nodes).map(|to| topology.distance(from, to)));
    }
    with_header(*b"SLIT", 1, &body)
}
