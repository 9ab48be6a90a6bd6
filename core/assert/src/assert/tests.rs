//! Limits are merged, the last one set wins.

use super::*;
use proptest::prelude::*;

#[test]
fn defaults_depend_on_the_build() {
    let release = Assert::default_checks_of_build(false);
    assert_eq!((release.max_gap_ms, release.max_spread_pct), (Some(2000), Some(15.0)));
    let debug = Assert::default_checks_of_build(true);
    assert_eq!((debug.max_gap_ms, debug.max_spread_pct), (Some(3000), Some(35.0)));
    assert_eq!((release.not_starved, debug.not_starved), (Some(true), Some(true)));
    assert_eq!(Assert::default_checks(), Assert::default_checks_of_build(cfg!(debug_assertions)));
}

#[test]
fn nothing_set_overrides_nothing() {
    let base = Assert::default_checks().with_monitor_defaults();
    assert_eq!(base.merge(&Assert::NO_OVERRIDES), base);
    assert_eq!(Assert::NO_OVERRIDES.merge(&base), base);
    assert_eq!(Assert::NO_OVERRIDES, Assert::default());
}

#[test]
fn the_test_wins_over_the_scheduler() {
    let scheduler = Assert::NO_OVERRIDES.max_gap_ms(500).max_spread_pct(80.0);
    let test = Assert::NO_OVERRIDES.max_gap_ms(100).check_isolation();
    let all = Assert::default_checks().merge(&scheduler).merge(&test);
    assert_eq!((all.max_gap_ms, all.max_spread_pct), (Some(100), Some(80.0)));
    assert_eq!((all.isolation, all.not_starved), (Some(true), Some(true)));
}

#[test]
fn monitor_defaults_leave_what_is_set() {
    let a = Assert::NO_OVERRIDES.max_imbalance_ratio(2.0).with_monitor_defaults();
    assert_eq!((a.max_imbalance_ratio, a.max_local_dsq_depth), (Some(2.0), Some(50)));
    assert_eq!((a.fail_on_stall, a.sustained_samples), (Some(true), Some(5)));
    assert_eq!((a.max_fallback_rate, a.max_keep_last_rate), (Some(200.0), Some(100.0)));
}

proptest! {
    #[test]
    fn merging_is_associative(gaps in prop::array::uniform3(prop::option::of(any::<u64>()))) {
        let [a, b, c] = gaps.map(|max_gap_ms| Assert { max_gap_ms, ..Assert::NO_OVERRIDES });
        prop_assert_eq!(a.merge(&b).merge(&c), a.merge(&b.merge(&c)));
        prop_assert_eq!(a.merge(&b).merge(&c).max_gap_ms, gaps.into_iter().flatten().last());
    }
}

#[test]
fn emulation_is_allowed_twice_the_spread_and_nothing_else() {
    let (hardware, emulated) = (Assert::default_checks(), Assert::default_checks_emulated());
    assert_eq!(emulated.max_spread_pct, hardware.max_spread_pct.map(|limit| limit * 2.0));
    assert_eq!(Assert { max_spread_pct: hardware.max_spread_pct, ..emulated }, hardware);
}
