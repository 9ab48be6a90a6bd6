//! From definitions and ops to the single actions they mean.
//!
//! [`Planner`] checks an op against the model, moves the model on, and says what has to
//! be done. The dry run throws the actions away; the stage carries them out.

use crate::engine::error::{Place, ScenarioError};
use crate::engine::model::Model;
use crate::ports::{CgroupLimit, HostRequest};
use crate::{CgroupDef, Ctx, Op};
use ktstr_topology::{CpuSet, CpusetSpec};
use ktstr_workload::{AffinityIntent, MemPolicy, WorkSpec, WorkloadConfig};
use std::collections::BTreeSet;

/// One thing to do to the machine.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    Create(String),
    SetCpuset(String, CpuSet),
    ClearCpuset(String),
    SetMems(String, CpuSet),
    SetLimit(String, CgroupLimit),
    Spawn(Box<SpawnPlan>),
    SetAffinity(String, AffinityIntent),
    MoveAll {
        from: String,
        to: String,
    },
    Freeze(String, bool),
    Stop(String),
    Remove(String),
    /// Has the host do something.
    Ask(&'static str, HostRequest),
    /// Has the host keep the members of a cgroup.
    KeepProcs {
        tag: String,
        cgroup: String,
    },
    /// Has a map of the scheduler's pinned.
    Pin {
        map: String,
        path: String,
    },
    /// Has only these CPUs take an interrupt.
    SteerIrq(u32, CpuSet),
    Attach(String),
    Detach,
}

/// Workers to spawn.
#[derive(Debug, Clone)]
pub(crate) struct SpawnPlan {
    /// The cgroup; `None` is the runner's own.
    pub(crate) cgroup: Option<String>,
    pub(crate) config: WorkloadConfig,
    /// CPUs that the workers may use; `None` when not restricted.
    pub(crate) allowed: Option<CpuSet>,
    /// NUMA nodes that their memory belongs on, where known.
    pub(crate) nodes: Option<CpuSet>,
}

/// Variables that can be watched at once.
const MAX_WATCHED: usize = 3;

/// How reports name workers in the runner's own cgroup.
pub(crate) const HOST: &str = "host";

/// Checks ops and definitions and turns them into actions.
#[derive(Clone)]
pub(crate) struct Planner<'c> {
    ctx: &'c Ctx<'c>,
    pub(crate) model: Model<'c>,
    /// Variables of the kernel's that are watched.
    watched: BTreeSet<String>,
}

impl<'c> Planner<'c> {
    pub(crate) fn new(ctx: &'c Ctx<'c>) -> Self {
        let model = Model::new(ctx.topo, ctx.ports.scheduler.attached());
        Self { ctx, model, watched: BTreeSet::new() }
    }

    /// A cgroup with all that its definition says. Its workers are spawned, not started.
    pub(crate) fn define(&mut self, place: Place, def: &CgroupDef) -> Result<Vec<Action>, ScenarioError> {
        let name = &def.name;
        let mut actions: Vec<Action> = self.model.add(place, name)?.into_iter().map(Action::Create).collect();
        if let Some(spec) = &def.cpuset {
            actions.push(self.set_cpuset(place, "CgroupDef", name, spec)?);
        }
        if let Some(mems) = &def.mems {
            self.check_nodes(place, name, "cpuset.mems", mems, None)?;
            self.model.get_mut(place, "CgroupDef", name)?.mems = Some(mems.clone());
            actions.push(Action::SetMems(name.clone(), mems.clone()));
        }
        for &limit in &def.limits {
            check_limit(limit).map_err(|what| ScenarioError::Limit { place, cgroup: name.clone(), what })?;
            actions.push(Action::SetLimit(name.clone(), limit));
        }
        let mut main = def.main.clone();
        if let (true, Some(other)) = (def.swappable, &self.ctx.work_type_override) {
            main.work_type = other.clone();
        }
        for spec in std::iter::once(&main).chain(&def.more) {
            actions.push(self.spawn(place, "CgroupDef", name, spec)?);
        }
        Ok(actions)
    }

