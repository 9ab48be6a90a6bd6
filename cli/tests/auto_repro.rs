//! A scheduler that crashes is run again with probes, and the report tells what its task went through.

mod common;

use common::{assert_says, case};
use ktstr::prelude::*;
use std::os::unix::fs::PermissionsExt;

// The verifier sweep takes the fixture out of tests/schedulers.rs, once.
declare_scheduler!(FIXTURE, {
    name = "fixture",
    binary = "scx-fixture",
    ops = "fixture",
    topology = (1, 1, 2, 1),
    verifier = false,
});

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--scx-error", "the weights are off"], duration_s = 2)]
fn drill_calls_an_error(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "1000"], duration_s = 3)]
fn drill_stalls_a_cpu(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--scx-error", "once"], duration_s = 2)]
fn drill_is_run_once(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(scheduler = FIXTURE, expect_auto_repro, extra_sched_args = ["--scx-error", "again"], duration_s = 2)]
fn a_crash_that_comes_again_passes_where_it_is_expected(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[test]
fn an_error_is_followed_to_the_call_that_ended_it() {
    let (text, machines) = counted("drill_calls_an_error");
    assert_eq!(machines, 2, "{text}");
    let repro = section(&text);
    assert_says(
        repro,
        &[
            "the crash came again: scx_bpf_error: the weights are off",
            "of the back-trace (scx_bpf_error_bstr, ",
            "  at ./fixture.bpf.c:",
            "probed BPF callbacks: fixture_select_cpu, fixture_enqueue, fixture_dispatch, ",
            // The argument of an enum's type, by the kernel's own name for it.
            "scx_ops_exit_kind(kind=SCX_EXIT_ERROR_BPF, exit_code=0, ",
            " returned",
            "\nprobes fired: ",
        ],
    );
    assert!(!repro.contains("not probed: fixture_"), "{repro}");
    // The scheduler's own callback that called the error, with its argument, its source line, and in it the call.
    let at = repro.find(" fixture_dispatch(prev_cpu=").unwrap_or_else(|| panic!("no such call: {repro}"));
    assert!(repro[at..].contains("scx_bpf_error_bstr("), "{repro}");
    assert!(text.contains("BUG SUMMARY: fixture: scx_bpf_error"), "the verdict is the first run's: {text}");
}

#[test]
fn a_stalled_task_is_followed_to_where_it_was_left() {
    let (mut command, results) = case("drill_stalls_a_cpu");
    let output: common::CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    let text = output.text;
    let repro = section(&text);
    let stuck = repro.lines().next().and_then(|line| {
        line.strip_prefix("the crash came again: runnable task stall: ")?.split_once(" failed to run for ")
    });
    let (stuck, _) = stuck.unwrap_or_else(|| panic!("no stuck task: {text}"));
    // It is all about the task that the kernel named, and shows the queue that nobody serves.
    assert_says(
        repro,
        &[
            "none of the back-trace, which is the watchdog's",
            &format!("\ntask {stuck}: "),
            &format!("dispatch_enqueue(dsq, p={stuck}, "),
            // The scheduler's own callback, with all of its arguments.
            &format!("fixture_enqueue(p={stuck}, enq_flags="),
            "p.scx.dsq->id none → 0x57a11",
            "dsq: id=0x57a11 nr=",
            // Where in the kernel, and the second run's own last words.
            ")  at kernel/sched/ext.c:",
            "its scheduler log, the last ",
            "its sched_ext dump, the last ",
            "its kernel log, the last ",
        ],
    );
    let left = std::fs::read_dir(results.path()).expect("the results");
    let left: Vec<_> = left.map(|entry| entry.expect("an entry").path()).collect();
    let dump = left.iter().find(|path| path.to_string_lossy().ends_with(".repro.failure-dump.json"));
    let dump = std::fs::read(dump.unwrap_or_else(|| panic!("no dump of the second run in {left:?}")));
    let dump: serde_json::Value = serde_json::from_slice(&dump.expect("the dump")).expect("JSON");
    assert!(dump["runqueues"].as_array().is_some_and(|rqs| rqs.len() == 2), "{dump:#}");
    // How often each probe fired: those on the kernel by its own count, those on the scheduler's programs by the trace.
    let probes = dump["probe_counters"]["probes"].as_array().expect("probes");
    let of = |name: &str| {
        probes.iter().find(|probe| probe["function"] == name).unwrap_or_else(|| panic!("{name}: {probes:#?}"))
    };
    let (kernels, schedulers) = (of("dispatch_enqueue"), of("fixture_enqueue"));
    assert!(kernels["exact"] == true && kernels["missed"].is_u64(), "{kernels:#}");
    assert!(schedulers["exact"] == false && schedulers["missed"].is_null(), "{schedulers:#}");
    for probe in [kernels, schedulers] {
        assert!(probe["entries"].as_u64().is_some_and(|n| n > 0), "{probe:#}");
    }
    let summary = text.lines().find(|line| line.starts_with("BUG SUMMARY: ")).expect("a summary");
    assert!(summary.contains("dispatch queue 0x57a11"), "the same queue as in the first run: {summary}");
}

#[test]
fn who_wants_no_second_run_gets_none() {
    let (text, machines) = counted("drill_is_run_once");
    assert_eq!(machines, 1, "{text}");
    assert!(!text.contains("--- auto-repro ---"), "{text}");
    assert_says(&text, &["scx_bpf_error: once"]);
}

/// What a report says of its second run.
fn section(text: &str) -> &str {
    let (_, rest) =
        text.split_once("--- auto-repro ---\n").unwrap_or_else(|| panic!("no such section: {text}"));
    rest.split("\n--- ").next().unwrap_or_default()
}

/// What a case that fails says, and how many machines it started for itself.
fn counted(test: &str) -> (String, usize) {
    let dir = tempfile::tempdir().unwrap();
    let (qemu, log) = (dir.path().join("qemu"), dir.path().join("machines"));
    let script = format!(
        "#!/bin/sh\ncase \" $* \" in *\" -kernel \"*) echo machine >> {} ;; esac\nexec qemu-system-x86_64 \"$@\"\n",
        log.display()
    );
    std::fs::write(&qemu, script).unwrap();
    std::fs::set_permissions(&qemu, std::fs::Permissions::from_mode(0o755)).unwrap();
    let (mut command, _results) = case(test);
    // Else a machine may be started only to be saved.
    let command = command.env("KTSTR_QEMU", &qemu).env("KTSTR_NO_TEMPLATE", "1").env("KTSTR_ACCEL", "tcg");
    let output: common::CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    let started = std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    let restarted = output.text.matches("ktstr: note: the emulator lost").count();
    (output.text, started - restarted)
}
