//! Tests with real forks. The machine may be busy: no check depends on how fast
//! something happens, only on what happened in the end.

use super::*;
use ktstr_workload::{CloneMode, ExitInfo, SchedPolicy, WorkPhase, WorkType, WorkerCtx};
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

fn config(work_type: WorkType, num_workers: usize) -> WorkloadConfig {
    WorkloadConfig { work_type, num_workers, ..WorkloadConfig::default() }
}

fn spawn(config: &WorkloadConfig) -> WorkloadHandle {
    WorkloadHandle::spawn(config).unwrap()
}

/// Waits until a condition holds; fails the test when it never does.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(MS);
    }
}

/// Starts workers and lets each do at least `iterations`.
fn run(config: &WorkloadConfig, iterations: u64) -> Vec<WorkerReport> {
    let mut handle = spawn(config);
    handle.start();
    eventually("all workers iterate", || handle.snapshot_iterations().iter().all(|&n| n >= iterations));
    handle.stop_and_collect()
}

fn assert_in_order(reports: &[WorkerReport]) {
    for r in reports {
        assert!(r.completed && r.exit_info.is_none(), "{r:?}");
        assert!(r.wall_time_ns > 0 && !r.cpus_used.is_empty(), "{r:?}");
    }
}

fn is_gone(pid: Pid) -> bool {
    // SAFETY: signal 0 only asks whether the process exists.
    unsafe { libc::kill(pid, 0) < 0 }
}

fn one_cpu() -> CpuSet {
    CpuSet::from([sys::current_cpu()])
}

#[test]
fn every_named_type_works_and_stops_in_order() {
    for name in WorkType::ALL_NAMES {
        let work = WorkType::from_name(name).unwrap();
        if matches!(work, WorkType::NiceSweep) && !is_root() {
            continue;
        }
        let workers = work.worker_group_size();
        // A sweep takes 79 chunks; anything else is far quicker.
        let reports = run(&config(work, workers), 1);
        assert_eq!(reports.len(), workers, "{name}");
        assert_in_order(&reports);
        assert!(reports.iter().all(|r| r.work_units > 0), "{name}: {reports:?}");
    }
}

fn is_root() -> bool {
    // SAFETY: takes nothing.
    unsafe { libc::geteuid() == 0 }
}

#[test]
fn every_named_type_works_as_threads_too() {
    for name in ["SpinWait", "Bursty", "FutexPingPong", "PipeIo", "FutexFanOut", "ForkExit", "CachePipe"] {
        let work = WorkType::from_name(name).unwrap();
        let mut threads = config(work.clone(), 2 * work.worker_group_size());
        threads.clone_mode = CloneMode::Thread;
        assert_in_order(&run(&threads, 1));
    }
}

#[test]
fn threads_share_a_process_and_have_names_of_their_own() {
    let mut threads = config(WorkType::SpinWait, 3);
    threads.clone_mode = CloneMode::Thread;
    threads.comm = Some("ktstr-thread".into());
    let handle = spawn(&threads);
    let pids = handle.worker_pids_for_cgroup_procs().unwrap();
    let tids = handle.worker_pids();
    assert_eq!((pids.len(), tids.len()), (1, 3));
    for tid in tids {
        let comm = std::fs::read_to_string(format!("/proc/{}/task/{tid}/comm", pids[0])).unwrap();
        assert_eq!(comm.trim(), "ktstr-thread");
    }
}

#[test]
fn nothing_runs_before_the_start() {
    let handle = spawn(&config(WorkType::SpinWait, 2));
    assert_eq!(handle.worker_pids_for_cgroup_procs().unwrap(), handle.worker_pids());
    assert_eq!(handle.snapshot_iterations(), [0, 0]);
    let reports = handle.stop_and_collect();
    assert!(reports.iter().all(|r| r.completed && r.wall_time_ns == 0 && r.work_units == 0), "{reports:?}");
}

#[test]
fn a_burst_uses_its_cpu_time_and_a_sleep_uses_none() {
    let (burst, sleep) = (2 * MS, 6 * MS);
    let reports = run(&config(WorkType::bursty(burst, sleep), 1), 10);
    let r = &reports[0];
    assert_in_order(&reports);
    assert!(r.cpu_time_ns >= 9 * burst.as_nanos() as u64, "{r:?}");
    assert!(r.wall_time_ns >= r.cpu_time_ns + 8 * sleep.as_nanos() as u64, "{r:?}");
    assert!(r.wake_latencies_ns.count() >= 8, "{r:?}");
}

