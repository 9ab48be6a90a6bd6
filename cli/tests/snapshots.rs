//! Snapshots of a guest's kernel at instants of its own, memory that a scenario reads and
//! writes, and what a check on the host makes of it.

mod common;

use common::{assert_says, case, sidecars};
use ktstr::assert::{SeriesPoint, assert_scx_events_clean};
use ktstr::prelude::*;
use ktstr::snapshot::{EntryView, PressureState, Value};
use serde_json::Value as Json;

// The README's.

#[ktstr_test(num_snapshots = 5, snapshot_paths = ["runqueues[*].nr_switches"], post_vm = keeps_switching)]
fn my_watched_test(ctx: &Ctx) -> Result<AssertResult> {
    execute_steps(
        ctx,
        vec![
            Step::with_defs(vec![ctx.cgroup_def("cg_0")], HoldSpec::frac(0.5)),
            Step::new(vec![Op::capture_snapshot("halfway")], HoldSpec::frac(0.5)),
        ],
    )
}

fn keeps_switching(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    vm.series().value::<u64>("runqueues[0].nr_switches").nondecreasing(&mut v);
    let halfway = vm.snapshot("halfway").context("the snapshot")?;
    claim!(v, halfway.cpu(1)?.nr_running).at_most(3);
    Ok(v.into_result())
}

// The verifier sweep takes the fixture out of tests/schedulers.rs, once.
declare_scheduler!(FIXTURE, {
    name = "fixture",
    binary = "scx-fixture",
    ops = "fixture",
    verifier = false,
});

/// The scheduler's own clock, out of its `.bss`, over time.
#[ktstr_test(
    scheduler = FIXTURE,
    num_snapshots = 4,
    snapshot_paths = ["bpf:vtime_now", "bpf:.data.victim/victim.count", "bpf:no_such_counter"],
    post_vm = its_clock_advances
)]
fn a_schedulers_variables_are_a_series(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

fn its_clock_advances(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    let series = vm.series().periodic_only();
    let clock = series.bpf::<u64>("vtime_now");
    claim!(v, clock.points().len()).eq(4);
    clock.strictly_increasing(&mut v);
    let victims = series.host("no victim", |s| Ok(s.get("bpf:.data.victim/victim.count")?.as_u64()? == 0));
    victims.always_true(&mut v);
    claim!(v, series.bpf::<u64>("no_such_counter").missing()).eq(4);
    Ok(v.into_result())
}

/// Its kernel chooses where it lies, and is read there.
#[ktstr_test(kaslr, duration_s = 1, num_snapshots = 2, snapshot_paths = ["init_task.comm"], post_vm = reads_its_kernel)]
fn a_kernel_that_moves_is_read(ctx: &Ctx) -> Result<AssertResult> {
    let arguments = std::fs::read_to_string("/proc/cmdline").context("reading the kernel's arguments")?;
    ensure!(!arguments.contains("kaslr"), "{arguments}");
    let symbols = std::fs::read_to_string("/proc/kallsyms").context("reading the kernel's symbols")?;
    let text = symbols.lines().find(|line| line.ends_with(" _stext")).context("_stext")?;
    let mut result = scenarios::steady(ctx)?;
    // One of some hundred places, the usual one among them.
    result.note(format!("the kernel lies at {text}"));
    Ok(result)
}

fn reads_its_kernel(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    let names =
        vm.series().periodic_only().host("comm", |s| Ok(s.get("init_task.comm")?.as_str()?.to_string()));
    claim!(v, names.values().count()).eq(2);
    let all_swapper = names.values().all(|name| name.starts_with("swapper"));
    claim!(v, all_swapper).eq(true);
    Ok(v.into_result())
}

/// What the scheduler's BPF maps hold, against what its program tells of itself and the guest's kernel of its tasks. One
/// cgroup is starved, so that there are victims to count.
#[ktstr_test(
    scheduler = FIXTURE,
    duration_s = 4,
    num_snapshots = 3,
    snapshot_paths = ["bpf:victim", "bpf:config.slice_ns"],
    post_vm = its_maps_hold_what_it_tells,
    extra_sched_args = ["--stats", "--starve-cgroup", "cg_1", "--timeout-ms", "30000"],
    not_starved = false,
    max_gap_ms = 60000,
    max_spread_pct = 100.0
)]
fn a_schedulers_maps_are_read(ctx: &Ctx) -> Result<AssertResult> {
    let half = HoldSpec::frac(0.5);
    let groups = vec![CgroupDef::named("cg_0").workers(2), CgroupDef::named("cg_1").workers(2)];
    let late = vec![Op::capture_cgroup_procs("members", "cg_0"), Op::capture_snapshot("late")];
    execute_steps(ctx, vec![Step::with_defs(groups, half), Step::new(late, half)])
}

