//! Locks on the host's LLCs and CPUs, among all processes that use the same directory: `flock` on files
//! `ktstr-llc-N.lock` and `ktstr-cpu-N.lock`, by the kernel's numbers.
//!
//! Who wants an LLC to itself holds its lock exclusively, everybody else on it shares the lock. A CPU's lock is always
//! exclusive, and whose it is not may still run there, unless the LLC is somebody's. Whoever looks for a place
//! has `ktstr-turn.lock` meanwhile, for as long as it waits: so places are found one after the other, and one who
//! wants LLCs to itself gets them once those who were there before have gone, whoever else comes.
//!
//! The kernel drops a lock with its holder, however that ends. The files stay: one that was deleted and made anew would be
//! another lock.

use ktstr_machine::{Budget, NoBudget, Placement, Share, choose};
use ktstr_topology::{CpuSet, TestTopology};
use std::collections::BTreeMap;
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
    /// To look for a place.
    Turn,
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Llc(llc) | Self::PartOfLlc(llc) => write!(f, "LLC {llc}"),
            Self::Cpu(cpu) => write!(f, "CPU {cpu}"),
            Self::Turn => f.write_str("the turn"),
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

/// A part of the host that others may be on as well, but nobody who wants it to itself.
#[derive(Debug)]
pub struct Part {
    /// Its CPUs and LLCs.
    pub budget: Budget,
    /// Nobody else who takes locks is on these CPUs.
    pub own: bool,
    /// Held until it is dropped.
    pub lease: Lease,
}

/// What became of an attempt to get a part.
#[derive(Debug)]
pub enum Shared {
    /// A part.
    Got(Part),
    /// None, as others have these to themselves.
    Busy(Vec<Wanted>),
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

    /// The turn to look for a place, unless somebody else has it; doesn't wait.
    ///
    /// # Errors
    /// A lock file that can't be made or opened.
    pub fn try_turn(&self) -> Result<Option<Lease>, LockError> {
        Ok(self.try_one(Wanted::Turn)?.map(|file| Lease { _files: vec![file] }))
    }

    /// That share of the host's CPUs among `usable`, on LLCs that nobody has to himself; CPUs that nobody else is on where
    /// there are as many. A window has fewer CPUs where others have the rest to themselves. Doesn't wait; whoever asks has
    /// the turn. `turn` as for [`choose`].
    ///
    /// # Errors
    /// A lock file that can't be made or opened; a budget that the host never has.
    pub fn try_share(
        &self,
        share: Share,
        host: &TestTopology,
        usable: &CpuSet,
        turn: usize,
    ) -> Result<Result<Shared, NoBudget>, LockError> {
        let (Share::Window(wanted) | Share::Budget(wanted)) = share;
        if let Err(never) = choose(host, usable, wanted, turn) {
            return Ok(Err(never));
        }
        let (mut llcs, mut open, mut busy) = (BTreeMap::new(), CpuSet::new(), Vec::new());
        for llc in host.llcs() {
            let cpus = llc.cpus.intersection(usable);
            if cpus.is_empty() {
                continue;
            }
            match self.try_one(Wanted::PartOfLlc(llc.id))? {
                Some(file) => {
                    llcs.insert(llc.id, file);
                    open.extend(&cpus);
                }
                None => busy.push(Wanted::Llc(llc.id)),
            }
        }
        let least = if matches!(share, Share::Window(_)) { 1 } else { wanted };
        if open.len() < least {
            return Ok(Ok(Shared::Busy(busy)));
        }
        let mut free = BTreeMap::new();
        for cpu in &open {
            if let Some(file) = self.try_one(Wanted::Cpu(cpu))? {
                free.insert(cpu, file);
            }
        }
        let own = free.len() >= wanted;
        let budget = match share {
            _ if own => choose(host, &free.keys().copied().collect(), wanted, turn),
            Share::Budget(_) => choose(host, &open, wanted, turn),
            // Where windows would overlap, the host's scheduler finds a CPU sooner among all.
            Share::Window(_) => Ok(Budget { cpus: open, llcs: llcs.keys().copied().collect() }),
        };
        Ok(budget.map(|budget| {
            llcs.retain(|llc, _| budget.llcs.contains(llc));
            free.retain(|cpu, _| own && budget.cpus.contains(*cpu));
            let files = llcs.into_values().chain(free.into_values()).collect();
            Shared::Got(Part { budget, own, lease: Lease { _files: files } })
        }))
    }

    fn try_one(&self, wanted: Wanted) -> Result<Option<File>, LockError> {
        let (name, shared) = match wanted {
            Wanted::Llc(llc) => (format!("ktstr-llc-{llc}.lock"), false),
            Wanted::PartOfLlc(llc) => (format!("ktstr-llc-{llc}.lock"), true),
            Wanted::Cpu(cpu) => (format!("ktstr-cpu-{cpu}.lock"), false),
            Wanted::Turn => ("ktstr-turn.lock".to_string(), false),
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
