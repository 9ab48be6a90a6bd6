//! Signals and processes: libc's part.

use crate::error::FixtureError;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// SIGUSR2 came since it was last asked for.
static STATE_WANTED: AtomicBool = AtomicBool::new(false);

/// The signals that ask for an end, taken in turn by [`Signals::wait`].
pub(crate) struct Signals(libc::sigset_t);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Nothing came.
    TimedOut,
    /// Someone asked for the end.
    Asked,
}

impl Signals {
    /// Takes SIGINT and SIGTERM, the latter is ignored if so wanted; SIGUSR2 asks for the state
    /// ([`asked_for_state`]) and cuts a wait short.
    pub(crate) fn take(ignore_sigterm: bool) -> Result<Self, FixtureError> {
        let mut set = std::mem::MaybeUninit::uninit();
        // SAFETY: sigemptyset initialises the set that the others then change; the signal
        // numbers are valid, so none of them can fail.
        let set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            if ignore_sigterm {
                libc::signal(libc::SIGTERM, libc::SIG_IGN);
            } else {
                libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            }
            set.assume_init()
        };
        handle_usr2()?;
        // SAFETY: the set is initialised, the old mask isn't wanted.
        match unsafe { libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) } {
            0 => Ok(Self(set)),
            _ => Err(last("blocking SIGINT and SIGTERM")),
        }
    }

    /// Waits for one of them, so long at most.
    pub(crate) fn wait(&self, at_most: Duration) -> Result<Wait, FixtureError> {
        let time = libc::timespec {
            tv_sec: at_most.as_secs() as libc::time_t,
            tv_nsec: at_most.subsec_nanos().into(),
        };
        // SAFETY: set and time are initialised and live through the call.
        if unsafe { libc::sigtimedwait(&self.0, std::ptr::null_mut(), &time) } > 0 {
            return Ok(Wait::Asked);
        }
        match io::Error::last_os_error() {
            error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(Wait::TimedOut),
            source => Err(FixtureError::System { doing: "waiting for a signal", source }),
        }
    }
}

/// Whether someone sent SIGUSR2 since the last call.
pub(crate) fn asked_for_state() -> bool {
    STATE_WANTED.swap(false, Ordering::Relaxed)
}

extern "C" fn note_usr2(_: libc::c_int) {
    STATE_WANTED.store(true, Ordering::Relaxed);
}

fn handle_usr2() -> Result<(), FixtureError> {
    // SAFETY: all zeroes is a valid sigaction: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = note_usr2;
    action.sa_sigaction = handler as libc::sighandler_t;
    // SAFETY: the handler only stores into an atomic, which a signal handler may.
    match unsafe { libc::sigaction(libc::SIGUSR2, &action, std::ptr::null_mut()) } {
        0 => Ok(()),
        _ => Err(last("handling SIGUSR2")),
    }
}

/// Goes on as a child of PID 1, with the same folder and streams.
pub(crate) fn daemonize() -> Result<(), FixtureError> {
    // SAFETY: no other thread was started yet.
    match unsafe { libc::daemon(1, 1) } {
        0 => Ok(()),
        _ => Err(last("going to the background")),
    }
}

/// Ends this process by a signal; what comes back says why it still lives.
pub(crate) fn die_of(number: i32) -> FixtureError {
    // SAFETY: only resets the signal's action and unblocks it, then sends it to this process.
    unsafe {
        libc::signal(number, libc::SIG_DFL);
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, number);
        libc::sigprocmask(libc::SIG_UNBLOCK, &set, std::ptr::null_mut());
        libc::raise(number);
    }
    FixtureError::System {
        doing: "dying of a signal",
        source: io::Error::other(format!("signal {number} doesn't end a process")),
    }
}

fn last(doing: &'static str) -> FixtureError {
    FixtureError::System { doing, source: io::Error::last_os_error() }
}
