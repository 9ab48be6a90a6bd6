//! Which machines of a sweep something takes part on.

use crate::Topology;

/// Bounds on a machine's shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShapeBounds {
    /// LLCs of the whole machine.
    pub llcs: (u32, u32),
    /// CPUs of the whole machine.
    pub cpus: (u32, u32),
    /// NUMA nodes.
    pub numa_nodes: (u32, u32),
    /// Only machines with more than one thread a core.
    pub requires_smt: bool,
}

impl ShapeBounds {
    /// 1 to 12 LLCs, 1 to 192 CPUs, one NUMA node, SMT or not.
    pub const DEFAULT: Self = Self { llcs: (1, 12), cpus: (1, 192), numa_nodes: (1, 1), requires_smt: false };

    /// Whether a machine lies within.
    #[must_use]
    pub fn admits(&self, machine: &Topology) -> bool {
        let within = |(least, most): (u32, u32), n: u32| (least..=most).contains(&n);
        within(self.llcs, machine.num_llcs())
            && within(self.cpus, machine.total_cpus())
            && within(self.numa_nodes, machine.num_numa_nodes())
            && (!self.requires_smt || machine.threads_per_core > 1)
    }
}
