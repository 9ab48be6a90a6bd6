//! Tests without a machine, and test binaries without nextest.

mod common;

use common::fails;
use ktstr::prelude::*;
use std::process::{Command, Stdio};

#[ktstr_test(host_only)]
fn host_only_tests_see_the_host(ctx: &Ctx) -> Result<AssertResult> {
    let mut v = ctx.assert.verdict();
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    claim!(v, ctx.topo.all_cpuset().to_string()).eq(online.trim().to_string());
    claim!(v, std::process::id()).gt(1);
    let system = TestTopology::from_system()?;
    claim!(v, system.num_llcs()).eq(ctx.topo.num_llcs());
    Ok(v.into_result())
}

/// The quick-start test on whatever it is started on: `cargo xtask bench start` runs it in
/// another tool's machine.
#[ktstr_test(ignore, host_only)]
fn quick_start_where_it_is(ctx: &Ctx) -> Result<AssertResult> {
    println!("the test function begins");
    let result =
        execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(2), CgroupDef::named("cg_1").workers(2)])?;
    println!("the test function ends");
    Ok(result)
}

#[ktstr_test(ignore, host_only)]
fn host_only_that_panics(_ctx: &Ctx) -> Result<AssertResult> {
    panic!("on the host")
}

#[ktstr_test(ignore, expect_err)]
fn expects_to_fail_and_does(_ctx: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::fail("as it must"))
}

#[ktstr_test(ignore, expect_err)]
fn expects_to_fail_and_passes(_ctx: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::pass())
}

#[ktstr_test(ignore, max_slow_tier_ratio = 0.5)]
fn asks_for_a_check_that_nothing_makes(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// This binary under libtest, as `cargo test` runs it.
fn libtest(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(std::env::current_exe().expect("our own path"))
        .args(arguments)
        .env_remove("NEXTEST")
        .env("KTSTR_SIDECAR_DIR", tempfile::tempdir().expect("a temporary directory").path())
        .stdin(Stdio::null())
        .output()
        .expect("running this binary");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_panic_on_the_host_is_a_failure_with_its_message() {
    let text = fails("host_only_that_panics", &[]);
    assert!(text.contains("the test function panicked: on the host") && text.contains("mode=host"), "{text}");
}

#[test]
fn a_cgroup_parent_outside_cgroupfs_is_refused() {
    let text = fails("host_only_that_panics", &[("KTSTR_HOST_CGROUP_PARENT", "/tmp")]);
    assert!(text.contains("KTSTR_HOST_CGROUP_PARENT=\"/tmp\""), "{text}");
}

#[test]
fn libtest_runs_a_test_in_its_machine_and_shows_why_it_failed() {
    let (passed, text) = libtest(&["--ignored", "--exact", "expects_to_fail_and_does"]);
    assert!(passed && text.contains("1 passed"), "{text}");
    let (passed, text) = libtest(&["--ignored", "--exact", "expects_to_fail_and_passes"]);
    assert!(!passed, "{text}");
    assert!(text.contains("[topo=1n1l2c1t] failed:") && text.contains("`expect_err`"), "{text}");
}

#[test]
fn a_check_that_nothing_makes_is_inconclusive() {
    let output = common::run("asks_for_a_check_that_nothing_makes", &[]);
    assert_eq!(output.code, Some(2), "{}", output.text);
    assert!(output.text.contains("`max_slow_tier_ratio` needs statistics of pages"), "{}", output.text);
}

#[test]
fn nextest_sees_each_test_once() {
    let list = |extra: &[&str]| {
        let output = Command::new(std::env::current_exe().expect("our own path"))
            .args(["--list", "--format", "terse"])
            .args(extra)
            .env("NEXTEST", "1")
            .output()
            .expect("listing");
        String::from_utf8(output.stdout).expect("text")
    };
    let (all, ignored) = (list(&[]), list(&["--ignored"]));
    let count = |text: &str, line: &str| text.lines().filter(|l| *l == line).count();
    assert_eq!(count(&all, "ktstr/host_only_tests_see_the_host: test"), 1, "{all}");
    assert_eq!(count(&all, "host_only_tests_see_the_host: test"), 0, "{all}");
    assert_eq!(count(&all, "nextest_sees_each_test_once: test"), 1, "{all}");
    assert_eq!(count(&ignored, "ktstr/expects_to_fail_and_does: test"), 1, "{ignored}");
    assert_eq!(count(&ignored, "ktstr/host_only_tests_see_the_host: test"), 0, "{ignored}");
}
