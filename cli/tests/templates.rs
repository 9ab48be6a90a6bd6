//! Saved machines: resumed alike, told apart, and thrown away when in doubt.

mod common;

use common::{CaseOutput, assert_says, case, hypervisor_of, sidecars};
use ktstr::prelude::*;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

// The tests that the drills run; they wait to be asked.

#[ktstr_test(ignore)]
fn saved_healthy(_ctx: &Ctx) -> Result<AssertResult> {
    println!("{}", fs::read_to_string("/proc/schedstat")?);
    Ok(AssertResult::pass())
}

#[ktstr_test(ignore, numa_nodes = 2, llcs = 2, cores = 2, threads = 1)]
fn saved_has_its_shape(_ctx: &Ctx) -> Result<AssertResult> {
    let mut v = Assert::NO_OVERRIDES.verdict();
    for (file, content) in [
        ("cpu/online", "0-3"),
        ("cpu/cpu3/cache/index3/shared_cpu_list", "2-3"),
        ("cpu/cpu1/topology/package_cpus_list", "0-1"),
        ("node/node1/cpulist", "2-3"),
        ("node/node0/distance", "10 20"),
    ] {
        let seen = fs::read_to_string(Path::new("/sys/devices/system").join(file))?;
        claim!(v, seen.trim().to_string()).eq(content.to_string());
    }
    Ok(v.into_result())
}

/// Its kernel finds no init.
#[ktstr_test(ignore, kargs = ["rdinit=/nowhere"])]
fn saved_never(_ctx: &Ctx) -> Result<AssertResult> {
    Ok(AssertResult::pass())
}

/// Fails, to have its output shown.
#[ktstr_test(ignore)]
fn saved_tells_clock_and_random_numbers(_ctx: &Ctx) -> Result<AssertResult> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    println!("clock {:.3}", now.as_secs_f64());
    let uuid = fs::read_to_string("/proc/sys/kernel/random/uuid")?;
    let mut bytes = [0u8; 16];
    // SAFETY: getrandom(2) writes at most 16 bytes to a live buffer.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    ensure!(got == 16, "getrandom: {got}");
    println!("random {} {bytes:02x?}", uuid.trim());
    bail!("told")
}

/// How fast the time stamp counter runs by the kernel's clock, kHz; an emulated guest's
/// counter is its host's.
fn tsc_khz() -> f64 {
    // SAFETY: reads a counter.
    let ticks = || unsafe { core::arch::x86_64::_rdtsc() };
    let (begin, start) = (ticks(), Instant::now());
    std::thread::sleep(Duration::from_millis(400));
    let passed = start.elapsed();
    (ticks() - begin) as f64 / passed.as_secs_f64() / 1000.0
}

/// Fails, to have its output shown.
#[ktstr_test(ignore)]
fn saved_tells_the_rate_of_its_clock(_ctx: &Ctx) -> Result<AssertResult> {
    println!("counter {}", tsc_khz());
    bail!("told")
}

fn wait_for_hypervisor(child: &Child) -> i32 {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(pid) = hypervisor_of(child) {
            return pid;
        }
        assert!(Instant::now() < deadline, "no hypervisor within a minute");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A case with saved machines in `store`, and where its results go.
fn saved_case(test: &str, store: &Path) -> (Command, TempDir) {
    let (mut command, results) = case(test);
    command.env("KTSTR_TEMPLATE_DIR", store).env_remove("KTSTR_NO_TEMPLATE");
    (command, results)
}

fn output(child: std::io::Result<Child>) -> CaseOutput {
    child.expect("starting the case").wait_with_output().expect("waiting for the case").into()
}

/// How the machine of a passing case came to run, and what it said on the way.
fn start_of(test: &str, store: &Path, env: &[(&str, &str)]) -> (String, String) {
    let (mut command, results) = saved_case(test, store);
    let seen = output(command.envs(env.iter().copied()).spawn());
    assert_eq!(seen.code, Some(0), "{}", seen.text);
    (start_in(&results), seen.text)
}

fn start_in(results: &TempDir) -> String {
    record_in(results)["start"].as_str().expect("how it started").to_string()
}

fn record_in(results: &TempDir) -> serde_json::Value {
    let files = sidecars(results);
    assert_eq!(files.len(), 1, "{files:?}");
    let text = fs::read_to_string(&files[0]).expect("the sidecar");
    serde_json::from_str(&text).expect("JSON")
}

/// The directories of saved machines, whole ones only.
fn saved_in(store: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(store).into_iter().flatten().map(|e| e.expect("an entry").path());
    entries.filter(|p| p.join("metadata.json").exists() && !scratch(p)).collect()
}

fn scratch(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(".tmp-"))
}

