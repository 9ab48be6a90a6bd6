//! The parts of the kernel's state that a snapshot is asked for.

use crate::snapshot::error::listed;
use crate::snapshot::view::find_map;
use crate::{
    FieldView, KernelState, MapState, MapView, ProgramState, QueueState, RunqueueState, SchedExtState,
    Snapshot, SnapshotError, VariableState,
};

/// What a runqueue keeps for sched_ext (`struct scx_rq`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RqScxState {
    /// The CPU.
    pub cpu: u32,
    /// Runnable tasks of the scheduler.
    pub nr_running: u64,
    /// Tasks on the local dispatch queue.
    pub local_dsq_nr: u64,
    /// `SCX_RQ_*` flags; `None` where they could not be read.
    pub flags: Option<u64>,
}

/// A global variable of a scheduler's programs.
#[derive(Debug, Clone, PartialEq)]
pub struct VarView<'a> {
    /// The map that is its section, such as `fixture.bss`.
    pub section: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its value.
    pub value: FieldView<'a>,
}

/// The BPF side of a scheduler, at a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerView<'a> {
    snapshot: &'a str,
    maps: Vec<&'a MapState>,
}

impl<'a> SchedulerView<'a> {
    /// A map by its name; `.bss` and the like stand for a map whose name ends so. Of several the one that the loaded
    /// scheduler uses.
    ///
    /// # Errors
    /// [`SnapshotError::MapMissing`], [`SnapshotError::AmbiguousMap`]
    pub fn map(&self, name: &str) -> Result<MapView<'a>, SnapshotError> {
        find_map(self.snapshot, &self.maps, name)
    }

    /// A global variable, or what is inside one: `nr_queued`, `stats.seen[2]`; `.data.stats/stats.seen[2]` where
    /// several sections have one of that name. Of several the one of the loaded scheduler.
    ///
    /// # Errors
    /// [`SnapshotError::VarMissing`], [`SnapshotError::AmbiguousVar`], or as [`crate::Value::get`].
    pub fn var(&self, path: &str) -> Result<FieldView<'a>, SnapshotError> {
        let (section, inside) = path.split_once('/').unwrap_or(("", path));
        let maps = self.maps.iter().copied().filter(|map| map.name.ends_with(section));
        let mut found: Vec<(&'a MapState, &'a VariableState)> =
            maps.clone().filter_map(|map| Some((map, named(map, inside)?))).collect();
        if found.len() > 1 && found.iter().any(|(map, _)| map.in_use) {
            found.retain(|(map, _)| map.in_use);
        }
        match found.as_slice() {
            [(_, variable)] => {
                let rest = &inside[variable.name.len()..];
                let whole = FieldView::new(variable.name.as_str(), &variable.typed);
                whole.get(rest.strip_prefix('.').unwrap_or(rest))
            }
            [] => {
                let more = maps.clone().map(|map| map.more).sum::<usize>();
                let names = maps.flat_map(|map| map.variables.iter().map(|v| v.name.as_str()));
                let mut known = listed(names);
                if more > 0 {
                    known = format!("{known}; {more} were not read");
                }
                let (snapshot, name) = (self.snapshot.to_string(), path.to_string());
                Err(SnapshotError::VarMissing { snapshot, name, known })
            }
            several => {
                let places: Vec<String> =
                    several.iter().map(|(map, _)| format!("{} (ID {})", map.name, map.id)).collect();
                let found = listed(places.iter().map(String::as_str));
                Err(SnapshotError::AmbiguousVar { name: path.to_string(), found })
            }
        }
    }

    /// All global variables, by section.
    pub fn vars(&self) -> Vec<VarView<'a>> {
        let of_map = |map: &'a MapState| {
            map.variables.iter().map(move |v| VarView {
                section: &map.name,
                name: &v.name,
                value: FieldView::new(v.name.as_str(), &v.typed),
            })
        };
        self.maps.iter().copied().flat_map(of_map).collect()
    }
}

