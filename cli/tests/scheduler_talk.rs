//! What passes between a test and its scheduler: variables that are written and watched, maps
//! that are pinned, figures over scx_stats, a signal when a worker is stuck, last words, and how
//! long the kernel lets a task wait.

mod common;

use common::{assert_says, fails};
use ktstr::prelude::*;

// The verifier sweep takes the fixture out of tests/schedulers.rs, once.
declare_scheduler!(FIXTURE, {
    name = "fixture",
    binary = "scx-fixture",
    ops = "fixture",
    topology = (1, 1, 2, 1),
    verifier = false,
});

/// The fixture's own loader arms its fault much later than any test ends.
const ARM: BpfMapWrite = BpfMapWrite::new(".data.control", "control.armed", 1);
const NO_SUCH: BpfMapWrite = BpfMapWrite::new(".data.control", "control.armd", 1);
const TOO_LARGE: BpfMapWrite = BpfMapWrite::new("", "control.armed", 1 << 32);

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, duration_s = 4, bpf_map_write = ARM,
             extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "1000", "--fault-after-ms", "600000"])]
fn drill_is_armed_by_the_host(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[test]
fn a_variable_is_written_before_the_scenario() {
    let text = fails("drill_is_armed_by_the_host", &[]);
    assert_says(
        &text,
        &["runnable task stall: ", " on CPU 1", "BpfMapWrite", "bpf:.data.control/control.armed = 1"],
    );
}

/// The same without the write: the fault rests.
#[ktstr_test(scheduler = FIXTURE, duration_s = 2,
             extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "1000", "--fault-after-ms", "600000"])]
fn without_the_write_the_fault_rests(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[ktstr_test(ignore, scheduler = FIXTURE, duration_s = 1, bpf_map_write = [ARM, NO_SUCH])]
fn drill_writes_what_is_not_there(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, duration_s = 1, bpf_map_write = TOO_LARGE)]
fn drill_writes_too_large_a_number(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[test]
fn a_write_that_can_not_be_is_told() {
    let text = fails("drill_writes_what_is_not_there", &[]);
    assert_says(&text, &["writing bpf:.data.control/control.armd = 1 before the scenario", "armed"]);
    let text = fails("drill_writes_too_large_a_number", &[]);
    assert_says(&text, &["writing bpf:control.armed = 4294967296 before the scenario", "4 bytes"]);
}

/// The pin keeps the map after its scheduler has gone, with what was written to it.
#[ktstr_test(scheduler = FIXTURE, duration_s = 1, bpf_map_write = ARM, extra_sched_args = ["--fault-after-ms", "600000"])]
fn a_map_is_pinned(ctx: &Ctx) -> Result<AssertResult> {
    let half = HoldSpec::frac(0.5);
    let steps = vec![
        Step::with_defs(vec![ctx.cgroup_def("cg_0")], half),
        Step::new(vec![Op::pin_bpf_map(".data.control", "kept/control"), Op::detach_scheduler()], half),
    ];
    let mut result = execute_steps(ctx, steps)?;
    let mut v = Verdict::new();
    claim!(v, pinned(c"/sys/fs/bpf/kept/control")?).eq(ARM.value as u32);
    result.merge(v.into_result());
    Ok(result)
}

/// The first number of the only element of a map that is pinned there, by bpf(2).
fn pinned(path: &std::ffi::CStr) -> Result<u32> {
    const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
    const BPF_OBJ_GET: libc::c_long = 7;
    let bpf = |command: libc::c_long, attr: &mut [u64; 4]| {
        // SAFETY: the attributes, and what they point to, outlive the call.
        let answer = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
        if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(answer) }
    };
    // pathname; bpf_fd, file_flags
    let map = bpf(BPF_OBJ_GET, &mut [path.as_ptr() as u64, 0, 0, 0]).context("opening the pinned map")?;
    let (key, mut value) = (0u32, [0u32; 64]);
    // map_fd, key, value, flags. The descriptor is left to the end of this machine.
    let mut attr = [map as u64, (&raw const key) as u64, value.as_mut_ptr() as u64, 0];
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attr).context("reading the pinned map")?;
    Ok(value[0])
}

