//! Threads of a machine as the host's kernel sees them, with hand-made kernels that run on any `/dev/kvm`.

mod micro;

use ktstr_topology::{CpuSet, Topology};
use ktstr_vmm::{Config, Threads, Vm, VmEnd, VmError};
use micro::skip::skip;
use micro::{PATIENCE, kernel, no_kvm};
use std::time::{Duration, Instant};

/// again: jmp again
const LOOP: [u8; 2] = [0xeb, 0xfe];
const FIFO: &str = "1";
const OTHER: &str = "0";

/// What `/proc` says of one thread.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    name: String,
    cpus: CpuSet,
    /// `SCHED_FIFO` is 1 (include/uapi/linux/sched.h).
    policy: String,
    priority: String,
}

/// This process's threads whose names begin so, by name.
fn threads(prefix: &str) -> Vec<Thread> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir("/proc/self/task").unwrap() {
        let at = task.unwrap().path();
        let read = |file: &str| std::fs::read_to_string(at.join(file)).unwrap_or_default();
        let name = read("comm").trim().to_string();
        if !name.starts_with(prefix) {
            continue;
        }
        let status = read("status");
        let cpus =
            status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
        let stat = read("stat");
        // Fields 40 and 41 of proc_pid_stat(5); the third is the first one after the name.
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).unwrap_or(&"?").to_string();
        threads.push(Thread {
            name,
            cpus: cpus.trim().parse().unwrap(),
            policy: field(41),
            priority: field(40),
        });
    }
    threads.sort_by(|a, b| a.name.cmp(&b.name));
    threads
}

/// The CPUs of the calling thread, before any machine changed anything.
fn allowed() -> CpuSet {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let cpus = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    cpus.unwrap().trim().parse().unwrap()
}

fn boot(threads: Threads, vcpus: u32) -> Result<Vm, VmError> {
    let mut config = Config::new(kernel(&LOOP), Topology::uniform(1, 1, vcpus, 1), 64);
    config.confine = true;
    config.threads = threads;
    config.rest_in_guest = true;
    Vm::boot(config)
}

/// Waits until the threads are as expected, as they see to it themselves.
fn expect(prefix: &str, expected: &[Thread]) {
    let begin = Instant::now();
    while threads(prefix) != expected {
        assert!(begin.elapsed() < PATIENCE, "{:?}, expected {expected:?}", threads(prefix));
        std::thread::yield_now();
    }
}

/// One test, as threads of several machines in this process have the same names.
#[test]
fn threads_run_where_and_how_they_are_told() {
    if no_kvm("threads_run_where_and_how_they_are_told") {
        return;
    }
    let all = allowed();
    let (first, last) = (CpuSet::from([all.first().unwrap()]), CpuSet::from([all.last().unwrap()]));
    let thread = |name: &str, cpus: &CpuSet, policy: &str, priority: &str| Thread {
        name: name.to_string(),
        cpus: cpus.clone(),
        policy: policy.to_string(),
        priority: priority.to_string(),
    };

    let vm = boot(Threads::default(), 2).unwrap();
    expect("vcpu", &[thread("vcpu0", &all, OTHER, "0"), thread("vcpu1", &all, OTHER, "0")]);
    drop(vm);

    let pinned = Threads { vcpus: vec![last.clone(), first.clone()], events: first.clone(), fifo: false };
    let vm = boot(pinned.clone(), 2).unwrap();
    expect("vcpu", &[thread("vcpu0", &last, OTHER, "0"), thread("vcpu1", &first, OTHER, "0")]);
    expect("vm-events", &[thread("vm-events", &first, OTHER, "0")]);
    assert_eq!(allowed(), all, "the thread that made it is left alone");
    drop(vm);

    let vm = boot(Threads { fifo: true, ..pinned }, 2).unwrap();
    if let Some(VmEnd::Failed { why }) = vm.wait(Duration::from_millis(100)) {
        assert!(why.contains("SCHED_FIFO") && why.contains("not permitted"), "{why}");
        skip("threads_run_where_and_how_they_are_told", &format!("its second half: {why}"));
        return;
    }
    expect("vcpu", &[thread("vcpu0", &last, FIFO, "1"), thread("vcpu1", &first, FIFO, "1")]);
    expect("vm-events", &[thread("vm-events", &first, FIFO, "2")]);
    // A guest that never stops is paused and ended all the same.
    vm.pause().unwrap();
    vm.resume();
    vm.kill();
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::Stopped));
}

#[test]
fn cpus_that_are_not_there_end_the_machine_and_too_few_are_refused() {
    if no_kvm("cpus_that_are_not_there_end_the_machine_and_too_few_are_refused") {
        return;
    }
    let nowhere = CpuSet::from([5000]);
    let vm = boot(Threads { vcpus: vec![nowhere], ..Threads::default() }, 1).unwrap();
    match vm.wait(PATIENCE) {
        Some(VmEnd::Failed { why }) => assert!(why.contains("CPUs 5000 only"), "{why}"),
        other => panic!("{other:?}"),
    }
    let one = Threads { vcpus: vec![allowed()], ..Threads::default() };
    let refused = boot(one, 2).err().unwrap().to_string();
    assert!(refused.contains("host CPUs told for 1 vCPUs, and there are 2"), "{refused}");
}
