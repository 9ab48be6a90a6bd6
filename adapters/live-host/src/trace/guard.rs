//! A process that takes a trace instance away when its parent ends without doing so.
//!
//! Forked and never exec'd: between fork and its end it makes system calls only, on memory that was prepared before,
//! since other threads of the parent may have held any lock.

use std::ffi::{CStr, CString};
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A file of a dying process may hold the instance for a moment longer than the process itself.
const TRIES: usize = 100;
static BETWEEN: libc::timespec = libc::timespec { tv_sec: 0, tv_nsec: 50_000_000 };
/// Descriptors that are closed one by one on a kernel without close_range(2) (before 5.9).
const DESCRIPTORS: libc::c_int = 4096;

/// The process, until it is stopped.
#[derive(Debug)]
pub(super) struct Guard {
    pid: libc::pid_t,
    /// Names it even after somebody else has waited for it.
    handle: OwnedFd,
}

impl Guard {
    /// Watches this process, for that directory.
    pub(super) fn start(instance: &Path) -> Result<Self> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(Error::from);
        let (folder, switch) = (text(instance)?, text(&instance.join("tracing_on"))?);
        // SAFETY: a system call without pointers.
        let own = pidfd(unsafe { libc::getpid() })?;
        // SAFETY: the child makes system calls only, and never returns.
        match unsafe { libc::fork() } {
            -1 => Err(Error::last_os_error()),
            0 => watch(own.as_raw_fd(), &folder, &switch),
            pid => Ok(Self { pid, handle: pidfd(pid)? }),
        }
    }

    /// Stops it; the instance is the caller's then.
    pub(super) fn stop(self) {
        drop(self);
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (fd, none) = (self.handle.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: system calls on a descriptor of ours and on a status that nobody wants. That it has gone already, or
        // that another has waited for it, is as good.
        unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, 0);
            while libc::waitpid(self.pid, std::ptr::null_mut(), 0) == -1
                && Error::last_os_error().raw_os_error() == Some(libc::EINTR)
            {}
        }
    }
}

fn pidfd(pid: libc::pid_t) -> Result<OwnedFd> {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, libc::c_long::from(pid), 0) };
    if fd < 0 {
        return Err(Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// The child: waits for the end of `parent`, then removes the instance.
fn watch(parent: libc::c_int, folder: &CStr, switch: &CStr) -> ! {
    // SAFETY: system calls on numbers and on strings that outlive them; no memory is allocated, no lock taken.
    unsafe {
        // Signals to the parent's group are not for this one.
        libc::setsid();
        libc::prctl(libc::PR_SET_NAME, c"ktstr-trace".as_ptr());
        // Whoever reads what the parent writes must not wait for this process.
        libc::dup2(parent, 0);
        if libc::syscall(libc::SYS_close_range, 1, libc::c_uint::MAX, 0) != 0 {
            for fd in 1..DESCRIPTORS {
                libc::close(fd);
            }
        }
        let mut ended = libc::pollfd { fd: 0, events: libc::POLLIN, revents: 0 };
        while libc::poll(&raw mut ended, 1, -1) != 1 {}
        let fd = libc::open(switch.as_ptr(), libc::O_WRONLY);
        if fd >= 0 {
            libc::write(fd, c"0".as_ptr().cast(), 1);
            libc::close(fd);
        }
        for _ in 0..TRIES {
            if libc::rmdir(folder.as_ptr()) == 0 || *libc::__errno_location() == libc::ENOENT {
                break;
            }
            libc::nanosleep(&raw const BETWEEN, std::ptr::null_mut());
        }
        libc::_exit(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn the_directory_goes_when_the_process_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let instance = dir.path().join("instance");
        std::fs::create_dir(&instance).unwrap();
        // SAFETY: the child makes system calls and a guard, which allocates: no other thread of it holds a lock of the
        // allocator for good, as glibc sees to that in fork.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            let guard = Guard::start(&instance);
            // SAFETY: kill(2) of ourselves.
            unsafe { libc::kill(libc::getpid(), if guard.is_ok() { libc::SIGKILL } else { libc::SIGTERM }) };
            unreachable!("nobody survives SIGKILL");
        }
        let mut status = 0;
        // SAFETY: a child of ours and a place for its status.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        assert_eq!(libc::WTERMSIG(status), libc::SIGKILL, "the guard could not be started");
        let deadline = Instant::now() + Duration::from_secs(20);
        while instance.exists() {
            assert!(Instant::now() < deadline, "the directory is still there");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_guard_that_is_stopped_takes_nothing_away() {
        let dir = tempfile::tempdir().unwrap();
        let guard = Guard::start(dir.path()).unwrap();
        let pid = guard.pid;
        guard.stop();
        assert!(dir.path().exists() && !Path::new(&format!("/proc/{pid}")).exists());
    }
}
