//! Tests of the patterns.

use super::*;
use crate::{AssertResult, Outcome, Verdict};
use proptest::prelude::*;

fn series<T: Clone>(values: &[(u64, T)]) -> SeriesField<T> {
    let point = |(ms, value): &(u64, T)| SeriesPoint::new(*ms, Phase::BASELINE, Ok(value.clone()));
    SeriesField::new("x", values.iter().map(point).collect())
}

fn every_100<T: Clone>(values: &[T]) -> SeriesField<T> {
    series(&(0..).zip(values).map(|(i, v)| (i * 100, v.clone())).collect::<Vec<_>>())
}

fn with_hole(values: &[Option<u64>]) -> SeriesField<u64> {
    let point = |(i, value): (u64, &Option<u64>)| {
        SeriesPoint::new(i * 100, Phase::BASELINE, value.ok_or_else(|| "torn".to_string()))
    };
    SeriesField::new("x", (0..).zip(values).map(point).collect())
}

fn judged(check: impl FnOnce(&mut Verdict)) -> AssertResult {
    let mut verdict = Verdict::new();
    check(&mut verdict);
    verdict.into_result()
}

fn outcome(check: impl FnOnce(&mut Verdict)) -> Outcome {
    judged(check).outcome
}

#[test]
fn monotone_series_may_stand_still_unless_they_must_rise() {
    let flat = every_100(&[1, 2, 2, 3]);
    assert_eq!(
        outcome(|v| {
            flat.nondecreasing(v);
        }),
        Outcome::Pass
    );
    let found = judged(|v| {
        flat.strictly_increasing(v);
    });
    assert_eq!(
        found.details[0].message,
        "x: expected values that rise every time, got 2 at +200 ms after 2 at +100 ms"
    );
    assert_eq!(
        outcome(|v| {
            every_100(&[1.0, f64::NAN]).nondecreasing(v);
        }),
        Outcome::Fail
    );
}

#[test]
fn nothing_and_too_little_are_inconclusive_for_every_pattern() {
    for values in [&[][..], &[7u64][..]] {
        let few = every_100(values);
        let checks: [&dyn Fn(&mut Verdict); 5] = [
            &|v| {
                few.nondecreasing(v);
            },
            &|v| {
                few.strictly_increasing(v);
            },
            &|v| {
                few.rate_within(v, -1.0, 1.0);
            },
            &|v| {
                few.steady_within(v, 0, 0.5);
            },
            &|v| {
                few.converges_to(v, 7, 1, 1000);
            },
        ];
        for check in checks {
            assert_eq!(outcome(check), Outcome::Inconclusive, "of {values:?}");
        }
    }
    let none = every_100::<u64>(&[]);
    assert_eq!(
        outcome(|v| {
            none.ratio_within(v, &none, 0.0, 1.0);
        }),
        Outcome::Inconclusive
    );
    assert_eq!(outcome(|v| none.each(v).at_most(1)), Outcome::Inconclusive);
    assert_eq!(
        outcome(|v| {
            every_100::<bool>(&[]).always_true(v);
        }),
        Outcome::Inconclusive
    );
    assert_eq!(
        outcome(|v| none.ratio_across_phases(v, Phase::step(1), Phase::BASELINE).at_most(1.0)),
        Outcome::Inconclusive
    );
}

#[test]
fn a_rate_is_a_millisecond() {
    let counter = series(&[(0, 0u64), (100, 50), (300, 150)]);
    assert_eq!(
        outcome(|v| {
            counter.rate_within(v, 0.5, 0.5);
        }),
        Outcome::Pass
    );
    let found = judged(|v| {
        counter.rate_within(v, 0.6, 1.0);
    });
    assert_eq!(
        found.details[0].message,
        "x: expected a rate of 0.6 to 1 a ms, got 0.500 a ms: 50 at +100 ms after 0 at +0 ms"
    );
    let at_once = series(&[(5, 1), (5, 2)]);
    assert_eq!(
        outcome(|v| {
            at_once.rate_within(v, 0.0, 9.0);
        }),
        Outcome::Inconclusive
    );
}

#[test]
fn what_is_steady_may_warm_up() {
    let warm = every_100(&[0u64, 900, 1000, 1100]);
    assert_eq!(
        outcome(|v| {
            warm.steady_within(v, 100, 0.1);
        }),
        Outcome::Pass
    );
    assert_eq!(
        outcome(|v| {
            warm.steady_within(v, 0, 0.1);
        }),
        Outcome::Fail
    );
    assert_eq!(
        outcome(|v| {
            warm.steady_within(v, 1000, 0.1);
        }),
        Outcome::Inconclusive
    );
}

