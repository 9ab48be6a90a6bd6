//! Reading and writing cgroupfs files, with a time limit on writes.
//!
//! A write to cgroupfs can block in the kernel (a lock held by a stuck migration,
//! a reclaim that never ends). It is done on a thread of its own, so that the test
//! can say so instead of hanging.

use crate::hint;
use ktstr_scenario::ports::CgroupError;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// How long a write may take.
pub(crate) const WRITE_TIMEOUT: Duration = Duration::from_secs(2);

/// Why a write did not succeed, before it becomes a [`CgroupError`].
#[derive(Debug)]
pub(crate) enum WriteFailure {
    /// The kernel's answer.
    Io(io::Error),
    /// None within [`WRITE_TIMEOUT`].
    Timeout,
}

impl WriteFailure {
    /// The error number, where there is one.
    pub(crate) fn errno(&self) -> Option<i32> {
        match self {
            Self::Io(e) => e.raw_os_error(),
            Self::Timeout => None,
        }
    }

    /// The error to show: what was written where, and what to do about it.
    pub(crate) fn into_error(self, path: &Path, text: &str) -> CgroupError {
        let doing = format!("writing {:?} to", text.trim_end());
        match self {
            Self::Timeout => {
                CgroupError::Timeout { doing, path: path.display().to_string(), after: WRITE_TIMEOUT }
            }
            Self::Io(source) => {
                let hint = hint::for_write(path, &source);
                CgroupError::Io { doing, path: path.display().to_string(), hint, source }
            }
        }
    }
}

/// Writes `text` in one `write(2)`.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), CgroupError> {
    try_write(path, text).map_err(|e| e.into_error(path, text))
}

/// As [`write`], leaving the error open to a caller that knows what to make of it.
pub(crate) fn try_write(path: &Path, text: &str) -> Result<(), WriteFailure> {
    let (target, content) = (path.to_path_buf(), text.to_string());
    within(WRITE_TIMEOUT, move || write_once(&target, content.as_bytes()))
}

fn write_once(path: &Path, content: &[u8]) -> io::Result<()> {
    // No O_CREAT: a missing interface file must be ENOENT, not EPERM from kernfs.
    let mut file = OpenOptions::new().write(true).truncate(true).open(path)?;
    let written = file.write(content)?;
    if written == content.len() {
        Ok(())
    } else {
        Err(io::Error::new(io::ErrorKind::WriteZero, format!("{written} of {} bytes taken", content.len())))
    }
}

/// Runs `job` on a helper thread and gives it `limit`. A job that takes longer is
/// left behind with its thread: there is no way to pull it out of the kernel.
fn within(
    limit: Duration,
    job: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<(), WriteFailure> {
    let (sender, receiver) = mpsc::channel();
    let run = move || {
        // The receiver is gone after a timeout; then nobody wants the result.
        let _ = sender.send(job());
    };
    let helper = thread::Builder::new().name("cgroup-write".into()).spawn(run).map_err(WriteFailure::Io)?;
    match receiver.recv_timeout(limit) {
        Ok(result) => {
            // It has sent its result and is about to end; joining keeps the process
            // single-threaded again for the fork that may come next.
            let _ = helper.join();
            result.map_err(WriteFailure::Io)
        }
        Err(_) => Err(WriteFailure::Timeout),
    }
}

/// Reads a whole file.
pub(crate) fn read(path: &Path) -> Result<String, CgroupError> {
    fs::read_to_string(path).map_err(|source| io_error("reading", path, source))
}

/// An [`CgroupError::Io`] about a directory or a read.
pub(crate) fn io_error(doing: &str, path: &Path, source: io::Error) -> CgroupError {
    let hint = hint::for_access(path, &source);
    CgroupError::Io { doing: doing.to_string(), path: path.display().to_string(), hint, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_hangs_is_a_timeout() {
        let (_keep, never) = mpsc::channel::<()>();
        let result = within(Duration::from_millis(20), move || {
            let _ = never.recv();
            Ok(())
        });
        assert!(matches!(result, Err(WriteFailure::Timeout)), "{result:?}");
    }

    #[test]
    fn a_missing_file_is_not_created() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpu.max");
        let text = write(&path, "max 100000").unwrap_err().to_string();
        assert!(text.starts_with("writing \"max 100000\" to") && text.contains("No such file"), "{text}");
        assert!(!path.exists());
    }

    #[test]
    fn a_write_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cpu.weight");
        fs::write(&path, "10000").unwrap();
        write(&path, "5").unwrap();
        assert_eq!(read(&path).unwrap(), "5");
    }
}
