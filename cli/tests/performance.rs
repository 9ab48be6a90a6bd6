//! Tests in performance mode: what a host can't give is told, or insisted on.

mod common;

use common::{assert_says, run};
use ktstr::prelude::*;

#[ktstr_test(ignore, performance_mode, cores = 1, duration_s = 1)]
fn wants_the_host(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, performance_mode, llcs = 64, cores = 1, duration_s = 1)]
fn wants_more_than_there_is(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, no_perf_mode, cpu_budget = 1, duration_s = 1)]
fn needs_no_speed(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, no_perf_mode, cpu_budget = 100000, duration_s = 1)]
fn has_more_than_there_is(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// What no host of this size has: in mode `kvm`, CPUs; in the others, all of it.
fn lacks() -> [&'static str; 2] {
    if std::env::var("KTSTR_ACCEL").is_ok_and(|mode| mode == "kvm") {
        ["64 vCPUs and one CPU for everything else make 65 host CPUs", "declare a smaller machine"]
    } else {
        ["can't have the host's processor to itself", "use --accel kvm"]
    }
}

#[test]
fn a_test_runs_without_what_the_host_lacks_and_says_so() {
    let output = run("wants_the_host", &[("KTSTR_LOG_PASSES", "1")]);
    assert_eq!(output.code, Some(0), "{}", output.text);
    // Huge pages are nobody's by default, and an emulator has nothing of it.
    assert_says(&output.text, &["passed", "performance mode, as far as this host has it: ", "can't"]);
}

#[test]
fn whoever_insists_has_the_test_fail_with_the_same_words() {
    let output = run("wants_more_than_there_is", &[("KTSTR_REQUIRE_PERF_MODE", "1")]);
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(&output.text, &["KTSTR_REQUIRE_PERF_MODE", lacks()[0], lacks()[1]]);
}

#[test]
fn without_performance_mode_such_a_test_needs_no_machine() {
    let settings =
        [("KTSTR_NO_PERF_MODE", "1"), ("KTSTR_TEST_KERNEL", "/no/such/image"), ("KTSTR_LOG_PASSES", "1")];
    let output = run("wants_the_host", &settings);
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert_says(&output.text, &["SKIP: ", "KTSTR_NO_PERF_MODE"]);
}

#[test]
fn a_budget_is_kept_to_and_told() {
    let output = run("needs_no_speed", &[("KTSTR_LOG_PASSES", "1"), ("KTSTR_ACCEL", "deterministic")]);
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert_says(&output.text, &["passed", "without performance mode: it ran on 1 of the host's CPUs ("]);
}

#[test]
fn a_budget_that_the_host_lacks_fails() {
    let output = run("has_more_than_there_is", &[]);
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(&output.text, &["a budget of 100000 CPUs was asked for", "may be used here"]);
    let both = [("KTSTR_CPU_CAP", "1"), ("KTSTR_BYPASS_LLC_LOCKS", "1")];
    let output = run("needs_no_speed", &both);
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(&output.text, &["resource contract", "--cpu-cap", "--bypass-llc-locks"]);
}

#[test]
fn a_cap_that_can_not_be_kept_to_is_refused_before_any_test() {
    let refused = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"));
        let output = command.arg("test").args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_says(&refused(&["--cpu-cap", "0", "--no-perf-mode"]), &["--cpu-cap"]);
    assert_says(&refused(&["--cpu-cap", "1"]), &["--no-perf-mode"]);
    let both = refused(&["--cpu-cap", "1", "--no-perf-mode", "--bypass-llc-locks"]);
    assert_says(&both, &["resource contract"]);
    let large = refused(&["--cpu-cap", "100000", "--no-perf-mode"]);
    assert_says(&large, &["--cpu-cap", "a budget of 100000 CPUs", "may be used here"]);
}
