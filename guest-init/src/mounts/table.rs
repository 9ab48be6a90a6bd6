//! What a guest has mounted.
//!
//! Compiled twice: here, and into the boot init (guest-init/boot-init), which has no
//! standard library.

use core::ffi::CStr;

/// A file system of every guest.
pub(crate) struct Mount {
    /// Its type, which is also what stands for a device.
    pub(crate) fs: &'static CStr,
    pub(crate) target: &'static CStr,
    pub(crate) data: Option<&'static CStr>,
    /// The kernel option that provides it.
    pub(crate) option: &'static str,
    /// Without it nothing works.
    pub(crate) needed: bool,
}

const fn needed(fs: &'static CStr, target: &'static CStr, option: &'static str) -> Mount {
    Mount { fs, target, data: None, option, needed: true }
}

const fn wanted(fs: &'static CStr, target: &'static CStr, option: &'static str) -> Mount {
    Mount { needed: false, ..needed(fs, target, option) }
}

/// In this order.
pub(crate) const MOUNTS: [Mount; 11] = [
    needed(c"proc", c"/proc", "CONFIG_PROC_FS"),
    needed(c"sysfs", c"/sys", "CONFIG_SYSFS"),
    needed(c"devtmpfs", c"/dev", "CONFIG_DEVTMPFS"),
    Mount { data: Some(c"mode=1777"), ..needed(c"tmpfs", c"/tmp", "CONFIG_TMPFS") },
    Mount { data: Some(c"mode=1777"), ..wanted(c"tmpfs", c"/dev/shm", "CONFIG_TMPFS") },
    wanted(c"devpts", c"/dev/pts", "CONFIG_UNIX98_PTYS"),
    wanted(c"tmpfs", c"/run", "CONFIG_TMPFS"),
    wanted(c"cgroup2", c"/sys/fs/cgroup", "CONFIG_CGROUPS"),
    wanted(c"debugfs", c"/sys/kernel/debug", "CONFIG_DEBUG_FS"),
    wanted(c"tracefs", c"/sys/kernel/tracing", "CONFIG_FTRACE"),
    wanted(c"bpf", c"/sys/fs/bpf", "CONFIG_BPF_SYSCALL"),
];
