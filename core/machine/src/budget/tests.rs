//! Budgets on hosts of many shapes.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

fn host(label: &str) -> TestTopology {
    TestTopology::from_vm_topology(&label.parse().unwrap()).unwrap()
}

fn on(label: &str, usable: &str, cpus: usize) -> String {
    let host = host(label);
    let budget = choose(&host, &usable.parse().unwrap(), cpus, 0).unwrap();
    format!("{} of {:?}", budget.cpus, budget.llcs)
}

#[test]
fn llcs_are_whole_but_for_the_last() {
    assert_eq!(on("1n4l4c1t", "0-15", 4), "0-3 of [0]");
    assert_eq!(on("1n4l4c1t", "0-15", 6), "0-5 of [0, 1]");
    // What is left of an LLC does, so that a whole one stays for others.
    assert_eq!(on("1n4l4c1t", "0-3,7,8-15", 1), "7 of [1]");
    assert_eq!(on("1n4l4c1t", "0-3,7,8-15", 5), "0-3,7 of [0, 1]");
    // Both threads of a core.
    assert_eq!(on("1n1l4c2t", "0-7", 2), "0-1 of [0]");
}

#[test]
fn one_node_does_where_it_can() {
    assert_eq!(on("2n4l2c1t", "1-7", 4), "4-7 of [2, 3]", "node 0 has three");
    assert_eq!(on("2n4l2c1t", "0-7", 6), "0-5 of [0, 1, 2]");
}

#[test]
fn machines_that_come_in_turn_spread() {
    let host = host("1n4l2c1t");
    let taken: Vec<_> = (0..4).map(|turn| choose(&host, &host.all_cpuset(), 2, turn).unwrap().llcs).collect();
    assert_eq!(taken, [[0], [1], [2], [3]]);
}

#[test]
fn nothing_and_too_much_are_refused() {
    let host = host("1n1l4c1t");
    let ask = |cpus| choose(&host, &[1, 2, 9].into(), cpus, 0).map_err(|e| e.to_string());
    assert!(ask(2).is_ok());
    assert!(ask(0).unwrap_err().contains("0 CPUs"));
    let why = ask(3).unwrap_err();
    assert!(
        why.contains("budget of 3 CPUs") && why.contains("2 may be used") && why.contains("fewer"),
        "{why}"
    );
}

#[test]
fn what_a_machine_gets_follows_from_what_was_said() {
    let of = |no_perf, declared, cap| Share::of(4, 10, no_perf, declared, cap);
    assert_eq!(of(false, None, None), Share::Window(5));
    assert_eq!(Share::of(4, 2, false, None, None), Share::Window(2), "no more than there are");
    assert_eq!(of(true, None, None), Share::Budget(3));
    assert_eq!(Share::of(4, 2, true, None, None), Share::Budget(1));
    assert_eq!(of(true, Some(2), None), Share::Budget(2));
    assert_eq!(of(true, Some(6), Some(4)), Share::Budget(4));
    assert_eq!(of(true, Some(2), Some(4)), Share::Budget(2));
    assert_eq!(of(false, None, Some(4)), Share::Budget(4));
}

proptest! {
    #[test]
    fn a_budget_is_what_was_asked_for(
        nodes in 1u32..4, llcs in 1u32..4, cores in 1u32..5, threads in 1u32..3,
        keep in prop::collection::vec(any::<bool>(), 96), cpus in 1usize..100, turn in any::<usize>(),
    ) {
        let host = TestTopology::from_vm_topology(
            &ktstr_topology::Topology::uniform(nodes, llcs * nodes, cores, threads)).unwrap();
        let usable: CpuSet = host.all_cpuset().iter().filter(|cpu| keep[*cpu as usize]).collect();
        let Ok(budget) = choose(&host, &usable, cpus, turn) else {
            prop_assert!(cpus > usable.len());
            return Ok(());
        };
        prop_assert_eq!(budget.cpus.len(), cpus);
        prop_assert!(budget.cpus.is_subset(&usable));
        let touched: Vec<_> = host.llcs().iter().filter(|llc| !llc.cpus.is_disjoint(&budget.cpus)).collect();
        let ids: Vec<u32> = touched.iter().map(|llc| llc.id).collect();
        prop_assert_eq!(&ids, &budget.llcs);
        let partial = touched.iter().filter(|llc| !llc.cpus.intersection(&usable).is_subset(&budget.cpus));
        prop_assert!(partial.count() <= 1);
        let on: BTreeSet<u32> = touched.iter().map(|llc| llc.node).collect();
        let fits = host.nodes().iter().any(|node| node.cpus.intersection(&usable).len() >= cpus);
        prop_assert!(!fits || on.len() == 1, "{:?}", on);
    }
}
