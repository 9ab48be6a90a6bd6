//! Parts that agree and parts that don't.

use super::*;
use crate::TestTopology;

fn set(list: &str) -> CpuSet {
    list.parse().expect("a good list")
}

fn llc(id: u32, node: u32, cpus: &str) -> LlcInfo {
    LlcInfo { id, node, cpus: set(cpus) }
}

fn node(id: u32, cpus: &str) -> NodeInfo {
    NodeInfo { id, cpus: set(cpus), memory: None }
}

/// Two nodes with numbers 0 and 2 on a machine whose CPU 3 is offline, and siblings half a machine
/// apart, as x86 hosts number them.
fn good() -> TopologyParts {
    TopologyParts {
        cpus: set("0-2,4-7"),
        llcs: vec![llc(9, 2, "2,6-7"), llc(4, 0, "0-1,4-5")],
        nodes: vec![node(2, "2,6-7"), node(0, "0-1,4-5")],
        cores: vec![set("7"), set("2,6"), set("1,5"), set("0,4")],
        distances: vec![vec![10, 21], vec![32, 10]],
    }
}

fn refused(change: impl FnOnce(&mut TopologyParts)) -> PartsError {
    let mut parts = good();
    change(&mut parts);
    TestTopology::from_parts(parts).expect_err("the parts contradict each other")
}

#[test]
fn parts_in_any_order_make_a_machine() {
    let machine = TestTopology::from_parts(good()).expect("the parts agree");
    let ids: Vec<u32> = machine.llcs().iter().map(|llc| llc.id).collect();
    assert_eq!(ids, [4, 9]);
    assert_eq!(machine.llc_aligned_cpuset(1), set("2,6-7"));
    assert_eq!(machine.numa_aligned_cpuset(2), set("2,6-7"));
    assert_eq!(machine.numa_aligned_cpuset(1), CpuSet::new());
    assert_eq!(machine.siblings_of(5), set("1,5"));
    assert_eq!(machine.all_cpus(), [0, 1, 2, 4, 5, 6, 7]);
    assert_eq!(machine.usable_cpus(), [0, 1, 2, 4, 5, 6]);
    let distances = [machine.numa_distance(2, 0), machine.numa_distance(0, 2)];
    assert_eq!(distances, [21, 32], "rows follow their nodes");
    assert_eq!(machine.numa_distance(0, 1), 255);
}

#[test]
fn unknown_distances_are_10_and_20() {
    let mut parts = good();
    parts.distances.clear();
    let machine = TestTopology::from_parts(parts).expect("the parts agree");
    assert_eq!([machine.numa_distance(2, 2), machine.numa_distance(0, 2)], [10, 20]);
    assert_eq!(machine.numa_distance(1, 1), 255);
}

#[test]
fn each_cpu_is_in_one_part_of_each_kind() {
    let kind = PartKind::Llc;
    assert_eq!(refused(|parts| parts.cpus = CpuSet::new()), PartsError::NoCpus);
    assert_eq!(refused(|parts| parts.llcs[1].id = 9), PartsError::Twice { kind, id: 9 });
    let error = PartsError::Missing { kind, missing: set("7") };
    assert_eq!(refused(|parts| parts.llcs[0].cpus = set("2,6")), error);
    let error = PartsError::Shared { kind, cpu: 6, first: 9, second: 4 };
    assert_eq!(refused(|parts| parts.llcs[1].cpus = set("0-1,4-6")), error);
    let error = PartsError::Extra { kind, id: 9, extra: set("3"), cpus: set("0-2,4-7") };
    assert_eq!(refused(|parts| parts.llcs[0].cpus = set("2-3,6-7")), error);
    assert_eq!(refused(|parts| parts.llcs.push(llc(10, 0, ""))), PartsError::Empty { kind, id: 10 });
    let kind = PartKind::Node;
    assert_eq!(refused(|parts| parts.nodes[0].id = 0), PartsError::Twice { kind, id: 0 });
    let error = PartsError::Missing { kind, missing: set("7") };
    assert_eq!(refused(|parts| parts.nodes[0].cpus = set("2,6")), error);
    let kind = PartKind::Core;
    let error = PartsError::Shared { kind, cpu: 7, first: 0, second: 1 };
    assert_eq!(refused(|parts| parts.cores[1] = set("2,6-7")), error);
    assert_eq!(refused(|parts| parts.cores.push(CpuSet::new())), PartsError::Empty { kind, id: 4 });
}

#[test]
fn a_memory_only_node_is_fine() {
    let mut parts = good();
    parts.nodes.push(node(5, ""));
    parts.distances = Vec::new();
    let machine = TestTopology::from_parts(parts).expect("the parts agree");
    assert!(machine.is_memory_only(5));
    assert!(!machine.is_memory_only(0) && !machine.is_memory_only(6));
}

#[test]
fn an_llc_is_inside_its_node() {
    let error = PartsError::LlcOutsideNode { llc: 9, node: 0, outside: set("2,6-7") };
    assert_eq!(refused(|parts| parts.llcs[0].node = 0), error);
    let error = PartsError::LlcOutsideNode { llc: 9, node: 7, outside: set("2,6-7") };
    assert_eq!(refused(|parts| parts.llcs[0].node = 7), error);
}

#[test]
fn distances_have_a_row_and_a_column_for_each_node() {
    let error = |rows, row, entries| PartsError::Distances { nodes: 2, rows, row, entries };
    assert_eq!(refused(|parts| parts.distances.truncate(1)), error(1, 0, 2));
    assert_eq!(refused(|parts| parts.distances[1].push(9)), error(2, 1, 3));
}

#[test]
fn an_llc_over_several_nodes_splits_on_request() {
    let mut parts = good();
    parts.llcs = vec![llc(0, 0, "0-2,4-7")];
    let outside = TestTopology::from_parts(parts.clone());
    assert!(matches!(outside, Err(PartsError::LlcOutsideNode { .. })));
    parts.split_llcs_by_node();
    let machine = TestTopology::from_parts(parts).expect("the parts agree");
    assert_eq!(machine.llcs(), [llc(0, 2, "2,6-7"), llc(1, 0, "0-1,4-5")]);
    let mut parts = good();
    parts.split_llcs_by_node();
    assert_eq!(parts, good(), "LLCs inside a node stay as they are");
}