#[ktstr_test(ignore, scheduler = FIXTURE, duration_s = 1)]
fn drill_pins_what_is_not_there(ctx: &Ctx) -> Result<AssertResult> {
    let steps = vec![
        Step::with_defs(vec![ctx.cgroup_def("cg_0")], HoldSpec::frac(0.5)),
        Step::new(vec![Op::pin_bpf_map("no_such", "x")], HoldSpec::frac(0.5)),
    ];
    execute_steps(ctx, steps)
}

#[test]
fn a_map_that_is_not_there_is_told_beside_those_that_are() {
    let text = fails("drill_pins_what_is_not_there", &[]);
    assert_says(&text, &["no BPF map's name ends in \"no_such\"; there are: ", ".data.victim"]);
}

/// The ops of a test write and watch variables of the scheduler as they do the kernel's.
#[ktstr_test(scheduler = FIXTURE, duration_s = 2, post_vm = saw_the_writes,
             extra_sched_args = ["--fault-after-ms", "600000"])]
fn a_variable_is_written_and_watched(ctx: &Ctx) -> Result<AssertResult> {
    let half = HoldSpec::frac(0.5);
    let armed = "bpf:.data.control/control.armed";
    let steps = vec![
        Step::with_defs(vec![CgroupDef::named("cg_0").workers(4)], half),
        Step::new(
            vec![
                Op::read_kernel_cold("before", armed),
                Op::write_kernel_cold(armed, 1),
                Op::read_kernel_cold("after", armed),
                Op::watch_snapshot("bpf:vtime_now"),
            ],
            half,
        ),
    ];
    execute_steps(ctx, steps)
}

fn saw_the_writes(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    let read = |name: &str| -> Result<u64> {
        let reading = vm.snapshot(name).context("a reading")?;
        Ok(reading.get("bpf:.data.control/control.armed")?.as_u64()?)
    };
    claim!(v, read("before")?).eq(0);
    claim!(v, read("after")?).eq(1);
    let hit = vm.snapshot("bpf:vtime_now").context("a snapshot of the write")?;
    let state = hit.state.as_ref().context("the state")?;
    claim!(v, state.runqueues.len()).eq(2);
    Ok(v.into_result())
}

#[ktstr_test(scheduler = FIXTURE, duration_s = 3, post_vm = told_its_figures, extra_sched_args = ["--stats"])]
fn a_scheduler_is_asked_for_its_figures(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn told_its_figures(vm: &VmResult<'_>) -> Result<AssertResult> {
    let mut v = Verdict::new();
    let stats = vm.schedulers().first().and_then(|s| s.stats.as_ref()).context("no scx_stats were told")?;
    claim!(v, stats.answers).at_least(2);
    let last = stats.last().context("no answer was kept")?;
    claim!(v, last.figures.get("answered").copied().unwrap_or_default()).eq(stats.answers as f64);
    claim!(v, last.figures.get("fault.victims").copied().unwrap_or(-1.0)).eq(0.0);
    ensure!(stats.problem.is_none(), "{:?}", stats.problem);
    Ok(v.into_result())
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, duration_s = 6, max_gap_ms = 500,
             extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "30000"])]
fn drill_gets_a_worker_stuck(ctx: &Ctx) -> Result<AssertResult> {
    let stuck = CgroupDef::named("cg_0").workers(2).cpuset(CpusetSpec::exact([1]));
    execute_defs(ctx, vec![stuck])
}

#[test]
fn a_scheduler_is_asked_about_a_stuck_worker() {
    let text = fails("drill_gets_a_worker_stuck", &[]);
    assert_says(
        &text,
        &[
            "cg_0 worker ",
            "SIGUSR2 sent to the program of \"fixture\"",
            "scx-fixture: SIGUSR2: fault armed: true, first victim: ",
        ],
    );
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, duration_s = 4,
             extra_sched_args = ["--panic-user", "index out of luck"])]
