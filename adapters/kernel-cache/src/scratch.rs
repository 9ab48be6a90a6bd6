//! Directories that are deleted when their owner is done or dead.
//!
//! The owner holds an flock on the directory itself. It goes with the process,
//! whatever kills it, and unlike a process id it can't be mistaken for that of
//! a later process or of one in another container.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use ktstr_kernel::ports::Scratch;

use crate::CacheError;

/// The start of every scratch directory's name.
const PREFIX: &str = ".tmp-";

/// How many names are tried before giving up; each is new unless a dead
/// process had our id.
const TRIES: u32 = 100;

/// Tells the scratch directories of this process apart.
static SERIAL: AtomicU32 = AtomicU32::new(0);

/// An empty directory of our own below the cache's root.
#[derive(Debug)]
pub(crate) struct ScratchDir {
    path: PathBuf,
    _lock: File,
}

impl ScratchDir {
    /// Makes `.tmp-{label}-{pid}-{n}` in `root`.
    pub(crate) fn create(root: &Path, label: &str) -> Result<Self, CacheError> {
        for _ in 0..TRIES {
            let path = fresh_name(root, label);
            match fs::create_dir(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(CacheError::io("making the directory", path)(error)),
            }
            // A sweeper may see the directory before it is locked and delete
            // it; then this one is lost and another is made.
            if let Some(lock) = claim(&path).map_err(CacheError::io("locking", &path))? {
                return Ok(Self { path, _lock: lock });
            }
        }
        let error = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(CacheError::io("making a scratch directory in", root)(error))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Scratch for ScratchDir {
    fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        // It may be gone: renamed to become an entry. If deleting fails, the
        // lock goes all the same and the next process sweeps it.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// A name in `root` that no living process uses.
pub(crate) fn fresh_name(root: &Path, label: &str) -> PathBuf {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    let pid = std::process::id();
    root.join(format!("{PREFIX}{label}-{pid}-{serial}"))
}

/// Locks the directory; `None` if somebody else has locked or deleted it.
fn claim(path: &Path) -> io::Result<Option<File>> {
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => return Ok(None),
        Err(fs::TryLockError::Error(error)) => return Err(error),
    }
    let same = match fs::symlink_metadata(path) {
        Ok(found) => found.ino() == lock.metadata()?.ino(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    Ok(same.then_some(lock))
}

/// Deletes what dead processes left in `root`. What can't be deleted (another
/// user's, say) is left for the next time: it only takes room.
pub(crate) fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else {
        return;
    };
    for entry in entries.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if ours
            && directory
            && let Ok(Some(_lock)) = claim(&entry.path())
        {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_directory_is_gone_with_all_in_it() {
        let root = tempfile::tempdir().expect("a directory");
        let scratch = ScratchDir::create(root.path(), "k").expect("made");
        let path = scratch.path().to_owned();
        fs::create_dir_all(path.join("a/b")).expect("made");
        drop(scratch);
        assert!(!path.exists());
    }

    #[test]
    fn sweeping_spares_the_living_and_what_is_not_scratch() {
        let root = tempfile::tempdir().expect("a directory");
        let alive = ScratchDir::create(root.path(), "k").expect("made");
        let dead = root.path().join(".tmp-k-1-0");
        let other = root.path().join("entry");
        for dir in [&dead, &other] {
            fs::create_dir_all(dir.join("inside")).expect("made");
        }
        sweep(root.path());
        assert!(alive.path().exists());
        assert!(other.exists());
        assert!(!dead.exists());
    }

    #[test]
    fn two_directories_of_one_label_are_two() {
        let root = tempfile::tempdir().expect("a directory");
        let a = ScratchDir::create(root.path(), "k").expect("made");
        let b = ScratchDir::create(root.path(), "k").expect("made");
        assert_ne!(a.path(), b.path());
    }

    #[test]
    fn a_claimed_directory_can_not_be_claimed_again() {
        let root = tempfile::tempdir().expect("a directory");
        let scratch = ScratchDir::create(root.path(), "k").expect("made");
        assert!(claim(scratch.path()).expect("readable").is_none());
        assert!(claim(&root.path().join("absent")).expect("no error").is_none());
    }
}
