//! What to do about a kernel's refusal: the meaning of an error number depends on
//! the file it came from (`kernel/cgroup/`, `mm/memcontrol.c`).

use nix::errno::Errno;
use std::io;
use std::path::Path;

/// Text to append to an error of a write; empty when the number speaks for itself.
pub(crate) fn for_write(path: &Path, source: &io::Error) -> String {
    let file = path.file_name().and_then(|f| f.to_str()).unwrap_or_default();
    let Some(number) = source.raw_os_error() else { return String::new() };
    let text = match (file, Errno::from_raw(number)) {
        ("cgroup.procs", Errno::EBUSY) => {
            "a cgroup that has controllers enabled for its children may hold no processes itself \
             (the no-internal-process rule); move them into a leaf below it"
        }
        ("cgroup.procs", Errno::EOPNOTSUPP) => {
            "the cgroup is threaded or lies below a threaded one and takes no whole processes"
        }
        ("cgroup.procs", Errno::ENOSPC) => {
            "its cpuset has no CPU or no memory node to run on; set cpuset.cpus (and cpuset.mems) first"
        }
        ("cgroup.procs", Errno::EINVAL) => {
            "a real-time task can't enter a cgroup without a real-time budget (CONFIG_RT_GROUP_SCHED); \
             build the kernel without it, or use another policy"
        }
        ("cgroup.subtree_control", Errno::EBUSY) => {
            "controllers can't be enabled for the children of a cgroup that holds processes \
             (the no-internal-process rule); move them into a leaf first"
        }
        ("cgroup.subtree_control", Errno::ENOENT) => "the parent does not pass this controller down",
        ("cpuset.cpus", Errno::EINVAL | Errno::ERANGE | Errno::EOVERFLOW) => {
            "it names a CPU that this machine does not have, or conflicts with an exclusive sibling"
        }
        ("cpuset.mems", Errno::EINVAL | Errno::ERANGE | Errno::EOVERFLOW) => {
            "it names a NUMA node that this machine does not have"
        }
        ("cpuset.cpus" | "cpuset.mems", Errno::ENOSPC) => "tasks in it would be left without a CPU or node",
        ("cpu.max", Errno::EINVAL) => {
            "the period must be 1,000 to 1,000,000 µs, the quota at least 1,000 µs and not above the parent's"
        }
        ("cpu.weight" | "io.weight", Errno::ERANGE | Errno::EINVAL) => "the weight must be 1 to 10,000",
        ("memory.swap.max", Errno::ENOENT) => "this kernel has no swap accounting (CONFIG_SWAP)",
        ("io.weight", Errno::ENOENT) => {
            "this kernel has no weight-based I/O control (CONFIG_BLK_CGROUP_IOCOST)"
        }
        (_, Errno::EACCES | Errno::EPERM | Errno::EROFS) => {
            "the cgroup tree must be writable: run as root or in a delegated subtree"
        }
        _ => return String::new(),
    };
    format!("; {text}")
}

/// Text to append to an error of a directory operation or a read.
pub(crate) fn for_access(path: &Path, source: &io::Error) -> String {
    let is_controllers = path.file_name().is_some_and(|f| f == "cgroup.controllers");
    match source.kind() {
        io::ErrorKind::NotFound if is_controllers => {
            "; no cgroup v2 file system is mounted there (`mount -t cgroup2 none /sys/fs/cgroup`)".into()
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; the cgroup tree must be writable: run as root or in a delegated subtree".into()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(file: &str, number: Errno) -> String {
        for_write(&Path::new("/cg").join(file), &io::Error::from_raw_os_error(number as i32))
    }

    #[test]
    fn the_same_number_means_different_things() {
        assert!(hint("cgroup.procs", Errno::EBUSY).contains("no-internal-process"));
        assert!(hint("cpu.max", Errno::EINVAL).contains("period"));
        assert!(hint("cpuset.cpus", Errno::EINVAL).contains("CPU"));
        assert_eq!(hint("cpu.weight", Errno::EIO), "");
    }
}