#[test]
fn the_second_test_resumes_and_who_says_so_boots() {
    let store = tempfile::tempdir().unwrap();
    let (first, said) = start_of("saved_healthy", store.path(), &[]);
    assert_eq!(first, "resumed");
    assert_says(&said, &["booting a machine to save (tcg 1n1l2c1t 256 MiB)"]);
    let (second, said) = start_of("saved_healthy", store.path(), &[]);
    assert_eq!((second.as_str(), said.as_str()), ("resumed", ""));
    let (third, said) = start_of("saved_healthy", store.path(), &[("KTSTR_NO_TEMPLATE", "1")]);
    assert_eq!((third.as_str(), said.as_str()), ("booted", ""));
    assert_eq!(saved_in(store.path()).len(), 1);
}

#[test]
fn a_resumed_machine_has_the_declared_shape() {
    let store = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        assert_eq!(start_of("saved_has_its_shape", store.path(), &[]).0, "resumed");
    }
}

#[test]
fn a_hypervisor_that_is_killed_while_it_saves_is_no_failure_to_remember() {
    let store = tempfile::tempdir().unwrap();
    let (mut command, _results) = saved_case("saved_healthy", store.path());
    let child = command.spawn().unwrap();
    let qemu = wait_for_hypervisor(&child);
    // SAFETY: kill(2) takes no pointers; the process is a child of the case's and alive.
    assert_eq!(unsafe { libc::kill(qemu, libc::SIGKILL) }, 0);
    let seen = output(Ok(child));
    assert_eq!(seen.code, Some(0), "{}", seen.text);
    assert_says(&seen.text, &["booting afresh", "the hypervisor was killed by signal 9"]);
    let (start, said) = start_of("saved_healthy", store.path(), &[]);
    assert_eq!(start, "resumed");
    assert_says(&said, &["booting a machine to save"]);
}

#[test]
fn a_damaged_machine_costs_a_boot_and_says_so() {
    let store = tempfile::tempdir().unwrap();
    start_of("saved_healthy", store.path(), &[]);
    let dir = saved_in(store.path()).remove(0);
    let truncate = |name: &str| {
        let file = fs::OpenOptions::new().write(true).open(dir.join(name)).unwrap();
        file.set_len(1 << 16).unwrap();
    };
    for (file, why) in [("state", "state has 65536 bytes"), ("ram0", "ram0 has 65536 bytes")] {
        truncate(file);
        let (start, said) = start_of("saved_healthy", store.path(), &[]);
        assert_eq!(start, "resumed");
        assert_says(&said, &["is made anew", why]);
    }
    let record = dir.join("metadata.json");
    let text = fs::read_to_string(&record).unwrap();
    fs::write(&record, text.replace("\"schema\": 2", "\"schema\": 99")).unwrap();
    assert_says(&start_of("saved_healthy", store.path(), &[]).1, &["is made anew", "another version"]);
    // Of the right size, but not what was saved: RAM of zeroes, then one byte of it.
    let bytes = fs::metadata(dir.join("ram0")).unwrap().len();
    truncate("ram0");
    let ram = fs::OpenOptions::new().read(true).write(true).open(dir.join("ram0")).unwrap();
    ram.set_len(0).unwrap();
    ram.set_len(bytes).unwrap();
    drop(ram);
    let altered = ["is made anew", "ram0 was changed"];
    let (start, said) = start_of("saved_healthy", store.path(), &[]);
    assert_eq!(start, "resumed");
    assert_says(&said, &altered);
    let ram = fs::OpenOptions::new().read(true).write(true).open(dir.join("ram0")).unwrap();
    let mut byte = [0];
    ram.read_exact_at(&mut byte, 17 << 20).unwrap();
    ram.write_all_at(&[!byte[0]], 17 << 20).unwrap();
    drop(ram);
    assert_says(&start_of("saved_healthy", store.path(), &[]).1, &altered);
    assert_eq!(start_of("saved_healthy", store.path(), &[]), ("resumed".to_string(), String::new()));
}

