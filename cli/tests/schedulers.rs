//! A real BPF scheduler under test: a sound one passes what EEVDF passes, and each planted
//! fault is found and named for what it is.

mod common;

use common::{assert_says, fails};
use ktstr::prelude::*;
use std::time::Duration;

declare_scheduler!(FIXTURE, { name = "fixture", binary = "scx-fixture", ops = "fixture", topology = (1, 1, 2, 1) });
declare_scheduler!(OTHER, {
    name = "other",
    binary = "scx-fixture",
    ops = "second",
    sched_args = ["--name", "second"],
});

// Only the sweep of cli/tests/verifier.rs loads this one.
declare_scheduler!(UNVERIFIABLE, {
    name = "unverifiable",
    binary = "scx-fixture",
    sched_args = ["--verify-loop"],
    verifier = false,
});

fn attached() -> Result<String> {
    let state = std::fs::read_to_string("/sys/kernel/sched_ext/state").context("reading the state")?;
    let ops = std::fs::read_to_string("/sys/kernel/sched_ext/root/ops").unwrap_or_default();
    Ok(format!("{} {}", state.trim(), ops.trim()))
}

#[ktstr_test(scheduler = FIXTURE)]
fn a_sound_scheduler_passes(ctx: &Ctx) -> Result<AssertResult> {
    ensure!(attached()? == "enabled fixture", "the kernel says {:?}", attached()?);
    ensure!(ctx.sched_pid.is_some_and(|pid| std::path::Path::new(&format!("/proc/{pid}/exe")).exists()));
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(2), CgroupDef::named("cg_1").workers(2)])
}

#[ktstr_test(scheduler = FIXTURE, llcs = 2, cores = 2)]
fn it_lends_its_machine_only_as_far_as_needed(ctx: &Ctx) -> Result<AssertResult> {
    ensure!(ctx.topo.total_cpus() == 4 && ctx.topo.num_llcs() == 2);
    scenarios::steady(ctx)
}

#[ktstr_test(scheduler = FIXTURE, staged_schedulers = [OTHER], duration_s = 3)]
fn the_scheduler_changes_in_the_middle(ctx: &Ctx) -> Result<AssertResult> {
    let third = HoldSpec::frac(0.3);
    let steps = vec![
        Step::with_defs(vec![ctx.cgroup_def("cg_0")], third),
        Step::new(vec![Op::replace_scheduler("other")], third),
        Step::new(vec![Op::restart_scheduler()], third),
        Step::new(vec![Op::detach_scheduler()], third),
    ];
    let result = execute_steps(ctx, steps)?;
    ensure!(attached()? == "disabled ", "the kernel says {:?}", attached()?);
    Ok(result)
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "1000"], duration_s = 4)]
fn drill_stalls_a_cpu(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

/// Is let run until the watchdog ends it, 2 s after the fault.
#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, duration_s = 6,
             extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "2000", "--victim", "stuck_one"])]
fn drill_stalls_for_the_watchdog(ctx: &Ctx) -> Result<AssertResult> {
    let stalled = CgroupDef::named("cg_0").workers(2).comm("stuck_one").cpuset(CpusetSpec::exact([1]));
    execute_defs(ctx, vec![stalled])
}

/// Fails while the scheduler is still there, with its stalled queue.
#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "30000"],
             duration_s = 3, max_gap_ms = 500)]
