//! What a machine is made of.

use crate::{Accel, CommandLine, Performance};
use ktstr_topology::Topology;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Bytes that go into the machine: in memory, or a file that is read when it
/// boots.
#[derive(Debug, Clone)]
pub enum Blob {
    /// In memory, shared.
    Bytes(Arc<Vec<u8>>),
    /// In a file.
    File(PathBuf),
    /// In a file, a part of it.
    Range {
        /// The file.
        path: PathBuf,
        /// Offset of the first byte.
        from: u64,
        /// How many.
        bytes: u64,
    },
}

/// Its name in messages.
impl fmt::Display for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::File(path) | Self::Range { path, .. } => write!(f, "{}", path.display()),
        }
    }
}

/// A machine to boot.
#[derive(Debug, Clone)]
pub struct MachineSpec {
    /// Kernel image: a bzImage, or a vmlinux with a PVH note.
    pub kernel: PathBuf,
    /// Initial RAM disk, in parts that are concatenated.
    pub initramfs: Vec<Blob>,
    /// Kernel arguments of the test and scheduler; the hypervisor adds its own
    /// before them.
    pub cmdline: CommandLine,
    /// CPUs and NUMA nodes.
    pub topology: Topology,
    /// RAM in MiB, all nodes together.
    pub memory_mib: u64,
    /// How guest code is executed.
    pub accel: Accel,
    /// Decides what is random in deterministic mode.
    pub seed: u64,
    /// True to have the kernel print everything on the console.
    pub verbose: bool,
    /// True to let the kernel choose where in memory it lies; false has it where its build says (`nokaslr`).
    pub kaslr: bool,
    /// What of the host it has to itself; `None` shares it all. Only what
    /// [`Hypervisor::performance`](crate::Hypervisor::performance) says can be had.
    pub performance: Option<Performance>,
}

/// The least RAM in MiB that a machine of `cpus` vCPUs gets, whatever less was
/// asked for: 64 MiB a vCPU (per-CPU areas, stacks, runqueues), and 256 MiB in all.
pub fn memory_floor_mib(cpus: u32, asked_mib: u64) -> u64 {
    (u64::from(cpus) * 64).max(256).max(asked_mib)
}

/// How far into a kernel image [`kernel_bytes`] looks.
pub const KERNEL_HEADER_BYTES: usize = 0x264;

/// How much RAM a kernel takes while it unpacks itself and where it lies then, bytes: `init_size` of a bzImage
/// (Documentation/arch/x86/boot.rst; since version 2.10 of the protocol, Linux 2.6.33). `header` is the image's beginning;
/// `None` for other images.
#[must_use]
pub fn kernel_bytes(header: &[u8]) -> Option<u64> {
    if header.get(0x202..0x206) != Some(b"HdrS") {
        return None;
    }
    let version = u16::from_le_bytes(header.get(0x206..0x208)?.try_into().ok()?);
    let size = u32::from_le_bytes(header.get(0x260..KERNEL_HEADER_BYTES)?.try_into().ok()?);
    (version >= 0x20a).then_some(u64::from(size))
}

/// RAM in MiB that a kernel of `kernel` bytes and an initial RAM disk of `initramfs` bytes fit in.
///
/// The unpacked RAM disk lies in a tmpfs of at most half the RAM, beside the packed one, which is freed later: four
/// times its size fits both. From 6.18 on the kernel could be told to make that tmpfs larger (`initramfs_options=size=90%`);
/// it isn't, so that a test has the same machine on every kernel.
#[must_use]
pub fn memory_to_boot_mib(kernel: u64, initramfs: u64) -> u64 {
    (kernel + initramfs * 4).div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_floor_grows_with_the_cpus() {
        assert_eq!(memory_floor_mib(1, 0), 256);
        assert_eq!(memory_floor_mib(8, 256), 512);
        assert_eq!(memory_floor_mib(2, 2048), 2048);
    }

    #[test]
    fn kernel_and_initramfs_fit() {
        let mut header = vec![0; KERNEL_HEADER_BYTES];
        header[0x202..0x206].copy_from_slice(b"HdrS");
        header[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
        header[0x260..].copy_from_slice(&(50u32 << 20).to_le_bytes());
        assert_eq!(kernel_bytes(&header), Some(50 << 20));
        assert_eq!(memory_to_boot_mib(50 << 20, (100 << 20) + 1), 451);
        assert_eq!(kernel_bytes(&header[..KERNEL_HEADER_BYTES - 1]), None);
        header[0x206] = 9;
        assert_eq!(kernel_bytes(&header), None, "before there was such a field");
        assert_eq!(kernel_bytes(b"\x7fELF"), None);
    }
}
