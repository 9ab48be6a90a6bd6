//! The cgroups that are live at a point of a scenario.
//!
//! The same model serves twice: the dry run moves it through the whole scenario before
//! anything is made, and the stage keeps it beside the real cgroups while playing.

use crate::engine::error::{Place, ScenarioError};
use ktstr_topology::{CpuSet, TestTopology};
use std::collections::BTreeMap;

/// What is known of one live cgroup.
#[derive(Debug, Clone, Default)]
pub(crate) struct Entry {
    /// The step that made it; 0 is the backdrop.
    owner: u16,
    /// Its own `cpuset.cpus`, when set.
    pub(crate) cpus: Option<CpuSet>,
    /// Its own `cpuset.mems`, when set.
    pub(crate) mems: Option<CpuSet>,
    /// The step that spawned each worker group in it.
    pub(crate) groups: Vec<u16>,
}

/// The live cgroups by name.
#[derive(Clone)]
pub(crate) struct Model<'t> {
    topo: &'t TestTopology,
    live: BTreeMap<String, Entry>,
    /// The scheduler that is attached, by name.
    pub(crate) attached: Option<String>,
}

impl<'t> Model<'t> {
    pub(crate) fn new(topo: &'t TestTopology, attached: Option<String>) -> Self {
        Self { topo, live: BTreeMap::new(), attached }
    }

    /// Adds a cgroup, and those above it that are missing; the names in order of creation.
    pub(crate) fn add(&mut self, place: Place, name: &str) -> Result<Vec<String>, ScenarioError> {
        check_name(place, name)?;
        if self.live.contains_key(name) {
            return Err(ScenarioError::Taken { place, name: name.to_owned() });
        }
        let made: Vec<String> =
            path_to(name).filter(|n| !self.live.contains_key(*n)).map(str::to_owned).collect();
        for n in &made {
            self.live.insert(n.clone(), Entry { owner: place.0, ..Entry::default() });
        }
        Ok(made)
    }

    /// A live cgroup.
    pub(crate) fn get_mut(
        &mut self,
        place: Place,
        op: &'static str,
        name: &str,
    ) -> Result<&mut Entry, ScenarioError> {
        let missing = (!self.live.contains_key(name)).then(|| self.names());
        self.live.get_mut(name).ok_or_else(|| ScenarioError::NoCgroup {
            place,
            op,
            name: name.to_owned(),
            live: missing.unwrap_or_default(),
        })
    }

    /// The live names for a message.
    fn names(&self) -> String {
        let names: Vec<&str> = self.live.keys().map(String::as_str).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }

    /// A cgroup and all below it, the deepest first; nothing when it is not live.
    pub(crate) fn subtree(&self, name: &str) -> Vec<String> {
        let below = format!("{name}/");
        let mut names: Vec<String> =
            self.live.keys().filter(|n| *n == name || n.starts_with(&below)).cloned().collect();
        deepest_first(&mut names);
        names
    }

    /// The cgroups that a step made, the deepest first.
    pub(crate) fn owned_by(&self, owner: u16) -> Vec<String> {
        let mut names: Vec<String> =
            self.live.iter().filter(|(_, e)| e.owner == owner).map(|(n, _)| n.clone()).collect();
        deepest_first(&mut names);
        names
    }

    /// Forgets a cgroup.
    pub(crate) fn remove(&mut self, name: &str) {
        self.live.remove(name);
    }

    /// Forgets the worker groups that a step spawned.
    pub(crate) fn forget_groups_of(&mut self, owner: u16) {
        for entry in self.live.values_mut() {
            entry.groups.retain(|o| *o != owner);
        }
    }

    /// The CPUs a cgroup may use, or `None` when neither it nor one above it has a cpuset.
    ///
    /// As `kernel/cgroup/cpuset.c` does: own CPUs among the parent's, and the parent's
    /// alone where none would be left.
    pub(crate) fn allowed(&self, name: &str) -> Option<CpuSet> {
        let mut allowed: Option<CpuSet> = None;
        for cpus in path_to(name).filter_map(|n| self.live.get(n)?.cpus.as_ref()) {
            allowed = Some(match allowed {
                None => cpus.clone(),
                Some(above) => {
                    let both = above.intersection(cpus);
                    if both.is_empty() { above } else { both }
                }
            });
        }
        allowed
    }

    /// The CPUs a cgroup may use, all of the machine where it is not restricted.
    pub(crate) fn cpus(&self, name: &str) -> CpuSet {
        self.allowed(name).unwrap_or_else(|| self.topo.all_cpuset())
    }

    /// The NUMA nodes of the nearest `cpuset.mems`, else those of its CPUs; `None` when
    /// it has neither.
    pub(crate) fn nodes(&self, name: &str) -> Option<CpuSet> {
        let mems = path_to(name).filter_map(|n| self.live.get(n)?.mems.clone()).last();
        mems.or_else(|| {
            let cpus = self.allowed(name)?;
            Some(self.topo.nodes().iter().filter(|n| !n.cpus.is_disjoint(&cpus)).map(|n| n.id).collect())
        })
    }

    /// The nearest `cpuset.mems`; `None` when none is set.
    pub(crate) fn mems(&self, name: &str) -> Option<CpuSet> {
        path_to(name).filter_map(|n| self.live.get(n)?.mems.clone()).last()
    }
}

/// The names along the path to a cgroup, the outermost first: `a`, `a/b` for `a/b`.
pub(crate) fn path_to(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(i, _)| &name[..i]).chain([name])
}

/// Sorts so that no cgroup comes before one below it.
pub(crate) fn deepest_first(names: &mut [String]) {
    names.sort_by_key(|n| std::cmp::Reverse(n.matches('/').count()));
}

/// How the kernel's files in a cgroup begin, so that a directory may not.
const RESERVED: [&str; 10] =
    ["cgroup.", "cpu.", "cpuset.", "memory.", "io.", "pids.", "hugetlb.", "rdma.", "misc.", "irq."];

fn check_name(place: Place, name: &str) -> Result<(), ScenarioError> {
    let bad = |why| Err(ScenarioError::Name { place, name: name.to_owned(), why });
    if name.is_empty() {
        return bad("it is empty");
    }
    for part in name.split('/') {
        match part {
            "" => return bad("it has an empty part"),
            "." | ".." => return bad("it leaves the test's own cgroups"),
            p if p.len() > 255 => return bad("a part is longer than 255 bytes"),
            p if p.chars().any(char::is_control) => return bad("a part has a control character"),
            p if RESERVED.iter().any(|r| p.starts_with(r)) => {
                return bad("a part begins like a control file of the kernel");
            }
            _ => {}
        }
    }
    Ok(())
}
