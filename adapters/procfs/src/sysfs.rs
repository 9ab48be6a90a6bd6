//! CPU topology from sysfs (`Documentation/admin-guide/cputopology.rst`,
//! `Documentation/ABI/testing/sysfs-devices-system-cpu`, `.../stable/sysfs-devices-node`).

use crate::SystemError;
use crate::read::{optional, optional_cpus, optional_number, parse, required};
use ktstr_topology::{CpuSet, LlcInfo, NodeInfo, NodeMemInfo, TestTopology, TopologyParts};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// More cache levels than any CPU has; bounds the walk over `cache/index*`.
const MAX_CACHE_INDEX: u32 = 16;

/// A machine as sysfs shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedTopology {
    /// The topology.
    pub topology: TestTopology,
    /// What sysfs did not say and what was assumed instead, one sentence each.
    pub notes: Vec<String>,
}

/// The topology of the machine whose sysfs is mounted at `root` (`/sys`).
///
/// # Errors
/// As [`observe_topology`], which also tells what had to be assumed.
pub fn test_topology_from_sysfs(root: &Path) -> Result<TestTopology, SystemError> {
    observe_topology(root).map(|observed| observed.topology)
}

/// The topology of the machine whose sysfs is mounted at `root` (`/sys`), and what
/// sysfs left open.
///
/// The LLC of a CPU is its data or unified cache of the highest level. Without cache
/// information (some virtual machines) the CPU package stands for it; without a node
/// directory (`CONFIG_NUMA=n`) all CPUs are of node 0. Only online CPUs count.
///
/// # Errors
/// [`SystemError`] when the list of online CPUs is missing, a file isn't understood,
/// or the files contradict each other.
pub fn observe_topology(root: &Path) -> Result<ObservedTopology, SystemError> {
    let sysfs = Sysfs { root, online: online(root)? };
    let mut notes = Vec::new();
    let nodes = sysfs.nodes(&mut notes)?;
    let mut parts = TopologyParts {
        llcs: sysfs.llcs(&nodes, &mut notes)?,
        cores: sysfs.cores(&mut notes)?,
        distances: sysfs.distances(&nodes)?,
        cpus: sysfs.online.clone(),
        nodes,
    };
    parts.split_llcs_by_node();
    let topology = TestTopology::from_parts(parts)
        .map_err(|source| SystemError::Contradiction { root: root.display().to_string(), source })?;
    Ok(ObservedTopology { topology, notes })
}

/// The online CPUs of the machine whose sysfs is mounted at `root`.
pub(crate) fn online(root: &Path) -> Result<CpuSet, SystemError> {
    let path = root.join("devices/system/cpu/online");
    let text = required("reading the online CPUs", &path)?;
    parse(&path, "a cpulist such as 0-3,8", &text)
}

struct Sysfs<'a> {
    root: &'a Path,
    online: CpuSet,
}

/// A last-level cache as one of its CPUs tells it.
struct Cache {
    id: Option<u32>,
    cpus: CpuSet,
}

