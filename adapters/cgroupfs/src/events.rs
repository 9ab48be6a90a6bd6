//! Waiting for a state in `cgroup.events`: the kernel wakes a `poll(2)` for
//! `POLLPRI` on every change of that file, so nothing is missed and nothing spins.

use crate::file;
use ktstr_scenario::ports::CgroupError;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// A cgroup's `cgroup.events`, held open.
pub(crate) struct Events<'a> {
    path: &'a Path,
    file: File,
}

impl<'a> Events<'a> {
    /// Opens the file at `path`.
    pub(crate) fn open(path: &'a Path) -> Result<Self, CgroupError> {
        let file = File::open(path).map_err(|e| file::io_error("opening", path, e))?;
        Ok(Self { path, file })
    }

    /// Waits until `key` is `wanted`; false when it is not after `limit`.
    pub(crate) fn wait_for(
        &mut self,
        key: &'static str,
        wanted: bool,
        limit: Duration,
    ) -> Result<bool, CgroupError> {
        let deadline = Instant::now() + limit;
        loop {
            // Read first: reading arms the notification for the next change.
            if self.value(key)? == wanted {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            self.wait_for_change(left)?;
        }
    }

    fn value(&mut self, key: &'static str) -> Result<bool, CgroupError> {
        let mut text = String::new();
        self.file
            .seek(SeekFrom::Start(0))
            .and_then(|_| self.file.read_to_string(&mut text))
            .map_err(|e| file::io_error("reading", self.path, e))?;
        parse(&text, key).ok_or_else(|| CgroupError::Content {
            path: self.path.display().to_string(),
            expected: if key == "frozen" {
                "a line `frozen 0` or `frozen 1`"
            } else {
                "a line `populated 0` or `populated 1`"
            },
            seen: text,
        })
    }

    fn wait_for_change(&self, limit: Duration) -> Result<(), CgroupError> {
        // Rounded up: a last fraction of a millisecond must not become a busy loop.
        let millis = u16::try_from(limit.as_millis() + 1).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.file.as_fd(), PollFlags::POLLPRI)];
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(file::io_error("polling", self.path, e.into())),
        }
    }
}

/// The value of `key` in lines of `key 0` and `key 1`.
fn parse(text: &str, key: &str) -> Option<bool> {
    text.lines().find_map(|line| match line.strip_prefix(key)?.strip_prefix(' ')?.trim() {
        "0" => Some(false),
        "1" => Some(true),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_matched_whole() {
        let text = "populated 1\nfrozen 0\n";
        assert_eq!(parse(text, "populated"), Some(true));
        assert_eq!(parse(text, "frozen"), Some(false));
        assert_eq!(parse(text, "froz"), None);
        assert_eq!(parse("frozen 2", "frozen"), None);
    }

    #[test]
    fn a_state_that_never_comes_is_false() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cgroup.events");
        std::fs::write(&path, "populated 1\nfrozen 0\n").unwrap();
        let mut events = Events::open(&path).unwrap();
        assert!(!events.wait_for("frozen", true, Duration::from_millis(10)).unwrap());
        assert!(events.wait_for("populated", true, Duration::ZERO).unwrap());
    }

    #[test]
    fn a_file_without_the_key_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cgroup.events");
        std::fs::write(&path, "nothing\n").unwrap();
        let err = Events::open(&path).unwrap().wait_for("frozen", true, Duration::ZERO).unwrap_err();
        assert!(err.to_string().contains("frozen 1"), "{err}");
    }
}
