//! The guest's `/sys` shows exactly the declared machine.

use ktstr::prelude::*;
use ktstr::topology::{NumaNode, Topology};
use std::path::Path;

const UNEVEN: Topology = Topology::from_static_nodes_with_distances(
    2,
    1,
    &[NumaNode::new(2), NumaNode::new(1), NumaNode::memory_only(128)],
    &[10, 15, 30, 15, 10, 40, 30, 40, 10],
);

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    Ok(text.trim().to_string())
}

/// Compares what sysfs says with what the declaration says, file by file.
fn sysfs_shows(declared: &Topology) -> Result<AssertResult> {
    let mut v = Assert::NO_OVERRIDES.verdict();
    let cpu_dir = Path::new("/sys/devices/system/cpu");
    let node_dir = Path::new("/sys/devices/system/node");
    let last = declared.total_cpus() - 1;
    let online: CpuSet = (0..=last).collect();
    claim!(v, read(cpu_dir.join("online"))?).eq(online.to_string());
    for cpu in 0..=last {
        let dir = cpu_dir.join(format!("cpu{cpu}"));
        let llc = declared.llc_of_cpu(cpu).context("a CPU without an LLC")?;
        let cpus_of_llc = declared.cpus_in_llc(llc).to_string();
        let siblings = declared.siblings_of(cpu).to_string();
        claim!(v, read(dir.join("topology/thread_siblings_list"))?).eq(siblings);
        claim!(v, read(dir.join("topology/package_cpus_list"))?).eq(cpus_of_llc.clone());
        claim!(v, read(dir.join("cache/index3/level"))?).eq("3".to_string());
        claim!(v, read(dir.join("cache/index3/shared_cpu_list"))?).eq(cpus_of_llc);
    }
    for node in 0..declared.num_numa_nodes() {
        let dir = node_dir.join(format!("node{node}"));
        claim!(v, read(dir.join("cpulist"))?).eq(declared.cpus_in_node(node).to_string());
        let distances: Vec<String> =
            (0..declared.num_numa_nodes()).map(|other| declared.distance(node, other).to_string()).collect();
        claim!(v, read(dir.join("distance"))?).eq(distances.join(" "));
    }
    let nodes: CpuSet = (0..declared.num_numa_nodes()).collect();
    claim!(v, read(node_dir.join("has_memory"))?).eq(nodes.to_string());
    Ok(v.into_result())
}

macro_rules! shapes {
    ($($name:ident($numa:literal, $llcs:literal, $cores:literal, $threads:literal);)*) => {$(
        #[ktstr_test(numa_nodes = $numa, llcs = $llcs, cores = $cores, threads = $threads)]
        fn $name(_ctx: &Ctx) -> Result<AssertResult> {
            sysfs_shows(&Topology::uniform($numa, $llcs, $cores, $threads))
        }
    )*};
}

shapes! {
    shape_1n1l1c1t(1, 1, 1, 1);
    shape_1n1l3c1t(1, 1, 3, 1);
    shape_1n1l2c2t(1, 1, 2, 2);
    shape_1n2l2c1t(1, 2, 2, 1);
    shape_1n3l2c2t(1, 3, 2, 2);
    shape_2n2l2c1t(2, 2, 2, 1);
    shape_2n4l1c2t(2, 4, 1, 2);
    shape_2n4l2c2t(2, 4, 2, 2);
}

#[ktstr_test(topology = UNEVEN)]
fn shape_of_uneven_nodes(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = sysfs_shows(&UNEVEN)?;
    let mut v = Assert::NO_OVERRIDES.verdict();
    claim!(v, ctx.topo.is_memory_only(2)).eq(true);
    claim!(v, ctx.topo.numa_distance(1, 2)).eq(40);
    result.merge(v.into_result());
    Ok(result)
}
