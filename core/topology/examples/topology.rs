//! Prints how a machine's CPUs are laid out: `cargo run -p ktstr-topology --example topology -- 2n4l2c2t`.

use ktstr_topology::{CpusetSpec, TestTopology, Topology};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let label = std::env::args()
        .nth(1)
        .unwrap_or_else(|| "2n4l2c2t".to_owned());
    let topology: Topology = label.parse()?;
    let machine = TestTopology::from_vm_topology_with_memory(&topology, 4096)?;

    println!(
        "{topology}: {} CPUs, {} usable",
        machine.total_cpus(),
        machine.usable_cpus().len()
    );
    for node in machine.nodes() {
        let mib = node.memory.map_or(0, |memory| memory.total_kib / 1024);
        println!("node {}: CPUs {}, {mib} MiB", node.id, node.cpus);
    }
    for llc in machine.llcs() {
        println!("LLC {}: node {}, CPUs {}", llc.id, llc.node, llc.cpus);
    }
    for spec in [
        CpusetSpec::llc(0),
        CpusetSpec::disjoint(0, 2),
        CpusetSpec::overlap(1, 2, 0.5),
    ] {
        match spec.resolve(&machine) {
            Ok(cpus) => println!("{spec:?}: CPUs {cpus}"),
            Err(error) => println!("{spec:?}: {error}"),
        }
    }
    Ok(())
}
