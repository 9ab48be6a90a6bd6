//! Advisory file locks with a time limit and a name for the holder.
//!
//! flock(2): a lock belongs to an open file and goes with the last process
//! that has it open, so nothing has to be cleaned up after a kill.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use ktstr_kernel::ports::StoreError;

use crate::CacheError;

/// How often a held lock is tried again.
const POLL: Duration = Duration::from_millis(50);

/// Shared by readers or exclusive to a writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

/// A lock; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock file `path`, making it if need be. While somebody else holds
/// it, `on_wait` is called once with their name, then it is tried again until
/// `limit` has passed. `what` names the locked thing in the error.
pub(crate) fn acquire(
    path: &Path,
    mode: Mode,
    limit: Duration,
    what: &str,
    on_wait: &mut dyn FnMut(&str),
) -> Result<Lock, StoreError> {
    let file = open(path, mode).map_err(CacheError::io("opening the lock", path))?;
    let start = Instant::now();
    let mut told = false;
    loop {
        match try_lock(&file, mode) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => {
                return Err(CacheError::io("locking", path)(error).into());
            }
        }
        if start.elapsed() >= limit {
            return Err(StoreError::Busy {
                what: what.to_owned(),
                holder: holders(&file),
                waited_s: start.elapsed().as_secs(),
            });
        }
        if !told {
            on_wait(&holders(&file));
            told = true;
        }
        std::thread::sleep(POLL);
    }
}

/// A reader's lock needs no right to write, so that one user's cache can be
/// read by others.
fn open(path: &Path, mode: Mode) -> io::Result<File> {
    if mode == Mode::Shared
        && let Ok(file) = File::open(path)
    {
        return Ok(file);
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(path)
}

fn try_lock(file: &File, mode: Mode) -> Result<(), TryLockError> {
    match mode {
        Mode::Shared => file.try_lock_shared(),
        Mode::Exclusive => file.try_lock(),
    }
}

/// Who holds locks on `file`, as `process 123 (cargo-ktstr)`. A holder in
/// another container has no name here.
fn holders(file: &File) -> String {
    let named: io::Result<Vec<String>> = (|| {
        let inode = file.metadata()?.ino();
        let locks = std::fs::read_to_string("/proc/locks")?;
        Ok(lock_owners(&locks, inode).into_iter().map(describe).collect())
    })();
    match named {
        Ok(names) if !names.is_empty() => names.join(", "),
        _ => "another process".to_owned(),
    }
}

fn describe(pid: u32) -> String {
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(comm) => format!("process {pid} ({})", comm.trim_end()),
        Err(_) => format!("process {pid}"),
    }
}

/// The owners of flock locks on `inode` in the text of `/proc/locks`
/// (`lock_get_status` in fs/locks.c):
/// `1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF`. Lines with `->` are
/// waiters. The device is not compared: overlay and btrfs show another one
/// than stat(2).
fn lock_owners(locks: &str, inode: u64) -> Vec<u32> {
    let mut owners: Vec<u32> = locks
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [_, "FLOCK", _, _, pid, file, ..] = fields[..] else {
                return None;
            };
            let locked: u64 = file.rsplit(':').next()?.parse().ok()?;
            let pid: u32 = pid.parse().ok()?;
            (locked == inode && pid != 0).then_some(pid)
        })
        .collect();
    owners.sort_unstable();
    owners.dedup();
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_locks_names_holders_and_no_waiters() {
        let text = "1: FLOCK  ADVISORY  WRITE 1234 fe:00:5678 0 EOF\n\
                    1: -> FLOCK  ADVISORY  WRITE 99 fe:00:5678 0 EOF\n\
                    2: POSIX  ADVISORY  READ 42 fe:00:5678 0 EOF\n\
                    3: FLOCK  ADVISORY  READ 7 00:2d:5678 0 EOF\n\
                    4: FLOCK  ADVISORY  READ 8 00:2d:567 0 EOF\n\
                    garbage\n";
        assert_eq!(lock_owners(text, 5678), [7, 1234]);
    }

    #[test]
    fn a_held_lock_names_its_holder_and_gives_up_in_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("k.lock");
        let mut nobody = |holder: &str| panic!("waited for {holder}");
        let held = acquire(&path, Mode::Shared, Duration::ZERO, "k", &mut nobody).expect("free");
        // Readers share.
        acquire(&path, Mode::Shared, Duration::ZERO, "k", &mut nobody).expect("shared");
        let limit = Duration::from_millis(1);
        let mut told = Vec::new();
        let error = acquire(&path, Mode::Exclusive, limit, "the kernel k", &mut |h| {
            told.push(h.to_owned());
        })
        .expect_err("held");
        let me = format!("process {}", std::process::id());
        assert!(error.to_string().contains(&me), "{error}");
        assert!(error.to_string().contains("the kernel k"), "{error}");
        assert!(told[0].contains(&me), "{told:?}");
        drop(held);
        acquire(&path, Mode::Exclusive, Duration::ZERO, "k", &mut nobody).expect("free again");
    }
}