#[test]
fn pairs_exchange_in_step() {
    for work in [WorkType::futex_ping_pong(16), WorkType::pipe_io(16)] {
        let reports = run(&config(work, 4), 50);
        assert_in_order(&reports);
        for pair in reports.chunks(2) {
            let difference = pair[0].iterations.abs_diff(pair[1].iterations);
            assert!(difference <= 1, "members of a pair take turns: {pair:?}");
            // On one CPU the answer may be there before the asker has gone to sleep; then
            // only the other of the two is ever woken.
            assert!(pair.iter().any(|r| !r.wake_latencies_ns.is_empty()), "{pair:?}");
        }
    }
}

#[test]
fn a_fan_out_has_one_messenger_a_group() {
    let reports = run(&config(WorkType::futex_fan_out(2, 16), 6), 5);
    assert_in_order(&reports);
    let messengers: Vec<bool> = reports.iter().map(|r| r.is_messenger).collect();
    assert_eq!(messengers, [true, false, false, true, false, false]);
}

#[test]
fn two_workers_on_one_cpu_see_gaps_and_run_delay() {
    let mut both = config(WorkType::SpinWait, 2);
    both.affinity = AffinityIntent::Exact(one_cpu());
    let mut handle = spawn(&both);
    handle.start();
    let delayed = |tid: &Pid| {
        let text = std::fs::read(format!("/proc/{tid}/schedstat")).unwrap();
        crate::meter::parse_schedstat(&text).is_none_or(|s| s.run_delay_ns > 50_000_000)
    };
    eventually("both are delayed", || handle.worker_pids().iter().all(delayed));
    for r in handle.stop_and_collect() {
        assert_eq!(r.cpus_used, one_cpu_of(&r));
        assert!(r.max_gap_ms > 0 && r.off_cpu_ns > 0, "{r:?}");
        assert!(r.schedstat_run_delay_ns.is_none_or(|ns| ns > 0), "{r:?}");
        assert!(r.max_gap_at_ms <= r.wall_time_ns / 1_000_000, "{r:?}");
    }
}

fn one_cpu_of(report: &WorkerReport) -> CpuSet {
    assert_eq!(report.cpus_used.len(), 1, "{report:?}");
    report.cpus_used.clone()
}

#[test]
fn a_killed_worker_leaves_a_report_of_what_it_did() {
    let mut handle = spawn(&config(WorkType::SpinWait, 2));
    handle.start();
    eventually("both iterate", || handle.snapshot_iterations().iter().all(|&n| n > 10));
    let victim = handle.worker_pids()[1];
    // SAFETY: the victim is our child and not reaped yet.
    unsafe { libc::kill(victim, libc::SIGKILL) };
    eventually("it is dead", || handle.worker_pids_for_cgroup_procs().is_err());
    let reports = handle.stop_and_collect();
    assert!(reports[0].completed);
    let dead = &reports[1];
    assert_eq!(dead.exit_info, Some(ExitInfo::Signaled { signal: libc::SIGKILL, by_deadline: false }));
    assert!(!dead.completed && dead.iterations > 10 && dead.wall_time_ns > 0, "{dead:?}");
    assert!(dead.cpu_time_ns > 0, "{dead:?}");
}

#[test]
fn a_worker_that_something_else_reaped_is_lost_and_its_figures_are_not() {
    let mut handle = spawn(&config(WorkType::SpinWait, 1));
    handle.start();
    eventually("it iterates", || handle.snapshot_iterations()[0] > 0);
    let pid = handle.worker_pids()[0];
    let mut status = 0;
    // SAFETY: our own child; `status` is a place for the result.
    unsafe {
        libc::kill(pid, libc::SIGKILL);
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
    }
    handle.set_affinity(&one_cpu()).unwrap();
    let reports = handle.stop_and_collect();
    let Some(ExitInfo::Lost(why)) = &reports[0].exit_info else { panic!("{reports:?}") };
    assert!(why.contains("something else reaped it"), "{why}");
    assert!(reports[0].iterations > 0);
}

