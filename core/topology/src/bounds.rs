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

    /// The same without the default's maxima: what a sweep that asks for every machine takes. A maximum that its author
    /// set is kept; one that equals the default's can't be told from it.
    #[must_use]
    pub fn without_default_maxima(self) -> Self {
        let open = |(least, most): (u32, u32), default: (u32, u32)| {
            (least, if most == default.1 { u32::MAX } else { most })
        };
        Self {
            llcs: open(self.llcs, Self::DEFAULT.llcs),
            cpus: open(self.cpus, Self::DEFAULT.cpus),
            numa_nodes: open(self.numa_nodes, Self::DEFAULT.numa_nodes),
            requires_smt: self.requires_smt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_maxima_that_somebody_set_are_kept() {
        let open = ShapeBounds::DEFAULT.without_default_maxima();
        let machine = |nodes, llcs, cores, threads| Topology::uniform(nodes, llcs, cores, threads);
        assert!(!ShapeBounds::DEFAULT.admits(&machine(4, 12, 8, 2)) && open.admits(&machine(4, 12, 8, 2)));
        assert!(!ShapeBounds::DEFAULT.admits(&machine(1, 14, 18, 1)) && open.admits(&machine(1, 14, 18, 1)));
        let set = ShapeBounds { cpus: (2, 64), llcs: (2, 12), requires_smt: true, ..ShapeBounds::DEFAULT };
        let set = set.without_default_maxima();
        assert!(set.admits(&machine(2, 16, 2, 2)), "64 CPUs with SMT, 16 LLCs");
        assert!(!set.admits(&machine(2, 16, 4, 2)), "128 CPUs");
        assert!(!set.admits(&machine(1, 1, 2, 2)), "one LLC");
        assert!(!set.admits(&machine(1, 2, 2, 1)), "no SMT");
    }
}
