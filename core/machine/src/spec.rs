//! What a machine is made of.

use crate::{Accel, CommandLine, Performance};
use ktstr_topology::Topology;
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
    /// What of the host it has to itself; `None` shares it all. Only what
    /// [`Hypervisor::performance`](crate::Hypervisor::performance) says can be had.
    pub performance: Option<Performance>,
}

/// The least RAM in MiB that a machine of `cpus` vCPUs gets, whatever less was
/// asked for: 64 MiB a vCPU (per-CPU areas, stacks, runqueues), and 256 MiB in all.
pub fn memory_floor_mib(cpus: u32, asked_mib: u64) -> u64 {
    (u64::from(cpus) * 64).max(256).max(asked_mib)
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
}
