//! Locks that go with the process that holds them, however it ends (flock(2)).

use crate::TemplateError;
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

const RETRY: Duration = Duration::from_millis(10);

pub(crate) fn open(path: &Path) -> Result<File, TemplateError> {
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir).map_err(TemplateError::io("making", dir))?;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(TemplateError::io("opening", path))
}

/// True if the lock was free.
pub(crate) fn try_exclusive(file: &File, path: &Path) -> Result<bool, TemplateError> {
    taken(file.try_lock(), path)
}

/// True if nobody holds it exclusively.
pub(crate) fn try_shared(file: &File, path: &Path) -> Result<bool, TemplateError> {
    taken(file.try_lock_shared(), path)
}

/// Turns an exclusive lock into a shared one.
pub(crate) fn share(file: &File, path: &Path) -> Result<(), TemplateError> {
    file.lock_shared().map_err(TemplateError::io("locking", path))
}

pub(crate) fn release(file: &File, path: &Path) -> Result<(), TemplateError> {
    file.unlock().map_err(TemplateError::io("unlocking", path))
}

fn taken(result: Result<(), TryLockError>, path: &Path) -> Result<bool, TemplateError> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(TemplateError::io("locking", path)(error)),
    }
}

/// Waits until `attempt` has an answer; `None` when `limit` passes first.
pub(crate) fn wait<T>(
    limit: Duration,
    mut attempt: impl FnMut() -> Result<Option<T>, TemplateError>,
) -> Result<Option<T>, TemplateError> {
    let deadline = Instant::now() + limit;
    loop {
        match attempt()? {
            None if Instant::now() < deadline => std::thread::sleep(RETRY),
            answer => return Ok(answer),
        }
    }
}
