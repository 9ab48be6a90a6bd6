//! Specs on machines that have what they name, and on others.

use proptest::prelude::*;

use super::*;
use crate::{NumaNode, Topology};

fn machine(label: &str) -> TestTopology {
    let topology = label.parse().expect("a good label");
    TestTopology::from_vm_topology(&topology).expect("a valid shape")
}

fn cpus(spec: &CpusetSpec, label: &str) -> String {
    spec.resolve(&machine(label)).unwrap_or_else(|error| panic!("{error}")).to_string()
}

fn refused(spec: &CpusetSpec, label: &str) -> CpusetError {
    spec.resolve(&machine(label)).expect_err("there is no such cpuset")
}

#[test]
fn whole_domains_hold_the_last_cpu_too() {
    assert_eq!(cpus(&CpusetSpec::llc(1), "2n4l2c2t"), "4-7");
    assert_eq!(cpus(&CpusetSpec::llc(3), "2n4l2c2t"), "12-15");
    assert_eq!(cpus(&CpusetSpec::numa(1), "2n4l2c2t"), "8-15");
    assert_eq!(cpus(&CpusetSpec::exact([15, 0]), "2n4l2c2t"), "0,15");
}

#[test]
fn ranges_round_down() {
    // 11 CPUs, 10 of them usable.
    let range = |start, end| cpus(&CpusetSpec::range(start, end), "1n1l11c1t");
    assert_eq!(range(0.0, 1.0), "0-9");
    assert_eq!(range(0.0, 0.5), "0-4");
    assert_eq!(range(0.55, 0.99), "5-8");
    assert_eq!(range(0.25, 0.75), "2-6");
}

#[test]
fn the_last_disjoint_run_takes_the_remainder() {
    let disjoint = |index| cpus(&CpusetSpec::disjoint(index, 3), "1n1l12c1t");
    assert_eq!([disjoint(0), disjoint(1), disjoint(2)], ["0-2", "3-5", "6-10"]);
}

#[test]
fn an_overlap_widens_both_sides_as_far_as_there_are_cpus() {
    let overlap = |index, frac| cpus(&CpusetSpec::overlap(index, 3, frac), "1n1l13c1t");
    assert_eq!([overlap(0, 0.5), overlap(1, 0.5), overlap(2, 0.5)], ["0-5", "2-9", "6-11"]);
    assert_eq!(overlap(1, 0.49), "3-8");
    assert_eq!(overlap(1, 1.0), "0-11");
}

#[test]
fn refusals_name_the_numbers() {
    let small = "1n1l2c1t";
    assert_eq!(refused(&CpusetSpec::llc(1), small), CpusetError::NoSuchLlc { index: 1, llcs: 1 });
    let error = CpusetError::NoSuchNode { node: 1, nodes: vec![0] };
    assert_eq!(refused(&CpusetSpec::numa(1), small), error);
    let error = CpusetError::TooFewCpus { index: 0, of: 3, usable: 2 };
    assert_eq!(refused(&CpusetSpec::disjoint(0, 3), small), error);
    let error = CpusetError::BadIndex { index: 2, of: 2 };
    assert_eq!(refused(&CpusetSpec::disjoint(2, 2), small), error);
    assert_eq!(error.to_string(), "cpuset 2 of 2: the last of them is 1");
    assert_eq!(refused(&CpusetSpec::overlap(2, 2, 0.1), small), error);
    assert_eq!(refused(&CpusetSpec::disjoint(0, 0), small), CpusetError::NoParts { index: 0 });
    let error = CpusetError::EmptyRange { start_frac: 0.6, end_frac: 0.9, usable: 2, start: 1, end: 1 };
    assert_eq!(refused(&CpusetSpec::range(0.6, 0.9), small), error);
    assert_eq!(refused(&CpusetSpec::exact([]), small), CpusetError::EmptyExact);
    let error = refused(&CpusetSpec::exact([1, 2, 7]), small).to_string();
    assert_eq!(error, "exact cpuset 1-2,7: CPUs 2,7 aren't among the machine's CPUs 0-1");
}

#[test]
fn fractions_are_from_0_to_1() {
    for value in [-0.1, 1.1, f64::INFINITY, f64::NAN] {
        for spec in
            [CpusetSpec::range(value, 1.0), CpusetSpec::range(0.0, value), CpusetSpec::overlap(0, 2, value)]
        {
            let error = spec.validate().expect_err("not a fraction");
            assert!(matches!(error, CpusetError::BadFraction { .. }), "{error}");
        }
    }
    let error = CpusetError::EmptyFractions { start_frac: 0.5, end_frac: 0.5 };
    assert_eq!(CpusetSpec::range(0.5, 0.5).validate(), Err(error));
}

#[test]
fn a_memory_only_node_has_no_cpuset() {
    let nodes = [NumaNode::new(1), NumaNode::memory_only(64)];
    let topology = Topology::with_nodes(2, 1, &nodes).expect("valid");
    let machine = TestTopology::from_vm_topology(&topology).expect("valid");
    assert_eq!(CpusetSpec::numa(1).resolve(&machine), Err(CpusetError::MemoryOnly { node: 1 }));
}

proptest! {
    #[test]
    fn disjoint_runs_partition_the_usable_cpus(cores in 1u32..200, of in 1usize..20) {
        let machine = machine(&format!("1n1l{cores}c1t"));
        let usable = machine.usable_cpus();
        let mut all = Vec::new();
        for index in 0..of {
            match CpusetSpec::disjoint(index, of).resolve(&machine) {
                Ok(run) => all.extend(&run),
                Err(error) => {
                    let usable = usable.len();
                    prop_assert!(usable < of);
                    prop_assert_eq!(error, CpusetError::TooFewCpus { index, of, usable });
                }
            }
        }
        if usable.len() >= of {
            prop_assert_eq!(all, usable);
        }
    }

    #[test]
    fn an_overlap_holds_its_disjoint_run(
        cores in 20u32..200, of in 1usize..20, index in 0usize..20, frac in 0.0..=1.0,
    ) {
        let machine = machine(&format!("1n1l{cores}c1t"));
        let index = index % of;
        let run = CpusetSpec::disjoint(index, of).resolve(&machine).expect("enough CPUs");
        let wide = CpusetSpec::overlap(index, of, frac).resolve(&machine).expect("enough CPUs");
        prop_assert!(run.is_subset(&wide));
        prop_assert!(wide.is_subset(&machine.usable_cpuset()));
        let widest = 2 * (machine.usable_cpus().len() / of);
        prop_assert!(wide.len() <= run.len() + widest);
        prop_assert_eq!(CpusetSpec::overlap(index, of, 0.0).resolve(&machine), Ok(run));
    }

    #[test]
    fn neighbouring_ranges_meet(cores in 4u32..200, at in 0.0..=1.0) {
        let machine = machine(&format!("1n1l{cores}c1t"));
        let side = |start, end| match CpusetSpec::range(start, end).resolve(&machine) {
            Ok(cpus) => cpus,
            Err(CpusetError::EmptyRange { .. } | CpusetError::EmptyFractions { .. }) => CpuSet::new(),
            Err(error) => panic!("{error}"),
        };
        let (left, right) = (side(0.0, at), side(at, 1.0));
        prop_assert!(left.is_disjoint(&right));
        prop_assert_eq!(left.union(&right), machine.usable_cpuset());
    }
}
