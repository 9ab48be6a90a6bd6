//! Panics and deadly signals of the test process, told to the host.
//!
//! A panic in the test's own thread is caught and judged by whoever called the
//! test; the hook remembers where it happened and its back-trace. Deadly signals
//! are noted by an async-signal-safe handler and reported by the watchdog thread.

use crate::{Channel, InitError, last_look, watchdog};
use ktstr_wire::Message;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};

const DEADLY: [Signal; 5] =
    [Signal::SIGSEGV, Signal::SIGBUS, Signal::SIGILL, Signal::SIGFPE, Signal::SIGABRT];

static SIGNAL: AtomicI32 = AtomicI32::new(0);
static ADDRESS: AtomicU64 = AtomicU64::new(0);
static INSTRUCTION: AtomicU64 = AtomicU64::new(0);
static THREAD: AtomicI32 = AtomicI32::new(0);

pub(crate) fn install(channel: Arc<Channel>) -> Result<(), InitError> {
    watchdog::start(Arc::clone(&channel), crashed)?;
    std::panic::set_hook(Box::new(move |info| report_panic(&channel, info)));
    let action = SigAction::new(
        SigHandler::SigAction(on_signal),
        SaFlags::SA_SIGINFO | SaFlags::SA_ONSTACK,
        SigSet::empty(),
    );
    for signal in DEADLY {
        // SAFETY: the handler makes async-signal-safe calls only.
        unsafe { sigaction(signal, &action) }
            .map_err(|e| InitError::os(format!("handling {signal}"))(e.into()))?;
    }
    Ok(())
}

/// A worker is forked from this process: its panics are its own business.
fn report_panic(channel: &Channel, info: &PanicHookInfo<'_>) {
    if std::process::id() != 1 {
        eprintln!("{info}");
        return;
    }
    let message = info
        .payload()
        .downcast_ref::<&str>()
        .map(ToString::to_string)
        .or_else(|| info.payload().downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a message".to_string());
    let location = info.location().map(ToString::to_string);
    let trace = Backtrace::capture();
    let backtrace =
        if trace.status() == BacktraceStatus::Captured { trace.to_string() } else { String::new() };
    last_look::take("when the test panicked");
    // The caller sees the panic too, and the host sees the machine end.
    let _ = channel.send(&Message::Panic { message, location, backtrace });
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // SAFETY: gettid and getpid are async-signal-safe and take nothing.
    let (pid, tid) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid) as i32) };
    if pid != 1 {
        die_of(signal);
    }
    if SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok() {
        if !info.is_null() {
            // SAFETY: the kernel passes a valid siginfo with SA_SIGINFO.
            ADDRESS.store(unsafe { (*info).si_addr() } as u64, Ordering::SeqCst);
        }
        INSTRUCTION.store(instruction(context), Ordering::SeqCst);
        THREAD.store(tid, Ordering::SeqCst);
        watchdog::wake();
    }
    // Returning would run the faulting instruction again; the watchdog ends the machine.
    loop {
        // SAFETY: pause(2) is async-signal-safe.
        unsafe { libc::pause() };
    }
}

/// In a forked child the signal does what it does by default.
fn die_of(signal: i32) -> ! {
    // SAFETY: async-signal-safe calls that end this process.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
        libc::raise(signal);
        libc::_exit(128 + signal)
    }
}

#[cfg(target_arch = "x86_64")]
fn instruction(context: *mut libc::c_void) -> u64 {
    if context.is_null() {
        return 0;
    }
    // SAFETY: with SA_SIGINFO the third argument is a valid ucontext_t.
    let context = unsafe { &*context.cast::<libc::ucontext_t>() };
    context.uc_mcontext.gregs[libc::REG_RIP as usize] as u64
}

#[cfg(not(target_arch = "x86_64"))]
fn instruction(_context: *mut libc::c_void) -> u64 {
    0
}

/// Asked by the watchdog.
fn crashed() -> Option<Message> {
    let signo = SIGNAL.load(Ordering::SeqCst);
    if signo == 0 {
        return None;
    }
    let tid = THREAD.load(Ordering::SeqCst);
    let thread = std::fs::read_to_string(format!("/proc/1/task/{tid}/comm")).unwrap_or_default();
    Some(Message::FatalSignal {
        signo,
        address: ADDRESS.load(Ordering::SeqCst),
        ip: INSTRUCTION.load(Ordering::SeqCst),
        thread: thread.trim().to_string(),
    })
}
