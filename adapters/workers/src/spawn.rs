//! Forking the workers of a plan and waiting until all are set up.

use crate::child::{self, ThreadSlot};
use crate::handle::Group;
use crate::plan::{Plan, os_error};
use crate::process::{Exit, Process, wait_any};
use crate::setup::{StepContext, describe};
use crate::shm::State;
use crate::sys;
use ktstr_scenario::ports::WorkerError;
use ktstr_topology::CpuSet;
use ktstr_workload::{CloneMode, WorkloadConfig};
use std::io;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::time::{Duration, Instant};

/// How long all workers together may take to set themselves up.
pub const READY_DEADLINE: Duration = Duration::from_secs(10);

/// How often a wait for readiness looks for workers that died.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Forks the workers of `config` and returns once all are ready. On an error those
/// already forked are killed.
pub(crate) fn spawn(config: &WorkloadConfig, affinity: &[Option<CpuSet>]) -> Result<Group, WorkerError> {
    let plan = Plan::new(config, affinity)?;
    let messengers = (0..config.num_workers).map(|i| plan.is_messenger(i)).collect();
    let contexts = (0..config.num_workers).map(|i| step_context(config, &plan, i)).collect();
    let mut group = Group::new(plan.mapping.clone(), messengers, contexts);
    match config.clone_mode {
        CloneMode::Fork => {
            for index in 0..config.num_workers {
                let workers = index..index + 1;
                let body = || child::run_process(&plan, index);
                group.processes.push(fork(workers, config.num_workers, body)?);
            }
        }
        CloneMode::Thread => group.processes.push(fork_leader(&plan, config.num_workers)?),
    }
    // The children have their copies; in the parent the pipes close here.
    drop(plan);
    wait_until_ready(&mut group)?;
    Ok(group)
}

fn fork_leader(plan: &Plan, workers: usize) -> Result<Process, WorkerError> {
    let slots: Vec<ThreadSlot> =
        (0..workers).map(|index| ThreadSlot { plan: ptr::from_ref(plan), index }).collect();
    let mut handles: Vec<libc::pthread_t> = vec![0; workers];
    fork(0..workers, workers, || child::run_leader(plan, &slots, &mut handles))
}

/// Forks; the child runs `body` and never returns.
fn fork(workers: Range<usize>, total: usize, body: impl FnOnce()) -> Result<Process, WorkerError> {
    let first = workers.start;
    let failed = |what: &str, source: io::Error| {
        let hint = match source.raw_os_error() {
            Some(libc::EAGAIN) => "; pids.max or RLIMIT_NPROC may be too low",
            Some(libc::ENOMEM) => "; memory is short",
            _ => "",
        };
        os_error(format!("{what} worker {first} of {total}"), hint, source)
    };
    let old = block_signals();
    // SAFETY: the child calls nothing but `body`, which uses only what was made
    // before the fork, makes system calls and ends in _exit. Signals stay blocked
    // until the child has dropped the parent's handlers.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // A panic must not unwind into the parent's code.
        let _ = catch_unwind(AssertUnwindSafe(body));
        child::exit(child::EXIT_FAILED);
    }
    let fork_error = io::Error::last_os_error();
    restore_signals(&old);
    if pid < 0 {
        return Err(failed("forking", fork_error));
    }
    Process::adopt(pid, workers).map_err(|e| {
        // Without a handle the child would be left behind.
        // SAFETY: the child is ours and not reaped, so the number is still its own.
        unsafe {
            libc::kill(pid, libc::SIGKILL);
            libc::waitpid(pid, ptr::null_mut(), 0);
        }
        failed("opening a pidfd for", e)
    })
}

fn block_signals() -> libc::sigset_t {
    // SAFETY: both sets are plain data, filled by the calls.
    unsafe {
        let (mut all, mut old): (libc::sigset_t, libc::sigset_t) = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut old);
        old
    }
}

fn restore_signals(old: &libc::sigset_t) {
    // SAFETY: `old` came from `block_signals`.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, ptr::from_ref(old), ptr::null_mut()) };
}

fn wait_until_ready(group: &mut Group) -> Result<(), WorkerError> {
    let total = group.mapping.workers();
    let begin = Instant::now();
    loop {
        if let Some(error) = first_failure(group) {
            return Err(error);
        }
        let settled = &group.mapping.control().settled;
        let seen = settled.load(Acquire);
        if count_ready(group) == total {
            return Ok(());
        }
        if begin.elapsed() >= READY_DEADLINE {
            return Err(not_ready(group, total));
        }
        sys::futex_wait(settled, seen, Some(LOOK_EVERY));
    }
}

fn count_ready(group: &Group) -> usize {
    let is_ready = |state: u32| State::from_number(state) == State::Ready;
    group.mapping.blocks().filter(|block| is_ready(block.state.load(Acquire))).count()
}

fn not_ready(group: &Group, total: usize) -> WorkerError {
    let late = group.mapping.blocks().enumerate().find(|(_, b)| b.state.load(Relaxed) == State::New as u32);
    let detail = late.map_or_else(String::new, |(index, block)| {
        let tid = block.tid.load(Relaxed);
        let seen =
            if tid == 0 { "has not run at all".into() } else { format!("(tid {tid}) is still being set up") };
        format!("; worker {index} {seen}: is another task keeping the CPUs?")
    });
    WorkerError::NotReady { ready: count_ready(group), total, after: READY_DEADLINE, detail }
}

/// The first worker that failed or died while being set up.
fn first_failure(group: &mut Group) -> Option<WorkerError> {
    // Ended processes first: their workers' last words are then complete.
    if wait_any(group.processes.iter(), Duration::ZERO) {
        group.processes.iter_mut().for_each(Process::reap);
    }
    for process in &group.processes {
        for index in process.workers.clone() {
            let block = group.mapping.worker(index);
            let what = match (State::from_number(block.state.load(Acquire)), process.exit()) {
                (State::Failed, _) => {
                    let (step, errno) = (block.fail_step.load(Relaxed), block.fail_errno.load(Relaxed));
                    describe(&group.contexts[index], step, errno)
                }
                (_, Some(exit)) => died(exit),
                (_, None) => continue,
            };
            return Some(WorkerError::Setup { index, pid: process.pid(), what });
        }
    }
    None
}

/// How a process ended that should still be there.
pub(crate) fn died(exit: &Exit) -> String {
    match exit {
        Exit::Code(code) => format!("it exited with code {code} before it could run"),
        Exit::Signal(signal) => format!("signal {signal} killed it before it could run (out of memory?)"),
        Exit::Unknown(why) => format!("it is gone before it could run: {why}"),
    }
}

fn step_context(config: &WorkloadConfig, plan: &Plan, index: usize) -> StepContext {
    let cpus = plan.affinity.get(index).and_then(Option::as_ref);
    StepContext {
        nice: config.nice,
        policy: format!("{:?}", config.sched_policy),
        cpus: cpus.map(|(set, _)| set.to_string()),
        mem_policy: format!("{:?} with flags {:#x}", config.mem_policy, config.mpol_flags.bits()),
        uid: config.uid,
        gid: config.gid,
    }
}
