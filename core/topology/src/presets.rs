//! The machine shapes that a gauntlet runs a test on.

use crate::Topology;

/// A named machine shape. Its name says CPUs and LLCs, NUMA nodes when there are several, and
/// whether cores have SMT: `2numa-32cpu-2llc-smt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preset {
    /// The name, unique in [`PRESETS`].
    pub name: &'static str,
    /// NUMA nodes.
    pub numa_nodes: u32,
    /// LLCs of the whole machine.
    pub llcs: u32,
    /// Cores per LLC.
    pub cores: u32,
    /// Hardware threads per core.
    pub threads: u32,
}

/// Every preset: one node without SMT, one node with SMT, several nodes. An architecture without
/// SMT (aarch64) uses those that are not [`is_smt`](Preset::is_smt).
pub const PRESETS: &[Preset] = &[
    preset("4cpu-1llc-nosmt", 1, 1, 4, 1),
    preset("4cpu-2llc-nosmt", 1, 2, 2, 1),
    preset("9cpu-3llc-nosmt", 1, 3, 3, 1),
    preset("15cpu-5llc-nosmt", 1, 5, 3, 1),
    preset("14cpu-7llc-nosmt", 1, 7, 2, 1),
    preset("32cpu-4llc-nosmt", 1, 4, 8, 1),
    preset("64cpu-8llc-nosmt", 1, 8, 8, 1),
    preset("128cpu-4llc-nosmt", 1, 4, 32, 1),
    preset("128cpu-8llc-nosmt", 1, 8, 16, 1),
    preset("240cpu-15llc-nosmt", 1, 15, 16, 1),
    preset("252cpu-14llc-nosmt", 1, 14, 18, 1),
    preset("8cpu-2llc-smt", 1, 2, 2, 2),
    preset("12cpu-3llc-smt", 1, 3, 2, 2),
    preset("32cpu-4llc-smt", 1, 4, 4, 2),
    preset("64cpu-8llc-smt", 1, 8, 4, 2),
    preset("128cpu-4llc-smt", 1, 4, 16, 2),
    preset("128cpu-8llc-smt", 1, 8, 8, 2),
    preset("240cpu-15llc-smt", 1, 15, 8, 2),
    preset("252cpu-14llc-smt", 1, 14, 9, 2),
    preset("2numa-32cpu-2llc-smt", 2, 2, 8, 2),
    preset("2numa-16cpu-4llc-nosmt", 2, 4, 4, 1),
    preset("2numa-128cpu-8llc-smt", 2, 8, 8, 2),
    preset("2numa-128cpu-8llc-nosmt", 2, 8, 16, 1),
    preset("4numa-32cpu-8llc-nosmt", 4, 8, 4, 1),
    preset("4numa-192cpu-12llc-smt", 4, 12, 8, 2),
];

impl Preset {
    /// The preset of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The machine shape.
    #[must_use]
    pub const fn topology(&self) -> Topology {
        Topology::uniform(self.numa_nodes, self.llcs, self.cores, self.threads)
    }

    /// Whether cores have several hardware threads.
    #[must_use]
    pub const fn is_smt(&self) -> bool {
        self.threads > 1
    }
}

const fn preset(name: &'static str, numa_nodes: u32, llcs: u32, cores: u32, threads: u32) -> Preset {
    Preset { name, numa_nodes, llcs, cores, threads }
}

#[cfg(test)]
mod tests;
