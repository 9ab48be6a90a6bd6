//! The guest's bell in deterministic mode.
//!
//! A guest rings by writing more to its port than the pipe behind it holds. QEMU carries the
//! write out in the thread of the vCPUs and waits there until all of it was taken. In
//! deterministic mode there is one such thread for all vCPUs, so the guest stands still at an
//! instruction of its own, however long the host looks at it.

use ktstr_machine::MachineError;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

/// What the pipe holds: a page, the least there is.
const PIPE_BYTES: usize = 4096;
/// Bytes of one ring (guest-init writes as many): twice what the pipe holds.
const RING_BYTES: usize = 2 * PIPE_BYTES;
/// How long QEMU may take for the rest of a ring that it is in the middle of.
const PATIENCE: Duration = Duration::from_secs(20);

/// The host's end.
pub(crate) struct Bell(File);

impl Bell {
    /// The host's end, and the one that QEMU writes to.
    pub(crate) fn pair() -> Result<(Self, OwnedFd), MachineError> {
        let doing = || MachineError::os("making a pipe for the guest's bell");
        let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(|e| doing()(e.into()))?;
        let bytes =
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES as i32)).map_err(|e| doing()(e.into()))?;
        if bytes as usize >= RING_BYTES {
            let why = format!("it holds {bytes} bytes, expected fewer than {RING_BYTES}");
            return Err(doing()(std::io::Error::other(why)));
        }
        Ok((Self(File::from(reader)), writer))
    }

    /// Waits until the guest rings, and leaves it standing.
    pub(crate) fn wait(&mut self, patience: Duration) -> Result<(), MachineError> {
        let doing = || "waiting for the guest to ring".to_string();
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            match poll(&mut fds, timeout) {
                Ok(0) => return Err(MachineError::NoAnswer { doing: doing(), after: patience }),
                Ok(_) => {
                    let seen = fds[0].revents().unwrap_or(PollFlags::empty());
                    return if seen.contains(PollFlags::POLLIN) {
                        Ok(())
                    } else {
                        Err(MachineError::Gone { doing: doing() })
                    };
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(e) => return Err(MachineError::os(doing())(e.into())),
            }
        }
    }

    /// Takes one ring, upon which the guest goes on.
    pub(crate) fn take(&mut self) -> Result<(), MachineError> {
        let mut left = RING_BYTES;
        let mut buffer = [0; PIPE_BYTES];
        while left > 0 {
            self.wait(PATIENCE)?;
            let most = left.min(PIPE_BYTES);
            let taken = self.0.read(&mut buffer[..most]);
            left -= taken.map_err(MachineError::os("taking the guest's ring"))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_ring_waits_until_it_is_taken() {
        let (mut bell, end) = Bell::pair().unwrap();
        assert!(matches!(bell.wait(Duration::from_millis(1)), Err(MachineError::NoAnswer { .. })));
        let ringing = std::thread::spawn(move || File::from(end).write_all(&[0; RING_BYTES]));
        bell.wait(PATIENCE).unwrap();
        assert!(!ringing.is_finished(), "half a ring does not fit");
        bell.take().unwrap();
        ringing.join().unwrap().unwrap();
        assert!(matches!(bell.wait(PATIENCE), Err(MachineError::Gone { .. })));
    }
}
