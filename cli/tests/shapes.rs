//! The guest's `/sys` shows exactly the declared machine, and the same in every mode: what it
//! says of CPUs, caches and nodes is kept in `shapes/LABEL.txt`, whatever the mode. A test that
//! finds something else prints the whole text, to be compared and, if the change was meant, kept.

use ktstr::prelude::*;
use ktstr::topology::{NumaNode, Topology};
use std::fmt::Write;
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

/// What `/sys` says of one CPU or node: file names below its directory and their contents.
fn line(dir: &Path, files: &[&str]) -> Result<String> {
    let mut text = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for file in files {
        let name = Path::new(file).file_name().unwrap_or_default().to_string_lossy();
        write!(text, " {name}={}", read(dir.join(file))?.replace(' ', ","))?;
    }
    Ok(text)
}

/// The first- and second-level caches are a core's, shared by its threads.
///
/// Emulation can't tell the kernel so: an AMD processor says it in a leaf that needs TOPOEXT,
/// which QEMU's TCG hasn't (`TCG_EXT3_FEATURES` in target/i386/cpu.c); each thread has its own.
fn small_caches_are(declared: &Topology) -> Result<AssertResult> {
    let mut v = Assert::NO_OVERRIDES.verdict();
    let clocks = read("/sys/devices/system/clocksource/clocksource0/available_clocksource")?;
    let is_kvm = clocks.contains("kvm-clock");
    for cpu in 0..declared.total_cpus() {
        let expected = if is_kvm { declared.siblings_of(cpu) } else { CpuSet::from_iter([cpu]) };
        for index in 0..3 {
            let dir = format!("/sys/devices/system/cpu/cpu{cpu}/cache/index{index}");
            claim!(v, read(format!("{dir}/shared_cpu_list"))?).eq(expected.to_string());
        }
    }
    Ok(v.into_result())
}

/// Everything that the kernel says of the machine's shape.
fn sysfs_text(declared: &Topology) -> Result<String> {
    let (cpus, nodes) = (Path::new("/sys/devices/system/cpu"), Path::new("/sys/devices/system/node"));
    let mut text = line(cpus, &["online", "possible", "present"])? + "\n";
    for cpu in 0..declared.total_cpus() {
        let dir = cpus.join(format!("cpu{cpu}"));
        let files = [
            "topology/physical_package_id",
            "topology/die_id",
            "topology/core_id",
            "topology/thread_siblings_list",
            "topology/die_cpus_list",
            "topology/package_cpus_list",
            "cache/index3/shared_cpu_list",
        ];
        text += &(line(&dir, &files)? + "\n");
    }
    text += &(line(nodes, &["online", "possible", "has_cpu", "has_memory"])? + "\n");
    for node in 0..declared.num_numa_nodes() {
        text += &(line(&nodes.join(format!("node{node}")), &["cpulist", "distance"])? + "\n");
    }
    Ok(text)
}

/// The same text in every mode.
fn sysfs_is(declared: &Topology, kept: &str) -> Result<AssertResult> {
    let seen = sysfs_text(declared)?;
    let Some(at) = (0..)
        .take_while(|at| kept.lines().nth(*at).is_some() || seen.lines().nth(*at).is_some())
        .find(|at| kept.lines().nth(*at) != seen.lines().nth(*at))
    else {
        return Ok(AssertResult::pass());
    };
    print!("{seen}");
    let nth = |text: &str| text.lines().nth(at).unwrap_or("nothing").to_string();
    Ok(AssertResult::fail(format!(
        "line {} of what is kept of {}: expected {:?}, saw {:?}; all of it is in the test's output",
        at + 1,
        declared.label(),
        nth(kept),
        nth(&seen)
    )))
}

fn shows(declared: &Topology, kept: &str) -> Result<AssertResult> {
    let mut result = sysfs_shows(declared)?;
    result.merge(sysfs_is(declared, kept)?);
    result.merge(small_caches_are(declared)?);
    Ok(result)
}

macro_rules! shapes {
    ($($name:ident($numa:literal, $llcs:literal, $cores:literal, $threads:literal);)*) => {$(
        #[ktstr_test(numa_nodes = $numa, llcs = $llcs, cores = $cores, threads = $threads)]
        fn $name(_ctx: &Ctx) -> Result<AssertResult> {
            let kept =
                include_str!(concat!("shapes/", $numa, "n", $llcs, "l", $cores, "c", $threads, "t.txt"));
            shows(&Topology::uniform($numa, $llcs, $cores, $threads), kept)
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
    let mut result = shows(&UNEVEN, include_str!("shapes/uneven.txt"))?;
    let mut v = Assert::NO_OVERRIDES.verdict();
    claim!(v, ctx.topo.is_memory_only(2)).eq(true);
    claim!(v, ctx.topo.numa_distance(1, 2)).eq(40);
    result.merge(v.into_result());
    Ok(result)
}
