//! The file systems of a guest.

use crate::InitError;
use nix::mount::{MsFlags, mount};
use std::fmt;

struct Mount {
    fs: &'static str,
    target: &'static str,
    data: Option<&'static str>,
    option: &'static str,
    needed: bool,
}

const fn needed(fs: &'static str, target: &'static str, option: &'static str) -> Mount {
    Mount { fs, target, data: None, option, needed: true }
}

const fn wanted(fs: &'static str, target: &'static str, option: &'static str) -> Mount {
    Mount { fs, target, data: None, option, needed: false }
}

const MOUNTS: &[Mount] = &[
    needed("proc", "/proc", "CONFIG_PROC_FS"),
    needed("sysfs", "/sys", "CONFIG_SYSFS"),
    needed("devtmpfs", "/dev", "CONFIG_DEVTMPFS"),
    Mount { data: Some("mode=1777"), ..needed("tmpfs", "/tmp", "CONFIG_TMPFS") },
    Mount { data: Some("mode=1777"), ..wanted("tmpfs", "/dev/shm", "CONFIG_TMPFS") },
    wanted("devpts", "/dev/pts", "CONFIG_UNIX98_PTYS"),
    wanted("tmpfs", "/run", "CONFIG_TMPFS"),
    wanted("cgroup2", "/sys/fs/cgroup", "CONFIG_CGROUPS"),
    wanted("debugfs", "/sys/kernel/debug", "CONFIG_DEBUG_FS"),
    wanted("tracefs", "/sys/kernel/tracing", "CONFIG_FTRACE"),
    wanted("bpf", "/sys/fs/bpf", "CONFIG_BPF_SYSCALL"),
];

/// A file system that this kernel does not have; tests that need it will say so.
#[derive(Debug)]
pub struct Skipped {
    fs: &'static str,
    target: &'static str,
    option: &'static str,
    why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} on {} ({}; {})", self.fs, self.target, self.why, self.option)
    }
}

/// Mounts everything; what is merely wanted and missing comes back.
pub(crate) fn mount_all() -> Result<Vec<Skipped>, InitError> {
    let mut skipped = Vec::new();
    for m in MOUNTS {
        if let Err(source) = mount_one(m) {
            if m.needed {
                return Err(InitError::Mount { fs: m.fs, target: m.target, option: m.option, source });
            }
            skipped.push(Skipped { fs: m.fs, target: m.target, option: m.option, why: source.to_string() });
        }
    }
    Ok(skipped)
}

fn mount_one(m: &Mount) -> std::io::Result<()> {
    // Mount points inside sysfs can't be made, they are there when the kernel has
    // the feature; the mount then says so.
    if !m.target.starts_with("/sys/") {
        std::fs::create_dir_all(m.target)?;
    }
    let flags = MsFlags::MS_NOSUID;
    match mount(Some(m.fs), m.target, Some(m.fs), flags, m.data) {
        // The kernel mounts devtmpfs by itself where CONFIG_DEVTMPFS_MOUNT says so.
        Ok(()) | Err(nix::errno::Errno::EBUSY) => Ok(()),
        Err(e) => Err(e.into()),
    }
}
