//! APIC ids.

use ktstr_topology::Topology;

/// How APIC ids are made of package, core and thread: each LLC is a package of its
/// own, and core and thread take as many bits as their counts need, so ids have gaps
/// when a count is no power of two (Intel SDM vol. 3, 9.9.1; `topo_apicid()` in
/// arch/x86/kernel/cpu/topology_common.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// Cores of a package.
    pub cores: u32,
    /// Threads of a core.
    pub threads: u32,
}

impl Ids {
    /// The ids of a valid shape.
    #[must_use]
    pub fn new(topology: &Topology) -> Self {
        Self { cores: topology.cores_per_llc.max(1), threads: topology.threads_per_core.max(1) }
    }

    /// Bits of the thread number.
    #[must_use]
    pub const fn thread_bits(self) -> u32 {
        self.threads.next_power_of_two().trailing_zeros()
    }

    /// Bits of core and thread number together: what is left of an id when shifted
    /// right by this is the package.
    #[must_use]
    pub const fn package_bits(self) -> u32 {
        self.cores.next_power_of_two().trailing_zeros() + self.thread_bits()
    }

    /// CPUs of a package.
    #[must_use]
    pub const fn cpus_per_package(self) -> u32 {
        self.cores * self.threads
    }

    /// APIC id of CPU `cpu`; KVM takes it as the vCPU id.
    #[must_use]
    pub const fn id(self, cpu: u32) -> u32 {
        let package = cpu / self.cpus_per_package();
        (package << self.package_bits()) | (self.core(cpu) << self.thread_bits()) | (cpu % self.threads)
    }

    /// Core of CPU `cpu` within its package.
    #[must_use]
    pub const fn core(self, cpu: u32) -> u32 {
        cpu % self.cpus_per_package() / self.threads
    }

    /// Package of CPU `cpu`.
    #[must_use]
    pub const fn package(self, cpu: u32) -> u32 {
        cpu / self.cpus_per_package()
    }
}
