//! A declared machine as a test sees it.

use proptest::prelude::*;

use super::*;
use crate::{NumaDistance, NumaNode};

fn machine(label: &str) -> TestTopology {
    let topology = label.parse().expect("a good label");
    TestTopology::from_vm_topology(&topology).expect("a valid shape")
}

#[test]
fn a_two_node_machine() {
    let machine = machine("2n4l2c2t");
    assert_eq!(machine.total_cpus(), 16);
    assert_eq!((machine.num_llcs(), machine.num_numa_nodes()), (4, 2));
    assert_eq!(machine.all_cpus(), (0..16).collect::<Vec<_>>());
    assert_eq!(machine.all_cpuset(), CpuSet::from_iter(0..16));
    assert_eq!(machine.cpus_in_llc(1), [4, 5, 6, 7]);
    assert_eq!(machine.llc_aligned_cpuset(3), CpuSet::from_iter(12..16));
    assert_eq!(machine.numa_aligned_cpuset(1), CpuSet::from_iter(8..16));
    assert_eq!(machine.llc_of_cpu(7), Some(1));
    assert_eq!(machine.node_of_cpu(8), Some(1));
    assert_eq!(machine.siblings_of(7), CpuSet::from([6, 7]));
    assert_eq!([machine.numa_distance(0, 0), machine.numa_distance(0, 1)], [10, 20]);
    assert_eq!(machine.cpuset_string(&machine.numa_aligned_cpuset(0)), "0-7");
    assert_eq!(machine.llcs()[2], LlcInfo { id: 2, node: 1, cpus: CpuSet::from_iter(8..12) });
}

#[test]
fn the_last_cpu_is_left_out_from_three_on() {
    assert_eq!(machine("1n1l1c1t").usable_cpus(), [0]);
    assert_eq!(machine("1n1l2c1t").usable_cpus(), [0, 1]);
    assert_eq!(machine("1n1l3c1t").usable_cpus(), [0, 1]);
    assert_eq!(machine("1n1l4c1t").usable_cpuset(), CpuSet::from([0, 1, 2]));
}

#[test]
fn what_does_not_exist_is_nowhere() {
    let machine = machine("1n1l2c1t");
    assert!(machine.cpus_in_llc(1).is_empty());
    assert_eq!(machine.llc_aligned_cpuset(1), CpuSet::new());
    assert_eq!(machine.numa_aligned_cpuset(1), CpuSet::new());
    assert_eq!(machine.siblings_of(2), CpuSet::new());
    assert_eq!(machine.llc_of_cpu(2), None);
    assert_eq!(machine.node_of_cpu(2), None);
    assert_eq!(machine.node_meminfo(1), None);
    assert_eq!(machine.numa_distance(0, 1), 255);
    assert!(!machine.is_memory_only(1));
}

#[test]
fn cpus_tell_their_nodes() {
    let machine = machine("2n2l2c1t");
    let nodes = |cpus: [u32; 2]| machine.numa_nodes_for_cpuset(&cpus.into());
    assert_eq!(nodes([0, 1]), BTreeSet::from([0]));
    assert_eq!(nodes([1, 2]), BTreeSet::from([0, 1]));
    assert_eq!(nodes([3, 99]), BTreeSet::from([1]));
    assert_eq!(machine.numa_nodes_for_cpuset(&CpuSet::new()), BTreeSet::new());
}

#[test]
fn memory_is_known_where_it_was_said() {
    let nodes = [NumaNode::new(1), NumaNode::memory_only(512)];
    let distances = NumaDistance::new(&[[10, 40], [40, 10]]).expect("valid");
    let topology = Topology::with_nodes(2, 1, &nodes).expect("valid");
    let topology = topology.with_distances(distances).expect("two nodes each");
    let memory = |mib: u64| Some(NodeMemInfo { total_kib: mib * 1024, free_kib: mib * 1024 });

    let machine = TestTopology::from_vm_topology(&topology).expect("valid");
    assert!(machine.is_memory_only(1));
    assert_eq!([machine.node_meminfo(0), machine.node_meminfo(1)], [None, memory(512)]);
    assert_eq!(machine.numa_distance(1, 0), 40);

    let machine = TestTopology::from_vm_topology_with_memory(&topology, 2048).expect("enough");
    assert_eq!([machine.node_meminfo(0), machine.node_meminfo(1)], [memory(1536), memory(512)]);
    assert!(TestTopology::from_vm_topology_with_memory(&topology, 512).is_err());
}

#[test]
fn an_invalid_shape_makes_no_machine() {
    let error = TopologyError::UnevenLlcs { llcs: 3, numa_nodes: 2 };
    assert_eq!(TestTopology::from_vm_topology(&Topology::uniform(2, 3, 1, 1)), Err(error));
}

#[test]
fn overlapping_cpusets_share_cpus_with_their_neighbours() {
    let machine = machine("1n1l13c1t");
    let sets = machine.overlapping_cpusets(3, 0.5).expect("12 usable CPUs");
    let expected = [0..6, 2..10, 6..12].map(CpuSet::from_iter);
    assert_eq!(sets, expected);
    assert_eq!(machine.overlapping_cpusets(0, 0.5), Err(CpusetError::NoParts { index: 0 }));
    assert!(machine.overlapping_cpusets(13, 0.5).is_err());
    assert!(machine.overlapping_cpusets(2, f64::NAN).is_err());
}

proptest! {
    #[test]
    fn a_declared_machine_passes_the_checks_of_an_observed_one(
        llcs in proptest::collection::vec(0u32..4, 1..5), cores in 1u32..4, threads in 1u32..4,
    ) {
        let nodes: Vec<NumaNode> = llcs.into_iter().map(NumaNode::new).collect();
        let Ok(topology) = Topology::with_nodes(cores, threads, &nodes) else { return Ok(()) };
        let machine = TestTopology::from_vm_topology(&topology).expect("valid");
        prop_assert_eq!(TestTopology::from_parts(machine.parts.clone()), Ok(machine.clone()));
        let split = machine.split_by_llc();
        prop_assert_eq!(split.len(), machine.num_llcs());
        prop_assert_eq!(split.into_iter().flatten().collect::<Vec<_>>(), machine.all_cpus());
        for cpu in machine.all_cpus() {
            prop_assert_eq!(machine.node_of_cpu(cpu), topology.node_of_cpu(cpu));
            prop_assert_eq!(machine.siblings_of(cpu), topology.siblings_of(cpu));
        }
    }
}