    /// What an op means at this point.
    pub(crate) fn op(&mut self, place: Place, op: &Op) -> Result<Vec<Action>, ScenarioError> {
        let kind = op.kind();
        match op {
            Op::AddCgroup { name } => {
                Ok(self.model.add(place, name)?.into_iter().map(Action::Create).collect())
            }
            Op::AddCgroupDef(def) => self.define(place, def),
            Op::RemoveCgroup { name } => Ok(self.remove(name)),
            Op::StopCgroup { name } => {
                self.model.get_mut(place, kind, name)?.groups.clear();
                Ok(vec![Action::Stop(name.clone())])
            }
            Op::SetCpuset { name, cpus } => Ok(vec![self.set_cpuset(place, kind, name, cpus)?]),
            Op::ClearCpuset { name } => {
                self.model.get_mut(place, kind, name)?.cpus = None;
                Ok(vec![Action::ClearCpuset(name.clone())])
            }
            Op::SwapCpusets { a, b } => self.swap_cpusets(place, kind, a, b),
            Op::Spawn { name, work } => Ok(vec![self.spawn(place, kind, name, work)?]),
            Op::SpawnHost { work } => Ok(vec![Action::Spawn(Box::new(self.spawn_plan(place, None, work)?))]),
            Op::SetAffinity { name, affinity } => self.set_affinity(place, kind, name, affinity),
            Op::MoveAllTasks { from, to } => self.move_all(place, kind, from, to),
            Op::FreezeCgroup { name } | Op::UnfreezeCgroup { name } => {
                self.model.get_mut(place, kind, name)?;
                Ok(vec![Action::Freeze(name.clone(), matches!(op, Op::FreezeCgroup { .. }))])
            }
            Op::CaptureCgroupProcs { tag, cgroup } => {
                self.model.get_mut(place, kind, cgroup)?;
                if tag.is_empty() {
                    return Err(nameless(place, kind));
                }
                Ok(vec![Action::KeepProcs { tag: tag.clone(), cgroup: cgroup.clone() }])
            }
            Op::CaptureSnapshot { .. }
            | Op::WatchSnapshot { .. }
            | Op::ReadKernelHot { .. }
            | Op::ReadKernelCold { .. }
            | Op::WriteKernelHot { .. }
            | Op::WriteKernelCold { .. } => self.ask(place, kind, op),
            Op::PinBpfMap { map, path } => self.pin(place, kind, map, path),
            Op::SteerIrq { irq, cpus } => self.steer(place, *irq, cpus),
            Op::AttachScheduler { name } => self.attach(place, kind, name.as_deref()),
            Op::DetachScheduler => self.detach(place, kind).map(|_| vec![Action::Detach]),
            Op::RestartScheduler => {
                let name = self.detach(place, kind)?;
                self.model.attached = Some(name.clone());
                Ok(vec![Action::Detach, Action::Attach(name)])
            }
            Op::ReplaceScheduler { name } => {
                self.detach(place, kind)?;
                let mut actions = self.attach(place, kind, Some(name))?;
                actions.insert(0, Action::Detach);
                Ok(actions)
            }
        }
    }

    /// What the host is to do.
    fn ask(&mut self, place: Place, kind: &'static str, op: &Op) -> Result<Vec<Action>, ScenarioError> {
        let Some(request) = op.request() else { return Ok(Vec::new()) };
        let needed: &[&String] = match &request {
            HostRequest::Capture { name } => &[name],
            HostRequest::Watch { symbol } => &[symbol],
            HostRequest::ReadKernel { tag, path, .. } => &[tag, path],
            HostRequest::WriteKernel { path, .. } => &[path],
            HostRequest::KeepPids { .. } | HostRequest::WorkloadEnds => &[],
        };
        if needed.iter().any(|text| text.is_empty()) {
            return Err(nameless(place, kind));
        }
        if let HostRequest::Watch { symbol } = &request {
            self.watched.insert(symbol.clone());
            if self.watched.len() > MAX_WATCHED {
                let why = format!(
                    "{} variables are watched: expected at most {MAX_WATCHED}, as many as a CPU can",
                    self.watched.len()
                );
                return Err(ScenarioError::Pointless { place, op: kind, why });
            }
        }
        Ok(vec![Action::Ask(kind, request)])
    }

    /// The end of a step whose doings don't outlast it.
    pub(crate) fn end_step(&mut self, place: Place) {
        for name in self.model.owned_by(place.0) {
            self.remove(&name);
        }
        self.model.forget_groups_of(place.0);
    }

    fn steer(&self, place: Place, irq: u32, cpus: &CpuSet) -> Result<Vec<Action>, ScenarioError> {
        let all = self.ctx.topo.all_cpuset();
        let why = if cpus.is_empty() {
            Some("no CPU would take it".to_string())
        } else if !cpus.is_subset(&all) {
            Some(format!("CPUs {cpus} are not all among the machine's, {all}"))
        } else {
            None
        };
        match why {
            Some(why) => Err(ScenarioError::IrqCpus { place, irq, why }),
            None => Ok(vec![Action::SteerIrq(irq, cpus.clone())]),
        }
    }

