//! A worker's life after the fork: shed what it inherited, set itself up, wait for
//! the release, work, write down the result, exit.
//!
//! The parent may have had other threads, whose locks stay locked here for ever. So
//! nothing here allocates, prints through the standard library or returns to the
//! caller's code; `_exit(2)` ends it.

use crate::meter::{Meter, Schedstat};
use crate::plan::Plan;
use crate::setup::{self, StepError, StepKind};
use crate::shm::{START_ABANDON, START_WAIT, State, WorkerBlock};
use crate::{sys, work};
use ktstr_workload::WorkType;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

/// Exit code after a panic, as the standard library has it.
pub(crate) const EXIT_PANICKED: i32 = 101;

/// Exit code after a step that failed.
pub(crate) const EXIT_FAILED: i32 = 102;

/// Stack of a worker thread, bytes; what the standard library gives its threads.
const THREAD_STACK: usize = 2 << 20;

/// What a worker thread is given. Made before the fork.
pub(crate) struct ThreadSlot {
    /// The plan, in memory that lives as long as the process.
    pub(crate) plan: *const Plan,
    /// Which worker it is.
    pub(crate) index: usize,
}

/// Runs worker `index` as this process.
pub(crate) fn run_process(plan: &Plan, index: usize) -> ! {
    shed_inheritance(plan);
    let code = run_worker(plan, index, true);
    exit(code)
}

/// Runs all workers as threads of this process. The calling thread only waits.
pub(crate) fn run_leader(plan: &Plan, slots: &[ThreadSlot], handles: &mut [libc::pthread_t]) -> ! {
    shed_inheritance(plan);
    if let Some(comm) = &plan.comm {
        // Its threads set the name again, and report a failure.
        let _ = sys::prctl(libc::PR_SET_NAME, comm.as_ptr() as libc::c_ulong);
    }
    let mut started = 0;
    for (slot, handle) in slots.iter().zip(handles.iter_mut()) {
        match start_thread(slot, handle) {
            Ok(()) => started += 1,
            Err(errno) => {
                let error = StepError { kind: StepKind::Thread, errno };
                fail(plan.mapping.worker(slot.index), error);
                settle(plan);
                break;
            }
        }
    }
    for handle in &handles[..started] {
        // SAFETY: a thread that was started and not joined yet.
        unsafe { libc::pthread_join(*handle, ptr::null_mut()) };
    }
    exit(if started == slots.len() { 0 } else { EXIT_FAILED })
}

fn start_thread(slot: &ThreadSlot, handle: &mut libc::pthread_t) -> Result<(), i32> {
    // SAFETY: an attribute object is plain data that init fills.
    let mut attr: libc::pthread_attr_t = unsafe { std::mem::zeroed() };
    let argument = ptr::from_ref(slot).cast_mut().cast();
    // SAFETY: the attributes are initialised before use; the slot outlives the
    // thread, as the caller joins it and never returns.
    let result = unsafe {
        libc::pthread_attr_init(&raw mut attr);
        libc::pthread_attr_setstacksize(&raw mut attr, THREAD_STACK);
        libc::pthread_create(handle, &raw const attr, thread_main, argument)
    };
    if result == 0 { Ok(()) } else { Err(result) }
}

extern "C" fn thread_main(argument: *mut libc::c_void) -> *mut libc::c_void {
    // SAFETY: `start_thread` passes a slot that outlives this thread, as does the plan.
    let (plan, index) = unsafe {
        let slot = &*argument.cast::<ThreadSlot>();
        (&*slot.plan, slot.index)
    };
    run_worker(plan, index, false);
    ptr::null_mut()
}

/// Resets what a fork hands down: signal handlers and mask; and dies with the parent.
fn shed_inheritance(plan: &Plan) {
    for signal in 1..32 {
        set_handler(signal, libc::SIG_DFL);
    }
    set_handler(libc::SIGPIPE, libc::SIG_IGN);
    let nothing: extern "C" fn(libc::c_int) = ignore_signal;
    set_handler(libc::SIGUSR1, nothing as libc::sighandler_t);
    // SAFETY: an all-zero set is plain data that sigemptyset fills; the mask of this
    // thread is its own business.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
    die_with_parent(plan);
}

