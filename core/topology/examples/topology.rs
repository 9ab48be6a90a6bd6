//! Prints how machines' CPUs are laid out: `cargo run -p ktstr-topology --example topology`.

use ktstr_topology::{CpusetSpec, NumaNode, TestTopology, Topology};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    print(&"2n4l2c2t".parse()?)?;
    print(&Topology::with_nodes(4, 1, &[NumaNode::new(1), NumaNode::memory_only(512)])?)
}

fn print(topology: &Topology) -> Result<(), Box<dyn std::error::Error>> {
    let machine = TestTopology::from_vm_topology_with_memory(topology, 4096)?;
    println!("{topology}: {} CPUs, {} usable", machine.total_cpus(), machine.usable_cpus().len());
    for node in machine.nodes() {
        let mib = node.memory.map_or(0, |memory| memory.total_kib / 1024);
        println!("  node {}: CPUs [{}], {mib} MiB", node.id, node.cpus);
    }
    for llc in machine.llcs() {
        println!("  LLC {}: node {}, CPUs [{}]", llc.id, llc.node, llc.cpus);
    }
    for spec in [CpusetSpec::numa(1), CpusetSpec::disjoint(0, 2), CpusetSpec::overlap(1, 2, 0.5)] {
        match spec.resolve(&machine) {
            Ok(cpus) => println!("  {spec:?}: CPUs [{cpus}]"),
            Err(error) => println!("  {spec:?}: {error}"),
        }
    }
    Ok(())
}