    fn pin(
        &mut self,
        place: Place,
        op: &'static str,
        map: &str,
        path: &str,
    ) -> Result<Vec<Action>, ScenarioError> {
        if map.is_empty() || path.is_empty() {
            return Err(nameless(place, op));
        }
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            let why = format!("{path:?}: expected a path below /sys/fs/bpf, such as \"my_map\"");
            return Err(ScenarioError::Pointless { place, op, why });
        }
        if self.model.attached.is_none() {
            return Err(ScenarioError::Pointless { place, op, why: UNATTACHED.to_owned() });
        }
        Ok(vec![Action::Pin { map: map.to_owned(), path: path.to_owned() }])
    }

    /// `None` is the test's own scheduler.
    fn attach(
        &mut self,
        place: Place,
        op: &'static str,
        name: Option<&str>,
    ) -> Result<Vec<Action>, ScenarioError> {
        if let Some(attached) = &self.model.attached {
            let why = format!(
                "{attached:?} is attached at that point; use Op::ReplaceScheduler or detach it first"
            );
            return Err(ScenarioError::Pointless { place, op, why });
        }
        let staged = self.ctx.ports.scheduler.staged();
        let chosen = match name {
            Some(name) => staged.iter().find(|s| *s == name),
            None => staged.first(),
        };
        let Some(chosen) = chosen.cloned() else {
            let name = name.unwrap_or("the test's own").to_owned();
            return Err(ScenarioError::NoScheduler { place, op, name, staged: staged.join(", ") });
        };
        self.model.attached = Some(chosen.clone());
        Ok(vec![Action::Attach(chosen)])
    }

    /// The name of the one that was attached.
    fn detach(&mut self, place: Place, op: &'static str) -> Result<String, ScenarioError> {
        let why = || UNATTACHED.to_owned();
        self.model.attached.take().ok_or_else(|| ScenarioError::Pointless { place, op, why: why() })
    }

    fn remove(&mut self, name: &str) -> Vec<Action> {
        let names = self.model.subtree(name);
        for n in &names {
            self.model.remove(n);
        }
        names.into_iter().map(Action::Remove).collect()
    }

    fn set_cpuset(
        &mut self,
        place: Place,
        op: &'static str,
        name: &str,
        spec: &CpusetSpec,
    ) -> Result<Action, ScenarioError> {
        let entry = self.model.get_mut(place, op, name)?;
        let cpus = spec.resolve(self.ctx.topo).map_err(|source| ScenarioError::Cpuset {
            place,
            cgroup: name.to_owned(),
            source,
        })?;
        entry.cpus = Some(cpus.clone());
        Ok(Action::SetCpuset(name.to_owned(), cpus))
    }

    fn swap_cpusets(
        &mut self,
        place: Place,
        op: &'static str,
        a: &str,
        b: &str,
    ) -> Result<Vec<Action>, ScenarioError> {
        let cpus_a = self.model.get_mut(place, op, a)?.cpus.clone();
        let cpus_b = self.model.get_mut(place, op, b)?.cpus.clone();
        if a == b || (cpus_a.is_none() && cpus_b.is_none()) {
            let why = format!(
                "{a:?} and {b:?} have no cpusets to exchange; give at least one of two cgroups a cpuset"
            );
            return Err(ScenarioError::Pointless { place, op, why });
        }
        let action = |name: &str, cpus: &Option<CpuSet>| match cpus {
            Some(cpus) => Action::SetCpuset(name.to_owned(), cpus.clone()),
            None => Action::ClearCpuset(name.to_owned()),
        };
        let actions = vec![action(a, &cpus_b), action(b, &cpus_a)];
        self.model.get_mut(place, op, a)?.cpus = cpus_b;
        self.model.get_mut(place, op, b)?.cpus = cpus_a;
        Ok(actions)
    }

    fn set_affinity(
        &mut self,
        place: Place,
        op: &'static str,
        name: &str,
        affinity: &AffinityIntent,
    ) -> Result<Vec<Action>, ScenarioError> {
        if self.model.get_mut(place, op, name)?.groups.is_empty() {
            return Err(ScenarioError::NoWorkers { place, op, name: name.to_owned() });
        }
        self.check_affinity(place, name, affinity, 1, &self.model.cpus(name))?;
        Ok(vec![Action::SetAffinity(name.to_owned(), affinity.clone())])
    }

    fn move_all(
        &mut self,
        place: Place,
        op: &'static str,
        from: &str,
        to: &str,
    ) -> Result<Vec<Action>, ScenarioError> {
        let moved = std::mem::take(&mut self.model.get_mut(place, op, from)?.groups);
        self.model.get_mut(place, op, to)?.groups.extend(&moved);
        if moved.is_empty() {
            return Err(ScenarioError::NoWorkers { place, op, name: from.to_owned() });
        }
        Ok(vec![Action::MoveAll { from: from.to_owned(), to: to.to_owned() }])
    }

    fn spawn(
        &mut self,
        place: Place,
        op: &'static str,
        name: &str,
        spec: &WorkSpec,
    ) -> Result<Action, ScenarioError> {
        self.model.get_mut(place, op, name)?;
        let plan = self.spawn_plan(place, Some(name), spec)?;
        self.model.get_mut(place, op, name)?.groups.push(place.0);
        Ok(Action::Spawn(Box::new(plan)))
    }

    fn spawn_plan(
        &self,
        place: Place,
        cgroup: Option<&str>,
        spec: &WorkSpec,
    ) -> Result<SpawnPlan, ScenarioError> {
        let label = cgroup.unwrap_or(HOST);
        let allowed = cgroup.and_then(|name| self.model.allowed(name));
        let cpus = allowed.clone().unwrap_or_else(|| self.ctx.topo.all_cpuset());
        let workers = spec
            .count(cpus.len(), self.ctx.workers_per_cgroup)
            .map_err(|source| ScenarioError::Workers { place, cgroup: label.to_owned(), source })?;
        spec.validate().map_err(|source| ScenarioError::Policy {
            place,
            cgroup: label.to_owned(),
            source,
        })?;
        self.check_affinity(place, label, &spec.affinity, workers, &cpus)?;
        let named = policy_nodes(&spec.mem_policy);
        let mems = cgroup.and_then(|name| self.model.mems(name));
        if let Some(nodes) = &named {
            self.check_nodes(place, label, "memory policy", nodes, mems.as_ref())?;
        }
        let nodes = named.or_else(|| cgroup.and_then(|name| self.model.nodes(name)));
        let mut config = WorkloadConfig::from_spec(spec, workers);
        // So that the kernel's own reports say whose worker it is.
        config.comm.get_or_insert_with(|| label.rsplit('/').next().unwrap_or(label).to_owned());
        Ok(SpawnPlan { cgroup: cgroup.map(str::to_owned), config, allowed, nodes })
    }

    fn check_affinity(
        &self,
        place: Place,
        cgroup: &str,
        affinity: &AffinityIntent,
        workers: usize,
        cpus: &CpuSet,
    ) -> Result<(), ScenarioError> {
        let resolved = affinity.resolve(self.ctx.topo, cpus, workers, self.ctx.seed);
        resolved.map(drop).map_err(|source| ScenarioError::Affinity {
            place,
            cgroup: cgroup.to_owned(),
            source,
        })
    }

    /// Rejects nodes that the machine does not have or that lie outside `within`.
    fn check_nodes(
        &self,
        place: Place,
        cgroup: &str,
        what: &'static str,
        nodes: &CpuSet,
        within: Option<&CpuSet>,
    ) -> Result<(), ScenarioError> {
        let machine: CpuSet = self.ctx.topo.nodes().iter().map(|n| n.id).collect();
        let available = within.map_or(machine.clone(), |w| w.intersection(&machine));
        if nodes.is_empty() || !nodes.is_subset(&available) {
            let (nodes, available) = (format!("[{nodes}]"), format!("[{available}]"));
            return Err(ScenarioError::Nodes { place, cgroup: cgroup.to_owned(), what, nodes, available });
        }
        Ok(())
    }
}

