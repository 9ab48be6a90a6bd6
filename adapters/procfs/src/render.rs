//! The topology as text, for `ktstr topo`.

use ktstr_topology::TestTopology;
use std::fmt::Write;

/// Totals of CPUs, LLCs and NUMA nodes, then a line for each LLC with its node and
/// CPUs, then a line for each node that has memory only. Ends with a newline.
pub fn render_topology(topology: &TestTopology) -> String {
    let mut text = format!(
        "CPUs:       {}\nLLCs:       {}\nNUMA nodes: {}\n\n",
        topology.total_cpus(),
        topology.num_llcs(),
        topology.num_numa_nodes()
    );
    // By index, as tests name them, not by the kernel's cache number.
    for (index, llc) in topology.llcs().iter().enumerate() {
        // Writing to a String can't fail.
        let _ = writeln!(text, "LLC {index} (node {}): CPUs {}", llc.node, llc.cpus);
    }
    for node in topology.nodes().iter().filter(|n| n.cpus.is_empty()) {
        let size = node.memory.map_or_else(String::new, |m| format!(", {} MiB", m.total_kib / 1024));
        let _ = writeln!(text, "node {}: memory only{size}", node.id);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_topology::{NumaNode, Topology};

    #[test]
    fn two_llcs_on_two_nodes() {
        let topology = TestTopology::from_vm_topology(&Topology::new(2, 2, 2, 2).unwrap()).unwrap();
        insta::assert_snapshot!(render_topology(&topology), @r"
        CPUs:       8
        LLCs:       2
        NUMA nodes: 2

        LLC 0 (node 0): CPUs 0-3
        LLC 1 (node 1): CPUs 4-7
        ");
    }

    #[test]
    fn a_memory_only_node_has_a_line_of_its_own() {
        let nodes = [NumaNode::new(1), NumaNode::memory_only(256)];
        let topology = TestTopology::from_vm_topology(&Topology::with_nodes(2, 1, &nodes).unwrap()).unwrap();
        insta::assert_snapshot!(render_topology(&topology), @r"
        CPUs:       2
        LLCs:       1
        NUMA nodes: 2

        LLC 0 (node 0): CPUs 0-1
        node 1: memory only, 256 MiB
        ");
    }
}
