//! Tests in performance mode: what a host can't give is told, or insisted on.

mod common;

use common::{assert_says, case, run};
use ktstr::prelude::*;
use std::process::Child;
use std::time::{Duration, Instant};

#[ktstr_test(ignore, performance_mode, cores = 1, duration_s = 1)]
fn wants_the_host(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// Its processor says that nothing takes it away, and its kernel has heard that.
#[ktstr_test(ignore, performance_mode, cores = 1, duration_s = 2)]
fn has_the_host(ctx: &Ctx) -> Result<AssertResult> {
    let mut v = Assert::NO_OVERRIDES.verdict();
    // Features and hints of KVM: Documentation/virt/kvm/x86/cpuid.rst.
    let told = std::arch::x86_64::__cpuid(0x4000_0001);
    let hints_realtime = told.edx & 1;
    claim!(v, hints_realtime).eq(1);
    let spinlocks = "PV spinlocks disabled with KVM_HINTS_REALTIME hint";
    let kernel_says_so = ktstr::read_kmsg().contains(spinlocks);
    claim!(v, kernel_says_so).eq(true);
    let mut result = v.into_result();
    result.merge(scenarios::steady(ctx)?);
    Ok(result)
}

#[ktstr_test(ignore, performance_mode, llcs = 64, cores = 1, duration_s = 1)]
fn wants_more_than_there_is(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, no_perf_mode, cpu_budget = 1, duration_s = 1)]
fn needs_no_speed(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, no_perf_mode, cpu_budget = 100000, duration_s = 1)]
fn has_more_than_there_is(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// What no host of this size has: in mode `kvm`, CPUs; in the others, all of it.
fn lacks() -> [&'static str; 2] {
    if std::env::var("KTSTR_ACCEL").is_ok_and(|mode| mode == "kvm") {
        ["64 vCPUs and one CPU for everything else make 65 host CPUs", "declare a smaller machine"]
    } else {
        ["can't have the host's processor to itself", "use --accel kvm"]
    }
}

#[test]
fn a_test_runs_without_what_the_host_lacks_and_says_so() {
    let output = run("wants_the_host", &[("KTSTR_LOG_PASSES", "1")]);
    assert_eq!(output.code, Some(0), "{}", output.text);
    // Huge pages are nobody's by default, and an emulator has nothing of it.
    assert_says(&output.text, &["passed", "performance mode, as far as this host has it: ", "can't"]);
}

#[test]
fn whoever_insists_has_the_test_fail_with_the_same_words() {
    let output = run("wants_more_than_there_is", &[("KTSTR_REQUIRE_PERF_MODE", "1")]);
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(&output.text, &["KTSTR_REQUIRE_PERF_MODE", lacks()[0], lacks()[1]]);
}

#[test]
fn without_performance_mode_such_a_test_needs_no_machine() {
    let settings =
        [("KTSTR_NO_PERF_MODE", "1"), ("KTSTR_TEST_KERNEL", "/no/such/image"), ("KTSTR_LOG_PASSES", "1")];
    let output = run("wants_the_host", &settings);
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert_says(&output.text, &["SKIP: ", "KTSTR_NO_PERF_MODE"]);
}

#[test]
fn a_budget_is_kept_to_and_told() {
    let output = run("needs_no_speed", &[("KTSTR_LOG_PASSES", "1"), ("KTSTR_ACCEL", "deterministic")]);
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert_says(&output.text, &["passed", "without performance mode: it ran on 1 of the host's CPUs ("]);
}

#[test]
fn a_budget_that_the_host_lacks_fails() {
    let output = run("has_more_than_there_is", &[]);
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(&output.text, &["a budget of 100000 CPUs was asked for", "may be used here"]);
    let both = [("KTSTR_CPU_CAP", "1"), ("KTSTR_BYPASS_LLC_LOCKS", "1")];
    let output = run("needs_no_speed", &both);
    assert_eq!(output.code, Some(1), "{}", output.text);
    assert_says(&output.text, &["resource contract", "--cpu-cap", "--bypass-llc-locks"]);
}

#[test]
fn a_cap_that_can_not_be_kept_to_is_refused_before_any_test() {
    let refused = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"));
        let output = command.arg("test").args(arguments).output().unwrap();
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert_says(&refused(&["--cpu-cap", "0", "--no-perf-mode"]), &["--cpu-cap"]);
    assert_says(&refused(&["--cpu-cap", "1"]), &["--no-perf-mode"]);
    let both = refused(&["--cpu-cap", "1", "--no-perf-mode", "--bypass-llc-locks"]);
    assert_says(&both, &["resource contract"]);
    let large = refused(&["--cpu-cap", "100000", "--no-perf-mode"]);
    assert_says(&large, &["--cpu-cap", "a budget of 100000 CPUs", "may be used here"]);
}

/// A thread of another process: its CPUs, its policy (`SCHED_FIFO` is 1) and its real-time priority.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    cpus: CpuSet,
    policy: u32,
    priority: u32,
}

