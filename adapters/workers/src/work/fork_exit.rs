//! Forking, exiting, waiting.

use crate::meter::Meter;
use crate::sys;
use std::time::Duration;

/// Pause after a fork that the kernel refused (`pids.max`, memory).
const REFUSED_PAUSE: Duration = Duration::from_millis(1);

/// Forks a child that exits at once, waits for it, over and over.
pub(super) fn run(meter: &Meter<'_>) {
    while !meter.stop_requested() {
        match fork_and_exit() {
            Some(child) => {
                meter.about_to_wait();
                wait_for(child);
                meter.resume();
                meter.add_work(1);
                meter.add_iteration();
            }
            None => meter.sleep(REFUSED_PAUSE),
        }
        meter.tick();
    }
}

/// The plain system call: the C library's function would run its fork handlers,
/// which is no part of what is measured.
fn fork_and_exit() -> Option<sys::Pid> {
    let none = 0usize;
    // SAFETY: with no stack and no flags but the exit signal this is fork(2); the
    // child ends at once without touching anything.
    let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, none, none, none, none) };
    if child == 0 {
        // SAFETY: ends the child.
        unsafe { libc::_exit(0) }
    }
    sys::Pid::try_from(child).ok().filter(|&pid| pid > 0)
}

fn wait_for(child: sys::Pid) {
    let mut status = 0;
    // SAFETY: `status` is a valid place for the result. The child exits by itself, so
    // waiting on through signals ends.
    while unsafe { libc::waitpid(child, &raw mut status, 0) } < 0 && sys::errno() == libc::EINTR {}
}
