//! Claims settle as they read, and none passes by being forgotten.

use crate::{Assert, AssertResult, CgroupStats, Claim, DetailKind, Outcome, Verdict};
use ktstr_topology::CpuSet;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};
use std::time::Duration;

/// The outcome and message of one claim.
#[track_caller]
fn one(open: impl FnOnce(&mut Verdict)) -> (Outcome, String) {
    let mut v = Verdict::new().log_passes(true);
    open(&mut v);
    let r = v.into_result();
    let text = r.details.first().map(|d| d.message.clone()).or_else(|| r.passes.first().cloned());
    (r.outcome, text.unwrap_or_default())
}

#[test]
fn the_documented_example_passes() {
    let cg = CgroupStats {
        num_workers: 2,
        num_cpus: 2,
        max_gap_ms: 50,
        p99_wake_latency_us: 25.0,
        median_wake_latency_us: 10.0,
        total_iterations: 5_000,
        ..Default::default()
    };
    let work_units = 10_000u64;
    let throughput = work_units as f64 / 5.0;

    let mut v = Assert::default_checks().verdict();
    cg.claim_max_gap_ms(&mut v).at_most(100);
    cg.claim_p99_wake_latency_us(&mut v).at_most(50.0);
    cg.claim_total_iterations(&mut v).at_least(1_000);
    claim!(v, work_units).at_least(5_000);
    claim!(v, throughput).is_finite();
    claim!(v, cg.wake_latency_tail_ratio()).between(1.0, 5.0);
    let r = v.into_result();
    assert!(r.is_pass());
    assert_eq!(r.passed_checks, 6);
    assert_eq!(r.passes, Vec::<String>::new(), "passes are only recorded on demand");
}

#[test]
fn labels_are_the_source_text() {
    let cg = CgroupStats { max_gap_ms: 3500, ..Default::default() };
    let limit = 100;
    let mut v = Verdict::new();
    cg.claim_max_gap_ms(&mut v).at_most(limit);
    claim!(v, cg.max_gap_ms / 2).because("half is enough").at_most(limit);
    let r = v.into_result();
    assert_eq!(r.details[0].message, "max_gap_ms: expected at most 100, got 3500");
    assert_eq!(
        r.details[1].message,
        "cg.max_gap_ms / 2: expected at most 100, got 1750 (because half is enough)"
    );
    assert!(r.is_fail() && r.details.iter().all(|d| d.kind == DetailKind::Claim));
}

#[test]
fn comparisons_hold_at_their_edges_and_not_beyond() {
    let n = 5;
    one_each(
        n,
        &[
            (|c| c.at_least(5), true, "n: expected at least 5, got 5"),
            (|c| c.at_least(6), false, "n: expected at least 6, got 5"),
            (|c| c.at_most(5), true, "n: expected at most 5, got 5"),
            (|c| c.at_most(4), false, "n: expected at most 4, got 5"),
            (|c| c.gt(5), false, "n: expected more than 5, got 5"),
            (|c| c.gt(4), true, "n: expected more than 4, got 5"),
            (|c| c.lt(5), false, "n: expected less than 5, got 5"),
            (|c| c.lt(6), true, "n: expected less than 6, got 5"),
            (|c| c.between(5, 5), true, "n: expected between 5 and 5, got 5"),
            (|c| c.between(6, 9), false, "n: expected between 6 and 9, got 5"),
            (|c| c.between(9, 1), false, "n: expected between 9 and 1, got 5"),
            (|c| c.eq(5), true, "n: expected 5, got 5"),
            (|c| c.eq(4), false, "n: expected 4, got 5"),
            (|c| c.ne(4), true, "n: expected anything but 4, got 5"),
            (|c| c.ne(5), false, "n: expected anything but 5, got 5"),
            (|c| c.near(7, 2), true, "n: expected 7 within 2, got 5"),
            (|c| c.near(8, 2), false, "n: expected 8 within 2, got 5"),
            (|c| c.is_finite(), true, "n: expected a finite number, got 5"),
        ],
    );
}

