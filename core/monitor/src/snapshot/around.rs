//! What a snapshot tells of the machine around the scheduler: time, pressure, memory, and all tasks.

use crate::{CpuUse, KernelState, NodeState, PressureState, Snapshot, SnapshotError, TaskState};
use std::collections::BTreeSet;

/// Each of these says by its error why something is not there.
impl Snapshot {
    /// What each CPU spent its time on, and the softirqs that it ran.
    ///
    /// # Errors
    /// As [`kernel`](Self::kernel); [`SnapshotError::Unavailable`] where none was read.
    pub fn per_cpu_time(&self) -> Result<&[CpuUse], SnapshotError> {
        let state = self.kernel()?;
        self.some_of(&state.cpu_use, state, "the time of CPUs", "time")
    }

    /// How the tasks of a cgroup were held up, by resource. Its path is the kernel's, such as `/ktstr/cg_0`, or the end
    /// of one that no other ends with: `cg_0`.
    ///
    /// # Errors
    /// [`SnapshotError::Unavailable`] without that cgroup, and on a kernel that doesn't keep pressure.
    pub fn cgroup_psi(&self, cgroup: &str) -> Result<&[PressureState], SnapshotError> {
        let state = self.kernel()?;
        let ends_so = |path: &str| path.strip_suffix(cgroup).is_some_and(|rest| rest.ends_with('/'));
        let found: Vec<_> =
            state.cgroups.iter().filter(|group| group.path == cgroup || ends_so(&group.path)).collect();
        match found.as_slice() {
            [group] => {
                self.some_of(&group.pressure, state, &format!("pressure of {}", group.path), "pressure")
            }
            [] => Err(self.unavailable(&format!("cgroup {cgroup}"), "there was none of that path")),
            several => {
                let paths: Vec<&str> = several.iter().map(|group| group.path.as_str()).collect();
                Err(self.unavailable(
                    &format!("cgroup {cgroup}"),
                    &format!("it may be any of {}", paths.join(", ")),
                ))
            }
        }
    }

    /// Where the pages of each NUMA node came from.
    ///
    /// # Errors
    /// As [`per_cpu_time`](Self::per_cpu_time).
    pub fn per_node_numa(&self) -> Result<&[NodeState], SnapshotError> {
        let state = self.kernel()?;
        self.some_of(&state.nodes, state, "counters of NUMA nodes", "NUMA")
    }

    /// All tasks, each once; idle ones are those of runqueues.
    ///
    /// # Errors
    /// As [`kernel`](Self::kernel).
    pub fn task_enrichments(&self) -> Result<Vec<&TaskState>, SnapshotError> {
        let state = self.kernel()?;
        let of_runqueues = state.runqueues.iter().flat_map(|rq| rq.current.iter().chain(&rq.runnable));
        let mut seen = BTreeSet::new();
        // Each CPU's idle task has pid 0.
        let each = |task: &&TaskState| task.pid == 0 || seen.insert(task.pid);
        Ok(of_runqueues.chain(&state.tasks).filter(each).collect())
    }

    /// One of them by its thread id.
    ///
    /// # Errors
    /// [`SnapshotError::Unavailable`] for one that was not there, or past what is listed.
    pub fn task_enrichment_by_pid(&self, pid: i64) -> Result<&TaskState, SnapshotError> {
        self.task_enrichments()?.into_iter().find(|task| task.pid == pid).ok_or_else(|| {
            let cut = self.state.iter().flat_map(|state| &state.left_out).find(|why| why.contains("tasks"));
            let why = cut.map_or("there was no such task".to_string(), |cut| {
                format!("there was no such task among those that were read ({cut})")
            });
            self.unavailable(&format!("task {pid}"), &why)
        })
    }

    fn some_of<'a, T>(
        &self,
        found: &'a [T],
        state: &KernelState,
        what: &str,
        about: &str,
    ) -> Result<&'a [T], SnapshotError> {
        if !found.is_empty() {
            return Ok(found);
        }
        let told = state.problems.iter().chain(&state.left_out).find(|why| why.contains(about));
        Err(self.unavailable(what, told.map_or("the kernel has none", String::as_str)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{CgroupState, RunqueueState, SnapshotCause};

    fn snapshot(state: KernelState) -> Snapshot {
        Snapshot { state: Some(state), ..Snapshot::new("s", 0, 0, SnapshotCause::Op) }
    }

    fn task(pid: i64) -> TaskState {
        TaskState { pid, ..TaskState::default() }
    }

    #[test]
    fn what_is_there_is_had_and_what_is_not_has_a_reason() {
        let whole = snapshot(KernelState {
            cpu_use: vec![CpuUse { cpu: 1, ..CpuUse::default() }],
            nodes: vec![NodeState { node: 2, ..NodeState::default() }],
            ..KernelState::default()
        });
        assert_eq!(whole.per_cpu_time().unwrap()[0].cpu, 1);
        assert_eq!(whole.per_node_numa().unwrap()[0].node, 2);
        let lacks = vec!["NUMA counters: this kernel has no symbol node_data".to_string()];
        let empty = snapshot(KernelState { left_out: lacks, ..KernelState::default() });
        assert!(empty.per_node_numa().unwrap_err().to_string().contains("no symbol node_data"));
        assert!(empty.per_cpu_time().unwrap_err().to_string().contains("the kernel has none"));
    }

    #[test]
    fn a_cgroup_is_found_by_its_path_or_the_end_of_one() {
        let group = |path: &str, resource: &str| CgroupState {
            path: path.into(),
            pressure: vec![PressureState { resource: resource.into(), ..PressureState::default() }],
            ..CgroupState::default()
        };
        let of = snapshot(KernelState {
            cgroups: vec![group("/ktstr/cg_0", "cpu"), group("/ktstr/cg_1", "io"), group("/a/cg_1", "irq")],
            ..KernelState::default()
        });
        assert_eq!(of.cgroup_psi("cg_0").unwrap()[0].resource, "cpu");
        assert_eq!(of.cgroup_psi("/a/cg_1").unwrap()[0].resource, "irq");
        assert!(of.cgroup_psi("cg_1").unwrap_err().to_string().contains("any of /ktstr/cg_1, /a/cg_1"));
        assert!(of.cgroup_psi("g_0").unwrap_err().to_string().contains("none of that path"));
    }

    #[test]
    fn all_tasks_are_told_once() {
        let rq =
            RunqueueState { current: Some(task(7)), runnable: vec![task(8)], ..RunqueueState::default() };
        let of = snapshot(KernelState {
            runqueues: vec![rq],
            tasks: vec![task(7), task(8), task(9)],
            left_out: vec!["tasks past 4096".into()],
            ..KernelState::default()
        });
        let pids: Vec<i64> = of.task_enrichments().unwrap().iter().map(|task| task.pid).collect();
        assert_eq!(pids, [7, 8, 9]);
        assert_eq!(of.task_enrichment_by_pid(9).unwrap().pid, 9);
        assert!(of.task_enrichment_by_pid(10).unwrap_err().to_string().contains("tasks past 4096"));
    }
}
