//! The monitor: what a guest's runqueues look like from outside, with symbols from a file
//! and without.

mod common;
#[path = "monitor/dumps.rs"]
mod dumps;
#[path = "monitor/layout.rs"]
mod layout;

use common::{case, run, sidecars};
use ktstr::prelude::*;
use serde_json::Value;

// The tests that are watched; they wait to be asked.

/// As many spinners as CPUs, free to spread.
#[ktstr_test(ignore, cores = 4, duration_s = 3, max_imbalance_ratio = 8.0, fail_on_stall)]
fn is_healthy(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("spread").workers(4)])
}

/// Ten spinners on CPU 2, nothing to do on the three others. That they get little time is
/// not the point.
#[ktstr_test(
    ignore,
    cores = 4,
    duration_s = 3,
    max_imbalance_ratio = 4.0,
    not_starved = false,
    max_gap_ms = 60000,
    max_spread_pct = 100.0
)]
fn piles_up(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("piled").workers(10).cpuset(CpusetSpec::exact([2]))])
}

/// The same with another limit of its own.
#[ktstr_test(
    ignore,
    cores = 4,
    duration_s = 3,
    max_local_dsq_depth = 50,
    not_starved = false,
    max_gap_ms = 60000,
    max_spread_pct = 100.0
)]
fn piles_up_unasked(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("piled").workers(10).cpuset(CpusetSpec::exact([2]))])
}

/// Asks for a rate that kernels before 6.15 don't count.
#[ktstr_test(ignore, cores = 2, duration_s = 1, max_fallback_rate = 100.0)]
fn asks_for_a_rate(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// A real-time hog of the highest priority on the only CPU, and nothing that would throttle
/// it: the guest's watchdog has that priority too, waits behind it and can't speak. One CPU,
/// as the host waits long and the hog keeps one of its own busy meanwhile.
#[ktstr_test(ignore, cores = 1, duration_s = 1, timeout_s = 1)]
fn hangs_as_a_whole(ctx: &Ctx) -> Result<AssertResult> {
    std::fs::write("/proc/sys/kernel/sched_rt_runtime_us", "-1")
        .context("turning real-time throttling off")?;
    let runtime = "/sys/kernel/debug/sched/fair_server/cpu0/runtime";
    std::fs::write(runtime, "0").with_context(|| format!("turning off {runtime}"))?;
    execute_defs(ctx, vec![CgroupDef::named("hog").workers(1).sched_policy(SchedPolicy::Fifo(99))])
}

/// A real-time hog shares CPU 1 with a worker that it never lets run, and nothing throttles it.
#[ktstr_test(
    ignore,
    cores = 2,
    duration_s = 3,
    fail_on_stall,
    not_starved = false,
    max_gap_ms = 60000,
    max_spread_pct = 100.0
)]
fn is_hogged(ctx: &Ctx) -> Result<AssertResult> {
    hogged(ctx, 1, 10)
}

/// The same on the CPU that deterministic mode samples from, by a hog that nothing of a real-time class can interrupt.
#[ktstr_test(
    ignore,
    cores = 2,
    duration_s = 3,
    fail_on_stall,
    not_starved = false,
    max_gap_ms = 60000,
    max_spread_pct = 100.0
)]
fn is_hogged_where_it_is_sampled(ctx: &Ctx) -> Result<AssertResult> {
    hogged(ctx, 0, 99)
}

/// A task of that real-time priority takes the CPU from one that may run nowhere else.
fn hogged(ctx: &Ctx, cpu: u32, priority: u32) -> Result<AssertResult> {
    std::fs::write("/proc/sys/kernel/sched_rt_runtime_us", "-1")
        .context("turning real-time throttling off")?;
    let runtime = format!("/sys/kernel/debug/sched/fair_server/cpu{cpu}/runtime");
    std::fs::write(&runtime, "0").with_context(|| format!("turning off {runtime}"))?;
    let there = |name: &'static str| CgroupDef::named(name).workers(1).cpuset(CpusetSpec::exact([cpu]));
    execute_defs(
        ctx,
        vec![
            there("victim").comm("victim"),
            there("hog").comm("hog").sched_policy(SchedPolicy::Fifo(priority)),
        ],
    )
}

