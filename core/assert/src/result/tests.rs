//! Merging keeps the worst and loses nothing.

use super::*;
use proptest::prelude::*;

fn of(outcome: Outcome) -> AssertResult {
    match outcome {
        Outcome::Pass => AssertResult::pass(),
        Outcome::Fail => AssertResult::fail("broken"),
        Outcome::Inconclusive => AssertResult::inconclusive("no signal"),
        Outcome::Skip => AssertResult::skip("not here"),
    }
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop::sample::select(vec![Outcome::Skip, Outcome::Pass, Outcome::Inconclusive, Outcome::Fail])
}

#[test]
fn exit_codes_tell_the_outcomes_apart() {
    let codes = [Outcome::Pass, Outcome::Skip, Outcome::Fail, Outcome::Inconclusive].map(Outcome::exit_code);
    assert_eq!(codes, [0, 0, 1, 2]);
}

#[test]
fn each_constructor_is_its_own_outcome() {
    assert!(of(Outcome::Pass).is_pass() && of(Outcome::Fail).is_fail());
    assert!(of(Outcome::Inconclusive).is_inconclusive() && of(Outcome::Skip).is_skip());
    assert_eq!(AssertResult::fail("broken").details[0].message, "broken");
}

#[test]
fn a_failure_sticks() {
    let mut r = AssertResult::fail("first");
    r.merge(AssertResult::pass()).merge(AssertResult::inconclusive("second"));
    assert!(r.is_fail());
    assert_eq!(r.details.iter().map(|d| d.message.as_str()).collect::<Vec<_>>(), ["first", "second"]);
}

#[test]
fn all_of_nothing_is_inconclusive() {
    assert!(AssertResult::all_of([]).is_inconclusive());
    assert!(AssertResult::any_of([]).is_inconclusive());
    assert!(AssertResult::all_of([of(Outcome::Skip), of(Outcome::Pass)]).is_pass());
    assert!(AssertResult::all_of([of(Outcome::Skip)]).is_skip());
}

#[test]
fn one_pass_is_enough_for_any_of_and_the_rest_becomes_notes() {
    let r = AssertResult::any_of([of(Outcome::Fail), of(Outcome::Pass), of(Outcome::Inconclusive)]);
    assert!(r.is_pass());
    assert_eq!(r.details, []);
    assert_eq!(r.notes, ["alternative failed: broken", "alternative inconclusive: no signal"]);
}

#[test]
fn any_of_without_a_pass_is_unsure_if_one_was() {
    assert!(AssertResult::any_of([of(Outcome::Fail), of(Outcome::Inconclusive)]).is_inconclusive());
    assert!(AssertResult::any_of([of(Outcome::Fail), of(Outcome::Skip)]).is_fail());
    assert!(AssertResult::any_of([of(Outcome::Skip), of(Outcome::Skip)]).is_skip());
}

proptest! {
    #[test]
    fn merging_takes_the_worst_and_keeps_everything(outcomes in prop::collection::vec(any_outcome(), 1..8)) {
        let mut parts: Vec<AssertResult> = outcomes.iter().copied().map(of).collect();
        for (i, part) in parts.iter_mut().enumerate() {
            part.passed_checks = i as u64;
            part.note(format!("note {i}"));
            part.push_stats(CgroupStats { name: format!("cg_{i}"), ..CgroupStats::default() });
        }
        let all = AssertResult::all_of(parts.clone());
        prop_assert_eq!(Some(&all.outcome), outcomes.iter().max());
        prop_assert_eq!(all.details.len(), parts.iter().map(|p| p.details.len()).sum::<usize>());
        prop_assert_eq!(all.notes.len(), parts.len());
        prop_assert_eq!(all.stats.cgroups.len(), parts.len());
        prop_assert_eq!(all.passed_checks, parts.iter().map(|p| p.passed_checks).sum::<u64>());
    }

    #[test]
    fn results_cross_postcard_unchanged(outcome in any_outcome(), spread in prop::option::of(0.0f64..100.0)) {
        let mut r = of(outcome);
        r.note("noted");
        r.push(Detail::fail(DetailKind::Gap, "stuck").in_cgroup("cg_0"));
        r.push_stats(CgroupStats { spread, cpus_used: "0-3,8".parse().unwrap(), ..CgroupStats::default() });
        let bytes = postcard::to_allocvec(&r).unwrap();
        prop_assert_eq!(postcard::from_bytes::<AssertResult>(&bytes).unwrap(), r);
    }
}
