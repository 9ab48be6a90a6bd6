//! A part of a machine, named before the machine is known.

use std::ops::Range;

use crate::{CpuSet, TestTopology};

/// Which CPUs a cgroup gets. [`resolve`](Self::resolve) turns it into CPUs of a machine.
///
/// `Llc` and `Numa` are the whole domain. `Range`, `Disjoint` and `Overlap` divide the usable CPUs
/// ([`TestTopology::usable_cpus`]) in ascending order.
#[derive(Debug, Clone, PartialEq)]
pub enum CpusetSpec {
    /// The CPUs of the LLC at this index.
    Llc(usize),
    /// The CPUs of the NUMA node with this number.
    Numa(usize),
    /// The usable CPUs from one fraction of them to another, both rounded down.
    Range {
        /// Where it starts, from 0 to 1.
        start_frac: f64,
        /// Where it ends, from 0 to 1.
        end_frac: f64,
    },
    /// One of `of` equal runs of the usable CPUs; the last takes the remainder.
    Disjoint {
        /// Which run, from 0.
        index: usize,
        /// How many runs.
        of: usize,
    },
    /// A [`Disjoint`](Self::Disjoint) run, widened on each side by `frac` of a run, rounded down, as
    /// far as there are usable CPUs.
    Overlap {
        /// Which run, from 0.
        index: usize,
        /// How many runs.
        of: usize,
        /// How much wider, from 0 to 1.
        frac: f64,
    },
    /// These CPUs.
    Exact(CpuSet),
}

/// Why a [`CpusetSpec`] names no CPUs of a machine.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CpusetError {
    /// There is no such LLC.
    #[error("cpuset of LLC {index}: the machine has {llcs}; the first is LLC 0")]
    NoSuchLlc {
        /// The index asked for.
        index: usize,
        /// LLCs of the machine.
        llcs: usize,
    },
    /// There is no such NUMA node.
    #[error("cpuset of NUMA node {node}: the machine's nodes are {nodes:?}")]
    NoSuchNode {
        /// The node asked for.
        node: usize,
        /// The machine's nodes.
        nodes: Vec<u32>,
    },
    /// The NUMA node has no CPUs.
    #[error("cpuset of NUMA node {node}: it has memory but no CPUs; name a node with CPUs")]
    MemoryOnly {
        /// The node asked for.
        node: usize,
    },
    /// A fraction isn't one.
    #[error("cpuset with {field} = {value}: expected a number from 0 to 1")]
    BadFraction {
        /// The field's name.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// A range doesn't end after its start.
    #[error("cpuset from {start_frac} to {end_frac} of the usable CPUs: the end must be after the start")]
    EmptyFractions {
        /// Where it starts.
        start_frac: f64,
        /// Where it ends.
        end_frac: f64,
    },
    /// A range is so short that it holds no CPU of this machine.
    #[error(
        "cpuset from {start_frac} to {end_frac} of {usable} usable CPUs holds none of them \
         (from CPU index {start} up to, not including, {end}); widen it or use a larger machine"
    )]
    EmptyRange {
        /// Where it starts.
        start_frac: f64,
        /// Where it ends.
        end_frac: f64,
        /// Usable CPUs of the machine.
        usable: usize,
        /// Index of the first usable CPU.
        start: usize,
        /// Index after the last usable CPU.
        end: usize,
    },
    /// The CPUs are to be split into no runs.
    #[error("cpuset {index} of 0: the usable CPUs can't be split into 0 parts; use at least 1")]
    NoParts {
        /// The index asked for.
        index: usize,
    },
    /// There is no such run.
    #[error("cpuset {index} of {of}: the last of them is {}", of.saturating_sub(1))]
    BadIndex {
        /// The index asked for.
        index: usize,
        /// How many runs, at least 1.
        of: usize,
    },
    /// There are more runs than CPUs.
    #[error(
        "cpuset {index} of {of}: {usable} usable CPUs can't be split into {of} parts; use a larger machine or fewer parts"
    )]
    TooFewCpus {
        /// The index asked for.
        index: usize,
        /// How many runs.
        of: usize,
        /// Usable CPUs of the machine.
        usable: usize,
    },
    /// An exact set is empty.
    #[error("exact cpuset is empty: name at least one CPU")]
    EmptyExact,
    /// An exact set has CPUs that the machine hasn't.
    #[error("exact cpuset {asked}: CPUs {missing} aren't among the machine's CPUs {cpus}")]
    NoSuchCpus {
        /// The set asked for.
        asked: CpuSet,
        /// Those of it that don't exist.
        missing: CpuSet,
        /// The machine's CPUs.
        cpus: CpuSet,
    },
}

impl CpusetSpec {
    /// The CPUs of the LLC at `index`.
    #[must_use]
    pub const fn llc(index: usize) -> Self {
        Self::Llc(index)
    }

    /// The CPUs of NUMA node `node`.
    #[must_use]
    pub const fn numa(node: usize) -> Self {
        Self::Numa(node)
    }

    /// The usable CPUs from `start_frac` to `end_frac` of them.
    #[must_use]
    pub const fn range(start_frac: f64, end_frac: f64) -> Self {
        Self::Range { start_frac, end_frac }
    }

    /// Run `index` of `of` equal runs of the usable CPUs.
    #[must_use]
    pub const fn disjoint(index: usize, of: usize) -> Self {
        Self::Disjoint { index, of }
    }

