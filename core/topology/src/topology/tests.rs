//! Numbering, nodes and memory.

use proptest::prelude::*;

use super::*;

/// Shapes of equal nodes, up to a few hundred CPUs.
fn uniform() -> impl Strategy<Value = Topology> {
    (1u32..5, 1u32..5, 1u32..6, 1u32..4).prop_map(|(numa, llcs_per_node, cores, threads)| {
        Topology::new(numa, numa * llcs_per_node, cores, threads).expect("the shape is valid")
    })
}

/// Shapes of listed nodes, some of them memory-only.
fn listed() -> impl Strategy<Value = Topology> {
    let nodes = proptest::collection::vec(0u32..4, 1..6);
    (nodes, 1u32..4, 1u32..4).prop_filter_map("no CPUs", |(llcs, cores, threads)| {
        let nodes: Vec<NumaNode> = llcs.into_iter().map(NumaNode::new).collect();
        Topology::with_nodes(cores, threads, &nodes).ok()
    })
}

fn any_shape() -> impl Strategy<Value = Topology> {
    prop_oneof![uniform(), listed()]
}

const CXL: Topology =
    Topology::from_static_nodes(2, 1, &[NumaNode::new(2), NumaNode::memory_only(512), NumaNode::new(1)]);

#[test]
fn the_default_has_two_cpus() {
    assert_eq!(Topology::default().label(), "1n1l2c1t");
    assert_eq!(Topology::DEFAULT.validate(), Ok(()));
    assert_eq!(Topology::DEFAULT.total_cpus(), 2);
}

#[test]
fn two_nodes_of_two_llcs_with_smt() {
    let shape = Topology::new(2, 4, 2, 2).expect("valid");
    assert_eq!(shape.total_cpus(), 16);
    assert_eq!(shape.cpus_in_llc(1), CpuSet::from_iter(4..8));
    assert_eq!(shape.cpus_in_node(1), CpuSet::from_iter(8..16));
    assert_eq!(shape.llcs_in_node(1), 2..4);
    assert_eq!(shape.siblings_of(5), CpuSet::from([4, 5]));
    assert_eq!(shape.llc_of_cpu(9), Some(2));
    assert_eq!(shape.core_of_cpu(9), Some(4));
    assert_eq!(shape.thread_of_cpu(9), Some(1));
    assert_eq!(shape.node_of_cpu(9), Some(1));
}

#[test]
fn a_memory_only_node_takes_a_number_but_no_cpus() {
    assert_eq!(CXL.validate(), Ok(()));
    assert_eq!(CXL.label(), "3n3l2c1t");
    assert_eq!(CXL.cpus_in_node(0), CpuSet::from_iter(0..4));
    assert_eq!(CXL.cpus_in_node(1), CpuSet::new());
    assert_eq!(CXL.cpus_in_node(2), CpuSet::from([4, 5]));
    assert_eq!(CXL.node_of_llc(2), Some(2));
}

#[test]
fn what_does_not_exist_is_nowhere() {
    let shape = Topology::DEFAULT;
    assert_eq!(shape.cpus_in_llc(1), CpuSet::new());
    assert_eq!(shape.cpus_in_node(1), CpuSet::new());
    assert_eq!(shape.llcs_in_node(1), 0..0);
    assert_eq!(shape.node_of_llc(1), None);
    assert_eq!(shape.node_of_cpu(2), None);
    assert_eq!(shape.llc_of_cpu(2), None);
    assert_eq!(shape.core_of_cpu(2), None);
    assert_eq!(shape.thread_of_cpu(2), None);
    assert_eq!(shape.siblings_of(2), CpuSet::new());
    assert_eq!(shape.distance(0, 1), 255);
}

#[test]
fn distances_default_to_10_and_20() {
    let shape = Topology::new(2, 2, 1, 1).expect("valid");
    assert_eq!([shape.distance(0, 0), shape.distance(0, 1)], [10, 20]);
    let table = NumaDistance::new(&[[10, 32], [32, 10]]).expect("valid");
    let shape = shape.with_distances(table).expect("two nodes each");
    assert_eq!([shape.distance(1, 1), shape.distance(1, 0)], [10, 32]);
}