fn die_with_parent(plan: &Plan) {
    let armed = sys::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as libc::c_ulong);
    // SAFETY: takes nothing. A parent that died before the call above sends nothing.
    if armed.is_err() || unsafe { libc::getppid() } != plan.parent {
        exit(EXIT_FAILED);
    }
}

/// Does nothing; its arrival ends a blocking call, so that the stop flag is seen.
extern "C" fn ignore_signal(_signal: libc::c_int) {}

fn set_handler(signal: libc::c_int, handler: libc::sighandler_t) {
    // SAFETY: an all-zero sigaction is valid: no flags (so blocking calls are not
    // restarted), an empty mask; the handler is SIG_DFL, SIG_IGN or a function that
    // touches nothing. SIGKILL and SIGSTOP refuse, which is fine.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        libc::sigaction(signal, &raw const action, ptr::null_mut());
    }
}

/// Ends the process without running anything of the parent's.
pub(crate) fn exit(code: i32) -> ! {
    // SAFETY: ends the process at once; nothing is flushed or dropped.
    unsafe { libc::_exit(code) }
}

/// One worker from set-up to its last figure. Returns an exit code.
fn run_worker(plan: &Plan, index: usize, is_process: bool) -> i32 {
    let block = plan.mapping.worker(index);
    block.tid.store(sys::gettid(), Relaxed);
    // Opened first: after a change of identity the file may be out of reach.
    let schedstat = Schedstat::open_own();
    if let Err(error) = setup::apply(plan, index) {
        fail(block, error);
        settle(plan);
        return EXIT_FAILED;
    }
    if is_process && plan.uid.or(plan.gid).is_some() {
        // The kernel forgets the parent-death signal when the identity changes.
        die_with_parent(plan);
    }
    if !wait_for_release(plan, block, &schedstat) {
        block.state.store(State::Done as u32, Release);
        return 0;
    }
    let meter = Meter::begin(plan.mapping.control(), block, &schedstat, plan.rate);
    if let WorkType::Custom { .. } = plan.work {
        hook_panics();
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| work::run(plan, index, &meter)));
    meter.end();
    schedstat.store(&block.schedstat_after);
    match outcome {
        Ok(Ok(())) => {
            block.state.store(State::Done as u32, Release);
            0
        }
        Ok(Err(error)) => {
            fail(block, error);
            EXIT_FAILED
        }
        Err(_) => {
            block.state.store(State::Panicked as u32, Release);
            EXIT_PANICKED
        }
    }
}

fn fail(block: &WorkerBlock, error: StepError) {
    block.fail_step.store(error.kind as u32, Relaxed);
    block.fail_errno.store(error.errno, Relaxed);
    block.state.store(State::Failed as u32, Release);
}

/// Tells the parent that one more worker is ready or has failed.
fn settle(plan: &Plan) {
    let settled = &plan.mapping.control().settled;
    settled.fetch_add(1, AcqRel);
    sys::futex_wake(settled, 1);
}

/// Takes the first figures and waits. False when there is nothing to run after all.
fn wait_for_release(plan: &Plan, block: &WorkerBlock, schedstat: &Schedstat) -> bool {
    schedstat.store(&block.schedstat_before);
    block.cpu_before_ns.store(sys::thread_cpu_ns(), Relaxed);
    block.state.store(State::Ready as u32, Release);
    settle(plan);
    let start = &plan.mapping.control().start;
    while start.load(Acquire) == START_WAIT {
        sys::futex_wait(start, START_WAIT, None);
    }
    if start.load(Acquire) == START_ABANDON {
        return false;
    }
    block.state.store(State::Running as u32, Relaxed);
    true
}

/// Prints a panic of a user's function without the standard library's locks and
/// without the back-trace, which takes seconds in an emulated guest.
fn hook_panics() {
    std::panic::set_hook(Box::new(|info| {
        use std::fmt::Write;
        let mut line = Line { bytes: [0; 512], len: 0 };
        let _ = write!(line, "worker {}: {info}", sys::gettid());
        let _ = line.write_str("\n");
        // SAFETY: the buffer has `len` readable bytes. A failed write has nowhere to go.
        unsafe { libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len) };
    }));
}

/// A line of text on the stack; what does not fit is cut off.
struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl std::fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let free = &mut self.bytes[self.len..];
        let count = text.len().min(free.len());
        free[..count].copy_from_slice(&text.as_bytes()[..count]);
        self.len += count;
        Ok(())
    }
}