fn its_maps_hold_what_it_tells(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    let late = vm.snapshot("late").context("the snapshot")?;
    let tasks = late.active()?.map("tasks")?;
    // Constants that the loader has set, its own pid among them.
    claim!(v, late.var("config.slice_ns")?.as_u64()?).eq(20_000_000);
    claim!(v, late.var("config.starve_name")?.as_str()?).eq("cg_1");
    let is_loader =
        |entry: &EntryView<'_>| entry.key().get("comm").is_ok_and(|comm| comm.as_str() == Ok("scx-fixture"));
    let loader = tasks.find(is_loader)?.key().get("pid")?.as_i64()?;
    claim!(v, late.live_var("config.user_tgid")?.as_i64()?).eq(loader);
    // One instant, read by a path that was asked for and out of the state.
    let by_path = late.get("bpf:victim")?;
    claim!(v, by_path.get("count")?.as_u64()?).eq(late.var(".data.victim/victim.count")?.as_u64()?);
    claim!(v, late.var("victim.comm")?.as_str()?.starts_with("cg_1")).eq(true);
    // Every member of the cgroup, by the guest's own list, has storage, and has been picked.
    let members = vm.snapshot("members").context("the members")?;
    let mut latest = 0;
    for index in 0..2 {
        let pid = members.get("pids")?.at(index)?.as_i64()?;
        let is_its = |entry: &EntryView<'_>| entry.key().get("pid").is_ok_and(|p| p.as_i64() == Ok(pid));
        let picked_at = tasks.find(is_its)?.get("picked_at")?.as_u64()?;
        claim!(v, picked_at).at_least(1);
        latest = latest.max(picked_at);
    }
    let most = tasks.max_by(|entry| entry.get("picked_at")?.as_u64())?;
    claim!(v, most.get("picked_at")?.as_u64()?).at_least(latest);
    ensure!(tasks.cpu(0).is_err() && tasks.ringbuf().is_err() && late.map("no_such").is_err());
    // The figures of its socket were read out of the same map, before and after.
    let victims = late.var("victim.count")?.as_f64()?;
    let told = vm.series().stats_path::<f64>("fault.victims");
    let value = |p: &SeriesPoint<f64>| p.value.clone().map_err(|why| anyhow!(why));
    let before = told.points().iter().rev().find(|p| p.at_ms <= late.at_ms).context("an answer before")?;
    // Its loop looks at the map now and then: the next answer may be of a moment before.
    let after = told.points().last().filter(|p| p.at_ms > late.at_ms + 500).context("an answer after")?;
    claim!(v, victims).between(value(before)?, value(after)?);
    claim!(v, value(after)?).at_least(1.0);
    vm.series().stats_path::<u64>("answered").strictly_increasing(&mut v);
    let with_stats = vm.drain_ordered_with_stats();
    let (_, figures) = with_stats.iter().rev().find(|(s, _)| s.name == "late").context("it is drained")?;
    claim!(v, figures.clone()?.get("fault.armed")?.as_u64()?).eq(1);
    // Over time, and by phase.
    let series = vm.series().periodic_only();
    let stored = series.bpf_map("tasks", |tasks| Ok(tasks.len() as u64));
    claim!(v, stored.missing()).eq(0);
    series.host("victims", |s| s.var("victim.count")?.as_u64()).nondecreasing(&mut v);
    claim!(v, vm.stats().phase_metric(Phase::step(1), "avg_nr_running")?).at_least(0.5);
    // What else the state tells.
    claim!(v, late.rq_scx_states()?.len()).eq(2);
    claim!(v, late.dsq_states()?.iter().any(|queue| queue.id == 2 && queue.nr > 0)).eq(true);
    claim!(v, late.prog_runtime_stats()?.iter().any(|program| program.run_count > 0)).eq(true);
    claim!(v, late.per_cpu_time()?.len()).eq(2);
    claim!(v, late.per_node_numa()?.len()).eq(1);
    let held_up =
        |group| -> Result<u64> { Ok(late.cgroup_psi(group)?.iter().map(PressureState::total_us).sum()) };
    claim!(v, held_up("cg_1")?).at_least(held_up("cg_0")?);
    claim!(v, late.task_enrichments()?.len()).at_least(20);
    let events = vm.scx_events();
    claim!(v, assert_scx_events_clean(&events, u64::MAX).is_inconclusive()).eq(events.is_empty());
    Ok(v.into_result())
}