/// Freezes a cgroup in the middle and forgets about it.
#[ktstr_test(
    ignore,
    cores = 2,
    duration_s = 2,
    fail_on_stall,
    not_starved = false,
    max_gap_ms = 60000,
    max_spread_pct = 100.0
)]
fn is_left_frozen(ctx: &Ctx) -> Result<AssertResult> {
    let defs =
        vec![CgroupDef::named("forgotten").workers(2).comm("icicle"), CgroupDef::named("free").workers(1)];
    execute_steps(
        ctx,
        vec![
            Step::with_defs(defs, HoldSpec::frac(0.5)),
            Step::new(vec![Op::freeze_cgroup("forgotten")], HoldSpec::frac(0.5)),
        ],
    )
}

/// Thaws what it froze.
#[ktstr_test(ignore, cores = 2, duration_s = 2, fail_on_stall, max_gap_ms = 60000)]
fn is_thawed_again(ctx: &Ctx) -> Result<AssertResult> {
    execute_steps(
        ctx,
        vec![
            Step::with_defs(vec![CgroupDef::named("cold").workers(2)], HoldSpec::frac(0.3)),
            Step::new(vec![Op::freeze_cgroup("cold")], HoldSpec::frac(0.3)),
            Step::new(vec![Op::unfreeze_cgroup("cold")], HoldSpec::frac(0.4)),
        ],
    )
}

/// Panics while its workers run.
#[ktstr_test(ignore, cores = 2, duration_s = 1)]
fn panics_at_work(ctx: &Ctx) -> Result<AssertResult> {
    let config = WorkloadConfig { num_workers: 2, comm: Some("busy".into()), ..WorkloadConfig::default() };
    let mut workers = WorkloadHandle::spawn(&config)?;
    workers.start();
    std::thread::sleep(ctx.duration / 2);
    panic!("out of ideas");
}

/// Reads where nothing is while its workers run.
#[ktstr_test(ignore, cores = 2, duration_s = 1)]
fn faults_at_work(ctx: &Ctx) -> Result<AssertResult> {
    let config = WorkloadConfig { num_workers: 2, comm: Some("busy".into()), ..WorkloadConfig::default() };
    let mut workers = WorkloadHandle::spawn(&config)?;
    workers.start();
    std::thread::sleep(ctx.duration / 2);
    // SAFETY: none: that it is not is what this is for.
    let read = unsafe { std::ptr::read_volatile(std::ptr::without_provenance::<u8>(8)) };
    bail!("read {read} where nothing is")
}

/// Has its kernel panic while its workers run.
#[ktstr_test(ignore, cores = 2, duration_s = 1)]
fn kills_its_kernel(ctx: &Ctx) -> Result<AssertResult> {
    let config = WorkloadConfig { num_workers: 2, comm: Some("busy".into()), ..WorkloadConfig::default() };
    let mut workers = WorkloadHandle::spawn(&config)?;
    workers.start();
    std::thread::sleep(ctx.duration / 2);
    std::fs::write("/proc/sysrq-trigger", "c").context("asking the kernel to crash")?;
    bail!("it did not crash")
}

/// Finds, after its work, that it asked for the impossible.
#[ktstr_test(ignore, cores = 2, duration_s = 2, min_iteration_rate = 1e12)]
fn is_too_slow(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("slow").workers(2).comm("snail")])
}

/// Three deadline tasks that use up nearly all that they may have, and a CPU more than those.
#[ktstr_test(
    ignore,
    cores = 4,
    duration_s = 2,
    min_iteration_rate = 1e12,
    not_starved = false,
    max_gap_ms = 60000,
    max_spread_pct = 100.0
)]
fn is_bound_by_deadlines(ctx: &Ctx) -> Result<AssertResult> {
    // Of three lengths, so that not all have used theirs up at once.
    let group = |name: &'static str, period_ms: u64| {
        let period_ns = period_ms * 1_000_000;
        let runtime_ns = period_ns / 10 * 9;
        let policy = SchedPolicy::Deadline { runtime_ns, deadline_ns: period_ns, period_ns };
        CgroupDef::named(name).workers(1).comm("late").sched_policy(policy)
    };
    execute_defs(ctx, vec![group("late_0", 100), group("late_1", 130), group("late_2", 170)])
}

