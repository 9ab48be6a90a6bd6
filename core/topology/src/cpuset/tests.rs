//! A set's laws and its text form.

use proptest::collection::btree_set;
use proptest::prelude::*;

use super::*;

fn any_set() -> impl Strategy<Value = CpuSet> {
    // A narrow range makes runs and overlaps likely, the wide one covers the limits.
    prop_oneof![btree_set(0u32..40, 0..30), btree_set(0..=MAX_CPU, 0..60)].prop_map(CpuSet::from)
}

#[test]
fn prints_runs_as_the_kernel_does() {
    assert_eq!(CpuSet::new().to_string(), "");
    assert_eq!(CpuSet::from([7]).to_string(), "7");
    assert_eq!(CpuSet::from([1, 0]).to_string(), "0-1");
    assert_eq!(CpuSet::from([8, 3, 2, 1, 0]).to_string(), "0-3,8");
    assert_eq!(CpuSet::from([0, 2, 4]).to_string(), "0,2,4");
    assert_eq!(CpuSet::from([u32::MAX - 1, u32::MAX]).to_string(), "4294967294-4294967295");
    assert_eq!(format!("{:?}", CpuSet::from([0, 1, 5])), "CpuSet(0-1,5)");
}

#[test]
fn inserts_and_removes() {
    let mut cpus = CpuSet::new();
    assert!(cpus.insert(3));
    assert!(!cpus.insert(3));
    assert!(cpus.contains(3) && !cpus.contains(4));
    assert!(cpus.remove(3));
    assert!(!cpus.remove(3));
    assert!(cpus.is_empty());
    assert_eq!((cpus.first(), cpus.last()), (None, None));
}

#[test]
fn json_is_a_cpulist() {
    let json = serde_json::to_string(&CpuSet::from([0, 1, 2, 8])).expect("it can be written");
    assert_eq!(json, r#""0-2,8""#);
    let error = serde_json::from_str::<CpuSet>(r#""0-x""#).expect_err("x is no number");
    assert!(error.to_string().contains("at byte 2"), "{error}");
}

#[test]
fn a_cpu_that_cannot_be_read_back_is_not_written() {
    let error = serde_json::to_string(&CpuSet::from([MAX_CPU + 1])).expect_err("too large");
    assert!(error.to_string().contains("CPU 8192"), "{error}");
}

proptest! {
    #[test]
    fn text_round_trips(cpus in any_set()) {
        let text = cpus.to_string();
        prop_assert_eq!(text.parse(), Ok(cpus.clone()));
        prop_assert_eq!(format!("{text}\n").parse(), Ok(cpus));
    }

    #[test]
    fn serde_round_trips(cpus in any_set()) {
        let bytes = postcard::to_allocvec(&cpus)?;
        prop_assert_eq!(postcard::from_bytes::<CpuSet>(&bytes)?, cpus);
    }

    #[test]
    fn set_arithmetic(a in any_set(), b in any_set()) {
        let (both, either) = (a.intersection(&b), a.union(&b));
        let (only_a, only_b) = (a.difference(&b), b.difference(&a));
        for cpu in 0..=MAX_CPU {
            prop_assert_eq!(both.contains(cpu), a.contains(cpu) && b.contains(cpu));
            prop_assert_eq!(either.contains(cpu), a.contains(cpu) || b.contains(cpu));
            prop_assert_eq!(only_a.contains(cpu), a.contains(cpu) && !b.contains(cpu));
        }
        prop_assert_eq!(&both, &b.intersection(&a));
        prop_assert_eq!(&either, &b.union(&a));
        prop_assert_eq!(only_a.union(&only_b).union(&both), either.clone());
        prop_assert_eq!(either.len() + both.len(), a.len() + b.len());
        prop_assert_eq!(a.is_subset(&b), only_a.is_empty());
        prop_assert_eq!(a.is_disjoint(&b), both.is_empty());
        prop_assert!(both.is_subset(&a) && a.is_subset(&either));
    }

    #[test]
    fn iterates_in_order(cpus in any_set()) {
        let listed: Vec<u32> = (&cpus).into_iter().collect();
        prop_assert!(listed.is_sorted_by(|a, b| a < b));
        prop_assert_eq!(listed.len(), cpus.len());
        prop_assert_eq!((listed.first().copied(), listed.last().copied()), (cpus.first(), cpus.last()));
        prop_assert_eq!(listed.into_iter().rev().collect::<CpuSet>(), cpus);
    }
}