// The tests that are looked at; they wait to be asked.

/// Four spinners on one CPU, then on both; a snapshot of each.
#[ktstr_test(
    ignore,
    duration_s = 2,
    num_snapshots = 4,
    snapshot_paths = ["jiffies", "runqueues[*].nr_running", "runqueues[0].curr->comm", "init_task.comm", "no_such_thing"],
    post_vm = sees_both_phases,
    not_starved = false,
    max_gap_ms = 60000,
    max_spread_pct = 100.0
)]
fn is_captured(ctx: &Ctx) -> Result<AssertResult> {
    let spinners = CgroupDef::named("spin").workers(4).cpuset(CpusetSpec::exact([1]));
    let steps = vec![
        Step::with_defs(vec![spinners], HoldSpec::frac(0.4)),
        Step::new(
            vec![
                Op::capture_snapshot("piled"),
                Op::capture_cgroup_procs("members", "spin"),
                Op::clear_cpuset("spin"),
            ],
            HoldSpec::frac(0.4),
        ),
        Step::new(
            vec![Op::capture_snapshot("spread"), Op::read_kernel_hot("pid", "init_task.pid")],
            HoldSpec::frac(0.2),
        ),
    ];
    execute_steps(ctx, steps)
}

fn sees_both_phases(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    let piled = vm.snapshot("piled").context("the snapshot of the pile")?;
    let spread = vm.snapshot("spread").context("the snapshot of the spread")?;
    let running = |s: &Snapshot, cpu| s.get(&format!("runqueues[{cpu}].nr_running"))?.as_u64();
    let (on_cpu0, on_cpu1) = (running(piled, 0)?, running(piled, 1)?);
    claim!(v, on_cpu1).at_least(4);
    claim!(v, on_cpu0).at_most(2);
    let after = running(spread, 0)?;
    claim!(v, after).at_least(1);
    claim!(v, piled.get("init_task.comm")?.as_str()?).eq("swapper/0");
    claim!(v, piled.get("no_such_thing").is_err()).eq(true);
    let members = vm.snapshot("members").context("the members")?;
    claim!(v, matches!(members.get("pids")?, Value::List(pids) if pids.len() == 4)).eq(true);
    claim!(v, vm.snapshot("pid").context("the pid")?.get("init_task.pid")?.as_i64()?).eq(0);
    // The tasks by name, out of the guest's own lists.
    let state = piled.state.as_ref().context("the state")?;
    let names: Vec<&str> = state.runqueues[1].runnable.iter().map(|t| t.comm.as_str()).collect();
    claim!(v, names.len()).at_least(3);
    let cgroup = state.cgroups.iter().find(|c| c.path == "/ktstr/spin").context("the cgroup")?;
    claim!(v, cgroup.tasks.len()).eq(4);
    // The four that the clock caused, over time.
    let series = vm.series().periodic_only();
    claim!(v, series.len()).eq(4);
    series.value::<u64>("jiffies").strictly_increasing(&mut v);
    series.value::<u64>("jiffies").rate_within(&mut v, 0.05, 2.0);
    let switches = series.host("nr_switches of CPU 1", |s| Ok(s.cpu(1)?.nr_switches));
    switches.nondecreasing(&mut v);
    let on_cpu1 = series.value::<u64>("runqueues[1].nr_running");
    claim!(v, on_cpu1.value_at_phase(Phase::step(1))).ne(None);
    Ok(v.into_result())
}