/// What the guest's own files say of CPU times, softirqs, pressure, pages and tasks, in one line.
fn seen_from_inside() -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("reading {path}"));
    let lines = |text: String, wanted: &[&str]| -> Vec<String> {
        let is_wanted = |line: &&str| wanted.iter().any(|start| line.trim_start().starts_with(start));
        text.lines()
            .filter(is_wanted)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect()
    };
    let mut found = lines(read("/proc/stat")?, &["cpu0", "cpu1"]);
    found.extend(lines(read("/proc/softirqs")?, &["TIMER:", "SCHED:", "RCU:"]));
    found.extend(lines(read("/proc/pressure/cpu")?, &["some"]));
    found.extend(lines(read("/sys/devices/system/node/node0/numastat")?, &["numa_hit", "local_node"]));
    for entry in std::fs::read_dir("/proc")? {
        // Of one that has ended there is nothing to read.
        let Ok(stat) = std::fs::read_to_string(entry?.path().join("stat")) else { continue };
        if let Some((pid, rest)) = stat.split_once(" (busy) ") {
            let ids: Vec<&str> = rest.split(' ').skip(1).take(3).collect();
            found.push(format!("busy {pid} {}", ids.join(" ")));
        }
    }
    Ok(found.join("; "))
}

/// Two workers a CPU, and threads that write one file, which one of them at a time can do. Tells what the guest says of
/// itself, and panics at once.
#[ktstr_test(ignore, cores = 2, duration_s = 2)]
fn says_what_it_sees(ctx: &Ctx) -> Result<AssertResult> {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::create("/shared").context("making a file")?;
    let writers = (0..6).map(|_| {
        let file = file.try_clone()?;
        let write = move || {
            let bytes = vec![1; 4 << 20];
            while file.write_all_at(&bytes, 0).is_ok() {}
        };
        std::thread::Builder::new().name("writer".into()).spawn(write)
    });
    let _writers: Vec<_> = writers.collect::<std::io::Result<_>>().context("starting threads")?;
    let config = WorkloadConfig { num_workers: 4, comm: Some("busy".into()), ..WorkloadConfig::default() };
    let mut workers = WorkloadHandle::spawn(&config)?;
    workers.start();
    std::thread::sleep(ctx.duration);
    panic!("seen from inside: {};", seen_from_inside()?);
}

/// The sidecar's part of the monitor, after a run that ended with `code`.
fn watched(test: &str, env: &[(&str, &str)], code: i32) -> (Value, String) {
    let (mut command, results) = case(test);
    // So that a run which ends otherwise than expected says how.
    command.env("KTSTR_LOG_PASSES", "1").envs(env.iter().copied());
    let output: common::CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(code), "{}", output.text);
    let files = sidecars(&results);
    let bytes = std::fs::read(&files[0]).expect("the sidecar");
    let mut sidecar: Value = serde_json::from_slice(&bytes).expect("JSON");
    (sidecar["monitor"].take(), output.text)
}

/// What holds of every run that was watched as it should be.
fn assert_watched(monitor: &Value, text: &str) {
    let total = &monitor["total"];
    assert_eq!(monitor["no_data"], Value::Null, "{monitor:#}");
    assert!(total["samples"].as_u64().is_some_and(|n| n >= 10), "{monitor:#}");
    assert_eq!((&monitor["skipped"], &monitor["failed"]), (&0.into(), &0.into()), "{monitor:#}");
    // What it cost the host differs from run to run, which no record of deterministic mode may.
    let repeats = text.contains("mode=deterministic");
    assert_eq!(monitor["cost_us"].as_f64().is_some_and(|us| us > 0.0), !repeats, "{monitor:#}");
    assert!(text.contains("--- monitor ---") && text.contains("µs each"), "{text}");
}

