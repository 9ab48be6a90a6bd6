//! Failure drills: everything that can go wrong around a test ends soon, with a
//! message that a newcomer understands.

mod common;
#[path = "drills/kills.rs"]
mod kills;
#[path = "drills/under_qemu.rs"]
mod under_qemu;

use common::{assert_says, case, fails, run, sidecars};
use ktstr::prelude::*;
use std::time::{Duration, Instant};

/// The other modes run the machine in a process of its own.
fn is_kvm() -> bool {
    std::env::var("KTSTR_ACCEL").is_ok_and(|mode| mode == "kvm")
}

/// Waits for `what` for at most a minute.
fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited a minute for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

// The tests that the drills run; they wait to be asked.

#[ktstr_test(ignore, duration_s = 1)]
fn drill_healthy(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, kargs = ["rdinit=/nowhere"])]
fn drill_kernel_panic(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore)]
fn drill_panic(_ctx: &Ctx) -> Result<AssertResult> {
    println!("about to panic");
    panic!("the answer was {}", 41);
}

/// Takes the ports to the host away from the guest, as a driver that fails would.
fn lose_the_ports() -> Result<()> {
    let driver = std::path::Path::new("/sys/bus/virtio/drivers/virtio_console");
    let mut lost = 0;
    for entry in std::fs::read_dir(driver).context("looking for the ports' driver")? {
        let name = entry?.file_name();
        if name.to_string_lossy().starts_with("virtio") {
            std::fs::write(driver.join("unbind"), name.as_encoded_bytes())?;
            lost += 1;
        }
    }
    ensure!(lost == 1, "{lost} devices with ports, expected one");
    Ok(())
}

#[ktstr_test(ignore, duration_s = 1)]
fn drill_panic_without_ports(_ctx: &Ctx) -> Result<AssertResult> {
    lose_the_ports()?;
    panic!("the answer was {}, and nobody hears it", 42);
}

#[ktstr_test(ignore, duration_s = 1)]
fn drill_segfault_without_ports(_ctx: &Ctx) -> Result<AssertResult> {
    lose_the_ports()?;
    // SAFETY: none; the fault is what the drill is about.
    unsafe { std::ptr::write_volatile(std::ptr::without_provenance_mut::<u32>(0x1230), 1) };
    Ok(AssertResult::pass())
}

#[ktstr_test(ignore, kargs = ["initcall_blacklist=virtio_console_init"])]
fn drill_never_a_port(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore)]
fn drill_error(_ctx: &Ctx) -> Result<AssertResult> {
    Err(anyhow!("the inner cause")).context("the outer context")
}

#[ktstr_test(ignore)]
fn drill_segfault(_ctx: &Ctx) -> Result<AssertResult> {
    // SAFETY: none; the fault is what the drill is about.
    unsafe { std::ptr::write_volatile(std::ptr::without_provenance_mut::<u32>(0x1230), 1) };
    Ok(AssertResult::pass())
}

#[ktstr_test(ignore, duration_s = 1, timeout_s = 1)]
fn drill_loops_forever(_ctx: &Ctx) -> Result<AssertResult> {
    loop {
        std::hint::black_box(0);
    }
}

#[ktstr_test(ignore, duration_s = 1)]
fn drill_kills_its_workers(ctx: &Ctx) -> Result<AssertResult> {
    let mut group = CgroupGroup::new(ctx.cgroups);
    group.add_cgroup_no_cpuset("victims")?;
    let mut handle = WorkloadHandle::spawn(&WorkloadConfig { num_workers: 2, ..Default::default() })?;
    let pids = handle.worker_pids_for_cgroup_procs()?;
    ctx.cgroups.move_tasks("victims", &pids)?;
    handle.start();
    std::thread::sleep(ctx.duration / 2);
    // SAFETY: kill(2) takes no pointers; the pid is our own child's.
    unsafe { libc::kill(pids[1], libc::SIGKILL) };
    Ok(Assert::default_checks().assert_cgroup(&handle.stop_and_collect(), None))
}

fn hog_memory(worker: &dyn WorkerCtx) {
    let mut hoard: Vec<Vec<u8>> = Vec::new();
    while !worker.stop_requested() {
        hoard.push(vec![1; 16 << 20]);
        worker.add_work(1);
        worker.iteration();
    }
}

#[ktstr_test(ignore, duration_s = 5)]
fn drill_out_of_memory(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(
        ctx,
        vec![CgroupDef::named("hogs").workers(1).work_type(WorkType::custom("hog", hog_memory))],
    )
}

#[ktstr_test(ignore, duration_s = 60)]
fn drill_long(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore)]
fn drill_nothing_to_judge(_ctx: &Ctx) -> Result<AssertResult> {
    Ok(Assert::default_checks().assert_cgroup(&[], None))
}

#[ktstr_test(ignore)]
fn drill_skips(_ctx: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::skip("this machine has one LLC"))
}

#[test]
fn a_missing_kernel_image() {
    let text = fails("drill_healthy", &[("KTSTR_TEST_KERNEL", "/no/such/image")]);
    assert_says(
        &text,
        &["ktstr_test 'drill_healthy' [topo=1n1l2c1t] failed:", "/no/such/image", "KTSTR_TEST_KERNEL"],
    );
}

