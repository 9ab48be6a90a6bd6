//! Which CPU of the host each vCPU has to itself.

use ktstr_topology::{CpuSet, TestTopology, Topology};
use std::collections::{BTreeMap, BTreeSet};

/// Where on the host a machine's threads run and its memory lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The host's CPU of each vCPU, in their order; no two the same.
    pub vcpus: Vec<u32>,
    /// The host's CPU for everything else of the machine.
    pub rest: u32,
    /// The host's LLCs that no other machine may use, by ascending number: those of the vCPUs.
    pub llcs: Vec<u32>,
    /// The LLC of `rest`, where that is none of those.
    pub shared_llc: Option<u32>,
    /// The host's NUMA nodes that each of the machine's has its memory on; none where any will do.
    pub memory: Vec<Vec<u32>>,
}

/// Why a machine can't have the host's CPUs to itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoPlace {
    /// Too few CPUs.
    #[error("{vcpus} vCPUs and one CPU for everything else make {} host CPUs, and {there} may be used here", .vcpus + 1)]
    Cpus {
        /// The machine's CPUs.
        vcpus: u32,
        /// CPUs of the host that may be used.
        there: usize,
    },
    /// Too few LLCs that are large enough.
    #[error(
        "{llcs} LLCs of {cpus} CPUs want as many of the host, each with so many CPUs that may be used, and there are {there}"
    )]
    Llcs {
        /// The machine's LLCs.
        llcs: u32,
        /// CPUs of each.
        cpus: u32,
        /// LLCs of the host that would do.
        there: usize,
    },
}

/// An LLC of the host, as far as it may be used.
struct Place {
    id: u32,
    node: u32,
    /// The usable threads of each core, the first threads first.
    cores: Vec<Vec<u32>>,
}

impl Place {
    fn cpus(&self) -> usize {
        self.cores.iter().map(Vec::len).sum()
    }

    /// CPUs for `cores` cores of `threads` threads: each a core of its own if possible.
    fn take(&self, cores: usize, threads: usize) -> Vec<u32> {
        let whole = self.cores.iter().filter(|core| core.len() >= threads);
        let apart: Vec<u32> = whole.take(cores).flat_map(|core| core.iter().take(threads)).copied().collect();
        if apart.len() == cores * threads {
            return apart;
        }
        let most = self.cores.iter().map(Vec::len).max().unwrap_or(0);
        let packed: Vec<u32> = if threads == 1 {
            // All first threads, then all second ones.
            (0..most)
                .flat_map(|rank| self.cores.iter().filter_map(move |core| core.get(rank)))
                .copied()
                .collect()
        } else {
            self.cores.iter().flatten().copied().collect()
        };
        packed.into_iter().take(cores * threads).collect()
    }
}

/// Places a machine on the CPUs of `host` that are among `usable`.
///
/// Each of its LLCs gets one of the host's, the smallest that will do; the LLCs of a NUMA node come from one node of the
/// host if any has as many, and different nodes from different ones. A core's threads are threads of one core where
/// cores have as many, and cores are cores of their own where there are enough. One CPU more is for the
/// machine's other threads, in the same LLCs if there is one left.
///
/// # Errors
/// Too few CPUs or LLCs.
pub fn place(machine: &Topology, host: &TestTopology, usable: &CpuSet) -> Result<Placement, NoPlace> {
    let usable = usable.intersection(&host.all_cpuset());
    let vcpus = machine.total_cpus();
    if usable.len() <= vcpus as usize {
        return Err(NoPlace::Cpus { vcpus, there: usable.len() });
    }
    let (cores, threads) = (machine.cores_per_llc as usize, machine.threads_per_core as usize);
    let mut free: Vec<Place> = places(host, &usable);
    free.retain(|place| place.cpus() >= cores * threads);
    if free.len() < machine.num_llcs() as usize {
        let (llcs, cpus) = (machine.num_llcs(), machine.cpus_per_llc());
        return Err(NoPlace::Llcs { llcs, cpus, there: free.len() });
    }
    let mut placed =
        Placement { vcpus: Vec::new(), rest: 0, llcs: Vec::new(), shared_llc: None, memory: Vec::new() };
    let mut nodes_taken = BTreeSet::new();
    for node in 0..machine.num_numa_nodes() {
        let taken = take_llcs(&mut free, machine.llcs_in_node(node).len(), &nodes_taken);
        let on: BTreeSet<u32> = taken.iter().map(|place| place.node).collect();
        placed.vcpus.extend(taken.iter().flat_map(|place| place.take(cores, threads)));
        placed.llcs.extend(taken.iter().map(|place| place.id));
        // With one node there is no choice.
        let several = host.num_numa_nodes() > 1;
        placed.memory.push(on.iter().copied().filter(|_| several).collect());
        nodes_taken.extend(on);
    }
    placed.llcs.sort_unstable();
    let used: CpuSet = placed.vcpus.iter().copied().collect();
    let llc_of = |cpu| host.llc_of_cpu(cpu).and_then(|index| host.llcs().get(index)).map(|llc| llc.id);
    let ours = |cpu| llc_of(cpu).is_some_and(|id| placed.llcs.contains(&id));
    // There is one: the vCPUs are fewer than the usable CPUs.
    let left = usable.difference(&used);
    let best = left.iter().min_by_key(|cpu| (!ours(*cpu), !host.siblings_of(*cpu).is_disjoint(&used), *cpu));
    placed.rest = best.unwrap_or_default();
    placed.shared_llc = llc_of(placed.rest).filter(|id| !placed.llcs.contains(id));
    Ok(placed)
}

fn places(host: &TestTopology, usable: &CpuSet) -> Vec<Place> {
    let place = |llc: &ktstr_topology::LlcInfo| {
        let mut cores: BTreeMap<Option<u32>, Vec<u32>> = BTreeMap::new();
        for cpu in &llc.cpus.intersection(usable) {
            cores.entry(host.siblings_of(cpu).first()).or_default().push(cpu);
        }
        Place { id: llc.id, node: llc.node, cores: cores.into_values().collect() }
    };
    host.llcs().iter().map(place).collect()
}

/// So many of the free ones, which there are: of one node of the host if possible, of one that isn't taken rather than
/// of one that is, and of the one with the fewest to spare.
fn take_llcs(free: &mut Vec<Place>, wanted: usize, taken: &BTreeSet<u32>) -> Vec<Place> {
    let mut by_node: BTreeMap<u32, usize> = BTreeMap::new();
    free.iter().for_each(|place| *by_node.entry(place.node).or_default() += 1);
    let enough = by_node.iter().filter(|(_, count)| **count >= wanted);
    let node =
        enough.min_by_key(|(node, count)| (taken.contains(node), **count, **node)).map(|(node, _)| *node);
    // Where no node has as many, the one with the most first.
    let most = |node: u32| std::cmp::Reverse(by_node.get(&node).copied().unwrap_or(0));
    free.sort_by_key(|place| {
        (Some(place.node) != node, most(place.node), place.node, place.cpus(), place.id)
    });
    free.drain(..wanted.min(free.len())).collect()
}

#[cfg(test)]
mod tests;