/// The thread of that name.
fn thread(pid: u32, name: &str) -> Option<Thread> {
    let read = |at: std::path::PathBuf| std::fs::read_to_string(at).unwrap_or_default();
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let at =
        tasks.filter_map(|task| Some(task.ok()?.path())).find(|at| read(at.join("comm")).trim() == name)?;
    let (status, stat) = (read(at.join("status")), read(at.join("stat")));
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    // proc_pid_stat(5); the third field is the first one after the name.
    let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse().ok();
    Some(Thread { cpus: cpus.trim().parse().ok()?, policy: field(41)?, priority: field(40)? })
}

/// Bytes of guest RAM that a process has mapped, and how much of that is there in pages of 2 MiB (proc_pid_smaps(5)).
fn guest_ram(pid: u32) -> (u64, u64) {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
    let (mut mapped, mut huge, mut is_ram, mut pages_kb) = (0, 0, false, 0);
    for line in smaps.lines() {
        let mut words = line.split_whitespace();
        let (name, value) =
            (words.next().unwrap_or_default(), words.next().and_then(|v| v.parse::<u64>().ok()));
        match (name, value) {
            ("Size:", Some(kb)) if is_ram => mapped += kb << 10,
            ("KernelPageSize:", Some(kb)) => pages_kb = kb,
            ("Shared_Hugetlb:" | "Private_Hugetlb:", Some(kb)) if is_ram && pages_kb == 2048 => {
                huge += kb << 10;
            }
            _ if name.contains('-') && !name.ends_with(':') => is_ram = line.contains("memfd:guest-ram"),
            _ => {}
        }
    }
    (mapped, huge)
}

fn free_huge_pages() -> u64 {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let free = meminfo.lines().find_map(|line| line.strip_prefix("HugePages_Free:"));
    free.expect("a kernel with huge pages").trim().parse().unwrap()
}

/// Looks at a running case until it shows what is looked for.
fn wait_for<T>(child: &mut Child, what: &str, look: impl Fn(u32) -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look(child.id()) {
            return found;
        }
        if let Some(status) = child.try_wait().unwrap() {
            let mut text = String::new();
            std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text).unwrap();
            panic!("no {what} before the end, {status}:\n{text}");
        }
        assert!(Instant::now() < deadline, "no {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs KVM, a CPU more than the machine has, and huge pages: `cargo xtask kvm-lab --suite performance`"]
fn a_machine_has_what_it_was_promised() {
    let free = free_huge_pages();
    let (mut command, _results) = case("has_the_host");
    // With anything missing it would say so and fail.
    let mut child = command.env("KTSTR_REQUIRE_PERF_MODE", "1").spawn().unwrap();
    let real_time = |name: &'static str| move |pid| thread(pid, name).filter(|thread| thread.policy == 1);
    let vcpu = wait_for(&mut child, "vCPU under SCHED_FIFO", real_time("vcpu0"));
    let events = wait_for(&mut child, "thread for devices under SCHED_FIFO", real_time("vm-events"));
    assert_eq!((vcpu.cpus.len(), vcpu.priority), (1, 1), "{vcpu:?}");
    assert_eq!((events.cpus.len(), events.priority), (1, 2), "{events:?}");
    assert_ne!(vcpu.cpus, events.cpus);
    let (mapped, huge) = guest_ram(child.id());
    assert!(mapped >= 64 << 20 && huge == mapped, "{huge} of {mapped} bytes in pages of 2 MiB");
    assert_eq!((free - free_huge_pages()) << 21, mapped);
    let output: common::CaseOutput = child.wait_with_output().unwrap().into();
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert!(!output.text.contains("as far as this host has it"), "{}", output.text);
    assert_eq!(free_huge_pages(), free);
}