#[test]
fn a_file_that_is_no_kernel() {
    let text = fails("drill_healthy", &[("KTSTR_TEST_KERNEL", "/proc/self/exe")]);
    // The test binary is an ELF file, but none that can be booted as a kernel.
    let refusal = if is_kvm() { "loading the vmlinux" } else { "the hypervisor ended with exit code 1" };
    assert_says(&text, &["failed:", refusal, "kernel"]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "no kernel").unwrap();
    let text = fails("drill_healthy", &[("KTSTR_TEST_KERNEL", file.path().to_str().unwrap())]);
    let expected = if is_kvm() { "expected a bzImage" } else { "HdrS" };
    assert_says(&text, &["opening kernel image", expected]);
}

#[test]
fn a_kernel_that_panics_early() {
    let text = fails("drill_kernel_panic", &[]);
    assert_says(
        &text,
        &["the guest kernel panicked while booting: Kernel panic - not syncing", "--- diagnostics ---"],
    );
}

#[test]
fn a_test_function_that_panics() {
    let text = fails("drill_panic", &[]);
    assert_says(
        &text,
        &["the test function panicked at ", "drills.rs:", "the answer was 41", "about to panic"],
    );
}

/// The text of the report, which must be of a machine that began so.
fn fails_as(start: &str, test: &str, env: &[(&str, &str)]) -> String {
    let (mut command, results) = case(test);
    let output: common::CaseOutput = command.envs(env.iter().copied()).output().unwrap().into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    let sidecar = std::fs::read(&sidecars(&results)[0]).unwrap();
    let sidecar: serde_json::Value = serde_json::from_slice(&sidecar).unwrap();
    assert_eq!(sidecar["start"], start, "{}", output.text);
    output.text
}

/// What the data port can't tell any more comes over the second serial port: of a booted machine, and of a resumed one.
#[test]
fn last_words_of_a_test_whose_ports_are_gone() {
    let panicked = [
        "the guest powered off without a result, while running the test",
        "the guest's last words, over its second serial port:",
        "ktstr: the test process panicked at ",
        "drills.rs:",
        ": the answer was 42, and nobody hears it",
        "ktstr: reporting the result: writing to the host's port: No such device",
    ];
    for (start, no_template) in [("booted", "1"), ("resumed", "0")] {
        let text = fails_as(start, "drill_panic_without_ports", &[("KTSTR_NO_TEMPLATE", no_template)]);
        assert_says(&text, &panicked);
        assert_eq!(text.matches("the answer was 42").count(), 1, "told once:\n{text}");
    }
    let text = fails("drill_segfault_without_ports", &[]);
    assert_says(&text, &["the test process was hit by signal 11 in thread", "address 0x1230"]);
}

#[test]
fn a_test_function_that_returns_an_error() {
    assert_says(&fails("drill_error", &[]), &["returned an error: the outer context: the inner cause"]);
}

#[test]
fn a_test_function_that_faults() {
    let text = fails("drill_segfault", &[]);
    assert_says(&text, &["signal 11 (SIGSEGV)", "address 0x1230", "while running the test"]);
}

#[test]
fn a_test_function_that_loops_forever() {
    let text = fails("drill_loops_forever", &[]);
    assert_says(&text, &["did not return within 2 s of guest time", "running"]);
}

#[test]
fn a_test_that_kills_its_workers() {
    let text = fails("drill_kills_its_workers", &[]);
    assert_says(&text, &["worker 1", "killed by signal 9"]);
}

#[test]
fn a_guest_out_of_memory() {
    // The first touch of a page takes long where page tables are emulated, one below the other.
    let text = fails("drill_out_of_memory", &[("KTSTR_DURATION_S", if is_kvm() { "30" } else { "5" })]);
    assert_says(&text, &["ran out of memory", "memory_mib"]);
}

#[test]
fn bad_settings() {
    assert_says(
        &fails("drill_healthy", &[("KTSTR_ACCEL", "warp")]),
        &["KTSTR_ACCEL", "warp", "deterministic"],
    );
}

#[test]
fn no_data_is_inconclusive_and_a_skip_says_why() {
    let output = run("drill_nothing_to_judge", &[]);
    assert_eq!(output.code, Some(2), "{}", output.text);
    assert_says(&output.text, &["inconclusive:"]);
    let output = run("drill_skips", &[]);
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert_says(&output.text, &["ktstr: SKIP: this machine has one LLC"]);
    let output = run("drill_skips", &[("KTSTR_NO_SKIP_MODE", "1")]);
    assert_eq!(output.code, Some(1), "{}", output.text);
}

#[test]
fn a_full_disk_costs_the_sidecar_but_not_the_verdict() {
    let (mut command, results) = case("drill_healthy");
    common::small_disk_at(&mut command, results.path(), c"nr_inodes=1");
    let output: common::CaseOutput = command.output().unwrap().into();
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert_says(&output.text, &["No space left on device", "the verdict stands", "KTSTR_SIDECAR_DIR"]);
}

#[test]
fn two_runs_at_once_do_not_disturb_each_other() {
    let (mut first, results) = case("drill_healthy");
    let (mut second, _unused) = case("drill_healthy");
    second.env("KTSTR_SIDECAR_DIR", results.path());
    let (first, second) = (first.spawn().unwrap(), second.spawn().unwrap());
    for child in [first, second] {
        let output: common::CaseOutput = child.wait_with_output().unwrap().into();
        assert_eq!(output.code, Some(0), "{}", output.text);
    }
    let files = sidecars(&results);
    assert_eq!(files.len(), 1, "{files:?}");
    let sidecar: serde_json::Value = serde_json::from_slice(&std::fs::read(&files[0]).unwrap()).unwrap();
    assert_eq!(sidecar["outcome"], "passed");
    assert_eq!(sidecar["topology"], "1n1l2c1t");
    let left: Vec<_> = std::fs::read_dir(results.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "a temporary file was left: {left:?}");
}
