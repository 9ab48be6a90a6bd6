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

/// One of its two workers stops, as by `kill -STOP`, until it is killed in the end.
#[ktstr_test(ignore, host_only, duration_s = 2)]
fn host_only_with_a_stopped_worker(ctx: &Ctx) -> Result<AssertResult> {
    let work =
        WorkSpec::default().workers(2).comm("stops").work_type(WorkType::custom("stops", stop_or_spin));
    execute_steps(ctx, vec![Step::new(vec![Op::spawn_host(work)], HoldSpec::frac(1.0))])
}

fn stop_or_spin(ctx: &dyn WorkerCtx) {
    if ctx.index() == 0 {
        // SAFETY: raise(3) touches no memory.
        unsafe { libc::raise(libc::SIGSTOP) };
    }
    while !ctx.stop_requested() {
        ctx.spin(1000);
        ctx.iteration();
    }
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
fn a_worker_on_the_host_that_gets_no_further_is_told_with_what_it_does() {
    let output = common::run("host_only_with_a_stopped_worker", &[("KTSTR_STALL_POLL_MS", "100")]);
    assert_ne!(output.code, Some(0), "{}", output.text);
    let told = "got no further for 0.4 s: no context switch, no CPU time";
    let parts = [told, "comm: stops", "State=T (stopped)", "wchan: ", "syscall: ", "cgroup: /", "stack: "];
    common::assert_says(&output.text, &parts);
    // The other one was not.
    assert_eq!(output.text.matches(told).count(), 1, "{}", output.text);
}

#[test]
fn nobody_looks_at_workers_where_nobody_wants_it() {
    let output = common::run("host_only_with_a_stopped_worker", &[("KTSTR_STALL_POLL_MS", "0")]);
    assert!(!output.text.contains("got no further"), "{}", output.text);
    let text = fails("host_only_that_panics", &[("KTSTR_STALL_POLL_MS", "often")]);
    assert!(text.contains("KTSTR_STALL_POLL_MS=\"often\""), "{text}");
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
