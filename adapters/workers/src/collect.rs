//! Ending workers: asking, waiting, killing, reaping. Every wait is bounded.

use crate::handle::Group;
use crate::meter::{SchedstatValues, parse_schedstat};
use crate::process::{Process, wait_any};
use crate::report::{self, Ending};
use crate::shm::{Control, START_ABANDON, START_WAIT, WorkerBlock};
use crate::sys::{self, Pid};
use ktstr_workload::WorkerReport;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// How long workers have to stop by themselves.
pub const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How long a killed worker has to be gone. One in an uninterruptible sleep is left.
pub const KILL_DEADLINE: Duration = Duration::from_secs(2);

/// How often workers that may be blocked are signalled again.
const NUDGE_EVERY: Duration = Duration::from_millis(20);

/// Stops all workers and reports each, also those that died.
pub(crate) fn stop_and_collect(mut group: Group) -> Vec<WorkerReport> {
    let stop_asked_ns = request_stop(&mut group);
    wait_for_ends(&mut group, Instant::now() + STOP_DEADLINE);
    let late: Vec<bool> = group.processes.iter().map(|p| !p.has_ended()).collect();
    let killed_ns = sys::now_ns();
    // Read before the kill: the threads of a dead process are gone from /proc.
    let accounts: Vec<Option<SchedstatValues>> = unfinished_accounts(&group);
    kill(&mut group);
    let mut reports = Vec::with_capacity(group.mapping.workers());
    for (process, &by_deadline) in group.processes.iter().zip(&late) {
        for index in process.workers.clone() {
            let ending = Ending {
                exit: process.exit(),
                by_deadline,
                stop_asked_ns,
                killed_ns,
                account: accounts.get(index).copied().flatten(),
            };
            let report = report::build(&group, index, process.pid(), &ending);
            reports.push(report);
        }
    }
    reports
}

/// Tells the workers to stop and returns when they were first told.
pub(crate) fn request_stop(group: &mut Group) -> u64 {
    if let Some(asked) = group.stop_asked_ns {
        return asked;
    }
    let asked = ask_to_stop(group.mapping.control());
    group.stop_asked_ns = Some(asked);
    asked
}

/// Sets the stop flag; workers that were never released end without running.
fn ask_to_stop(control: &Control) -> u64 {
    control.stop.store(1, Release);
    if control.start.load(Relaxed) == START_WAIT {
        control.start.store(START_ABANDON, Release);
    }
    sys::futex_wake(&control.start, i32::MAX);
    sys::now_ns()
}

fn wait_for_ends(group: &mut Group, deadline: Instant) {
    loop {
        nudge_blocked(group);
        let running = || group.processes.iter().filter(|p| !p.has_ended());
        if running().next().is_none() || Instant::now() >= deadline {
            return;
        }
        wait_any(running(), NUDGE_EVERY.min(deadline.saturating_duration_since(Instant::now())));
    }
}

/// Signals each worker that still runs: a blocking call ends, and it sees the flag.
fn nudge_blocked(group: &Group) {
    for process in &group.processes {
        let blocks = process.workers.clone().map(|index| group.mapping.worker(index));
        blocks.filter_map(WorkerBlock::live_tid).for_each(|tid| process.nudge(tid));
    }
}

/// The scheduler's account of those workers that did not write it down themselves.
/// A process that has ended keeps its account until it is reaped.
fn unfinished_accounts(group: &Group) -> Vec<Option<SchedstatValues>> {
    let mut accounts = vec![None; group.mapping.workers()];
    for process in &group.processes {
        for index in process.workers.clone() {
            let block = group.mapping.worker(index);
            if block.schedstat_after.known.load(Acquire) == 0 {
                accounts[index] = read_account(process.pid(), block.tid.load(Relaxed));
            }
        }
    }
    accounts
}

fn read_account(pid: Pid, tid: Pid) -> Option<SchedstatValues> {
    // A kernel without schedstats has no such file: the report then says `None`.
    let text = std::fs::read(format!("/proc/{pid}/task/{tid}/schedstat")).ok()?;
    parse_schedstat(&text)
}

/// Kills and reaps all workers, waiting at most [`KILL_DEADLINE`].
pub(crate) fn kill(group: &mut Group) {
    let Group { mapping, processes, .. } = group;
    for process in processes.iter() {
        process.kill();
        process.hasten(process.pid());
        let blocks = process.workers.clone().map(|index| mapping.worker(index));
        blocks.filter_map(WorkerBlock::live_tid).for_each(|tid| process.hasten(tid));
    }
    let deadline = Instant::now() + KILL_DEADLINE;
    loop {
        processes.iter_mut().for_each(Process::reap);
        let left = deadline.saturating_duration_since(Instant::now());
        if processes.iter().all(|p| p.exit().is_some()) || left.is_zero() {
            return;
        }
        wait_any(processes.iter(), left.min(NUDGE_EVERY));
    }
}
