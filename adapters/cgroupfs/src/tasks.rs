//! Processes of a cgroup: reading them, moving them, moving all of them out.

use crate::file;
use ktstr_scenario::ports::CgroupError;
use nix::errno::Errno;
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// A process id as `cgroup.procs` shows it.
type Pid = i32;

/// How often a move that finds the cgroup busy is tried again.
const BUSY_RETRIES: u32 = 3;

/// Time between two tries.
const BUSY_PAUSE: Duration = Duration::from_millis(100);

/// How long draining may chase processes that fork faster than they are moved.
const DRAIN_LIMIT: Duration = Duration::from_secs(2);

/// The processes in the cgroup at `dir`.
pub(crate) fn list(dir: &Path) -> Result<Vec<Pid>, CgroupError> {
    let path = dir.join("cgroup.procs");
    let text = file::read(&path)?;
    text.lines()
        .map(|line| {
            line.trim().parse().map_err(|_| CgroupError::Content {
                path: path.display().to_string(),
                expected: "a process id per line",
                seen: line.to_string(),
            })
        })
        .collect()
}

/// Moves one process; one that is gone already is fine.
pub(crate) fn move_one(dir: &Path, pid: Pid) -> Result<(), CgroupError> {
    let path = dir.join("cgroup.procs");
    if pid <= 0 {
        // The kernel takes 0 for the writer itself.
        let source = io::Error::new(io::ErrorKind::InvalidInput, "a process id is at least 1");
        return Err(file::io_error(&format!("moving process {pid} to"), &path, source));
    }
    let text = pid.to_string();
    let mut retries = 0;
    loop {
        match file::try_write(&path, &text) {
            Ok(()) => return Ok(()),
            Err(e) if e.errno() == Some(Errno::ESRCH as i32) => return Ok(()),
            Err(e) if e.errno() == Some(Errno::EBUSY as i32) && retries < BUSY_RETRIES => {
                retries += 1;
                thread::sleep(BUSY_PAUSE);
            }
            Err(e) => return Err(e.into_error(&path, &text)),
        }
    }
}

/// Moves all processes of `dir`, one below `root`, to [`refuge`].
pub(crate) fn drain(root: &Path, dir: &Path) -> Result<(), CgroupError> {
    let deadline = Instant::now() + DRAIN_LIMIT;
    let mut to = None;
    loop {
        let pids = list(dir)?;
        if pids.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let name = dir.strip_prefix(root).unwrap_or(dir).display().to_string();
            return Err(CgroupError::State { name, state: "empty of processes", after: DRAIN_LIMIT });
        }
        let to = match &to {
            Some(found) => found,
            None => to.insert(refuge(root, dir)?),
        };
        for pid in pids {
            // A process 0 is one of another pid namespace: it can't be named here.
            if pid > 0 {
                move_one(to, pid)?;
            }
        }
    }
}

/// The nearest cgroup above `dir` that may hold processes: one without
/// controllers enabled for its children, else `root`, which the rule does not
/// bind when it is the hierarchy's own root.
fn refuge(root: &Path, dir: &Path) -> Result<PathBuf, CgroupError> {
    for above in dir.ancestors().skip(1) {
        if above == root || !above.starts_with(root) {
            break;
        }
        if file::read(&above.join("cgroup.subtree_control"))?.trim().is_empty() {
            return Ok(above.to_path_buf());
        }
    }
    Ok(root.to_path_buf())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn cgroup(path: &Path, procs: &str, subtree: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("cgroup.procs"), procs).unwrap();
        fs::write(path.join("cgroup.subtree_control"), subtree).unwrap();
    }

    #[test]
    fn processes_are_read_one_a_line() {
        let dir = tempfile::tempdir().unwrap();
        cgroup(dir.path(), "12\n7\n", "");
        assert_eq!(list(dir.path()).unwrap(), [12, 7]);
        cgroup(dir.path(), "12\nx\n", "");
        assert!(list(dir.path()).unwrap_err().to_string().contains("\"x\""));
    }

    #[test]
    fn pid_zero_would_move_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        cgroup(dir.path(), "", "");
        let text = move_one(dir.path(), 0).unwrap_err().to_string();
        assert!(text.contains("moving process 0"), "{text}");
        assert_eq!(fs::read_to_string(dir.path().join("cgroup.procs")).unwrap(), "");
    }

    #[test]
    fn the_refuge_is_the_nearest_that_may_hold_processes() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        cgroup(root, "", "cpu");
        cgroup(&root.join("p"), "", "cpu cpuset");
        cgroup(&root.join("p/outer"), "", "");
        cgroup(&root.join("p/outer/inner"), "", "");
        assert_eq!(refuge(root, &root.join("p/outer/inner")).unwrap(), root.join("p/outer"));
        assert_eq!(refuge(root, &root.join("p/outer")).unwrap(), root);
    }
}