fn drill_panics(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[test]
fn a_panic_of_its_program_is_quoted() {
    let text = fails("drill_panics", &[]);
    let line = text.lines().find(|line| line.contains("its program ended with exit code 101"));
    let line = line.unwrap_or_else(|| panic!("no such line in {text}"));
    assert!(line.contains("panicked at ") && line.contains("index out of luck"), "{line}");
}

// Not the fixture's own word but the test's decides, whether it is the shorter one or the longer.

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, duration_s = 6, watchdog_timeout_s = 2,
             extra_sched_args = ["--drop-task", "--timeout-ms", "20000"])]
fn drill_is_given_two_seconds(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

#[ktstr_test(ignore, auto_repro = false, scheduler = FIXTURE, duration_s = 9, watchdog_timeout_s = 4,
             extra_sched_args = ["--drop-task", "--timeout-ms", "1000"])]
fn drill_is_given_four_seconds(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

/// How long the task had waited that the kernel dropped the scheduler for, by its own word.
fn waited(text: &str) -> f64 {
    let (_, rest) = text.split_once("failed to run for ").unwrap_or_else(|| panic!("no stall in {text}"));
    rest.split('s').next().and_then(|seconds| seconds.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// The kernel looks every half of the timeout.
#[test]
fn the_watchdog_waits_as_long_as_the_test_says() {
    let text = fails("drill_is_given_two_seconds", &[]);
    assert_says(
        &text,
        &[
            "the watchdog's timeout is 2.0 s (",
            " jiffies); the scheduler itself declares 20.0 s",
            "runnable task stall",
        ],
    );
    assert!((2.0..3.5).contains(&waited(&text)), "{text}");
    let text = fails("drill_is_given_four_seconds", &[]);
    assert_says(
        &text,
        &["the watchdog's timeout is 4.0 s (", " jiffies); the scheduler itself declares 1.0 s"],
    );
    assert!((4.0..6.5).contains(&waited(&text)), "{text}");
}

#[test]
fn the_watchdog_is_set_in_deterministic_mode_too() {
    let text = fails("drill_is_given_two_seconds", &[("KTSTR_ACCEL", "deterministic")]);
    assert!((2.0..3.5).contains(&waited(&text)), "{text}");
    assert_says(&text, &["the watchdog's timeout is 2.0 s"]);
}

declare_scheduler!(PATIENT, {
    name = "patient",
    binary = "scx-fixture",
    watchdog_timeout_s = 8,
    verifier = false,
});

/// What a declaration says holds for its tests.
#[ktstr_test(scheduler = PATIENT, duration_s = 1, post_vm = is_watched_for_eight_seconds)]
fn a_declared_timeout_holds(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

fn is_watched_for_eight_seconds(vm: &VmResult<'_>) -> Result<AssertResult> {
    is_watched_for(vm, 0, 8000)
}

fn is_watched_for(vm: &VmResult<'_>, own_ms: u32, effective_ms: u64) -> Result<AssertResult> {
    let mut v = Verdict::new();
    let watchdog = vm.schedulers().first().and_then(|s| s.watchdog.as_ref()).context("nothing was told")?;
    claim!(v, watchdog.own_ms).eq(Some(own_ms));
    claim!(v, watchdog.effective_ms).eq(Some(effective_ms));
    claim!(v, watchdog.problem.clone()).eq(None::<String>);
    Ok(v.into_result())
}

/// Kernels before 6.15 count no events, whatever the scheduler.
#[ktstr_test(ignore, scheduler = FIXTURE, duration_s = 2, max_fallback_rate = 100.0, max_keep_last_rate = 100.0)]
fn drill_bounds_what_is_not_counted(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[test]
fn a_bound_on_what_the_kernel_does_not_count_is_inconclusive() {
    let output = common::run("drill_bounds_what_is_not_counted", &[]);
    assert_eq!(output.code, Some(2), "{}", output.text);
    for check in ["max_fallback_rate", "max_keep_last_rate"] {
        let why = format!("`{check}` could not be checked: no sched_ext event counters were seen");
        assert_says(&output.text, &[&why]);
    }
}
