//! Every fault that can be planted in the fixture scheduler: each is found, named for what it is, and points at the right
//! CPU, task, cgroup or program. The sound fixture and EEVDF pass the same tests.
//!
//! A fault is a test body and the fixture's arguments that break it. Each body with its fault is a test of its own,
//! `fault/<name>`, run by the tests below; all bodies one after the other, in one machine, are what the sound scheduler
//! and the kernel's own must pass.

use super::FIXTURE;
use crate::common::{CaseOutput, assert_says, case, fails, sidecars};
use ktstr::assert::Assert;
use ktstr::prelude::*;
use ktstr::test_support::{KTSTR_TESTS, KtstrTestEntry, TestSpec};
use std::process::Child;
use std::time::Duration;

const MACHINE: Topology = Topology::uniform(1, 1, 2, 1);
/// A file that takes CPU 1 offline and back.
const CPU1: &str = "/sys/devices/system/cpu/cpu1/online";

/// What the host holds a scheduler to in all of these tests: no queue of its own grows past the workers of a test, no
/// task is left to the kernel's own, no callback takes a millisecond on average.
const OF_SCHEDULERS: Assert =
    Assert::NO_OVERRIDES.max_dsq_depth(8).max_rejected_tasks(0).max_callback_ns(1_000_000);

type Body = fn(&Ctx) -> Result<AssertResult>;

/// Registers `fault/<name>` for each line, as `#[ktstr_test]` would, and lists names and bodies.
macro_rules! faults {
    ($($name:literal: $body:ident, $checks:expr, [$($arg:literal),*];)*) => {
        const FAULTS: &[(&str, Body)] = &[$(($name, $body)),*];
        $(
            const _: () = {
                #[ktstr::distributed_slice(KTSTR_TESTS)]
                #[linkme(crate = ktstr::linkme)]
                static ENTRY: KtstrTestEntry = KtstrTestEntry {
                    spec: {
                        let mut spec = TestSpec::new(concat!("fault/", $name), module_path!(), MACHINE);
                        spec.scheduler = &FIXTURE;
                        spec.extra_sched_args = &[$($arg),*];
                        spec.duration = Duration::from_secs(4);
                        spec.auto_repro = false;
                        spec.ignored = true;
                        spec.checks = $checks;
                        spec
                    },
                    func: $body,
                };
            };
        )*
    };
}

faults! {
    "stalls_a_cpu": four_spinners, Assert::NO_OVERRIDES, ["--stall-cpu", "1", "--timeout-ms", "1000"];
    "drops_a_task": four_spinners, Assert::NO_OVERRIDES, ["--drop-task", "--timeout-ms", "1000"];
    "starves_a_cgroup": two_groups, Assert::NO_OVERRIDES, ["--starve-cgroup", "cg_1", "--starve-factor", "3000"];
    "ignores_affinity": pinned, Assert::NO_OVERRIDES, ["--ignore-affinity"];
    "burns_in_dispatch": four_spinners, OF_SCHEDULERS, ["--burn-dispatch", "30000"];
    "calls_an_error": steady, Assert::NO_OVERRIDES, ["--scx-error", "the weights are off"];
    "leaks_into_a_queue": four_spinners, Assert::NO_OVERRIDES, ["--leak-dsq", "--timeout-ms", "1000"];
    "forgets_new_cpusets": moved, Assert::NO_OVERRIDES, ["--cpuset-change"];
    "ignores_an_offline_cpu": without_a_cpu, Assert::NO_OVERRIDES, ["--ignore-hotplug", "--timeout-ms", "1000"];
    "crashes": steady, Assert::NO_OVERRIDES, ["--crash-user", "11"];
    "leaves": steady, Assert::NO_OVERRIDES, ["--exit-user", "0"];
    "is_rejected": steady, Assert::NO_OVERRIDES, ["--fail-verify"];
    "takes_a_part_only": steady, OF_SCHEDULERS, ["--partial"];
    "lets_a_queue_grow": many_spinners, OF_SCHEDULERS, ["--leak-dsq", "10"];
}

fn steady(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn four_spinners(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

/// So many that the shared queue of a sound scheduler is almost as long as is allowed.
fn many_spinners(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(9)])
}

fn two_groups(ctx: &Ctx) -> Result<AssertResult> {
    let groups = vec![CgroupDef::named("cg_0").workers(2), CgroupDef::named("cg_1").workers(2)];
    held_to(ctx, &ctx.assert.max_gap_ms(1000), groups)
}

