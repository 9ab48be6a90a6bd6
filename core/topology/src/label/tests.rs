//! Labels, both ways.

use proptest::prelude::*;

use super::*;

#[test]
fn the_seeds_labels() {
    assert_eq!(Topology::DEFAULT.to_string(), "1n1l2c1t");
    assert_eq!("1n2l4c1t".parse(), Topology::new(1, 2, 4, 1));
    assert_eq!(format!("{:>10}|{:<10}|", Topology::DEFAULT, Topology::DEFAULT), "  1n1l2c1t|1n1l2c1t  |");
}

#[test]
fn refused_labels_say_where_and_why() {
    for (label, position, expected) in [
        ("", 0, "the number of NUMA nodes"),
        ("1", 1, "'n' after the number of NUMA nodes"),
        ("1n2l4c", 6, "the number of threads per core"),
        ("1n2l4c1", 7, "'t' after the number of threads per core"),
        ("1n2l4c1t ", 8, "the end"),
        ("1l2n4c1t", 1, "'n' after the number of NUMA nodes"),
        ("1n-2l4c1t", 2, "the number of LLCs"),
        ("1n2l99999999999c1t", 4, "the number of cores per LLC"),
    ] {
        let label = label.to_owned();
        let error = TopologyError::Label { label: label.clone(), position, expected };
        assert_eq!(label.parse::<Topology>(), Err(error));
    }
}

#[test]
fn a_label_of_an_impossible_machine_is_refused() {
    let error = TopologyError::UnevenLlcs { llcs: 3, numa_nodes: 2 };
    assert_eq!("2n3l1c1t".parse::<Topology>(), Err(error));
}

proptest! {
    #[test]
    fn labels_round_trip(numa in 1u32..9, share in 1u32..9, cores in 1u32..9, threads in 1u32..5) {
        let shape = Topology::new(numa, numa * share, cores, threads).expect("valid");
        prop_assert_eq!(shape.label().parse(), Ok(shape));
    }

    #[test]
    fn any_text_is_a_label_or_an_error(text in "[0-9nlct]{0,12}|\\PC*") {
        match text.parse::<Topology>() {
            Ok(shape) => prop_assert_eq!(shape.validate(), Ok(())),
            Err(TopologyError::Label { position, .. }) => prop_assert!(text.is_char_boundary(position)),
            Err(_) => {}
        }
    }
}