#[test]
fn convergence_takes_three_in_a_row_in_time() {
    let settles = every_100(&[90u64, 10, 50, 11, 9, 10]);
    assert_eq!(
        outcome(|v| {
            settles.converges_to(v, 10, 1, 500);
        }),
        Outcome::Pass
    );
    let late = judged(|v| {
        settles.converges_to(v, 10, 1, 400);
    });
    assert!(late.is_fail() && late.details[0].message.ends_with("got 9 at +400 ms at last"), "{late:?}");
    let holed = with_hole(&[Some(10), Some(10), None, Some(10)]);
    let found = judged(|v| {
        holed.converges_to(v, 10, 0, 1000);
    });
    assert!(found.is_fail(), "a missing sample breaks the row");
    assert_eq!(found.notes, ["x: 1 of 4 samples are missing, the first at +200 ms: torn"]);
}

#[test]
fn ratios_compare_moment_by_moment() {
    let (a, b) = (every_100(&[10u64, 0, 20]), every_100(&[5u64, 0, 10]));
    assert_eq!(
        outcome(|v| {
            a.ratio_within(v, &b, 1.9, 2.1);
        }),
        Outcome::Pass
    );
    let found = judged(|v| {
        a.ratio_within(v, &every_100(&[5u64, 0, 0]), 1.9, 2.1);
    });
    assert!(found.details[0].message.contains("got inf at +200 ms: 20 to 0"), "{found:?}");
}

#[test]
fn missing_samples_fail_what_must_hold_always() {
    let holed = with_hole(&[Some(1), None]);
    let found = judged(|v| holed.each(v).at_most(1));
    assert_eq!(
        found.details[0].message,
        "x: expected at most 1 in every sample, but there is no value (torn) at +100 ms (1 of 2 samples)"
    );
    assert_eq!(
        outcome(|v| {
            holed.map(|n| n == 1).always_true(v);
        }),
        Outcome::Fail
    );
    assert_eq!(
        outcome(|v| {
            every_100(&[true, true]).always_true(v);
        }),
        Outcome::Pass
    );
    assert_eq!(
        outcome(|v| {
            every_100(&[true, false]).always_true(v);
        }),
        Outcome::Fail
    );
}

#[test]
fn phases_have_firsts_lasts_deltas_and_ratios() {
    let of_phase = |ms, step, value: u64| SeriesPoint::new(ms, Phase::step(step), Ok(value));
    let points = vec![of_phase(0, 0, 10), of_phase(10, 1, 20), of_phase(20, 1, 50), of_phase(30, 2, 60)];
    let field = SeriesField::new("x", points);
    let (baseline, one, two) = (Phase::BASELINE, Phase::step(1), Phase::step(2));
    assert_eq!(field.first_per_phase(), [(baseline, 10), (one, 20), (two, 60)].into());
    assert_eq!(field.last_per_phase(), [(baseline, 10), (one, 50), (two, 60)].into());
    assert_eq!(field.counter_delta_per_phase(), [(one, 30.0)].into());
    assert_eq!((field.value_at_phase(one), field.value_at_phase(Phase::step(9))), (Some(50), None));
    assert_eq!(outcome(|v| field.ratio_across_phases(v, one, baseline).at_most(5.0)), Outcome::Pass);
    let found = judged(|v| field.ratio_across_phases(v, one, baseline).at_most(4.0));
    assert_eq!(found.details[0].message, "x in step 1 over baseline: expected at most 4.0, got 5.0");
}

proptest! {
    #[test]
    fn sorting_makes_any_series_nondecreasing(mut values: Vec<i64>) {
        prop_assume!(values.len() >= 2);
        values.sort_unstable();
        prop_assert_eq!(outcome(|v| { every_100(&values).nondecreasing(v); }), Outcome::Pass);
        let dedup = values.windows(2).all(|p| p[0] < p[1]);
        let rises = outcome(|v| { every_100(&values).strictly_increasing(v); }) == Outcome::Pass;
        prop_assert_eq!(rises, dedup);
    }

    #[test]
    fn a_pattern_of_no_value_never_passes(count in 0usize..6) {
        let empty = with_hole(&vec![None; count]);
        for check in [
            &(|v: &mut Verdict| { empty.nondecreasing(v); }) as &dyn Fn(&mut Verdict),
            &|v| { empty.rate_within(v, 0.0, 1.0); },
            &|v| { empty.steady_within(v, 0, 1.0); },
            &|v| { empty.converges_to(v, 0, 9, 9); },
            &|v| empty.each(v).at_least(0),
        ] {
            prop_assert_ne!(outcome(check), Outcome::Pass);
        }
    }
}