fn held_to(ctx: &Ctx, limits: &Assert, groups: Vec<CgroupDef>) -> Result<AssertResult> {
    execute_steps_with(ctx, vec![Step::with_defs(groups, HoldSpec::FULL)], Some(limits))
}

fn pinned(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(2).cpuset(CpusetSpec::exact([1]))])
}

fn moved(ctx: &Ctx) -> Result<AssertResult> {
    let third = HoldSpec::frac(0.3);
    let set = |cpu| Step::new(vec![Op::set_cpuset("cg_0", CpusetSpec::exact([cpu]))], third);
    execute_steps(
        ctx,
        vec![Step::with_defs(vec![CgroupDef::named("cg_0").workers(4)], third), set(0), set(1)],
    )
}

fn without_a_cpu(ctx: &Ctx) -> Result<AssertResult> {
    std::fs::write(CPU1, "0").context("taking CPU 1 offline")?;
    let result = execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)]);
    std::fs::write(CPU1, "1").context("taking CPU 1 online again")?;
    result
}

/// All bodies, each once.
fn all_bodies(ctx: &Ctx) -> Result<AssertResult> {
    let mut played: Vec<Body> = Vec::new();
    let mut result = AssertResult::pass();
    for (name, body) in FAULTS {
        if played.iter().any(|other| std::ptr::fn_addr_eq(*other, *body)) {
            continue;
        }
        played.push(*body);
        let one = body(ctx).with_context(|| format!("the test of {name}"))?;
        ensure!(one.is_pass(), "the test of {name}: {one:#?}");
        result.merge(one);
    }
    ensure!(played.len() >= 7, "only {} bodies were played", played.len());
    Ok(result)
}

#[ktstr_test(scheduler = FIXTURE, duration_s = 1, timeout_s = 90, max_dsq_depth = 8, max_rejected_tasks = 0, max_callback_ns = 1_000_000)]
fn a_sound_scheduler_passes_what_the_faults_fail(ctx: &Ctx) -> Result<AssertResult> {
    all_bodies(ctx)
}

/// What only a BPF scheduler has is not checked here: it would be inconclusive.
#[ktstr_test(duration_s = 1, timeout_s = 90)]
fn eevdf_passes_what_the_faults_fail(ctx: &Ctx) -> Result<AssertResult> {
    all_bodies(ctx)
}

/// The first task that the fixture did its fault to, by its own log, and on which CPU: `comm[pid]`, `n`.
fn victim(text: &str) -> (&str, &str) {
    let told = text.lines().find_map(|line| line.split_once("scx-fixture: first victim: "));
    let (_, told) = told.unwrap_or_else(|| panic!("no victim was told in:\n{text}"));
    told.trim().split_once(" on CPU ").unwrap_or_else(|| panic!("no task and CPU: {told:?}"))
}

fn summary(text: &str) -> &str {
    let line = text.lines().find(|line| line.starts_with("BUG SUMMARY: "));
    line.unwrap_or_else(|| panic!("no summary in:\n{text}"))
}

/// The task that the kernel names as not allowed on a CPU, and that CPU: `comm[pid]`, `n`.
fn not_allowed(summary: &str) -> (&str, &str) {
    let found = summary.split_once("target CPU ").and_then(|(_, rest)| rest.split_once(" not allowed for "));
    let (cpu, task) = found.unwrap_or_else(|| panic!("no task and CPU in {summary:?}"));
    (task.trim(), cpu)
}

#[test]
fn a_stall_is_found_with_task_and_cpu() {
    let text = fails("fault/stalls_a_cpu", &[]);
    assert_says(
        &text,
        &[
            "the kernel dropped it: runnable task stall: ",
            "failed to run for",
            "--- sched_ext dump ---",
            "--- scheduler log ---",
            "the kernel's log since scheduler \"fixture\" was started:\n",
            "  ktstr: starting scheduler fixture\n",
            "sched_ext: BPF scheduler \"fixture\" disabled (runnable task stall)",
        ],
    );
    let summary = summary(&text);
    assert_says(
        summary,
        &["fixture: runnable task stall (stall), task ", " on CPU 1, dispatch queue 0x57a11"],
    );
    assert_eq!(victim(&text).1, "1", "{text}");
}

#[test]
fn a_dropped_task_is_named() {
    let text = fails("fault/drops_a_task", &[]);
    let (task, cpu) = victim(&text);
    // It is the only one, and in no queue.
    assert_says(
        summary(&text),
        &[
            &format!("fixture: runnable task stall (stall), task {task} waited "),
            &format!(" on CPU {cpu}, dispatch queue (n/a)"),
        ],
    );
    assert_says(&text, &[&format!("runnable task stall: {task} failed to run for ")]);
}

