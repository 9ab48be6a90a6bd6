//! Declared shapes against the guest's `/sys`.

use crate::{Guest, Kernels, Outcome};
use ktstr_topology::{NumaDistance, NumaNode, Topology};
use ktstr_vmm::VmEnd;

pub(crate) fn small(kernels: &Kernels) -> Outcome {
    for label in ["1n1l1c1t", "1n1l2c1t", "1n2l1c2t", "2n2l2c1t", "2n4l1c1t"] {
        check(kernels, label.parse().map_err(|e| format!("{e}"))?)?;
    }
    Ok(())
}

pub(crate) fn uneven(kernels: &Kernels) -> Outcome {
    let nodes = [NumaNode::new(2), NumaNode::new(1), NumaNode::memory_only(64)];
    let distances =
        NumaDistance::new(&[[10, 21, 30], [21, 10, 35], [30, 35, 10]]).map_err(|e| e.to_string())?;
    let topology = Topology::with_nodes(1, 2, &nodes).and_then(|t| t.with_distances(distances));
    check(kernels, topology.map_err(|e| e.to_string())?)?;
    // Counts that are no powers of two leave gaps in the APIC ids.
    check(kernels, Topology::new(1, 3, 3, 1).map_err(|e| e.to_string())?)
}

pub(crate) fn large(kernels: &Kernels) -> Outcome {
    check(kernels, Topology::new(2, 4, 2, 2).map_err(|e| e.to_string())?)
}

/// By an HMAT: what Linux says of each node's memory as the nearest CPUs see it, of read and write alike.
pub(crate) fn speeds(kernels: &Kernels) -> Outcome {
    let nodes = [
        NumaNode::new(1).with_latency_ns(90).with_bandwidth_mbs(24_000),
        NumaNode::new(1).with_latency_ns(110).with_bandwidth_mbs(18_000),
        NumaNode::memory_only(64).with_latency_ns(320).with_bandwidth_mbs(6_000),
    ];
    let distances =
        NumaDistance::new(&[[10, 20, 30], [20, 10, 40], [30, 40, 10]]).map_err(|e| e.to_string())?;
    let shape = Topology::with_nodes(1, 1, &nodes).and_then(|t| t.with_distances(distances));
    let report = reported(kernels, &shape.map_err(|e| e.to_string())?)?;
    let expected = ["90 90 24000 24000", "110 110 18000 18000", "320 320 6000 6000"];
    let missing = |node: usize| !report.contains(&format!("node {node} speeds {}\n", expected[node]));
    match (0..nodes.len()).find(|node| missing(*node)) {
        None => Ok(()),
        Some(node) => Err(format!("node {node}: expected {:?}; seen:\n{report}", expected[node])),
    }
}

fn check(kernels: &Kernels, shape: Topology) -> Outcome {
    let report = reported(kernels, &shape)?;
    let missing: Vec<String> =
        expected(&shape).into_iter().filter(|line| !report.contains(line.as_str())).collect();
    if missing.is_empty() && memory_is_there(&report) {
        return Ok(());
    }
    Err(format!("{}: expected but not seen:\n{}\nseen:\n{report}", shape.label(), missing.join("\n")))
}

/// What a guest of that shape says of its CPUs and nodes.
fn reported(kernels: &Kernels, shape: &Topology) -> Result<String, String> {
    let mut guest = Guest::boot(kernels.quick(), shape.clone(), "report")?;
    guest.expect_end(&VmEnd::PowerOff).map_err(|e| format!("{}: {e}", shape.label()))?;
    let report = guest.rest();
    if !report.ends_with("end of report\n") {
        return Err(format!("{}: report cut: {report:?}{}", shape.label(), guest.post_mortem()));
    }
    Ok(report)
}

fn expected(shape: &Topology) -> Vec<String> {
    let total = shape.total_cpus();
    let mut lines = vec![format!("cpus {}\n", (0..total).collect::<ktstr_topology::CpuSet>())];
    for cpu in 0..total {
        let llc = shape.cpus_in_llc(shape.llc_of_cpu(cpu).unwrap_or(0));
        lines.push(format!("cpu {cpu} siblings {} package {llc} llc {llc}\n", shape.siblings_of(cpu)));
    }
    let nodes = shape.num_numa_nodes();
    for node in 0..nodes {
        let distances: Vec<String> = (0..nodes).map(|to| shape.distance(node, to).to_string()).collect();
        lines.push(format!(
            "node {node} cpus {} distances {} kib ",
            shape.cpus_in_node(node),
            distances.join(" ")
        ));
    }
    lines
}

/// Every node has memory of its own.
fn memory_is_there(report: &str) -> bool {
    let sizes = report.lines().filter_map(|line| line.split(" kib ").nth(1));
    sizes.map(str::parse::<u64>).all(|size| size.is_ok_and(|kib| kib > 16 << 10))
}
