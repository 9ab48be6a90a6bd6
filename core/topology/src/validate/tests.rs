//! Each rule, kept and broken.

use std::borrow::Cow;

use super::*;
use crate::{CacheAssociativity, CacheWritePolicy, MemSideCache, NumaDistance};

fn refused(shape: &Topology) -> String {
    shape.validate().expect_err("the shape breaks a rule").to_string()
}

#[test]
fn counts_start_at_one() {
    for (shape, field) in [
        ((0, 1, 1, 1), "numa_nodes"),
        ((1, 0, 1, 1), "llcs"),
        ((1, 1, 0, 1), "cores_per_llc"),
        ((1, 1, 1, 0), "threads_per_core"),
    ] {
        let (numa, llcs, cores, threads) = shape;
        let message = refused(&Topology::uniform(numa, llcs, cores, threads));
        assert!(message.contains(&format!("{field} is 0")), "{message}");
    }
}

#[test]
fn counts_end_at_the_limits() {
    assert!(Topology::new(1, 1, 4096, 1).is_ok());
    assert!(Topology::new(64, 64, 1, 8).is_ok());
    assert!(refused(&Topology::uniform(1, 1, 4097, 1)).contains("4097 CPUs is more than 4096"));
    assert!(refused(&Topology::uniform(1, 1, 1, 9)).contains("threads_per_core = 9"));
    assert!(refused(&Topology::uniform(65, 65, 1, 1)).contains("numa_nodes = 65"));
    let huge = Topology::uniform(1, u32::MAX, u32::MAX, 8);
    assert!(refused(&huge).contains("CPUs is more than 4096"));
}

#[test]
fn llcs_split_evenly_or_by_nodes() {
    assert_eq!(
        refused(&Topology::uniform(2, 3, 1, 1)),
        "llcs = 3 can't be split evenly over numa_nodes = 2: use a multiple, or give explicit nodes"
    );
    let nodes = [NumaNode::new(2), NumaNode::new(1)];
    assert!(Topology::with_nodes(1, 1, &nodes).is_ok());
}

#[test]
fn listed_nodes_agree_with_the_counts() {
    let mut shape = Topology::uniform(2, 3, 1, 1);
    shape.nodes = Some(Cow::Owned(vec![NumaNode::new(3)]));
    assert!(refused(&shape).contains("numa_nodes = 2, but 1 nodes are listed"));
    shape.nodes = Some(Cow::Owned(vec![NumaNode::new(1), NumaNode::new(1)]));
    assert!(refused(&shape).contains("llcs = 3"));
}

#[test]
fn a_machine_has_cpus_and_memory() {
    let no_cpus = Topology::with_nodes(1, 1, &[NumaNode::memory_only(64)]).expect_err("no LLC");
    assert!(no_cpus.to_string().contains("llcs is 0"), "{no_cpus}");
    assert!(Topology::with_nodes(1, 1, &[]).is_err());
    let without = NumaNode::new(1).with_memory_mib(0);
    assert_eq!(Topology::with_nodes(1, 1, &[without]), Err(TopologyError::NoMemory));
    assert!(Topology::with_nodes(1, 1, &[without, NumaNode::memory_only(64)]).is_ok());
    let empty = [NumaNode::new(1), NumaNode::memory_only(0)];
    assert_eq!(Topology::with_nodes(1, 1, &empty), Err(TopologyError::EmptyNode { node: 1 }));
}

#[test]
fn attributes_are_positive() {
    let cache = MemSideCache {
        size_kib: 1024,
        line_bytes: 64,
        associativity: CacheAssociativity::Direct,
        write_policy: CacheWritePolicy::WriteBack,
    };
    let node = NumaNode::new(1).with_latency_ns(90).with_bandwidth_mbs(20_000);
    assert!(Topology::with_nodes(1, 1, &[node.with_mem_side_cache(cache)]).is_ok());
    for (node, attribute) in [
        (node.with_latency_ns(0), "latency_ns"),
        (node.with_bandwidth_mbs(0), "bandwidth_mbs"),
        (node.with_mem_side_cache(MemSideCache { size_kib: 0, ..cache }), "mem_side_cache.size_kib"),
        (node.with_mem_side_cache(MemSideCache { line_bytes: 0, ..cache }), "mem_side_cache.line_bytes"),
    ] {
        let expected = TopologyError::ZeroAttribute { node: 0, attribute };
        assert_eq!(Topology::with_nodes(1, 1, &[node]), Err(expected));
    }
}

#[test]
fn distances_fit_the_nodes() {
    let table = NumaDistance::new(&[[10, 20], [20, 10]]).expect("valid");
    let error = Topology::DEFAULT.with_distances(table).expect_err("one node, two rows");
    assert_eq!(error, TopologyError::DistanceNodes { numa_nodes: 1, table: 2 });
    let mut shape = Topology::uniform(2, 2, 1, 1);
    shape.distances = Some(NumaDistance::from_static(2, &[10, 20, 20]));
    assert!(refused(&shape).contains("expected 2 x 2 entries, found 3"));
}