/// Writes a knob of the scheduler behind the kernel's back.
#[ktstr_test(ignore, duration_s = 1, post_vm = sees_the_knob_turned)]
fn turns_a_knob(ctx: &Ctx) -> Result<AssertResult> {
    let knob = "sysctl_sched_base_slice";
    let ops = vec![
        Op::read_kernel_cold("before", knob),
        Op::write_kernel_cold(knob, 7_000_000),
        Op::read_kernel_hot("after", knob),
    ];
    let result = execute_steps(
        ctx,
        vec![
            Step::with_defs(vec![CgroupDef::named("cg").workers(2)], HoldSpec::frac(0.5)),
            Step::new(ops, HoldSpec::frac(0.5)),
        ],
    )?;
    let seen =
        std::fs::read_to_string("/sys/kernel/debug/sched/base_slice_ns").context("reading the knob")?;
    ensure!(seen.trim() == "7000000", "the guest sees {seen:?}");
    Ok(result)
}

fn sees_the_knob_turned(vm: &VmResult<'_>) -> Result<()> {
    let value = |name: &str| -> Result<u64> {
        Ok(vm.snapshot(name).context("a reading")?.get("sysctl_sched_base_slice")?.as_u64()?)
    };
    ensure!(value("before")? != 7_000_000 && value("after")? == 7_000_000);
    Ok(())
}

#[ktstr_test(ignore, duration_s = 1)]
fn asks_for_what_is_not_there(ctx: &Ctx) -> Result<AssertResult> {
    let ops = vec![Op::read_kernel_cold("x", "runqueues[0].no_such_member")];
    execute_steps(
        ctx,
        vec![
            Step::with_defs(vec![CgroupDef::named("cg").workers(2)], HoldSpec::frac(0.5)),
            Step::new(ops, HoldSpec::frac(0.5)),
        ],
    )
}

/// Passes in the guest; the host knows better.
#[ktstr_test(ignore, duration_s = 1, post_vm = finds_fault)]
fn is_found_at_fault(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn finds_fault(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    vm.series().value::<u64>("jiffies").nondecreasing(&mut v);
    bail!("no snapshot was asked for: {:?}", v.into_result().outcome);
}

/// Watches a variable, and has the kernel write it twice.
#[ktstr_test(ignore, duration_s = 1, snapshot_paths = ["panic_timeout"], post_vm = sees_the_write)]
fn is_written_to(ctx: &Ctx) -> Result<AssertResult> {
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("cg").workers(2)], HoldSpec::frac(0.3)),
        Step::new(vec![Op::watch_snapshot("panic_timeout")], HoldSpec::frac(0.3)),
    ];
    let write = |value: &str| std::fs::write("/proc/sys/kernel/panic", value).context("writing a sysctl");
    let result = execute_steps(ctx, steps)?;
    write("77")?;
    write("78")?;
    Ok(result)
}

fn sees_the_write(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    let hit = vm.snapshot("panic_timeout").context("a snapshot of the write")?;
    claim!(v, hit.get("panic_timeout")?.as_u64()?).eq(78);
    let count = vm.snapshots().len();
    claim!(v, count).eq(1);
    let state = hit.state.as_ref().context("the state")?;
    let writer = state.runqueues.iter().filter_map(|rq| rq.current.as_ref()).any(|task| task.pid == 1);
    claim!(v, writer).eq(true);
    Ok(v.into_result())
}

/// Asks to watch what can't be.
#[ktstr_test(ignore, duration_s = 1)]
fn watches_nothing(ctx: &Ctx) -> Result<AssertResult> {
    let step = Step::new(vec![Op::watch_snapshot("no_such_variable")], HoldSpec::frac(0.5));
    execute_steps(
        ctx,
        vec![Step::with_defs(vec![CgroupDef::named("cg").workers(2)], HoldSpec::frac(0.5)), step],
    )
}