/// Another number each time: the standard library seeds its hash tables with them.
fn random() -> u64 {
    std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), 0)
}

#[test]
fn a_maker_killed_at_any_instant_leaves_nothing_that_harms() {
    let store = tempfile::tempdir().unwrap();
    // Ten instants over a boot and a save, a random one in each tenth.
    for step in 0..10u64 {
        let instant = Duration::from_millis(50 + 333 * step + random() % 333);
        eprintln!("killed after {instant:?}");
        for dir in saved_in(store.path()) {
            fs::remove_dir_all(dir).unwrap();
        }
        let (mut command, _results) = saved_case("saved_healthy", store.path());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(instant);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(start_of("saved_healthy", store.path(), &[]).0, "resumed");
    let left: Vec<_> = fs::read_dir(store.path()).unwrap().map(|e| e.unwrap().path()).collect();
    assert!(!left.iter().any(|p| scratch(p)), "{left:?}");
}

#[test]
fn two_at_once_make_one() {
    let store = tempfile::tempdir().unwrap();
    let cases = [saved_case("saved_healthy", store.path()), saved_case("saved_healthy", store.path())];
    let started = cases.map(|(mut command, results)| (command.spawn(), results));
    let texts = started.map(|(child, results)| {
        let seen = output(child);
        assert_eq!((seen.code, start_in(&results).as_str()), (Some(0), "resumed"), "{}", seen.text);
        seen.text
    });
    let said = texts.concat();
    assert_eq!(said.matches("booting a machine to save").count(), 1, "{said}");
    assert_says(&said, &["waiting for another process"]);
}

#[test]
fn a_guest_that_dies_before_it_is_ready_costs_one_boot() {
    let store = tempfile::tempdir().unwrap();
    let (mut command, _results) = saved_case("saved_never", store.path());
    let first = output(command.spawn());
    assert_eq!(first.code, Some(1), "{}", first.text);
    assert_says(
        &first.text,
        &["booting afresh", "before it was ready", "Kernel panic", "panicked while booting"],
    );
    let (mut command, _results) = saved_case("saved_never", store.path());
    let second = output(command.spawn());
    assert_says(&second.text, &["it was tried", "panicked while booting"]);
    assert!(!second.text.contains("booting a machine to save"), "{}", second.text);
}

#[test]
fn a_full_disk_costs_the_saving_but_not_the_verdict() {
    let store = tempfile::tempdir().unwrap();
    let (mut command, results) = saved_case("saved_healthy", store.path());
    common::small_disk_at(&mut command, store.path(), c"size=8m");
    let seen = output(command.spawn());
    assert_eq!((seen.code, start_in(&results).as_str()), (Some(0), "booted"), "{}", seen.text);
    assert_says(&seen.text, &["booting afresh", "No space left on device"]);
}

/// Booted afresh, they would differ; the machine is saved for the one test instead.
#[test]
fn a_full_disk_does_not_cost_a_deterministic_run_its_bytes() {
    let store = tempfile::tempdir().unwrap();
    let run = |full: bool| {
        let (mut command, results) = saved_case("saved_healthy", store.path());
        command.env("KTSTR_ACCEL", "deterministic");
        if full {
            common::small_disk_at(&mut command, store.path(), c"size=8m");
        }
        let seen = output(command.spawn());
        assert_eq!((seen.code, start_in(&results).as_str()), (Some(0), "resumed"), "{}", seen.text);
        let mut record = record_in(&results);
        record.as_object_mut().unwrap().remove("host");
        (record, seen.text)
    };
    let (apart, said) = run(true);
    assert_says(&said, &["saving a machine for this test alone", "No space left on device"]);
    let (stored, said) = run(false);
    assert_says(&said, &["booting a machine to save"]);
    assert_eq!(apart, stored);
}

#[test]
fn another_kernel_of_the_same_name_is_another_machine() {
    let store = tempfile::tempdir().unwrap();
    let kernel = ktstr::find_kernel().unwrap().expect("a kernel");
    let copy = store.path().join("bzImage");
    let mut image = fs::read(kernel).unwrap();
    fs::write(&copy, &image).unwrap();
    let env = [("KTSTR_TEST_KERNEL", copy.to_str().unwrap())];
    start_of("saved_healthy", store.path(), &env);
    let old = saved_in(store.path());
    // As a rebuild would: another build's banner, the same length.
    let end = image.len() - 5;
    image[end] ^= 0xff;
    fs::write(&copy, &image).unwrap();
    let (mut command, _results) = saved_case("saved_healthy", store.path());
    let seen = output(command.envs(env).spawn());
    assert_says(&seen.text, &["booting a machine to save"]);
    let new = saved_in(store.path());
    assert!(new.len() <= 1 && new != old, "{old:?} {new:?}");
}

#[test]
fn clocks_are_right_and_random_numbers_differ() {
    let store = tempfile::tempdir().unwrap();
    let tell = || {
        let (mut command, _results) = saved_case("saved_tells_clock_and_random_numbers", store.path());
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let start = Instant::now();
        let seen = output(command.spawn());
        assert_says(&seen.text, &["the test function returned an error: told", "resumed in"]);
        let line = |name: &str| {
            let found = seen.text.lines().find_map(|l| l.strip_prefix(name));
            found.unwrap_or_else(|| panic!("no {name} in {}", seen.text)).to_string()
        };
        let clock: f64 = line("clock ").parse().unwrap();
        let after = before.as_secs_f64() + start.elapsed().as_secs_f64();
        assert!((before.as_secs_f64() - 1.0..=after + 1.0).contains(&clock), "{clock} {before:?} {after}");
        line("random ")
    };
    assert_ne!(tell(), tell());
}

/// A kernel that measures the rate of its clock while all of the host's CPUs are taken gets
/// it wrong, and a machine that was saved so would go on with it.
#[test]
fn a_machine_that_is_saved_on_a_loaded_host_has_a_clock_that_runs_right() {
    let store = tempfile::tempdir().unwrap();
    let done = AtomicBool::new(false);
    let text = std::thread::scope(|scope| {
        let cpus = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
        for _ in 0..2 * cpus {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let (mut command, _results) = saved_case("saved_tells_the_rate_of_its_clock", store.path());
        let seen = output(command.spawn());
        done.store(true, Ordering::Relaxed);
        seen.text
    });
    assert_says(&text, &["booting a machine to save", "the test function returned an error: told"]);
    let guest: f64 = text.lines().find_map(|l| l.strip_prefix("counter ")).unwrap().parse().unwrap();
    let host = tsc_khz();
    assert!((guest / host - 1.0).abs() < 0.02, "guest {guest} kHz, host {host} kHz");
}

#[test]
fn no_machine_outlives_a_maker_that_was_killed() {
    let store = tempfile::tempdir().unwrap();
    let (mut command, _results) = saved_case("saved_healthy", store.path());
    let mut child = command.spawn().unwrap();
    let qemu = wait_for_hypervisor(&child);
    let deadline = Instant::now() + Duration::from_secs(60);
    child.kill().unwrap();
    child.wait().unwrap();
    while Path::new(&format!("/proc/{qemu}/exe")).exists() {
        assert!(Instant::now() < deadline, "QEMU {qemu} outlives its test");
        std::thread::sleep(Duration::from_millis(5));
    }
}
