//! Machines on hosts of many shapes.

use super::*;
use ktstr_topology::{LlcInfo, NodeInfo, TopologyParts};
use proptest::prelude::*;

fn shape(label: &str) -> Topology {
    label.parse().unwrap()
}

/// A host of that shape, all of whose CPUs may be used.
fn host(label: &str) -> (TestTopology, CpuSet) {
    let host = TestTopology::from_vm_topology(&shape(label)).unwrap();
    let usable = host.all_cpuset();
    (host, usable)
}

fn on(machine: &str, label: &str) -> Result<Placement, NoPlace> {
    let (host, usable) = host(label);
    place(&shape(machine), &host, &usable)
}

/// As Linux numbers the CPUs of many PCs: first threads first. Two LLCs of four cores with two threads each.
fn desktop() -> TestTopology {
    let cores: Vec<CpuSet> = (0..8).map(|core| CpuSet::from([core, core + 8])).collect();
    let llc = |id: u32| {
        let cpus: CpuSet = cores[id as usize * 4..][..4].iter().flat_map(CpuSet::iter).collect();
        LlcInfo { id, node: 0, cpus }
    };
    let cpus: CpuSet = (0..16).collect();
    TestTopology::from_parts(TopologyParts {
        llcs: vec![llc(0), llc(1)],
        nodes: vec![NodeInfo { id: 0, cpus: cpus.clone(), memory: None }],
        cores: cores.clone(),
        distances: Vec::new(),
        cpus,
    })
    .unwrap()
}

#[test]
fn cores_are_cores_and_threads_are_threads() {
    let (host, all) = (desktop(), (0..16).collect());
    let placed = place(&shape("1n1l4c1t"), &host, &all).unwrap();
    assert_eq!((placed.vcpus, placed.llcs), (vec![0, 1, 2, 3], vec![0]));
    // A thread of a vCPU's core rather than a CPU of another machine's LLC.
    assert_eq!((placed.rest, placed.shared_llc), (8, None));
    let placed = place(&shape("1n1l2c2t"), &host, &all).unwrap();
    assert_eq!((placed.vcpus, placed.rest), (vec![0, 8, 1, 9], 2));
    let placed = place(&shape("1n2l4c2t"), &host, &all);
    assert_eq!(placed, Err(NoPlace::Cpus { vcpus: 16, there: 16 }));
    let placed = place(&shape("1n1l8c1t"), &host, &all).unwrap();
    assert_eq!(placed.vcpus, [0, 1, 2, 3, 8, 9, 10, 11], "cores that aren't there are threads");
    assert_eq!((placed.rest, placed.shared_llc), (4, Some(1)));
}

#[test]
fn what_may_not_be_used_is_not() {
    let (host, some) = (desktop(), "0,2-3,5-15".parse().unwrap());
    let placed = place(&shape("1n1l4c1t"), &host, &some).unwrap();
    assert_eq!(placed.llcs, [0], "the smaller LLC that will do");
    assert_eq!(placed.vcpus, [0, 9, 2, 3], "a core whose first thread may not be used has another");
    let (host, some) = (desktop(), "0-2,4-6".parse().unwrap());
    let refused = place(&shape("1n1l4c1t"), &host, &some).unwrap_err();
    assert_eq!(refused, NoPlace::Llcs { llcs: 1, cpus: 4, there: 0 });
    assert!(refused.to_string().contains("1 LLCs of 4 CPUs"), "{refused}");
    let refused = place(&shape("1n1l4c1t"), &host, &"0-3".parse().unwrap()).unwrap_err();
    assert!(refused.to_string().contains("make 5 host CPUs, and 4 may be used"), "{refused}");
}

#[test]
fn nodes_are_nodes_where_the_host_has_them() {
    let placed = on("2n4l2c1t", "2n8l4c1t").unwrap();
    assert_eq!(placed.llcs, [0, 1, 4, 5]);
    assert_eq!(placed.memory, [vec![0], vec![1]]);
    let placed = on("1n2l2c1t", "4n4l4c1t").unwrap();
    assert_eq!(placed.memory, [vec![0, 1]], "no node of the host has two LLCs");
    let placed = on("2n2l2c1t", "1n4l4c1t").unwrap();
    assert_eq!(placed.memory, [vec![], vec![]], "a host with one node leaves no choice");
    assert_eq!(on("1n4l2c1t", "1n2l8c1t"), Err(NoPlace::Llcs { llcs: 4, cpus: 2, there: 2 }));
}

#[test]
fn a_node_with_fewer_to_spare_is_taken_first() {
    let (host, _) = host("2n6l2c1t");
    // One LLC of the second node may not be used.
    let placed = place(&shape("1n2l2c1t"), &host, &"0-9".parse().unwrap()).unwrap();
    assert_eq!(placed.memory, [vec![1]]);
}