fn healthy(env: &[(&str, &str)]) {
    let (monitor, text) = watched("is_healthy", env, 0);
    assert_watched(&monitor, &text);
    assert_eq!(monitor["violations"], Value::Array(Vec::new()), "{monitor:#}");
    assert!(text.contains("no violation (2 checks set by the test)"), "{text}");
    assert!(monitor["schedstat"]["pcount"].as_u64().is_some_and(|n| n > 0), "{monitor:#}");
    // Domains are told by how they balanced, and what could not be sampled by why.
    let counters = &monitor["counters"];
    let domains = counters["domains"].as_object().expect("domains");
    assert!(domains.values().all(|domain| domain["lb_count.newly_idle"].is_u64()), "{counters:#}");
    assert!(!domains.is_empty(), "{counters:#}");
    let reasons = counters["left_out"].as_array().expect("reasons");
    layout::counted_on_the_host(&monitor, reasons, &text);
    // Four spinners for most of the time, and little else.
    let running = monitor["total"]["avg_nr_running"].as_f64().expect("a number");
    assert!((0.5..2.0).contains(&running), "{monitor:#}");
}

fn piled_up(env: &[(&str, &str)]) {
    let (monitor, text) = watched("piles_up", env, 1);
    assert_watched(&monitor, &text);
    let violation = &monitor["violations"][0];
    assert_eq!(violation["cpu"], 2, "{monitor:#}");
    assert!(violation["worst"].as_f64().is_some_and(|worst| (8.0..13.0).contains(&worst)), "{monitor:#}");
    for part in ["max_imbalance_ratio: runqueues differ by a ratio of 1", "(limit 4.0): cpu2 had 1", "step 1"]
    {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
}

#[test]
fn a_healthy_run_reports_samples_and_no_violation() {
    healthy(&[]);
}

#[test]
fn a_pile_up_fails_with_cpu_and_numbers() {
    piled_up(&[]);
}

#[test]
fn a_stripped_image_is_watched_as_well() {
    healthy(&[("KTSTR_TEST_KERNEL", &common::stock_image())]);
}

#[test]
fn a_pile_up_on_a_stripped_image_fails_as_well() {
    piled_up(&[("KTSTR_TEST_KERNEL", &common::stock_image())]);
}

#[test]
fn a_violated_default_is_reported_and_does_not_fail() {
    let (monitor, text) = watched("piles_up_unasked", &[], 0);
    assert_eq!(monitor["violations"][0]["check"], "max_imbalance_ratio", "{monitor:#}");
    assert!(text.contains("report only: max_imbalance_ratio"), "{text}");
}

#[test]
fn a_kind_of_data_that_this_kernel_lacks_is_inconclusive() {
    let output = run("asks_for_a_rate", &[]);
    assert_eq!(output.code, Some(2), "{}", output.text);
    assert!(
        output.text.contains("`max_fallback_rate` could not be checked: no sched_ext"),
        "{}",
        output.text
    );
}

const DETERMINISTIC: &[(&str, &str)] = &[("KTSTR_ACCEL", "deterministic")];

#[test]
fn deterministic_mode_is_sampled_at_the_guests_own_instants() {
    healthy(DETERMINISTIC);
}

#[test]
fn a_pile_up_in_deterministic_mode_fails_as_well() {
    piled_up(DETERMINISTIC);
}

#[test]
fn a_deterministic_run_that_is_not_sampled_says_so() {
    let (monitor, text) =
        watched("is_healthy", &[("KTSTR_ACCEL", "deterministic"), ("KTSTR_MONITOR_MS", "0")], 2);
    assert_eq!(monitor["total"]["samples"], 0, "{monitor:#}");
    let reason = "`fail_on_stall` could not be checked: not sampled, as KTSTR_MONITOR_MS=0 says";
    assert!(text.contains(reason), "{text}");
}