#[test]
fn a_starved_cgroup_is_found() {
    let text = fails("fault/starves_a_cgroup", &[]);
    assert_says(&text, &["  stuck "]);
    let of = |cgroup: &str| {
        let line = text.lines().find(|l| l.starts_with(&format!("  {cgroup}: "))).expect("its numbers");
        let gap = line.split_whitespace().find_map(|w| w.strip_prefix("gap=")?.strip_suffix("ms"));
        gap.and_then(|ms| ms.parse::<u64>().ok()).expect("a gap in ms")
    };
    assert!(of("cg_1") > 1000 && of("cg_0") < 1000, "{text}");
    assert!(victim(&text).0.starts_with("cg_1["), "{text}");
}

#[test]
fn a_task_where_it_must_not_be_is_found() {
    let text = fails("fault/ignores_affinity", &[]);
    let summary = summary(&text);
    assert_says(summary, &["fixture: runtime error (error), "]);
    // The workers may only use CPU 1, so it can only be CPU 0 that one was sent to.
    let (task, cpu) = not_allowed(summary);
    assert_eq!((task, cpu), (victim(&text).0, "0"), "{text}");
}

#[test]
fn a_forgotten_cpuset_is_found() {
    let text = fails("fault/forgets_new_cpusets", &[]);
    let summary = summary(&text);
    assert_says(summary, &["fixture: runtime error (error), "]);
    let (task, cpu) = not_allowed(summary);
    // One of the group was sent to the CPU that its cpuset had just lost: 1 in the second step, 0 in the third. Which one
    // the kernel looks at first, where the fixture was when it sent the first, and at which change, is chance.
    assert!(task.starts_with("cg_0[") && victim(&text).0.starts_with("cg_0["), "{text}");
    let lost = if text.contains("the scheduler failed in step 3, ") { "0" } else { "1" };
    assert_eq!(cpu, lost, "{text}");
}

#[test]
fn a_task_that_leaks_is_named_with_its_queue() {
    let text = fails("fault/leaks_into_a_queue", &[]);
    let summary = summary(&text);
    // DSQ_LEAKED of cli/scx-fixture/bpf/fixture.bpf.c.
    assert_says(summary, &["fixture: runnable task stall (stall), task cg_0[", "dispatch queue 0x1eac"]);
    // The kernel names one of those that leaked, not always the first.
    assert!(victim(&text).0.starts_with("cg_0["), "{text}");
}

/// Long before the kernel's watchdog of 30 s would act.
#[test]
fn a_queue_that_grows_is_found_by_the_monitor() {
    let text = fails("fault/lets_a_queue_grow", &[]);
    assert_says(&text, &["max_dsq_depth: dispatch queue 0x1eac held ", " tasks (limit 8) for "]);
    assert!(!text.contains("runnable task stall"), "{text}");
}

#[test]
fn a_forgotten_offline_cpu_is_found() {
    let text = fails("fault/ignores_an_offline_cpu", &[]);
    let summary = summary(&text);
    // DSQ_OFFLINE.
    assert_says(summary, &["fixture: runnable task stall (stall), task ", "dispatch queue 0xff"]);
    assert!(summary.ends_with(", offline CPUs 1"), "{summary}");
    // Each task has a home by its pid, and those of CPU 1 are the odd ones.
    let (_, rest) = summary.split_once(", task ").expect("a task");
    let pid = rest.split_once(']').and_then(|(task, _)| task.rsplit_once('[')?.1.parse::<u32>().ok());
    assert_eq!(pid.map(|pid| pid % 2), Some(1), "{summary}");
}

/// 30 ms a call: no worker waits long enough for another check to fail, and the report says which program took the time.
#[test]
fn a_slow_callback_is_named() {
    let text = fails("fault/burns_in_dispatch", &[]);
    assert_says(
        &text,
        &[
            "max_callback_ns: fixture_dispatch of scheduler \"fixture\" took ",
            "(limit 1000000 ns)",
            "--- programs of fixture ---\nfixture_dispatch",
        ],
    );
}

#[test]
fn an_error_of_its_own_is_quoted() {
    let text = fails("fault/calls_an_error", &[]);
    assert_says(
        &text,
        &["scx_bpf_error: ", "the weights are off", "BUG SUMMARY: fixture: scx_bpf_error (bpf-error)"],
    );
}