/// The variable that a path begins with. A static one of a function is called `function.variable`: the longest name
/// that fits is meant.
fn named<'a>(map: &'a MapState, path: &str) -> Option<&'a VariableState> {
    let fits = |v: &&VariableState| {
        path.strip_prefix(v.name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    map.variables.iter().filter(fits).max_by_key(|v| v.name.len())
}

/// Each of these says by its error why something is not there.
impl Snapshot {
    /// The kernel's state.
    ///
    /// # Errors
    /// [`SnapshotError::NoState`], [`SnapshotError::Unavailable`] where none of it could be read.
    pub fn kernel(&self) -> Result<&KernelState, SnapshotError> {
        let state = self.state.as_ref().ok_or_else(|| SnapshotError::NoState(self.name.clone()))?;
        match &state.unread {
            Some(why) => Err(self.unavailable("the kernel's state", why)),
            None => Ok(state),
        }
    }

    /// sched_ext as a whole, loaded scheduler or not.
    ///
    /// # Errors
    /// As [`kernel`](Self::kernel); [`SnapshotError::NoScheduler`] where the kernel has no sched_ext.
    pub fn scx_sched_state(&self) -> Result<&SchedExtState, SnapshotError> {
        let state = self.kernel()?;
        state
            .sched_ext
            .as_ref()
            .ok_or_else(|| self.no_scheduler("this kernel has no sched_ext, or it can't be read"))
    }

    /// What the loaded scheduler has in BPF, and nothing that is left of one before it.
    ///
    /// # Errors
    /// [`SnapshotError::NoScheduler`] where none is enabled; as [`scx_sched_state`](Self::scx_sched_state).
    pub fn active(&self) -> Result<SchedulerView<'_>, SnapshotError> {
        let scx = self.scx_sched_state()?;
        if scx.state != "enabled" {
            return Err(self.no_scheduler(&format!("sched_ext is {}", scx.state)));
        }
        let maps: Vec<&MapState> = scx.maps.iter().filter(|map| map.in_use).collect();
        match maps.is_empty() {
            true => Err(self.unavailable("the loaded scheduler's maps", &self.why(scx))),
            false => Ok(SchedulerView { snapshot: &self.name, maps }),
        }
    }

    /// What any scheduler has in BPF, or has left: also of one that the kernel has dropped, as long as its program holds it.
    fn scheduler(&self) -> Result<SchedulerView<'_>, SnapshotError> {
        let scx = self.scx_sched_state()?;
        match scx.maps.is_empty() {
            true => Err(self.no_scheduler(&format!("sched_ext is {}; {}", scx.state, self.why(scx)))),
            false => Ok(SchedulerView { snapshot: &self.name, maps: scx.maps.iter().collect() }),
        }
    }

    /// A BPF map of a scheduler, as [`SchedulerView::map`].
    ///
    /// # Errors
    /// As there; [`SnapshotError::NoScheduler`]
    pub fn map(&self, name: &str) -> Result<MapView<'_>, SnapshotError> {
        self.scheduler()?.map(name)
    }

    /// A global variable of a scheduler, as [`SchedulerView::var`]. Unlike a value of `snapshot_paths` it needs no asking
    /// for.
    ///
    /// # Errors
    /// As there; [`SnapshotError::NoScheduler`]
    pub fn var(&self, path: &str) -> Result<FieldView<'_>, SnapshotError> {
        self.scheduler()?.var(path)
    }

    /// A global variable of the scheduler that is loaded, and of no other.
    ///
    /// # Errors
    /// As [`active`](Self::active) and [`SchedulerView::var`].
    pub fn live_var(&self, path: &str) -> Result<FieldView<'_>, SnapshotError> {
        self.active()?.var(path)
    }

    /// All global variables of schedulers.
    ///
    /// # Errors
    /// [`SnapshotError::NoScheduler`]
    pub fn vars(&self) -> Result<Vec<VarView<'_>>, SnapshotError> {
        Ok(self.scheduler()?.vars())
    }

    /// What runqueues keep for sched_ext, by CPU.
    ///
    /// # Errors
    /// [`SnapshotError::NoScheduler`] where the kernel keeps nothing for it; as [`kernel`](Self::kernel).
    pub fn rq_scx_states(&self) -> Result<Vec<RqScxState>, SnapshotError> {
        let one = |rq: &RunqueueState| {
            let (nr_running, local_dsq_nr) = (rq.scx_nr_running?, rq.local_dsq_nr?);
            Some(RqScxState { cpu: rq.cpu, nr_running, local_dsq_nr, flags: rq.scx_flags })
        };
        let found: Vec<RqScxState> = self.kernel()?.runqueues.iter().filter_map(one).collect();
        match found.is_empty() {
            true => Err(self.no_scheduler("no runqueue has members for sched_ext that could be read")),
            false => Ok(found),
        }
    }

    /// The dispatch queues: those of CPUs and nodes, and the scheduler's own.
    ///
    /// # Errors
    /// As [`active`](Self::active) where there is none.
    pub fn dsq_states(&self) -> Result<&[QueueState], SnapshotError> {
        let scx = self.scx_sched_state()?;
        match scx.dsqs.is_empty() {
            true => Err(self.no_scheduler(&format!("sched_ext is {} and has no dispatch queue", scx.state))),
            false => Ok(&scx.dsqs),
        }
    }

    /// The scheduler's programs, with how often and how long they ran.
    ///
    /// # Errors
    /// [`SnapshotError::NoScheduler`] without programs.
    pub fn prog_runtime_stats(&self) -> Result<&[ProgramState], SnapshotError> {
        let scx = self.scx_sched_state()?;
        match scx.programs.is_empty() {
            true => Err(self.no_scheduler(&format!("sched_ext is {} and has no program", scx.state))),
            false => Ok(&scx.programs),
        }
    }

    pub(crate) fn unavailable(&self, path: &str, why: &str) -> SnapshotError {
        SnapshotError::Unavailable {
            snapshot: self.name.clone(),
            path: path.to_string(),
            why: why.to_string(),
        }
    }

    fn no_scheduler(&self, why: &str) -> SnapshotError {
        SnapshotError::NoScheduler { snapshot: self.name.clone(), why: why.to_string() }
    }

    /// What the reader said of the scheduler's BPF side.
    fn why(&self, scx: &SchedExtState) -> String {
        let problems = self.state.iter().flat_map(|state| &state.problems);
        let told = problems.into_iter().find(|problem| problem.contains("BPF")).cloned();
        told.unwrap_or_else(|| {
            format!("{} of its programs and {} maps were found", scx.programs.len(), scx.maps.len())
        })
    }
}

#[cfg(test)]
mod tests;
