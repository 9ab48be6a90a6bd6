//! What this process may use, looked up anew with every call.

use ktstr_topology::CpuSet;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// A file of the host's kernel that is not as expected.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// It can't be read.
    #[error("reading {path}: {source}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// It says something else.
    #[error("reading {path}: expected {expected}, seen {seen:?}", path = path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        seen: String,
    },
    /// A thread can't be kept on some CPUs.
    #[error("keeping this thread on the host's CPUs {cpus}: {source}")]
    Affinity {
        /// The CPUs.
        cpus: CpuSet,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// The priority of the thread that must be able to end vCPUs; theirs is one less.
const PRIORITY: i32 = 2;
const SIZE: &str = "hugepages/hugepages-2048kB";

/// The CPUs that the calling thread may use: its cpuset and affinity.
///
/// # Errors
/// No `/proc`.
pub fn usable_cpus() -> Result<CpuSet, HostError> {
    let path = Path::new("/proc/thread-self/status");
    let text = read(path)?;
    let cpus = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap_or_default();
    let content = |_| HostError::Content {
        path: path.to_path_buf(),
        expected: "a line `Cpus_allowed_list:` with a cpulist such as 0-3",
        seen: cpus.trim().to_string(),
    };
    cpus.trim().parse().map_err(content)
}

/// Whether threads of this process can have a real-time priority, found out by one that asks for it: rights, limits
/// and the scheduler's groups all have a say.
///
/// # Errors
/// The system's answer, in words.
pub fn realtime() -> Result<(), String> {
    let ask = || {
        let parameters = libc::sched_param { sched_priority: PRIORITY };
        // SAFETY: 0 is the calling thread, which ends right after; the parameters are only read.
        match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) } {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error().to_string()),
        }
    };
    let thread = std::thread::Builder::new().name("realtime?".to_string()).spawn(ask);
    let thread = thread.map_err(|e| format!("starting a thread to try it: {e}"))?;
    thread.join().unwrap_or_else(|_| Err("the thread that tried it panicked".to_string()))
}

/// Pages of 2 MiB that are free and not promised to anyone, of each NUMA node below `sys` (`/sys`).
///
/// # Errors
/// Files that hold no numbers.
pub fn free_huge_pages(sys: &Path) -> Result<BTreeMap<u32, u64>, HostError> {
    let mut pages = BTreeMap::new();
    let nodes = sys.join("devices/system/node");
    let unreadable = |source| HostError::Read { path: nodes.clone(), source };
    let entries = match fs::read_dir(&nodes) {
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        entries => Some(entries.map_err(unreadable)?),
    };
    for entry in entries.into_iter().flatten() {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let Some(node) = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok()) else {
            continue;
        };
        pages.insert(node, number(&entry.path().join(SIZE).join("free_hugepages"))?);
    }
    let whole = sys.join("kernel/mm").join(SIZE);
    if pages.is_empty() {
        // A kernel without NUMA.
        pages.insert(0, number(&whole.join("free_hugepages"))?);
    }
    // Nobody says from which node those will be.
    let promised = number(&whole.join("resv_hugepages"))?;
    pages.values_mut().for_each(|free| *free = free.saturating_sub(promised));
    Ok(pages)
}

/// 0 where there is no such file: a kernel without huge pages.
fn number(path: &Path) -> Result<u64, HostError> {
    let text = match read(path) {
        Err(HostError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let content = |_| HostError::Content {
        path: path.to_path_buf(),
        expected: "a number",
        seen: text.trim().to_string(),
    };
    text.trim().parse().map_err(content)
}

fn read(path: &Path) -> Result<String, HostError> {
    fs::read_to_string(path).map_err(|source| HostError::Read { path: path.to_path_buf(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_may_use_a_cpu() {
        let cpus = usable_cpus().unwrap();
        // What the C library is told.
        let told = std::thread::available_parallelism().unwrap().get();
        assert!(!cpus.is_empty() && cpus.len() >= told, "{cpus}, and {told} CPUs");
        if let Err(why) = realtime() {
            assert!(why.contains("not permitted"), "{why}");
        }
    }

    #[test]
    fn free_pages_are_those_that_nobody_was_promised() {
        let sys = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = sys.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(free_huge_pages(sys.path()).unwrap(), BTreeMap::from([(0, 0)]), "no such pages");
        file("kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "12\n");
        file("kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "2\n");
        assert_eq!(free_huge_pages(sys.path()).unwrap(), BTreeMap::from([(0, 10)]));
        file("devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "1\n");
        file("devices/system/node/node3/hugepages/hugepages-2048kB/free_hugepages", "11\n");
        file("devices/system/node/online", "0,3\n");
        assert_eq!(free_huge_pages(sys.path()).unwrap(), BTreeMap::from([(0, 0), (3, 9)]));
        file("devices/system/node/node3/hugepages/hugepages-2048kB/free_hugepages", "many\n");
        let why = free_huge_pages(sys.path()).unwrap_err().to_string();
        assert!(why.contains("node3") && why.contains("expected a number, seen \"many\""), "{why}");
        free_huge_pages(Path::new("/sys")).unwrap();
    }
}