impl Sysfs<'_> {
    fn cpu(&self, cpu: u32, file: &str) -> PathBuf {
        self.root.join(format!("devices/system/cpu/cpu{cpu}/{file}"))
    }

    fn node(&self, node: u32, file: &str) -> PathBuf {
        self.root.join(format!("devices/system/node/node{node}/{file}"))
    }

    fn llcs(&self, nodes: &[NodeInfo], notes: &mut Vec<String>) -> Result<Vec<LlcInfo>, SystemError> {
        let mut groups: BTreeMap<CpuSet, Option<u32>> = BTreeMap::new();
        let mut without = CpuSet::new();
        let mut seen = CpuSet::new();
        for cpu in &self.online {
            // The kernel keeps one set of CPUs for a cache and shows it at each of them
            // (drivers/base/cacheinfo.c); reading it once saves most of the time.
            if seen.contains(cpu) {
                continue;
            }
            match self.last_level_cache(cpu)? {
                Some(cache) => {
                    let cpus = cache.cpus.intersection(&self.online);
                    seen = seen.union(&cpus);
                    groups.insert(cpus, cache.id);
                }
                None => {
                    without.insert(cpu);
                }
            }
        }
        if !without.is_empty() {
            notes.push(format!("CPUs {without} show no cache; their package was taken for the LLC"));
            groups.extend(self.packages(&without)?.into_iter().map(|cpus| (cpus, None)));
        }
        Ok(numbered(groups, nodes, notes))
    }

    /// The highest data or unified cache of a CPU that names its CPUs.
    fn last_level_cache(&self, cpu: u32) -> Result<Option<Cache>, SystemError> {
        let mut levels = Vec::new();
        for index in 0..MAX_CACHE_INDEX {
            let file = self.cpu(cpu, &format!("cache/index{index}/level"));
            let Some(level) = optional_number("reading a cache's level", &file)? else { break };
            levels.push((level, index));
        }
        levels.sort_by_key(|&(level, _)| std::cmp::Reverse(level));
        for (_, index) in levels {
            let file = |name: &str| self.cpu(cpu, &format!("cache/index{index}/{name}"));
            if optional("reading a cache's type", &file("type"))?.as_deref() == Some("Instruction") {
                continue;
            }
            let shared = optional_cpus("reading a cache's CPUs", &file("shared_cpu_list"))?;
            if let Some(cpus) = shared.filter(|cpus| !cpus.is_empty()) {
                let id = optional_number("reading a cache's number", &file("id"))?;
                return Ok(Some(Cache { id, cpus }));
            }
        }
        Ok(None)
    }

    fn packages(&self, cpus: &CpuSet) -> Result<Vec<CpuSet>, SystemError> {
        let mut packages: BTreeMap<Option<u32>, CpuSet> = BTreeMap::new();
        for cpu in cpus {
            let id =
                optional_number("reading a CPU's package", &self.cpu(cpu, "topology/physical_package_id"))?;
            packages.entry(id).or_default().insert(cpu);
        }
        Ok(packages.into_values().collect())
    }

    fn cores(&self, notes: &mut Vec<String>) -> Result<Vec<CpuSet>, SystemError> {
        let mut cores = BTreeSet::new();
        let (mut seen, mut without) = (CpuSet::new(), CpuSet::new());
        for cpu in &self.online {
            if seen.contains(cpu) {
                continue;
            }
            let doing = "reading a core's threads";
            // core_cpus_list is the name since 5.3, thread_siblings_list the older one.
            let threads = match optional_cpus(doing, &self.cpu(cpu, "topology/core_cpus_list"))? {
                Some(threads) => Some(threads),
                None => optional_cpus(doing, &self.cpu(cpu, "topology/thread_siblings_list"))?,
            };
            cores.insert(match threads {
                Some(threads) => {
                    let threads = threads.intersection(&self.online);
                    seen = seen.union(&threads);
                    threads
                }
                None => {
                    without.insert(cpu);
                    CpuSet::from([cpu])
                }
            });
        }
        if !without.is_empty() {
            notes.push(format!("CPUs {without} show no siblings; each was taken for a core of its own"));
        }
        Ok(cores.into_iter().collect())
    }

    fn nodes(&self, notes: &mut Vec<String>) -> Result<Vec<NodeInfo>, SystemError> {
        let path = self.root.join("devices/system/node/online");
        // The list of nodes has the same syntax as that of CPUs.
        let Some(ids) = optional_cpus("reading the online NUMA nodes", &path)? else {
            notes.push("sysfs shows no NUMA nodes; all CPUs were taken to be of node 0".into());
            return Ok(vec![NodeInfo { id: 0, cpus: self.online.clone(), memory: None }]);
        };
        ids.iter()
            .map(|id| {
                let cpus =
                    optional_cpus("reading a node's CPUs", &self.node(id, "cpulist"))?.unwrap_or_default();
                Ok(NodeInfo { id, cpus: cpus.intersection(&self.online), memory: self.memory(id)? })
            })
            .collect()
    }

    fn memory(&self, node: u32) -> Result<Option<NodeMemInfo>, SystemError> {
        let path = self.node(node, "meminfo");
        let Some(text) = optional("reading a node's memory", &path)? else { return Ok(None) };
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.split_once(name));
            let value = line.and_then(|(_, rest)| rest.split_ascii_whitespace().next());
            parse(&path, "lines `Node N MemTotal: … kB` and `Node N MemFree: … kB`", value.unwrap_or(&text))
        };
        Ok(Some(NodeMemInfo { total_kib: field("MemTotal:")?, free_kib: field("MemFree:")? }))
    }

    fn distances(&self, nodes: &[NodeInfo]) -> Result<Vec<Vec<u8>>, SystemError> {
        let mut rows = Vec::new();
        for node in nodes {
            let path = self.node(node.id, "distance");
            let Some(text) = optional("reading a node's distances", &path)? else { return Ok(Vec::new()) };
            let row = text.split_ascii_whitespace().map(|d| parse(&path, "distances from 0 to 255", d));
            rows.push(row.collect::<Result<Vec<u8>, _>>()?);
        }
        Ok(rows)
    }
}

/// Numbers the LLCs: the kernel's own numbers when all have one and no two the same,
/// else in the order of their CPUs.
fn numbered(
    groups: BTreeMap<CpuSet, Option<u32>>,
    nodes: &[NodeInfo],
    notes: &mut Vec<String>,
) -> Vec<LlcInfo> {
    let ids: BTreeSet<u32> = groups.values().flatten().copied().collect();
    let kernels = ids.len() == groups.len();
    if !kernels && !ids.is_empty() {
        notes.push("the kernel's cache numbers are not one an LLC; LLCs were numbered by their CPUs".into());
    }
    (0..)
        .zip(groups)
        .map(|(index, (cpus, id))| {
            // An LLC over several nodes is split afterwards; any of them will do here.
            let node = nodes.iter().find(|n| !n.cpus.is_disjoint(&cpus)).map_or(0, |n| n.id);
            LlcInfo { id: id.filter(|_| kernels).unwrap_or(index), node, cpus }
        })
        .collect()
}

#[cfg(test)]
mod tests;