prop_compose! {
    /// Up to 4 nodes of up to 4 LLCs of up to 6 cores of up to 2 threads.
    fn a_shape(most: u32)(nodes in 1..=most, per_node in 1u32..=4, cores in 1u32..=6, threads in 1u32..=2) -> Topology {
        Topology::uniform(nodes, nodes * per_node, cores, threads)
    }
}

proptest! {
    #[test]
    fn every_placement_keeps_what_it_promises(
        host in a_shape(4),
        machine in a_shape(2),
        barred in prop::collection::btree_set(0u32..192, 0..24),
    ) {
        let host = TestTopology::from_vm_topology(&host).unwrap();
        let usable = host.all_cpuset().difference(&barred.into_iter().collect());
        let llc_of = |cpu: u32| host.llcs()[host.llc_of_cpu(cpu).unwrap()].id;
        let per_llc = machine.cpus_per_llc() as usize;
        let fit = |node: u32| {
            let of_node = host.llcs().iter().filter(|llc| llc.node == node);
            of_node.filter(|llc| llc.cpus.intersection(&usable).len() >= per_llc).count()
        };
        let fitting: Vec<usize> = host.nodes().iter().map(|node| fit(node.id)).collect();
        let placed = match place(&machine, &host, &usable) {
            Ok(placed) => placed,
            Err(NoPlace::Cpus { there, .. }) => {
                prop_assert!(there == usable.len() && there < machine.total_cpus() as usize + 1);
                return Ok(());
            }
            Err(NoPlace::Llcs { there, .. }) => {
                prop_assert!(there == fitting.iter().sum::<usize>() && there < machine.num_llcs() as usize);
                return Ok(());
            }
        };
        // A CPU each, and one more.
        let cpus: CpuSet = placed.vcpus.iter().copied().collect();
        prop_assert_eq!(cpus.len(), machine.total_cpus() as usize);
        prop_assert!(cpus.is_subset(&usable) && usable.contains(placed.rest) && !cpus.contains(placed.rest));
        // An LLC each.
        let mut llcs = BTreeSet::new();
        for llc in 0..machine.num_llcs() {
            let on: BTreeSet<u32> = machine.cpus_in_llc(llc).iter().map(|cpu| llc_of(placed.vcpus[cpu as usize])).collect();
            prop_assert_eq!(on.len(), 1, "LLC {} on {:?}", llc, on);
            llcs.extend(on);
        }
        prop_assert_eq!(llcs.len(), machine.num_llcs() as usize);
        prop_assert_eq!(&placed.llcs, &llcs.into_iter().collect::<Vec<_>>());
        let rest = llc_of(placed.rest);
        prop_assert_eq!(placed.shared_llc, Some(rest).filter(|llc| !placed.llcs.contains(llc)));
        let left_inside = usable.difference(&cpus).iter().any(|cpu| placed.llcs.contains(&llc_of(cpu)));
        prop_assert_eq!(placed.shared_llc.is_none(), left_inside, "outside of its LLCs only where they are full");
        // Memory beside the CPUs, on one node where the first of the machine's could have one.
        for node in 0..machine.num_numa_nodes() {
            let on: BTreeSet<u32> =
                machine.cpus_in_node(node).iter().map(|cpu| host.node_of_cpu(placed.vcpus[cpu as usize]).unwrap()).collect();
            let told: BTreeSet<u32> = placed.memory[node as usize].iter().copied().collect();
            let expected = if host.num_numa_nodes() > 1 { on.clone() } else { BTreeSet::new() };
            prop_assert_eq!(&told, &expected);
            let whole = fitting.iter().any(|count| *count >= machine.llcs_in_node(0).len());
            prop_assert!(node > 0 || !whole || on.len() == 1);
        }
        // Threads of one core where the LLC has cores enough that are whole, and cores apart.
        for llc in 0..machine.num_llcs() {
            let first = machine.cpus_in_llc(llc).first().unwrap();
            let there = host.llc_aligned_cpuset(host.llc_of_cpu(placed.vcpus[first as usize]).unwrap()).intersection(&usable);
            let cores: BTreeSet<Vec<u32>> =
                there.iter().map(|cpu| host.siblings_of(cpu).intersection(&usable).iter().collect()).collect();
            let whole = cores.iter().filter(|core| core.len() >= machine.threads_per_core as usize).count();
            if whole < machine.cores_per_llc as usize {
                continue;
            }
            for cpu in &machine.cpus_in_llc(llc) {
                let core = |cpu: u32| host.siblings_of(placed.vcpus[cpu as usize]);
                for other in &machine.cpus_in_llc(llc) {
                    let same = machine.siblings_of(cpu).contains(other);
                    prop_assert_eq!(core(cpu) == core(other), same, "CPUs {} and {}: {:?}", cpu, other, placed.vcpus);
                }
            }
        }
    }
}