type Case = (fn(Claim<'_, i32>), bool, &'static str);

#[track_caller]
fn one_each(n: i32, cases: &[Case]) {
    for (compare, holds, text) in cases {
        let (outcome, seen) = one(|v| compare(claim!(v, n)));
        assert_eq!((outcome == Outcome::Pass, seen.as_str()), (*holds, *text));
    }
}

#[test]
fn nan_satisfies_nothing() {
    let cases: [fn(Claim<'_, f64>); 10] = [
        |c| c.at_least(f64::NEG_INFINITY),
        |c| c.at_most(f64::INFINITY),
        |c| c.between(f64::NEG_INFINITY, f64::INFINITY),
        |c| c.eq(f64::NAN),
        |c| c.ne(1.0),
        |c| c.lt(f64::INFINITY),
        |c| c.gt(f64::NEG_INFINITY),
        |c| c.near(f64::NAN, f64::INFINITY),
        |c| c.near(0.0, f64::INFINITY),
        |c| c.is_finite(),
    ];
    let x = f64::NAN;
    for (i, compare) in cases.into_iter().enumerate() {
        let (outcome, text) = one(|v| compare(claim!(v, x)));
        assert_eq!(outcome, Outcome::Fail, "{i}: {text}");
    }
    let one_point = 1.0;
    assert_eq!(one(|v| claim!(v, one_point).ne(f64::NAN)).0, Outcome::Fail);
    assert_eq!(one(|v| claim!(v, f64::INFINITY).is_finite()).0, Outcome::Fail);
}

#[test]
fn values_need_not_be_numbers() {
    let took = Duration::from_millis(12);
    assert_eq!(
        one(|v| claim!(v, took).at_most(Duration::from_millis(10))),
        (Outcome::Fail, "took: expected at most 10ms, got 12ms".to_owned())
    );
    let name = String::from("scx_simple");
    assert_eq!(one(|v| claim!(v, name).eq("scx_simple".to_owned())).0, Outcome::Pass);
    assert_eq!(name, "scx_simple", "a claim leaves the value where it is");
}

#[test]
fn sets_and_lists_can_be_claimed_on() {
    let used: CpuSet = "0-2".parse().unwrap();
    let allowed: CpuSet = "0-3".parse().unwrap();
    let other: CpuSet = "4-5".parse().unwrap();
    let none = CpuSet::new();
    assert_eq!(one(|v| claim!(v, used).subset_of(&allowed)).0, Outcome::Pass);
    assert_eq!(one(|v| claim!(v, used).disjoint_from(&other)).0, Outcome::Pass);
    assert_eq!(one(|v| claim!(v, used).contains(2)).0, Outcome::Pass);
    assert_eq!(one(|v| claim!(v, used).len_eq(3)).0, Outcome::Pass);
    assert_eq!(one(|v| claim!(v, used).nonempty()).0, Outcome::Pass);
    assert_eq!(one(|v| claim!(v, none).empty()).0, Outcome::Pass);
    assert_eq!(
        one(|v| claim!(v, allowed).subset_of(&used)),
        (Outcome::Fail, "allowed: expected a subset of [0, 1, 2], got [0, 1, 2, 3]".to_owned())
    );
    assert_eq!(
        one(|v| claim!(v, used).disjoint_from(&allowed)),
        (Outcome::Fail, "used: expected nothing of [0, 1, 2, 3], got [0, 1, 2]".to_owned())
    );
    assert_eq!(
        one(|v| claim!(v, used).contains(7)),
        (Outcome::Fail, "used: expected 7 among the items, got [0, 1, 2]".to_owned())
    );
    assert_eq!(
        one(|v| claim!(v, used).len_at_most(2)),
        (Outcome::Fail, "used: expected at most 2 items, got 3 in [0, 1, 2]".to_owned())
    );
    assert_eq!(
        one(|v| claim!(v, none).nonempty()),
        (Outcome::Fail, "none: expected at least one item, got none".to_owned())
    );
    let many: Vec<u32> = (0..20).collect();
    let (outcome, text) = one(|v| claim!(v, many).empty());
    assert!(outcome == Outcome::Fail && text.ends_with("15, and 4 more]"), "{text}");
    let set = BTreeSet::from(["a", "b"]);
    assert_eq!(one(|v| claim!(v, set).contains("b")).0, Outcome::Pass);
    let hashed = HashSet::from([3, 1, 2]);
    assert_eq!(
        one(|v| claim!(v, hashed).len_at_least(4)),
        (Outcome::Fail, "hashed: expected at least 4 items, got 3 in [1, 2, 3]".to_owned())
    );
}

#[test]
fn a_value_that_is_not_there_fails() {
    let missing: Option<f64> = None;
    let present = Some(3.0);
    assert_eq!(
        one(|v| claim_present!(v, missing).at_most(5.0)),
        (Outcome::Fail, "missing: expected at most 5.0, but there is no value".to_owned())
    );
    assert_eq!(one(|v| claim_present!(v, present).at_most(5.0)).0, Outcome::Pass);
    let cg = CgroupStats::default();
    assert_eq!(
        one(|v| cg.claim_spread(v).at_most(15.0)),
        (Outcome::Fail, "spread: expected at most 15.0, but there is no value".to_owned())
    );
}

#[test]
fn a_latency_that_was_not_measured_is_inconclusive() {
    let cg = CgroupStats::default();
    assert_eq!(
        one(|v| cg.claim_p99_wake_latency_us(v).at_most(50.0)),
        (
            Outcome::Inconclusive,
            "p99_wake_latency_us: expected at most 50.0, but nothing was measured".to_owned()
        )
    );
}

#[test]
fn a_claim_that_is_never_compared_is_inconclusive() {
    let n = 1;
    let (outcome, text) = one(|v| drop(claim!(v, n).because("forgotten")));
    assert_eq!(outcome, Outcome::Inconclusive);
    assert!(text.starts_with("n: a claim was opened but never compared"), "{text}");
}

#[test]
fn no_claims_at_all_are_inconclusive() {
    let r = Verdict::new().into_result();
    assert!(r.is_inconclusive() && r.details[0].message.contains("nothing was claimed"));
    let mut v = Verdict::default();
    v.note("only a remark");
    assert!(v.into_result().is_inconclusive());
}

#[test]
fn skips_and_missing_signals_are_said() {
    let mut v = Verdict::new();
    assert!(!v.skip_if(false, "no reason"));
    assert!(v.skip_if(true, "needs 2 LLCs"));
    assert!(v.into_result().is_skip());

    let n = 1;
    let mut v = Verdict::new();
    claim!(v, n).eq(1);
    assert!(v.inconclusive_if(true, "no samples"));
    assert!(v.into_result().is_inconclusive());
}

#[test]
fn a_scenarios_result_joins_the_claims() {
    let n = 1;
    let mut v = Verdict::new();
    v.merge(AssertResult::fail("stuck"));
    claim!(v, n).eq(1);
    let r = v.into_result();
    assert!(r.is_fail());
    assert_eq!(r.passed_checks, 1);

    let mut v = Verdict::new();
    v.merge(AssertResult::skip("not here"));
    assert!(v.into_result().is_skip(), "a verdict is what was merged into it, not a pass");
}

#[test]
fn the_kind_of_a_claim_can_be_told() {
    let n = 1;
    let mut v = Verdict::new();
    claim!(v, n).kind(DetailKind::Numa).because("memory is local").eq(2);
    assert_eq!(v.into_result().details[0].kind, DetailKind::Numa);
}

#[test]
fn a_verdict_can_be_lent() {
    fn check(v: &mut Verdict, n: u64) {
        claim!(v, n).at_least(5_000);
    }
    let mut v = Verdict::new();
    check(&mut v, 6_000);
    assert!(v.into_result().is_pass());
}

#[test]
fn passes_are_recorded_on_demand() {
    let n = 7;
    let mut v = Verdict::new().log_passes(true);
    claim!(v, n).at_least(5);
    assert_eq!(v.into_result().passes, ["n: expected at least 5, got 7"]);
}

proptest! {
    #[test]
    fn orderings_agree_with_the_language(x: i64, y: i64, z: i64) {
        let outcome = |holds: bool| if holds { Outcome::Pass } else { Outcome::Fail };
        prop_assert_eq!(one(|v| claim!(v, x).at_least(y)).0, outcome(x >= y));
        prop_assert_eq!(one(|v| claim!(v, x).at_most(y)).0, outcome(x <= y));
        prop_assert_eq!(one(|v| claim!(v, x).gt(y)).0, outcome(x > y));
        prop_assert_eq!(one(|v| claim!(v, x).lt(y)).0, outcome(x < y));
        prop_assert_eq!(one(|v| claim!(v, x).eq(y)).0, outcome(x == y));
        prop_assert_eq!(one(|v| claim!(v, x).ne(y)).0, outcome(x != y));
        prop_assert_eq!(one(|v| claim!(v, x).between(y, z)).0, outcome((y..=z).contains(&x)));
    }
}