#[test]
fn all_threads_of_a_killed_process_leave_reports() {
    let mut threads = config(WorkType::futex_ping_pong(16), 4);
    threads.clone_mode = CloneMode::Thread;
    let mut handle = spawn(&threads);
    handle.start();
    eventually("all iterate", || handle.snapshot_iterations().iter().all(|&n| n > 3));
    let leader = handle.worker_pids_for_cgroup_procs().unwrap()[0];
    // SAFETY: our own child, not reaped yet.
    unsafe { libc::kill(leader, libc::SIGKILL) };
    eventually("it is dead", || handle.worker_pids_for_cgroup_procs().is_err());
    let reports = handle.stop_and_collect();
    assert_eq!(reports.len(), 4);
    for r in reports {
        assert_eq!(r.exit_info, Some(ExitInfo::Signaled { signal: libc::SIGKILL, by_deadline: false }));
        assert!(r.iterations > 3 && r.off_cpu_ns <= r.wall_time_ns, "{r:?}");
    }
}

#[test]
fn a_lost_partner_does_not_keep_the_other_from_stopping() {
    for work in [WorkType::futex_ping_pong(16), WorkType::pipe_io(16), WorkType::futex_fan_out(1, 16)] {
        let mut handle = spawn(&config(work, 2));
        handle.start();
        eventually("both iterate", || handle.snapshot_iterations().iter().all(|&n| n > 3));
        // SAFETY: our own child, not reaped yet.
        unsafe { libc::kill(handle.worker_pids()[0], libc::SIGKILL) };
        eventually("it is dead", || handle.worker_pids_for_cgroup_procs().is_err());
        let reports = handle.stop_and_collect();
        assert!(!reports[0].completed && reports[1].completed, "{reports:?}");
    }
}

#[test]
fn a_worker_that_will_not_stop_is_killed_and_says_so() {
    fn deaf(ctx: &dyn WorkerCtx) {
        loop {
            ctx.iteration();
            std::thread::sleep(MS);
        }
    }
    let mut handle = spawn(&config(WorkType::custom("deaf", deaf), 1));
    handle.start();
    let reports = handle.stop_and_collect();
    let expected = ExitInfo::Signaled { signal: libc::SIGKILL, by_deadline: true };
    assert_eq!(reports[0].exit_info, Some(expected));
    assert!(!reports[0].completed);
    let at_least = collect::STOP_DEADLINE.as_nanos() as u64;
    assert!(reports[0].wall_time_ns >= at_least, "{reports:?}");
}

#[test]
fn a_stopped_process_can_not_make_us_hang() {
    let mut handle = spawn(&config(WorkType::SpinWait, 1));
    handle.start();
    let pid = handle.worker_pids()[0];
    eventually("it runs", || handle.snapshot_iterations()[0] > 0);
    // SAFETY: our own child; stopped, it obeys nothing but SIGKILL, as in a frozen cgroup.
    unsafe { libc::kill(pid, libc::SIGSTOP) };
    let reports = handle.stop_and_collect();
    assert!(
        matches!(reports[0].exit_info, Some(ExitInfo::Signaled { by_deadline: true, .. })),
        "{reports:?}"
    );
    assert!(reports[0].max_gap_ms >= 4000, "it wanted to run until it was killed: {reports:?}");
}

#[test]
fn a_custom_function_counts_and_spins() {
    fn work(ctx: &dyn WorkerCtx) {
        while !ctx.stop_requested() {
            ctx.spin(1000);
            ctx.add_work(2);
            ctx.record_wake_latency_ns(500);
            ctx.iteration();
        }
    }
    let reports = run(&config(WorkType::custom("mine", work), 2), 20);
    assert_in_order(&reports);
    for r in reports {
        assert_eq!(r.work_units, 2 * r.iterations);
        assert_eq!(r.wake_latencies_ns.count(), r.iterations);
        assert_eq!((r.wake_latencies_ns.min(), r.wake_latencies_ns.max()), (Some(500), Some(500)));
    }
}

#[test]
fn a_panic_in_a_custom_function_is_reported() {
    fn work(ctx: &dyn WorkerCtx) {
        ctx.iteration();
        if ctx.index() == 1 {
            panic!("a worker's own panic, which this test expects");
        }
        while !ctx.stop_requested() {
            ctx.spin(1000);
        }
    }
    for clone_mode in [CloneMode::Fork, CloneMode::Thread] {
        let reports = run(&WorkloadConfig { clone_mode, ..config(WorkType::custom("panics", work), 2) }, 1);
        assert!(reports[0].completed, "{clone_mode:?}: {reports:?}");
        assert!(!reports[1].completed);
        assert_eq!(reports[1].exit_info, Some(ExitInfo::Exited(101)));
    }
}

