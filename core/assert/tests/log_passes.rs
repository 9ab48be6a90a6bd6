//! The switch for all verdicts. Alone in its file: it is one for the whole process.

use ktstr_assert::{Assert, Verdict, claim, set_log_passes};

#[test]
fn passes_are_recorded_once_the_runner_asks_for_it() {
    let n = 7;
    let passes = |mut v: Verdict| {
        claim!(v, n).at_least(5);
        v.into_result().passes
    };
    assert!(passes(Assert::default_checks().verdict()).is_empty());
    set_log_passes(true);
    assert_eq!(passes(Assert::default_checks().verdict()), ["n: expected at least 5, got 7"]);
    assert!(passes(Verdict::new().log_passes(false)).is_empty(), "one verdict can have it otherwise");
    set_log_passes(false);
    assert!(passes(Verdict::new()).is_empty());
}