#[test]
fn memory_splits_evenly_with_the_remainder_first() {
    let shape = Topology::new(3, 3, 1, 1).expect("valid");
    assert_eq!(shape.node_memory_mib(1000), Ok(vec![334, 333, 333]));
}

#[test]
fn a_nodes_own_memory_is_kept() {
    assert_eq!(CXL.node_memory_mib(2049), Ok(vec![769, 512, 768]));
    let error = TopologyError::MemorySplit { total_mib: 513, explicit_mib: 512, unset: 2 };
    assert_eq!(CXL.node_memory_mib(513), Err(error));
    assert_eq!(CXL.node_memory_mib(514), Ok(vec![1, 512, 1]));
}

#[test]
fn all_nodes_with_their_own_memory_overrule_the_total() {
    let nodes = [NumaNode::new(1).with_memory_mib(100), NumaNode::memory_only(50)];
    let shape = Topology::with_nodes(1, 1, &nodes).expect("valid");
    assert_eq!(shape.node_memory_mib(7), Ok(vec![100, 50]));
}

#[test]
fn json_has_the_fields_and_is_checked() {
    let json = serde_json::to_value(&CXL).expect("it can be written");
    assert_eq!(json["numa_nodes"], 3);
    assert_eq!(json["nodes"][1]["memory_mib"], 512);
    assert_eq!(serde_json::from_value::<Topology>(json.clone()).expect("it was valid"), CXL);
    let mut wrong = json;
    wrong["llcs"] = 7.into();
    let error = serde_json::from_value::<Topology>(wrong).expect_err("the sum is 3");
    assert!(error.to_string().contains("llcs = 7"), "{error}");
}

proptest! {
    #[test]
    fn numbering_is_a_bijection(shape in any_shape()) {
        let mut next = 0;
        for llc in 0..shape.num_llcs() {
            for core in 0..shape.cores_per_llc {
                for thread in 0..shape.threads_per_core {
                    prop_assert_eq!(shape.llc_of_cpu(next), Some(llc));
                    prop_assert_eq!(shape.core_of_cpu(next), Some(llc * shape.cores_per_llc + core));
                    prop_assert_eq!(shape.thread_of_cpu(next), Some(thread));
                    next += 1;
                }
            }
        }
        prop_assert_eq!(next, shape.total_cpus());
        prop_assert_eq!(shape.llc_of_cpu(next), None);
    }

    #[test]
    fn domains_partition_the_cpus(shape in any_shape()) {
        let all: Vec<u32> = (0..shape.total_cpus()).collect();
        let of_llcs = (0..shape.num_llcs()).flat_map(|llc| shape.cpus_in_llc(llc));
        prop_assert_eq!(of_llcs.collect::<Vec<_>>(), all.clone());
        let of_nodes = (0..shape.num_numa_nodes()).flat_map(|node| shape.cpus_in_node(node));
        prop_assert_eq!(of_nodes.collect::<Vec<_>>(), all.clone());
        for cpu in all {
            let (llc, node) = (shape.llc_of_cpu(cpu), shape.node_of_cpu(cpu));
            prop_assert!(shape.cpus_in_llc(llc.expect("known")).contains(cpu));
            prop_assert!(shape.cpus_in_node(node.expect("known")).contains(cpu));
            let siblings = shape.siblings_of(cpu);
            prop_assert!(siblings.contains(cpu));
            prop_assert_eq!(siblings.len(), shape.threads_per_core as usize);
            prop_assert!(siblings.iter().all(|other| shape.core_of_cpu(other) == shape.core_of_cpu(cpu)));
        }
    }

    #[test]
    fn memory_adds_up(shape in any_shape(), total in 6u64..1_000_000) {
        let memory = shape.node_memory_mib(total).expect("there is enough for all nodes");
        prop_assert_eq!(memory.len(), shape.num_numa_nodes() as usize);
        prop_assert_eq!(memory.iter().sum::<u64>(), total);
        let share = total / memory.len() as u64;
        prop_assert!(memory[1..].iter().all(|&mib| mib == share));
    }

    #[test]
    fn serde_round_trips(shape in any_shape()) {
        let bytes = postcard::to_allocvec(&shape)?;
        prop_assert_eq!(postcard::from_bytes::<Topology>(&bytes)?, shape);
    }
}