#[test]
fn a_program_that_dies_is_noticed_at_once() {
    let text = fails("fault/crashes", &[]);
    assert_says(&text, &["its program ended with signal 11 in the middle of the test"]);
    let text = fails("fault/leaves", &[]);
    assert_says(&text, &["its program ended with exit code 0 in the middle of the test"]);
}

#[test]
fn a_rejected_program_is_named() {
    let text = fails("fault/is_rejected", &[]);
    assert_says(
        &text,
        &[
            "did not attach: ",
            "the verifier rejected its program unverifiable_running",
            "--- scheduler log ---",
            "--- diagnostics ---",
        ],
    );
}

#[test]
fn a_scheduler_that_leaves_tasks_out_is_found() {
    let text = fails("fault/takes_a_part_only", &[]);
    assert_says(&text, &["max_rejected_tasks: scheduler \"fixture\" takes only tasks of policy SCHED_EXT"]);
}

/// A test that plays no scenario hears of the end while it sleeps.
#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, extra_sched_args = ["--crash-user", "9"], duration_s = 3)]
fn drill_sleeps_while_it_dies(ctx: &Ctx) -> Result<AssertResult> {
    std::thread::sleep(ctx.duration);
    Ok(AssertResult::pass())
}

#[test]
fn an_end_is_told_with_its_instant() {
    let (mut command, results) = case("drill_sleeps_while_it_dies");
    let output: CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(&output.text, &["--- timeline ---", "ms    SchedulerFailed its program ended with signal 9"]);
    let sidecar = record(&results);
    let events = sidecar["stimulus_events"].as_array().cloned().unwrap_or_default();
    let told = events.iter().find(|e| e[1].as_str().is_some_and(|what| what.contains("SchedulerFailed")));
    let at = told.and_then(|event| event[0].as_u64()).unwrap_or_else(|| panic!("not told: {sidecar:#}"));
    // The fault comes half a second after the scheduler has attached, the test's end after three.
    assert!(at < 2000, "{at} ms");
    let report = &sidecar["schedulers"][0];
    assert!(report["failed_after_ms"].as_u64().is_some_and(|ms| (400..2000).contains(&ms)), "{report:#}");
    assert_eq!(report["outcome"], "attached", "{report:#}");
}

/// A run's record without what speaks of host time.
fn record(results: &tempfile::TempDir) -> serde_json::Value {
    let files = sidecars(results);
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(&files[0]).expect("the sidecar");
    let mut sidecar: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert!(sidecar.as_object_mut().and_then(|o| o.remove("host")).is_some(), "{sidecar:#}");
    sidecar
}

/// Runs a fault so often in deterministic mode, two machines at a time, and compares the records.
fn is_the_same(fault: &str, pairs: usize) {
    let test = format!("fault/{fault}");
    let mut first: Option<serde_json::Value> = None;
    for pair in 0..pairs {
        let start = || {
            let (mut command, results) = case(&test);
            command.env("KTSTR_ACCEL", "deterministic");
            (command.spawn().expect("starting the case"), results)
        };
        let ended = |(child, results): (Child, tempfile::TempDir)| {
            let output: CaseOutput = child.wait_with_output().expect("waiting for the case").into();
            assert_eq!(output.code, Some(1), "{fault}: {}", output.text);
            record(&results)
        };
        for record in [start(), start()].map(ended) {
            assert_eq!(record["outcome"], "failed", "{fault}: {record:#}");
            let first = first.get_or_insert_with(|| record.clone());
            assert_eq!(&record, first, "{fault}: pair {pair} differs");
        }
    }
}

/// Faults that the host's own monitor finds: not among those that are compared so far.
const BY_THE_MONITOR: [&str; 1] = ["lets_a_queue_grow"];

/// A stall is in tests/determinism.rs.
#[test]
fn a_broken_rule_is_found_the_same_in_deterministic_mode() {
    is_the_same("ignores_affinity", 1);
}

/// Ten runs of every fault but those: some ten minutes on two idle cores.
/// `cargo nextest run -p ktstr --test schedulers --run-ignored only -E 'test(every_fault_is_found)'`
#[test]
#[ignore = "takes some ten minutes: runs when asked for by name"]
fn every_fault_is_found_the_same_ten_times() {
    for (fault, _) in FAULTS.iter().filter(|(name, _)| !BY_THE_MONITOR.contains(name)) {
        is_the_same(fault, 5);
    }
}
