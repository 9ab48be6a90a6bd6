//! Performance mode: what of the host a machine gets to itself, and what it must do without.

use crate::{NoPlace, Placement};
use ktstr_topology::{CpuSet, TestTopology, Topology};
use std::collections::BTreeMap;
use std::fmt;

/// What a machine has to itself. Each part is worth having without the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Performance {
    /// A CPU of the host for each vCPU.
    pub placement: Option<Placement>,
    /// vCPUs run before everything on their CPUs that isn't real-time; only with a placement, as they would take all
    /// CPUs from everybody else.
    pub realtime: bool,
    /// Its RAM is of pages of 2 MiB.
    pub huge_pages: bool,
}

/// Something that a host lacks, and what would mend that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What is wanted, and why it can't be had.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// A host, as far as performance mode looks at it.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its CPUs.
    pub topology: TestTopology,
    /// Those of them that this process may use.
    pub usable: CpuSet,
    /// Whether threads can have a real-time priority, or why not.
    pub realtime: Result<(), String>,
    /// Pages of 2 MiB that are free, of each NUMA node.
    pub huge_pages: BTreeMap<u32, u64>,
}

/// What a machine of this shape and RAM gets on that host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What it gets.
    pub performance: Performance,
    /// Its RAM in MiB: a little more where pages of 2 MiB need that.
    pub memory_mib: u64,
    /// What it does without.
    pub missing: Vec<Missing>,
}

impl From<NoPlace> for Missing {
    fn from(why: NoPlace) -> Self {
        Self {
            what: format!("a host CPU for each vCPU can't be had: {why}"),
            remedy: "declare a smaller machine, or use a host or cpuset with more CPUs".to_string(),
        }
    }
}

/// Plans performance mode for a valid shape that has that place on the host, or none.
pub fn plan(machine: &Topology, memory_mib: u64, placement: Result<Placement, Missing>, host: &Host) -> Plan {
    let mut missing = Vec::new();
    let placement = placement.map_err(|lacks| missing.push(lacks)).ok();
    let realtime = match &host.realtime {
        Ok(()) => placement.is_some(),
        Err(why) => {
            missing.push(Missing {
                what: format!("real-time priority for vCPUs (SCHED_FIFO) can't be had: {why}"),
                remedy: "run as root, with CAP_SYS_NICE, or with a limit of at least 2 (`ulimit -r`, RLIMIT_RTPRIO)"
                    .to_string(),
            });
            false
        }
    };
    let memory = placement.as_ref().map(|p| p.memory.as_slice()).unwrap_or_default();
    let (huge_pages, memory_mib) = match huge_pages(machine, memory_mib, memory, &host.huge_pages) {
        Ok(mib) => (true, mib),
        Err(lacks) => {
            missing.push(lacks);
            (false, memory_mib)
        }
    };
    Plan { performance: Performance { placement, realtime, huge_pages }, memory_mib, missing }
}

/// Steps of RAM that are tried so that each node is made of whole pages.
const STEPS: u64 = 64;