    /// Run `index` of `of`, widened by `frac` of a run on each side.
    #[must_use]
    pub const fn overlap(index: usize, of: usize, frac: f64) -> Self {
        Self::Overlap { index, of, frac }
    }

    /// These CPUs.
    #[must_use]
    pub fn exact(cpus: impl IntoIterator<Item = u32>) -> Self {
        Self::Exact(cpus.into_iter().collect())
    }

    /// Checks what can be checked without a machine.
    ///
    /// # Errors
    /// [`CpusetError`] that names the bad index, fraction or set.
    pub fn validate(&self) -> Result<(), CpusetError> {
        match *self {
            Self::Llc(_) | Self::Numa(_) => Ok(()),
            Self::Range { start_frac, end_frac } => {
                check_fraction("start_frac", start_frac)?;
                check_fraction("end_frac", end_frac)?;
                if end_frac <= start_frac {
                    return Err(CpusetError::EmptyFractions { start_frac, end_frac });
                }
                Ok(())
            }
            Self::Disjoint { index, of } => check_index(index, of),
            Self::Overlap { index, of, frac } => {
                check_fraction("frac", frac)?;
                check_index(index, of)
            }
            Self::Exact(ref cpus) if cpus.is_empty() => Err(CpusetError::EmptyExact),
            Self::Exact(_) => Ok(()),
        }
    }

    /// The CPUs that this names on `machine`; never empty.
    ///
    /// # Errors
    /// [`CpusetError`] when it is invalid or names nothing on this machine.
    pub fn resolve(&self, machine: &TestTopology) -> Result<CpuSet, CpusetError> {
        self.validate()?;
        match *self {
            Self::Llc(index) => resolve_llc(machine, index),
            Self::Numa(node) => resolve_node(machine, node),
            Self::Range { start_frac, end_frac } => {
                resolve_range(&machine.usable_cpus(), start_frac, end_frac)
            }
            Self::Disjoint { index, of } => overlap(&machine.usable_cpus(), index, of, 0.0),
            Self::Overlap { index, of, frac } => overlap(&machine.usable_cpus(), index, of, frac),
            Self::Exact(ref cpus) => resolve_exact(machine, cpus),
        }
    }
}

/// Run `index` of `of` equal runs of `usable`, widened by `frac` of a run on each side.
pub(crate) fn overlap(usable: &[u32], index: usize, of: usize, frac: f64) -> Result<CpuSet, CpusetError> {
    check_fraction("frac", frac)?;
    check_index(index, of)?;
    let chunk = usable.len() / of;
    if chunk == 0 {
        return Err(CpusetError::TooFewCpus { index, of, usable: usable.len() });
    }
    let run = disjoint_run(usable.len(), index, of);
    let widen = floor_of(chunk, frac);
    let start = run.start.saturating_sub(widen);
    let end = (run.end + widen).min(usable.len());
    Ok(usable[start..end].iter().copied().collect())
}

fn disjoint_run(usable: usize, index: usize, of: usize) -> Range<usize> {
    let chunk = usable / of;
    let end = if index + 1 == of { usable } else { (index + 1) * chunk };
    index * chunk..end
}

/// `frac` of `count`, rounded down. `count` is a number of CPUs, so the float holds it exactly.
fn floor_of(count: usize, frac: f64) -> usize {
    (count as f64 * frac) as usize
}

fn check_fraction(field: &'static str, value: f64) -> Result<(), CpusetError> {
    if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(CpusetError::BadFraction { field, value }) }
}

fn check_index(index: usize, of: usize) -> Result<(), CpusetError> {
    match of {
        0 => Err(CpusetError::NoParts { index }),
        of if index >= of => Err(CpusetError::BadIndex { index, of }),
        _ => Ok(()),
    }
}

fn resolve_llc(machine: &TestTopology, index: usize) -> Result<CpuSet, CpusetError> {
    let llcs = machine.num_llcs();
    let llc = machine.llcs().get(index).ok_or(CpusetError::NoSuchLlc { index, llcs })?;
    Ok(llc.cpus.clone())
}

fn resolve_node(machine: &TestTopology, node: usize) -> Result<CpuSet, CpusetError> {
    let nodes = machine.nodes();
    let found = nodes.iter().find(|info| u32::try_from(node) == Ok(info.id));
    match found {
        Some(info) if info.cpus.is_empty() => Err(CpusetError::MemoryOnly { node }),
        Some(info) => Ok(info.cpus.clone()),
        None => {
            let nodes = nodes.iter().map(|info| info.id).collect();
            Err(CpusetError::NoSuchNode { node, nodes })
        }
    }
}

fn resolve_range(usable: &[u32], start_frac: f64, end_frac: f64) -> Result<CpuSet, CpusetError> {
    let start = floor_of(usable.len(), start_frac);
    let end = floor_of(usable.len(), end_frac);
    if start >= end {
        let usable = usable.len();
        return Err(CpusetError::EmptyRange { start_frac, end_frac, usable, start, end });
    }
    Ok(usable[start..end].iter().copied().collect())
}

fn resolve_exact(machine: &TestTopology, asked: &CpuSet) -> Result<CpuSet, CpusetError> {
    let cpus = machine.all_cpuset();
    let missing = asked.difference(&cpus);
    if missing.is_empty() {
        return Ok(asked.clone());
    }
    Err(CpusetError::NoSuchCpus { asked: asked.clone(), missing, cpus })
}

#[cfg(test)]
mod tests;
