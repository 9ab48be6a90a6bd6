//! From a worker's block in shared memory, and how it ended, to its report.

use crate::child::EXIT_PANICKED;
use crate::handle::Group;
use crate::meter::SchedstatValues;
use crate::process::Exit;
use crate::setup::describe;
use crate::shm::{DUE_NEVER, DUE_NOW, SchedstatSlot, State, WorkerBlock};
use crate::sys::Pid;
use ktstr_topology::CpuSet;
use ktstr_workload::{ExitInfo, LatencyHistogram, MAX_MIGRATIONS, Migration, WorkerReport};
use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// How a worker's process ended.
pub(crate) struct Ending<'a> {
    /// Its exit; `None` when it could not be reaped.
    pub(crate) exit: Option<&'a Exit>,
    /// True when it did not stop in time and was killed.
    pub(crate) by_deadline: bool,
    /// When it was asked to stop.
    pub(crate) stop_asked_ns: u64,
    /// When it was killed, if it was.
    pub(crate) killed_ns: u64,
    /// The scheduler's account, read by the parent.
    pub(crate) account: Option<SchedstatValues>,
}

/// The report of worker `index`.
pub(crate) fn build(group: &Group, index: usize, pid: Pid, ending: &Ending<'_>) -> WorkerReport {
    let block = group.mapping.worker(index);
    let state = State::from_number(block.state.load(Acquire));
    let started_ns = group.mapping.control().started_at_ns.load(Relaxed);
    // Workers that were never released have measured nothing.
    let account = if started_ns > 0 { account(block, ending) } else { None };
    let cpu_time_ns = cpu_time(block, account);
    // The last look at the clock of a worker that was killed may lie before its end.
    let wall_time_ns = wall_time(block, state, started_ns, ending).max(cpu_time_ns);
    let gap = longest_gap(block, state, started_ns, ending);
    WorkerReport {
        tid: block.tid.load(Relaxed),
        index: u32::try_from(index).unwrap_or(u32::MAX),
        group_idx: 0,
        is_messenger: group.messengers.get(index).copied().unwrap_or(false),
        work_units: block.work_units.load(Relaxed),
        iterations: block.iterations.load(Relaxed),
        cpu_time_ns,
        wall_time_ns,
        off_cpu_ns: wall_time_ns.saturating_sub(cpu_time_ns),
        migration_count: block.migration_count.load(Relaxed),
        migrations: migrations(block),
        cpus_used: cpus_used(block),
        max_gap_ms: gap.ns / 1_000_000,
        max_gap_cpu: gap.cpu,
        max_gap_at_ms: gap.at_ns / 1_000_000,
        wake_latencies_ns: wake_latencies(block),
        schedstat_run_delay_ns: account.map(|a| a.run_delay_ns),
        schedstat_run_count: account.map(|a| a.run_count),
        schedstat_cpu_time_ns: account.map(|a| a.cpu_ns),
        completed: state == State::Done,
        exit_info: exit_info(group, index, pid, state, ending),
        numa_pages: numa_pages(block),
    }
}

/// From the release to the stop; for a worker that did not finish to the kill, or to
/// the last time that it was seen.
fn wall_time(block: &WorkerBlock, state: State, started_ns: u64, ending: &Ending<'_>) -> u64 {
    if started_ns == 0 {
        return 0;
    }
    let stopped_ns = block.stopped_at_ns.load(Relaxed);
    let end = match state {
        _ if stopped_ns > 0 => stopped_ns,
        _ if ending.by_deadline => ending.killed_ns,
        _ => block.last_seen_ns.load(Relaxed),
    };
    end.saturating_sub(started_ns)
}

/// What the scheduler says of the run: the worker's own last reading, else the
/// parent's, less the reading before the release.
fn account(block: &WorkerBlock, ending: &Ending<'_>) -> Option<SchedstatValues> {
    let after = stored(&block.schedstat_after).or(ending.account)?;
    let before = stored(&block.schedstat_before).unwrap_or_default();
    Some(SchedstatValues {
        cpu_ns: after.cpu_ns.saturating_sub(before.cpu_ns),
        run_delay_ns: after.run_delay_ns.saturating_sub(before.run_delay_ns),
        run_count: after.run_count.saturating_sub(before.run_count),
    })
}

fn stored(slot: &SchedstatSlot) -> Option<SchedstatValues> {
    (slot.known.load(Acquire) != 0).then(|| SchedstatValues {
        cpu_ns: slot.cpu_ns.load(Relaxed),
        run_delay_ns: slot.run_delay_ns.load(Relaxed),
        run_count: slot.run_count.load(Relaxed),
    })
}

