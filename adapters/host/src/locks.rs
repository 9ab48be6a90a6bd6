//! Locks on the host's LLCs and CPUs, among all processes that use the same directory: `flock` on files
//! `ktstr-llc-N.lock` and `ktstr-cpu-N.lock`, by the kernel's numbers.
//!
//! The kernel drops a lock with its holder, however that ends. The files stay: one that was deleted and made anew would be
//! another lock.

use ktstr_machine::Placement;
use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A lock file that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("locking {path}: {source}; make the directory writable, or name another one with KTSTR_LOCK_DIR", path = path.display())]
pub struct LockError {
    path: PathBuf,
    source: Error,
}

/// A part of the host that somebody wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// An LLC, for a machine's vCPUs and nobody else.
    Llc(u32),
    /// An LLC, beside others that only want some of it.
    PartOfLlc(u32),
    /// A CPU and nobody else on it.
    Cpu(u32),
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Llc(llc) | Self::PartOfLlc(llc) => write!(f, "LLC {llc}"),
            Self::Cpu(cpu) => write!(f, "CPU {cpu}"),
        }
    }
}

/// Locks that are held until this is dropped.
#[derive(Debug)]
pub struct Lease {
    _files: Vec<File>,
}

/// What became of an attempt.
#[derive(Debug)]
pub enum Taken {
    /// All of it.
    All(Lease),
    /// Nothing, as somebody else has this.
    Busy(Wanted),
}

/// A directory of lock files.
#[derive(Debug, Clone)]
pub struct Locks {
    dir: PathBuf,
}

impl Locks {
    /// Those in `dir`, which is there.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// All that a placed machine uses, or nothing; doesn't wait.
    ///
    /// # Errors
    /// A lock file that can't be made or opened.
    pub fn try_take(&self, placement: &Placement) -> Result<Taken, LockError> {
        let llcs = placement.llcs.iter().map(|llc| Wanted::Llc(*llc));
        let shared = placement.shared_llc.map(Wanted::PartOfLlc);
        let cpus = placement.vcpus.iter().chain([&placement.rest]).map(|cpu| Wanted::Cpu(*cpu));
        let mut files = Vec::new();
        for wanted in llcs.chain(shared).chain(cpus) {
            match self.try_one(wanted)? {
                Some(file) => files.push(file),
                None => return Ok(Taken::Busy(wanted)),
            }
        }
        Ok(Taken::All(Lease { _files: files }))
    }

    fn try_one(&self, wanted: Wanted) -> Result<Option<File>, LockError> {
        let (name, shared) = match wanted {
            Wanted::Llc(llc) => (format!("ktstr-llc-{llc}.lock"), false),
            Wanted::PartOfLlc(llc) => (format!("ktstr-llc-{llc}.lock"), true),
            Wanted::Cpu(cpu) => (format!("ktstr-cpu-{cpu}.lock"), false),
        };
        let path = self.dir.join(name);
        let locked = open(&path).and_then(|file| {
            let locked = if shared { file.try_lock_shared() } else { file.try_lock() };
            match locked {
                Ok(()) => Ok(Some(file)),
                Err(TryLockError::WouldBlock) => Ok(None),
                Err(TryLockError::Error(e)) => Err(e),
            }
        });
        locked.map_err(|source| LockError { path, source })
    }
}

/// Other users' files do as well: a lock needs no right to write. In a directory for everybody a link would lead
/// to a file of its maker's choice, so none is followed.
fn open(path: &Path) -> Result<File, Error> {
    let existing = || OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).open(path);
    match existing() {
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o666).open(path);
            match made {
                // Somebody else was quicker.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => existing(),
                other => other,
            }
        }
        other => other,
    }
}