#[test]
fn a_sequence_goes_through_its_phases() {
    let rest = [WorkPhase::Sleep(2 * MS), WorkPhase::Yield(MS), WorkPhase::Io(MS)];
    let reports = run(&config(WorkType::sequence(WorkPhase::Spin(MS), rest), 2), 3);
    assert_in_order(&reports);
    assert!(reports.iter().all(|r| r.wake_latencies_ns.count() >= 3), "{reports:?}");
}

#[test]
fn dropping_the_handle_kills_the_workers() {
    let mut handle = spawn(&config(WorkType::SpinWait, 2));
    handle.start();
    let pids = handle.worker_pids();
    drop(handle);
    assert!(pids.into_iter().all(is_gone), "killed and reaped");
}

#[test]
fn affinity_moves_workers_that_run() {
    let mut handle = spawn(&config(WorkType::SpinWait, 2));
    handle.start();
    handle.set_affinity(&one_cpu()).unwrap();
    let nowhere = CpuSet::from([4000]);
    let text = handle.set_affinity(&nowhere).unwrap_err().to_string();
    assert!(text.contains("worker 0") && text.contains("4000"), "{text}");
}

#[test]
fn a_failed_set_up_names_the_worker_and_the_step() {
    let mut nowhere = config(WorkType::SpinWait, 2);
    nowhere.affinity = AffinityIntent::Exact(CpuSet::from([4000]));
    let text = WorkloadHandle::spawn(&nowhere).unwrap_err().to_string();
    assert!(text.contains("setting up worker") && text.contains("CPU affinity to 4000"), "{text}");
}

#[test]
fn a_real_time_policy_is_applied_or_refused_by_name() {
    let mut fifo = config(WorkType::bursty(MS, 5 * MS), 1);
    fifo.sched_policy = SchedPolicy::Fifo(5);
    match WorkloadHandle::spawn(&fifo) {
        Ok(handle) => {
            // SAFETY: takes a pid.
            let policy = unsafe { libc::sched_getscheduler(handle.worker_pids()[0]) };
            assert_eq!(policy, libc::SCHED_FIFO);
        }
        Err(e) => assert!(e.to_string().contains("scheduling policy Fifo(5)"), "{e}"),
    }
}

#[test]
fn an_unprivileged_identity_is_set_last() {
    if !is_root() {
        return;
    }
    let mut nobody = config(WorkType::SpinWait, 1);
    (nobody.uid, nobody.gid, nobody.nice) = (Some(65534), Some(65534), Some(-5));
    let mut handle = spawn(&nobody);
    handle.start();
    let status = std::fs::read_to_string(format!("/proc/{}/status", handle.worker_pids()[0])).unwrap();
    let ids = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)).unwrap().trim().to_string();
    assert_eq!((ids("Uid:"), ids("Groups:")), ("65534\t65534\t65534\t65534".into(), String::new()));
    eventually("it runs", || handle.snapshot_iterations()[0] > 0);
    let reports = handle.stop_and_collect();
    assert_in_order(&reports);
}

#[test]
fn an_affinity_by_intent_needs_the_topology() {
    let mut llc = config(WorkType::SpinWait, 1);
    llc.affinity = AffinityIntent::LlcAligned;
    assert!(matches!(WorkloadHandle::spawn(&llc), Err(WorkerError::NeedsTopology("LlcAligned"))));
}

#[test]
fn the_port_collects_once() {
    let mut group = ForkedWorkers.spawn(&config(WorkType::SpinWait, 2), &[Some(one_cpu())]).unwrap();
    assert_eq!(group.pids().len(), 2);
    group.start();
    eventually("both iterate", || group.iterations().iter().all(|&n| n > 0));
    assert_eq!(group.stop_and_collect().len(), 2);
    assert_eq!(group.stop_and_collect().len(), 0);
    assert_eq!(group.pids(), [0; 0]);
}

#[test]
fn workers_die_with_the_thread_that_spawned_them() {
    let handle = std::thread::spawn(|| spawn(&config(WorkType::SpinWait, 1))).join().unwrap();
    eventually("it is dead", || handle.worker_pids_for_cgroup_procs().is_err());
}