/// The worker's own last reading of its CPU clock; the scheduler's account where
/// that is further, as it is for a worker that was killed.
fn cpu_time(block: &WorkerBlock, account: Option<SchedstatValues>) -> u64 {
    let own = block.cpu_after_ns.load(Relaxed).saturating_sub(block.cpu_before_ns.load(Relaxed));
    if block.stopped_at_ns.load(Relaxed) > 0 { own } else { own.max(account.map_or(0, |a| a.cpu_ns)) }
}

struct Gap {
    ns: u64,
    cpu: u32,
    at_ns: u64,
}

/// The longest gap, counting the one that was still open when a worker was killed
/// for not stopping: a worker that never ran again has no later look at the clock.
fn longest_gap(block: &WorkerBlock, state: State, started_ns: u64, ending: &Ending<'_>) -> Gap {
    let closed = Gap {
        ns: block.max_gap_ns.load(Relaxed),
        cpu: block.max_gap_cpu.load(Relaxed),
        at_ns: block.max_gap_at_ns.load(Relaxed),
    };
    let is_open = ending.by_deadline && matches!(state, State::Ready | State::Running) && started_ns > 0;
    if !is_open {
        return closed;
    }
    let wanted_since = match block.due_ns.load(Relaxed) {
        DUE_NOW => block.last_seen_ns.load(Relaxed).max(started_ns),
        // It waited for somebody; from the stop on it should have run.
        DUE_NEVER => ending.stop_asked_ns,
        due => due.min(ending.stop_asked_ns),
    };
    let open_ns = ending.killed_ns.saturating_sub(wanted_since);
    if open_ns <= closed.ns {
        return closed;
    }
    Gap { ns: open_ns, cpu: closed.cpu, at_ns: ending.killed_ns.saturating_sub(started_ns) }
}

fn exit_info(group: &Group, index: usize, pid: Pid, state: State, ending: &Ending<'_>) -> Option<ExitInfo> {
    let block = group.mapping.worker(index);
    match (state, ending.exit) {
        (State::Done, _) => None,
        (State::Panicked, _) => Some(ExitInfo::Exited(EXIT_PANICKED)),
        (State::Failed, _) => {
            let (step, errno) = (block.fail_step.load(Relaxed), block.fail_errno.load(Relaxed));
            Some(ExitInfo::SetupFailed(describe(&group.contexts[index], step, errno)))
        }
        (_, Some(Exit::Code(code))) => Some(ExitInfo::Exited(*code)),
        (_, Some(Exit::Signal(signal))) => {
            Some(ExitInfo::Signaled { signal: *signal, by_deadline: ending.by_deadline })
        }
        (_, Some(Exit::Unknown(why))) => Some(ExitInfo::Lost(why.clone())),
        (_, None) => Some(ExitInfo::Lost(format!("pid {pid} did not end after SIGKILL; it was left behind"))),
    }
}

fn migrations(block: &WorkerBlock) -> Vec<Migration> {
    let count = usize::try_from(block.migration_count.load(Relaxed)).unwrap_or(MAX_MIGRATIONS);
    let slots = block.migrations.iter().take(count);
    slots
        .map(|slot| Migration {
            at_ns: slot.at_ns.load(Relaxed),
            from: slot.from.load(Relaxed),
            to: slot.to.load(Relaxed),
        })
        .collect()
}

fn cpus_used(block: &WorkerBlock) -> CpuSet {
    let words = (0u32..).zip(block.cpus_used.iter().map(|word| word.load(Relaxed)));
    words
        .flat_map(|(i, word)| (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| i * 64 + bit))
        .collect()
}

fn wake_latencies(block: &WorkerBlock) -> LatencyHistogram {
    let counts: Vec<u64> = block.wake_buckets.iter().map(|b| b.load(Relaxed)).collect();
    let (sum, max) = (block.wake_sum.load(Relaxed), block.wake_max.load(Relaxed));
    // Stored one higher, so that zero can mean "none".
    let min = block.wake_min.load(Relaxed).saturating_sub(1);
    LatencyHistogram::from_counts(&counts, sum, min, max)
}

fn numa_pages(block: &WorkerBlock) -> BTreeMap<u32, u64> {
    let loaded = (0u32..).zip(block.node_pages.iter().map(|n: &AtomicU64| n.load(Relaxed)));
    loaded.filter(|&(_, pages)| pages > 0).collect()
}