/// RAM in MiB that is made of whole pages of 2 MiB, if there are enough.
fn huge_pages(
    machine: &Topology,
    memory_mib: u64,
    on: &[Vec<u32>],
    free: &BTreeMap<u32, u64>,
) -> Result<u64, Missing> {
    let nodes =
        |mib: u64| machine.node_memory_mib(mib).ok().filter(|nodes| nodes.iter().all(|mib| mib % 2 == 0));
    let Some((mib, nodes)) = (memory_mib..memory_mib + STEPS).find_map(|mib| Some((mib, nodes(mib)?))) else {
        return Err(Missing {
            what: format!(
                "pages of 2 MiB can't be had: no RAM near {memory_mib} MiB makes nodes of whole pages"
            ),
            remedy: "declare nodes of even numbers of MiB".to_string(),
        });
    };
    let wanted: u64 = nodes.iter().map(|mib| mib / 2).sum();
    let there: u64 = free.values().sum();
    if there < wanted {
        return Err(Missing {
            what: format!("pages of 2 MiB can't be had: {wanted} wanted, {there} free"),
            remedy: format!("`echo {wanted} | sudo tee /proc/sys/vm/nr_hugepages` makes them"),
        });
    }
    // Nodes that may take theirs from several of the host's are counted above only.
    let mut of_node: BTreeMap<u32, u64> = BTreeMap::new();
    for (mib, on) in nodes.iter().zip(on) {
        if let [node] = on[..] {
            *of_node.entry(node).or_default() += mib / 2;
        }
    }
    for (node, wanted) in of_node {
        let there = free.get(&node).copied().unwrap_or(0);
        if there < wanted {
            return Err(Missing {
                what: format!(
                    "pages of 2 MiB can't be had: {wanted} wanted on node {node}, {there} free there"
                ),
                remedy: format!(
                    "`echo {wanted} | sudo tee /sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages` makes them"
                ),
            });
        }
    }
    Ok(mib)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// On a host without other machines.
    fn plan(machine: &str, memory_mib: u64, host: &Host) -> Plan {
        let machine = machine.parse().unwrap();
        let placement = crate::place(&machine, &host.topology, &host.usable).map_err(Missing::from);
        super::plan(&machine, memory_mib, placement, host)
    }

    fn host(label: &str, pages: &[u64]) -> Host {
        let topology = TestTopology::from_vm_topology(&label.parse().unwrap()).unwrap();
        let usable = topology.all_cpuset();
        let huge_pages = (0..).zip(pages.iter().copied()).collect();
        Host { topology, usable, realtime: Ok(()), huge_pages }
    }

    fn texts(plan: &Plan) -> Vec<String> {
        plan.missing.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_host_that_has_it_all_gives_it() {
        let plan = plan("2n2l2c1t", 513, &host("2n2l4c1t", &[200, 200]));
        assert!(plan.missing.is_empty(), "{:?}", plan.missing);
        assert!(plan.performance.realtime && plan.performance.huge_pages);
        assert_eq!(plan.performance.placement.unwrap().memory, [vec![0], vec![1]]);
        assert_eq!(plan.memory_mib, 516, "two nodes of whole pages");
    }

    #[test]
    fn what_is_missing_is_told_with_what_mends_it() {
        let poor = Host { realtime: Err("Operation not permitted".to_string()), ..host("1n1l2c1t", &[]) };
        let plan = plan("1n1l2c1t", 256, &poor);
        assert_eq!((plan.performance.clone(), plan.memory_mib), (Performance::default(), 256));
        let texts = texts(&plan);
        let parts = [
            ("3 host CPUs", "smaller machine"),
            ("not permitted", "CAP_SYS_NICE"),
            ("128 wanted, 0 free", "echo 128"),
        ];
        assert_eq!(texts.len(), parts.len(), "{texts:?}");
        for (text, (why, remedy)) in texts.iter().zip(parts) {
            assert!(text.contains(why) && text.contains(remedy), "{text}");
        }
    }

    #[test]
    fn without_cpus_of_their_own_vcpus_are_not_put_before_everybody() {
        let plan = plan("1n1l2c1t", 256, &host("1n1l2c1t", &[128]));
        assert_eq!(plan.performance, Performance { placement: None, realtime: false, huge_pages: true });
        assert_eq!(plan.missing.len(), 1, "of real-time priority nothing is said: the host has it");
    }

    #[test]
    fn pages_must_be_on_the_node_that_the_machine_is_on() {
        let plan = plan("2n2l2c1t", 512, &host("2n2l4c1t", &[300, 20]));
        assert!(!plan.performance.huge_pages);
        assert!(texts(&plan)[0].contains("128 wanted on node 1, 20 free there"), "{:?}", plan.missing);
        // No whole pages whatever the whole is.
        let nodes = [ktstr_topology::NumaNode::new(1).with_memory_mib(257), ktstr_topology::NumaNode::new(1)];
        let odd = Topology::with_nodes(1, 1, &nodes).unwrap();
        assert!(
            huge_pages(&odd, 512, &[], &BTreeMap::from([(0, 9999)]))
                .unwrap_err()
                .what
                .contains("no RAM near 512")
        );
    }
}
