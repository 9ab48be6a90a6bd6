//! A forked process as its parent sees it, through a pidfd: its number can't be
//! mistaken for another process's, whoever reaps it.

use crate::sys::{self, Pid};
use std::io;
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Somebody else reaped it, so its status is lost.
    Unknown(String),
}

/// A child that is running or ended, and the workers in it.
pub(crate) struct Process {
    pid: Pid,
    fd: OwnedFd,
    /// The workers that it runs.
    pub(crate) workers: Range<usize>,
    exit: Option<Exit>,
}

impl Process {
    /// Takes charge of a child that was just forked.
    pub(crate) fn adopt(pid: Pid, workers: Range<usize>) -> io::Result<Self> {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|&fd| fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: a fresh descriptor that nobody else owns.
        Ok(Self { pid, fd: unsafe { OwnedFd::from_raw_fd(fd) }, workers, exit: None })
    }

    /// Its id.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// How it ended, once it was [reaped](Self::reap).
    pub(crate) fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// True once it has ended, reaped or not.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.is_some() || wait_any([self].into_iter(), Duration::ZERO)
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&self) {
        if self.has_ended() {
            return;
        }
        let (fd, none) = (self.fd.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: takes a descriptor, a number and no details. One that has ended
        // meanwhile is no failure.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0) };
    }

    /// Lets a killed thread run ahead of what starves it: it has to run to die.
    /// Without the privilege for that it dies when it gets to run.
    pub(crate) fn hasten(&self, tid: Pid) {
        if tid > 0 && !self.has_ended() {
            sys::make_urgent(tid);
        }
    }

    /// Wakes one of its threads out of a blocking call.
    pub(crate) fn nudge(&self, tid: Pid) {
        if !self.has_ended() && tid > 0 {
            sys::signal_thread(self.pid, tid, libc::SIGUSR1);
        }
    }

    /// Takes note of how it ended, if it has.
    pub(crate) fn reap(&mut self) {
        if self.exit.is_none() {
            self.exit = self.wait();
        }
    }

    fn wait(&self) -> Option<Exit> {
        let id = self.fd.as_raw_fd().cast_unsigned();
        // SAFETY: an all-zero siginfo is plain data, which the call fills when the
        // child has ended and leaves zero when it has not.
        let (result, info) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            (libc::waitid(libc::P_PIDFD, id, &raw mut info, libc::WEXITED | libc::WNOHANG), info)
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            if error.raw_os_error() == Some(libc::EINTR) {
                return None;
            }
            return Some(Exit::Unknown(format!(
                "waiting for pid {}: {error}; something else reaped it",
                self.pid
            )));
        }
        // SAFETY: for a child's state these fields are filled; zero otherwise.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        match info.si_code {
            _ if pid == 0 => None,
            libc::CLD_EXITED => Some(Exit::Code(status)),
            _ => Some(Exit::Signal(status)),
        }
    }
}

/// Waits until one of the processes has ended, at most `limit`. False when none has.
pub(crate) fn wait_any<'a>(processes: impl Iterator<Item = &'a Process>, limit: Duration) -> bool {
    let running = processes.filter(|p| p.exit.is_none());
    let mut fds: Vec<libc::pollfd> =
        running.map(|p| libc::pollfd { fd: p.fd.as_raw_fd(), events: libc::POLLIN, revents: 0 }).collect();
    let millis = i32::try_from(limit.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: the array has as many entries as it says. An interrupted call counts as
    // "none yet"; callers look again.
    unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, millis) > 0 }
}
