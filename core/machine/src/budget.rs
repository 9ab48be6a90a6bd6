//! Which CPUs of a host a machine runs on that has none of them to itself.

use ktstr_topology::{CpuSet, TestTopology};
use std::collections::BTreeMap;

/// CPUs of a host, and the LLCs that they are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Budget {
    /// The CPUs.
    pub cpus: CpuSet,
    /// The kernel's numbers of their LLCs, ascending.
    pub llcs: Vec<u32>,
}

/// Why there is no such budget.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBudget {
    /// Nothing runs on no CPU.
    #[error("a budget of 0 CPUs was asked for: a machine needs at least one")]
    Nothing,
    /// More than there are.
    #[error(
        "a budget of {asked} CPUs was asked for, and {there} may be used here; ask for fewer, or widen the cpuset"
    )]
    TooLarge {
        /// CPUs asked for.
        asked: usize,
        /// CPUs that may be used.
        there: usize,
    },
}

/// How much of the host a machine is to run on, as a number of CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// So many that no other machine is on, where there are as many; else all of them, shared.
    Window(usize),
    /// Exactly so many, whether others are on them or not.
    Budget(usize),
}

/// The part of the CPUs that a machine gets whose test says nothing but that it needs no performance, percent.
const DEFAULT_PERCENT: usize = 30;

impl Share {
    /// What a machine of `vcpus` vCPUs gets on a host of which `usable` CPUs may be used: the budget that its test declares,
    /// no more than the run's cap; the cap; a part of the host where performance is not asked for (`no_perf`); otherwise
    /// a CPU for each vCPU, and one for everything else.
    #[must_use]
    pub fn of(vcpus: u32, usable: usize, no_perf: bool, declared: Option<u32>, cap: Option<usize>) -> Self {
        let declared = declared.map(|cpus| cpus as usize);
        match (declared, cap) {
            (Some(declared), Some(cap)) => Self::Budget(declared.min(cap)),
            (Some(cpus), None) | (None, Some(cpus)) => Self::Budget(cpus),
            (None, None) if no_perf => Self::Budget((usable * DEFAULT_PERCENT / 100).max(1)),
            (None, None) => Self::Window((vcpus as usize + 1).min(usable)),
        }
    }
}

/// The usable threads of one LLC, core by core.
struct Llc {
    id: u32,
    node: u32,
    cpus: Vec<u32>,
}

/// Exactly `cpus` of the host's CPUs that are among `usable`: LLCs as a whole, the last one in part, of one NUMA node
/// where one has as many, else of nodes near each other. `turn` decides between equals, so that machines that each come
/// with another one spread over the host.
///
/// # Errors
/// None asked for, or more than there are.
pub fn choose(host: &TestTopology, usable: &CpuSet, cpus: usize, turn: usize) -> Result<Budget, NoBudget> {
    if cpus == 0 {
        return Err(NoBudget::Nothing);
    }
    let mut free = llcs(host, usable, turn);
    let there = free.iter().map(|llc| llc.cpus.len()).sum();
    if cpus > there {
        return Err(NoBudget::TooLarge { asked: cpus, there });
    }
    let first = first_node(&free, cpus);
    // Stable: LLCs of a node stay in the order of their turn.
    let near =
        |llc: &Llc| first.map(|first| (llc.node != first, host.numa_distance(first, llc.node), llc.node));
    free.sort_by_key(near);
    let mut budget = Budget { cpus: CpuSet::new(), llcs: Vec::new() };
    while budget.cpus.len() < cpus {
        let left = cpus - budget.cpus.len();
        let Some(node) = free.first().map(|llc| llc.node) else { break };
        let in_node = || free.iter().enumerate().filter(|(_, llc)| llc.node == node);
        // The smallest that does for the rest, or the largest as a whole; of equals the first (`max_by_key` takes the last).
        let fits = in_node().filter(|(_, llc)| llc.cpus.len() >= left).min_by_key(|(_, llc)| llc.cpus.len());
        let best = fits.or_else(|| in_node().min_by_key(|(_, llc)| std::cmp::Reverse(llc.cpus.len())));
        let Some((at, _)) = best else { break };
        let llc = free.remove(at);
        budget.cpus.extend(llc.cpus.into_iter().take(left));
        budget.llcs.push(llc.id);
    }
    budget.llcs.sort_unstable();
    Ok(budget)
}

/// Those with CPUs that may be used.
fn llcs(host: &TestTopology, usable: &CpuSet, turn: usize) -> Vec<Llc> {
    let of = |llc: &ktstr_topology::LlcInfo| {
        let mut cores: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
        for cpu in &llc.cpus.intersection(usable) {
            cores.entry(host.siblings_of(cpu).first()).or_default().push(cpu);
        }
        let mut cores: Vec<Vec<u32>> = cores.into_values().collect();
        rotate(&mut cores, turn);
        Llc { id: llc.id, node: llc.node, cpus: cores.into_iter().flatten().collect() }
    };
    let mut llcs: Vec<Llc> = host.llcs().iter().map(of).filter(|llc| !llc.cpus.is_empty()).collect();
    rotate(&mut llcs, turn);
    llcs
}

fn rotate<T>(list: &mut [T], turn: usize) {
    if !list.is_empty() {
        list.rotate_left(turn % list.len());
    }
}

/// The node with the fewest CPUs to spare, or with the most where none has enough.
fn first_node(free: &[Llc], cpus: usize) -> Option<u32> {
    let mut nodes: Vec<(u32, usize)> = Vec::new();
    for llc in free {
        match nodes.iter_mut().find(|(node, _)| *node == llc.node) {
            Some((_, count)) => *count += llc.cpus.len(),
            None => nodes.push((llc.node, llc.cpus.len())),
        }
    }
    let enough = nodes.iter().filter(|(_, count)| *count >= cpus).min_by_key(|(_, count)| *count);
    let most = || nodes.iter().min_by_key(|(_, count)| std::cmp::Reverse(*count));
    enough.or_else(most).map(|(node, _)| *node)
}

#[cfg(test)]
mod tests;
