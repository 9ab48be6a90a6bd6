//! A topology's short name: `1n2l4c1t` is 1 NUMA node, 2 LLCs in all, 4 cores per LLC, 1 thread per core.

use std::fmt;
use std::str::FromStr;

use crate::{Topology, TopologyError};

/// A label's units in order, and what to ask for where one is missing.
const UNITS: [(char, &str, &str); 4] = [
    ('n', "the number of NUMA nodes", "'n' after the number of NUMA nodes"),
    ('l', "the number of LLCs", "'l' after the number of LLCs"),
    ('c', "the number of cores per LLC", "'c' after the number of cores per LLC"),
    ('t', "the number of threads per core", "'t' after the number of threads per core"),
];

impl Topology {
    /// The short name, `1n2l4c1t`. It tells nothing of explicit nodes and distances.
    #[must_use]
    pub fn label(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { numa_nodes, llcs, cores_per_llc, threads_per_core, .. } = self;
        f.pad(&format!("{numa_nodes}n{llcs}l{cores_per_llc}c{threads_per_core}t"))
    }
}

impl FromStr for Topology {
    type Err = TopologyError;

    fn from_str(label: &str) -> Result<Self, TopologyError> {
        let mut counts = [0; UNITS.len()];
        let mut rest = label;
        let error = |rest: &str, expected| TopologyError::Label {
            label: label.to_owned(),
            position: label.len() - rest.len(),
            expected,
        };
        for (count, (unit, number, after)) in counts.iter_mut().zip(UNITS) {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            *count = rest[..digits].parse().map_err(|_| error(rest, number))?;
            rest = &rest[digits..];
            rest = rest.strip_prefix(unit).ok_or_else(|| error(rest, after))?;
        }
        if !rest.is_empty() {
            return Err(error(rest, "the end"));
        }
        let [numa_nodes, llcs, cores, threads] = counts;
        Self::new(numa_nodes, llcs, cores, threads)
    }
}

#[cfg(test)]
mod tests;