fn drill_stalls_a_cpu_unnoticed(ctx: &Ctx) -> Result<AssertResult> {
    let stalled = CgroupDef::named("cg_0").workers(2).comm("stuck_one").cpuset(CpusetSpec::exact([1]));
    execute_defs(ctx, vec![stalled])
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--drop-task", "--timeout-ms", "1000"], duration_s = 4)]
fn drill_drops_a_task(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--scx-error", "the weights are off"], duration_s = 4)]
fn drill_calls_an_error(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--crash-user", "11"], duration_s = 4)]
fn drill_crashes(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--exit-user", "0"], duration_s = 4)]
fn drill_leaves(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--fail-verify"])]
fn drill_is_rejected(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--starve-cgroup", "cg_1"], duration_s = 3, max_gap_ms = 500)]
fn drill_starves_a_cgroup(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(2), CgroupDef::named("cg_1").workers(2)])
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--ignore-affinity"], duration_s = 3)]
fn drill_ignores_affinity(ctx: &Ctx) -> Result<AssertResult> {
    let pinned = CgroupDef::named("cg_0").workers(2).cpuset(CpusetSpec::exact([1]));
    execute_defs(ctx, vec![pinned])
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--ignore-sigterm"], duration_s = 1)]
fn drill_ignores_sigterm(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--daemonize"], duration_s = 1)]
fn drill_daemonizes(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// A flood of output harms nobody but is kept short.
#[ktstr_test(scheduler = FIXTURE, extra_sched_args = ["--spam-mib", "100"], duration_s = 2)]
fn a_flood_of_output_is_borne(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--name", "impostor"])]
fn drill_has_another_name(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, staged_schedulers = [OTHER])]
fn drill_attaches_twice(ctx: &Ctx) -> Result<AssertResult> {
    // Past the engine, which would refuse it beforehand.
    ctx.ports.scheduler.attach("other")?;
    scenarios::steady(ctx)
}

#[ktstr_test(scheduler = FIXTURE, expect_err, extra_sched_args = ["--scx-error", "weight 7 is off"],
             expect_scx_bpf_error_contains = "weight 7", expect_scx_bpf_error_matches = "^scx_bpf_error: weight [0-9]+ is off",
             duration_s = 3)]
fn an_expected_error_passes(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, expect_err, extra_sched_args = ["--scx-error", "weight 7 is off"],
             expect_scx_bpf_error_contains = "weight 8", duration_s = 3)]
fn drill_expects_another_error(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

// What `cargo xtask bench overhead` times.

#[ktstr_test(ignore, duration_s = 1)]
fn one_second_under_eevdf(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, duration_s = 1)]
fn one_second_under_the_fixture(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// How many times the iterations under EEVDF there must be.
fn compared(ctx: &Ctx, times: f64) -> Result<AssertResult> {
    let mut result = scenarios::steady(ctx)?;
    // The run that makes the numbers has none to compare with.
    if ctx.baseline.is_some() {
        let mut v = ctx.assert.verdict();
        let base = ctx.baseline_metric("total_iterations").map(|n| n * times);
        v.claim_better("total_iterations", result.stats.metric("total_iterations")).than(base);
        result.merge(v.into_result());
    }
    Ok(result)
}

#[ktstr_test(scheduler = FIXTURE, baseline, duration_s = 1)]
fn a_sound_scheduler_is_not_far_behind(ctx: &Ctx) -> Result<AssertResult> {
    compared(ctx, 0.2)
}

#[ktstr_test(ignore, scheduler = FIXTURE, baseline, duration_s = 1)]
fn drill_claims_to_be_ten_times_better(ctx: &Ctx) -> Result<AssertResult> {
    compared(ctx, 10.0)
}

#[test]
fn a_claim_to_be_better_is_checked() {
    let text = fails("drill_claims_to_be_ten_times_better", &[]);
    assert_says(
        &text,
        &[
            "total_iterations: expected better than ",
            "(higher is better), got ",
            "--- beside eevdf ---",
            "metric  ",
        ],
    );
}

#[test]
fn a_stall_is_found_with_task_and_cpu() {
    let text = fails("drill_stalls_a_cpu", &[]);
    assert_says(
        &text,
        &[
            "the kernel dropped it: runnable task stall: ",
            "failed to run for",
            "BUG SUMMARY: fixture: runnable task stall (stall), task ",
            " on CPU 1",
            "--- sched_ext dump ---",
            "--- scheduler log ---",
        ],
    );
}

/// The fixture's victim and the queue that nothing is taken out of, `DSQ_STALLED` of its source.
#[test]
fn a_stalled_queue_and_the_schedulers_variables_are_dumped() {
    let (mut command, results) = common::case("drill_stalls_a_cpu_unnoticed");
    let output: common::CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(
        &output.text,
        &[
            "at the end of the workload:",
            "sched_ext: enabled, scheduler fixture",
            "  DSQ 0x57a11 holds ",
            "stuck_one (",
            " fixture_enqueue (enqueue), ",
            "    victim = {pid = ",
            "comm = \"stuck_one\"",
        ],
    );
    let dump = common::failure_dump(&results);
    assert_eq!(dump["schema"], "single", "{dump:#}");
    let scx = &dump["sched_ext"];
    let list = |part: &str| scx[part].as_array().unwrap_or_else(|| panic!("no {part} in {scx:#}")).clone();
    let queue = list("dsqs").into_iter().find(|queue| queue["id"] == 0x57a11).expect("the stalled queue");
    assert!(queue["nr"].as_u64().is_some_and(|nr| nr > 0), "{queue:#}");
    let tasks = queue["tasks"].as_array().expect("tasks");
    assert!(tasks.iter().any(|task| task[1] == "stuck_one"), "{queue:#}");
    assert!(queue["origin"] == "" && queue["seq"].as_u64().is_some_and(|seq| seq > 0), "{queue:#}");
    for origin in ["cpu 0", "cpu 1", "node 0"] {
        assert!(list("dsqs").iter().any(|queue| queue["origin"] == origin), "no queue of {origin}: {scx:#}");
    }
    let rq = &dump["runqueues"][0];
    assert!(rq["scx_kick_sync"].is_u64(), "{rq:#}");
    // Kernels count what went to the scheduler for each runqueue or for each task.
    let counts = dump["tasks"].as_array().expect("tasks").iter().chain([rq]).map(|of| &of["scx_ops_qseq"]);
    assert!(counts.into_iter().any(|count| count.as_u64().is_some_and(|n| n > 0)), "{rq:#}");
    let enqueue = list("programs").into_iter().find(|p| p["implements"] == "enqueue").expect("enqueue");
    assert!(enqueue["verified_insns"].as_u64().is_some_and(|n| n > 0), "{enqueue:#}");
    let variables = |map: &serde_json::Value| map["variables"].as_array().cloned().unwrap_or_default();
    let victim = list("maps").iter().flat_map(variables).find(|v| v["name"] == "victim").expect("the victim");
    assert!(victim["value"].as_str().is_some_and(|v| v.contains("cpu = 1, ")), "{victim:#}");
}

/// By the time that the scheduler's end is noticed, all that it had is gone: the dump has it from before.
#[test]
fn a_stall_is_dumped_before_the_watchdog_acts_and_after() {
    let (mut command, results) = common::case("drill_stalls_for_the_watchdog");
    let output: common::CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(
        &output.text,
        &[
            "--- kernel state before the watchdog acted ---",
            "early, when stuck_one (pid ",
            " jiffies that the sched_ext watchdog allows",
            "--- kernel state ---",
            "  ended: error_stall (",
            "): runnable task stall: stuck_one[",
        ],
    );
    let dump = common::failure_dump(&results);
    assert_eq!((&dump["schema"], &dump["exit"]), (&"dual".into(), &"powered off".into()), "{dump:#}");
    let (early, late) = (&dump["early"]["sched_ext"], &dump["sched_ext"]);
    assert_eq!((&early["state"], &late["state"]), (&"enabled".into(), &"disabled".into()), "{dump:#}");
    let queues = early["dsqs"].as_array().expect("queues");
    let stalled = queues.iter().find(|q| q["id"] == 0x57a11).expect("the stalled queue");
    assert!(stalled["nr"].as_u64().is_some_and(|nr| nr > 0), "{early:#}");
    assert_eq!(dump["early"]["vcpus"].as_array().map(Vec::len), Some(2), "{dump:#}");
    assert_eq!(late["exit"]["kind"], "error_stall", "{late:#}");
}

/// What the kernel writes in the middle of taking a scheduler away (`scx_ops_disable_workfn`), once: it throws the switch
/// that has every task scheduled by it.
const TAKEN_AWAY: &str = "(int)__scx_switched_all";

/// The kernel's own `scx_exit_info` is there only while a scheduler goes: the host stops the machine then and reads it.
#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, duration_s = 4,
             extra_sched_args = ["--scx-error", "the weights are off", "--fault-after-ms", "2000"])]
fn drill_is_watched_ending(ctx: &Ctx) -> Result<AssertResult> {
    let steps = vec![
        Step::with_defs(vec![ctx.cgroup_def("cg_0")], HoldSpec::frac(0.1)),
        Step::new(vec![Op::watch_snapshot(TAKEN_AWAY)], HoldSpec::frac(0.9)),
    ];
    execute_steps(ctx, steps)
}

#[test]
fn a_schedulers_end_is_caught_live_by_the_host() {
    let (mut command, results) = common::case("drill_is_watched_ending");
    let output: common::CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    let sidecar = std::fs::read(&common::sidecars(&results)[0]).expect("the sidecar");
    let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).expect("JSON");
    let snapshots = sidecar["snapshots"].as_array().expect("snapshots");
    let caught = snapshots.iter().find(|s| s["name"] == TAKEN_AWAY).expect("a snapshot of the write");
    let scx = &caught["state"]["sched_ext"];
    assert_eq!((&scx["state"], &scx["ops"]), (&"disabling".into(), &"fixture".into()), "{scx:#}");
    let exit = &scx["exit"];
    assert_eq!(exit["kind"], "error_bpf", "{exit:#}");
    assert!(exit["message"].as_str().is_some_and(|m| m.contains("the weights are off")), "{exit:#}");
    assert!(exit["reason"].as_str().is_some_and(|r| r.contains("scx_bpf_error")), "{exit:#}");
    let trace = exit["trace"].as_array().expect("a trace");
    assert!(
        trace.iter().any(|at| at.as_str().is_some_and(|at| at.starts_with("scx_bpf_error_bstr"))),
        "{exit:#}"
    );
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--leak-dsq", "--timeout-ms", "1000"], duration_s = 4)]
fn drill_leaks_into_a_queue(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--cpuset-change"], duration_s = 4)]
fn drill_forgets_new_cpusets(ctx: &Ctx) -> Result<AssertResult> {
    let half = HoldSpec::frac(0.3);
    let set = |cpu| Step::new(vec![Op::set_cpuset("cg_0", CpusetSpec::exact([cpu]))], half);
    execute_steps(ctx, vec![Step::with_defs(vec![CgroupDef::named("cg_0").workers(4)], half), set(0), set(1)])
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--ignore-hotplug", "--timeout-ms", "1000"], duration_s = 4)]
fn drill_ignores_an_offline_cpu(ctx: &Ctx) -> Result<AssertResult> {
    std::fs::write("/sys/devices/system/cpu/cpu1/online", "0").context("taking CPU 1 offline")?;
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--burn-dispatch", "20000"], duration_s = 1, max_gap_ms = 15)]
fn drill_burns_in_dispatch(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[test]
fn a_task_that_leaks_is_named_with_its_queue() {
    let text = fails("drill_leaks_into_a_queue", &[]);
    // DSQ_LEAKED of cli/scx-fixture/bpf/fixture.bpf.c.
    assert_says(
        &text,
        &["BUG SUMMARY: fixture: runnable task stall (stall), task cg_0[", "dispatch queue 0x1eac"],
    );
}

#[test]
fn a_forgotten_cpuset_is_found() {
    let text = fails("drill_forgets_new_cpusets", &[]);
    assert_says(&text, &["BUG SUMMARY: fixture: runtime error (error)", "cg_0["]);
}

#[test]
fn a_forgotten_offline_cpu_is_found() {
    let text = fails("drill_ignores_an_offline_cpu", &[]);
    // DSQ_OFFLINE.
    assert_says(&text, &["BUG SUMMARY: fixture: runnable task stall (stall), task ", "dispatch queue 0xff"]);
}

/// Whoever waits for the scheduler waits long, and the report says which program took the time.
#[test]
fn a_slow_callback_is_named() {
    let text = fails("drill_burns_in_dispatch", &[]);
    assert_says(&text, &["  stuck ", "--- programs of fixture ---"]);
    let table = text.split("--- programs of fixture ---\n").nth(1).expect("the table");
    let line = table.lines().next().unwrap_or_default();
    let each =
        line.split(" ns each").next().and_then(|head| head.split_whitespace().last()?.parse::<u64>().ok());
    // 20 ms are planted once the fault is armed; calls before that take microseconds.
    assert!(line.starts_with("fixture_dispatch") && each.is_some_and(|ns| ns > 1_000_000), "{text}");
}

#[test]
fn a_dropped_task_is_named() {
    let text = fails("drill_drops_a_task", &[]);
    assert_says(
        &text,
        &["runnable task stall: ", "BUG SUMMARY: fixture: runnable task stall (stall), task "],
    );
}

#[test]
fn an_error_of_its_own_is_quoted() {
    let text = fails("drill_calls_an_error", &[]);
    assert_says(
        &text,
        &["scx_bpf_error: ", "the weights are off", "BUG SUMMARY: fixture: scx_bpf_error (bpf-error)"],
    );
}

#[test]
fn a_program_that_dies_is_noticed_at_once() {
    let text = fails("drill_crashes", &[]);
    assert_says(&text, &["its program ended with signal 11 in the middle of the test"]);
    let text = fails("drill_leaves", &[]);
    assert_says(&text, &["its program ended with exit code 0 in the middle of the test"]);
}

#[test]
fn a_rejected_program_is_named() {
    let text = fails("drill_is_rejected", &[]);
    assert_says(&text, &["did not attach: ", "the verifier rejected its program ", "--- scheduler log ---"]);
}

#[test]
fn a_starved_cgroup_is_found() {
    let text = fails("drill_starves_a_cgroup", &[]);
    assert_says(&text, &["  stuck "]);
    let of = |cgroup: &str| {
        let line = text.lines().find(|l| l.starts_with(&format!("  {cgroup}: "))).expect("its numbers");
        let gap = line.split_whitespace().find_map(|w| w.strip_prefix("gap=")?.strip_suffix("ms"));
        gap.and_then(|ms| ms.parse::<u64>().ok()).expect("a gap in ms")
    };
    assert!(of("cg_1") > 500 && of("cg_0") < of("cg_1"), "{text}");
}

#[test]
fn a_task_where_it_must_not_be_is_found() {
    let text = fails("drill_ignores_affinity", &[]);
    assert_says(&text, &["BUG SUMMARY: fixture: runtime error (error)"]);
}

#[test]
fn one_that_does_not_stop_is_killed_and_named() {
    let text = fails("drill_ignores_sigterm", &[]);
    assert_says(
        &text,
        &["did not stop in order: its program did not stop within 5 s of SIGTERM and was killed"],
    );
}

#[test]
fn one_that_goes_to_the_background_is_told_to_stay() {
    let text = fails("drill_daemonizes", &[]);
    assert_says(&text, &["did not attach: ", "foreground"]);
}

#[test]
fn an_impostor_is_found() {
    let text = fails("drill_has_another_name", &[]);
    assert_says(&text, &["it attached as \"impostor\", but its declaration says `ops = \"fixture\"`"]);
}

#[test]
fn there_is_room_for_one() {
    let text = fails("drill_attaches_twice", &[]);
    assert_says(
        &text,
        &["attaching scheduler \"other\": another scheduler is attached already: \"fixture\""],
    );
}

#[test]
fn another_error_than_expected_fails() {
    let text = fails("drill_expects_another_error", &[]);
    assert_says(&text, &["expected to contain \"weight 8\"", "weight 7 is off"]);
}

#[test]
fn a_kernel_without_sched_ext_is_named() {
    let started = std::time::Instant::now();
    let text = fails("drill_calls_an_error", &[("KTSTR_TEST_KERNEL", &common::stock_image())]);
    assert_says(&text, &["this kernel has no sched_ext", "CONFIG_SCHED_CLASS_EXT=y", "kernel build"]);
    assert!(started.elapsed() < Duration::from_secs(120));
}