/// A run of a case, and what it left.
fn captured(test: &str, env: &[(&str, &str)], code: i32) -> (Json, String) {
    let (mut command, results) = case(test);
    command.env("KTSTR_LOG_PASSES", "1").envs(env.iter().copied());
    let output: common::CaseOutput = command.output().expect("running the case").into();
    assert_eq!(output.code, Some(code), "{}", output.text);
    let bytes = std::fs::read(&sidecars(&results)[0]).expect("the sidecar");
    (serde_json::from_slice(&bytes).expect("JSON"), output.text)
}

#[test]
fn snapshots_are_checked_on_the_host_and_recorded() {
    let (sidecar, text) = captured("is_captured", &[], 0);
    let snapshots = sidecar["snapshots"].as_array().expect("snapshots");
    assert_eq!(snapshots.len(), 8, "{text}");
    let piled = snapshots.iter().find(|s| s["name"] == "piled").expect("the pile");
    assert_eq!((&piled["cause"], &piled["step"]), (&"op".into(), &2.into()), "{piled:#}");
    assert_eq!(piled["sample"]["cpus"].as_array().map(Vec::len), Some(2), "{piled:#}");
    assert!(
        piled["unavailable"]["no_such_thing"].as_str().is_some_and(|s| s.contains("no symbol")),
        "{piled:#}"
    );
    assert_eq!(piled["state"]["vcpus"].as_array().map(Vec::len), Some(2), "vCPUs stood still: {piled:#}");
    assert_says(
        &text,
        &["CaptureSnapshot piled", "jiffies: expected values that rise every time, held over 4"],
    );
}

/// All that the record says but the host's times.
fn guests_part(mut sidecar: Json) -> Json {
    sidecar["host"].take();
    sidecar
}

#[test]
fn in_deterministic_mode_snapshots_are_the_same_to_the_byte() {
    let one = || guests_part(captured("is_captured", &[("KTSTR_ACCEL", "deterministic")], 0).0);
    let (first, second) = (one(), one());
    let names = |sidecar: &Json| -> Vec<String> {
        let all = sidecar["snapshots"].as_array().expect("snapshots");
        all.iter().map(|s| format!("{} {}", s["name"], s["at_ms"])).collect()
    };
    assert_eq!(names(&first), names(&second));
    assert_eq!(first["snapshots"], second["snapshots"]);
    assert_eq!(first, second);
}

#[test]
fn kernel_memory_is_read_and_written_by_name() {
    captured("turns_a_knob", &[], 0);
}

#[test]
fn a_path_that_is_not_there_fails_its_step_and_says_why() {
    let (_, text) = captured("asks_for_what_is_not_there", &[], 1);
    assert_says(&text, &["step 2: ReadKernelCold: the host answered:", "has no member no_such_member"]);
}

#[test]
fn the_hosts_check_fails_a_test_that_passed() {
    let (_, text) = captured("is_found_at_fault", &[], 1);
    assert_says(&text, &["the check on the host (post_vm) failed: no snapshot was asked for: Inconclusive"]);
}

#[test]
fn a_write_to_a_watched_variable_is_captured_as_it_happens() {
    let (sidecar, text) = captured("is_written_to", &[("KTSTR_ACCEL", "tcg")], 0);
    let hit = &sidecar["snapshots"][0];
    assert_eq!(hit["cause"], "watch", "{text}");
    let places: Vec<&str> = hit["state"]["vcpus"]
        .as_array()
        .expect("vCPUs")
        .iter()
        .filter_map(|v| v["symbol"].as_str())
        .collect();
    assert!(places.iter().any(|p| p.contains("proc") || p.contains("sysctl")), "who wrote it: {places:?}");
}

#[test]
fn what_can_not_be_watched_fails_its_step() {
    let (_, text) = captured("watches_nothing", &[("KTSTR_ACCEL", "tcg")], 1);
    assert_says(&text, &["step 2: WatchSnapshot: the host answered:", "no symbol no_such_variable"]);
    let (_, text) = captured("is_written_to", &[("KTSTR_ACCEL", "deterministic")], 1);
    assert_says(&text, &["in deterministic mode the stops would change what the guest does; use tcg"]);
}