const UNATTACHED: &str = "no scheduler is attached at that point; declare the test with `scheduler = …`";

fn nameless(place: Place, op: &'static str) -> ScenarioError {
    let why = "a name or path is empty: what it is kept under, or what is to be read".to_string();
    ScenarioError::Pointless { place, op, why }
}

/// The nodes that a memory policy names; `None` when it names none.
fn policy_nodes(policy: &MemPolicy) -> Option<CpuSet> {
    let nodes: CpuSet = policy.nodes().into_iter().collect();
    (!nodes.is_empty()).then_some(nodes)
}

/// Checks a limit against the ranges of `Documentation/admin-guide/cgroup-v2.rst` and
/// `kernel/sched/core.c` (`max_bw_quota_period_us`); the error says what was expected.
fn check_limit(limit: CgroupLimit) -> Result<(), String> {
    let weight = |file: &str, w: u32| match w {
        1..=10_000 => Ok(()),
        _ => Err(format!("{file}: expected a weight from 1 to 10000, got {w}")),
    };
    match limit {
        CgroupLimit::CpuWeight(w) => weight("cpu.weight", w),
        CgroupLimit::IoWeight(w) => weight("io.weight", w),
        CgroupLimit::CpuMax { period_us, .. } if !(1_000..=1_000_000).contains(&period_us) => {
            Err(format!("cpu.max: expected a period from 1000 to 1000000 us, got {period_us}"))
        }
        CgroupLimit::CpuMax { quota_us: Some(quota), .. } if quota < 1_000 => {
            Err(format!("cpu.max: expected a quota of at least 1000 us, got {quota}"))
        }
        _ => Ok(()),
    }
}
