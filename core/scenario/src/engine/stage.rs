//! The real cgroups and workers of a scenario while it is played.
//!
//! [`Stage`] is a guard: whatever it made is stopped and removed when it goes, be it at
//! the end, after an error or in a panic.

use crate::Ctx;
use crate::engine::error::{Place, ScenarioError};
use crate::engine::judge::Judge;
use crate::engine::model::{deepest_first, path_to};
use crate::engine::plan::{Action, HOST, Planner, SpawnPlan};
use crate::engine::stuck::Progress;
use crate::engine::timeline::Timeline;
use crate::ports::{CgroupError, HostRequest, SchedulerError, WorkerError, WorkerGroup};
use crate::seed::mix;
use crate::{CgroupDef, Op};
use ktstr_assert::{Assert, AssertResult, Detail, DetailKind};
use ktstr_topology::CpuSet;
use ktstr_workload::AffinityIntent;
use std::collections::BTreeSet;

/// Workers that were spawned together, and what is known of them.
pub(crate) struct Group {
    pub(crate) handle: Box<dyn WorkerGroup>,
    /// The cgroup they are in; `None` is the runner's own.
    pub(crate) cgroup: Option<String>,
    /// The step that spawned them.
    owner: u16,
    /// How many there are.
    pub(crate) workers: usize,
    /// All CPUs they could use at some time; `None` when they once were not restricted.
    pub(crate) allowed: Option<CpuSet>,
    /// All NUMA nodes that their memory belonged on at some time, where known.
    pub(crate) nodes: Option<CpuSet>,
    started: bool,
    pub(crate) progress: Progress,
}

/// What a scenario has made so far.
pub(crate) struct Stage<'c> {
    ctx: &'c Ctx<'c>,
    planner: Planner<'c>,
    pub(crate) timeline: Timeline<'c>,
    judge: Judge,
    /// cgroups that exist, in the order made.
    made: Vec<String>,
    frozen: Vec<String>,
    groups: Vec<Group>,
    /// Counts the random draws, so that each has a seed of its own.
    draws: u64,
    /// How often the scheduler was asked how it stands.
    prompts: usize,
    torn_down: bool,
}

/// A scheduler that leaves many behind, again and again, has been asked often enough.
const MOST_PROMPTS: usize = 10;

impl<'c> Stage<'c> {
    pub(crate) fn new(ctx: &'c Ctx<'c>, assert: Assert) -> Self {
        Self {
            ctx,
            planner: Planner::new(ctx),
            timeline: Timeline::new(ctx.ports.clock, ctx.ports.events),
            judge: Judge::new(assert),
            made: Vec::new(),
            frozen: Vec::new(),
            groups: Vec::new(),
            draws: 0,
            prompts: 0,
            torn_down: false,
        }
    }

    /// Applies an op; workers that it spawns start at once.
    pub(crate) fn apply(&mut self, place: Place, op: &Op) -> Result<(), ScenarioError> {
        let actions = self.planner.op(place, op)?;
        self.perform(place, &actions)?;
        self.start_waiting();
        self.timeline.op(op, &actions);
        Ok(())
    }

    /// Makes the cgroups of a step; once all are placed, their workers start together.
    pub(crate) fn set_up(&mut self, place: Place, defs: &[CgroupDef]) -> Result<(), ScenarioError> {
        for def in defs {
            let actions = self.planner.define(place, def)?;
            self.perform(place, &actions)?;
            self.timeline.set_up(place, &def.name, &actions);
        }
        self.start_waiting();
        Ok(())
    }

    /// Iterations of all workers so far.
    pub(crate) fn total_iterations(&self) -> u64 {
        let running = self.groups.iter().flat_map(|g| g.handle.iterations());
        running.fold(self.judge.iterations(), u64::saturating_add)
    }

    /// Ends what a step made: its workers are judged, its cgroups removed.
    pub(crate) fn end_step(&mut self, place: Place) -> Result<(), ScenarioError> {
        for name in self.planner.model.owned_by(place.0) {
            self.remove(place, &name)?;
        }
        self.collect(place, |g| g.owner == place.0)?;
        self.planner.end_step(place);
        Ok(())
    }

    /// Has the scheduler say how it stands when a worker is stuck.
    pub(crate) fn tell_of_stuck_workers(&mut self) {
        let now = self.ctx.ports.clock.now();
        let mut stuck = Vec::new();
        for group in self.groups.iter_mut().filter(|g| g.started) {
            let cgroup = group.cgroup.as_deref().unwrap_or(HOST);
            // Who is frozen can't be expected to get on.
            let held = path_to(cgroup).any(|above| self.frozen.iter().any(|frozen| frozen == above));
            let iterations = group.handle.iterations();
            let found = group.progress.look(&iterations, now, held);
            stuck.extend(found.iter().map(|worker| format!("{cgroup} worker {worker}")));
        }
        if stuck.is_empty() || self.prompts == MOST_PROMPTS {
            return;
        }
        if let Some(answer) = self.ctx.ports.scheduler.prompt() {
            self.prompts += 1;
            self.timeline.stuck(&stuck.join(", "), &answer);
        }
    }

    /// Adds a finding that is not about workers.
    pub(crate) fn find(&mut self, detail: Detail) {
        self.judge.push(detail);
    }

    /// Stops and judges all workers, takes everything down and gives the verdict.
    pub(crate) fn finish(mut self) -> AssertResult {
        // What the kernel looks like now may explain what is found; without it the verdict is
        // the same.
        let _ = self.ctx.ports.host.ask(self.ctx.current_step(), &HostRequest::WorkloadEnds);
        let mut failures = self.thaw_all();
        self.collect_thawed(|_| true);
        self.timeline.terminal(self.judge.iterations());
        failures.extend(self.tear_down());
        for failure in failures {
            self.judge.push(Detail::fail(DetailKind::Teardown, failure));
        }
        std::mem::replace(&mut self.judge, Judge::new(Assert::NO_OVERRIDES)).verdict()
    }

    /// Takes everything down after an error, which may grow by what failed then.
    pub(crate) fn abandon(mut self, error: ScenarioError) -> ScenarioError {
        let mut failures = self.thaw_all();
        failures.extend(self.tear_down());
        if failures.is_empty() {
            return error;
        }
        ScenarioError::Teardown { source: Box::new(error), failures }
    }

    fn perform(&mut self, place: Place, actions: &[Action]) -> Result<(), ScenarioError> {
        for action in actions {
            self.perform_one(place, action)?;
        }
        self.widen();
        Ok(())
    }

    fn perform_one(&mut self, place: Place, action: &Action) -> Result<(), ScenarioError> {
        let cgroups = self.ctx.cgroups;
        match action {
            Action::Create(name) => {
                cgroups.create_cgroup(name).map_err(failed(place, name))?;
                self.made.push(name.clone());
                Ok(())
            }
            Action::SetCpuset(name, cpus) => cgroups.set_cpuset(name, cpus).map_err(failed(place, name)),
            Action::ClearCpuset(name) => cgroups.clear_cpuset(name).map_err(failed(place, name)),
            Action::SetMems(name, nodes) => cgroups.set_cpuset_mems(name, nodes).map_err(failed(place, name)),
            Action::SetLimit(name, limit) => cgroups.set_limit(name, *limit).map_err(failed(place, name)),
            Action::Spawn(plan) => self.spawn(place, plan),
            Action::SetAffinity(name, affinity) => self.set_affinity(place, name, affinity),
            Action::MoveAll { from, to } => self.move_all(place, from, to),
            Action::Freeze(name, frozen) => self.freeze(place, name, *frozen),
            Action::Stop(name) => self.stop(place, name),
            Action::Remove(name) => self.remove(place, name),
            Action::Ask(op, request) => self.ask(place, op, request),
            Action::KeepProcs { tag, cgroup } => {
                let pids = self.ctx.cgroups.procs(cgroup).map_err(failed(place, cgroup))?;
                self.ask(place, "CaptureCgroupProcs", &HostRequest::KeepPids { tag: tag.clone(), pids })
            }
            Action::Pin { map, path } => {
                self.ctx.ports.scheduler.pin_map(map, path).map_err(unscheduled(place))
            }
            Action::SteerIrq(irq, cpus) => {
                let steered = self.ctx.ports.irqs.steer(*irq, cpus);
                steered.map_err(|source| ScenarioError::Irq { place, source })
            }
            Action::Attach(name) => self.ctx.ports.scheduler.attach(name).map_err(unscheduled(place)),
            Action::Detach => self.ctx.ports.scheduler.detach().map_err(unscheduled(place)),
        }
    }

    fn ask(&self, place: Place, op: &'static str, request: &HostRequest) -> Result<(), ScenarioError> {
        let asked = self.ctx.ports.host.ask(place.index(), request);
        asked.map(drop).map_err(|source| ScenarioError::Host { place, op, source })
    }

    fn spawn(&mut self, place: Place, plan: &SpawnPlan) -> Result<(), ScenarioError> {
        let label = plan.cgroup.as_deref().unwrap_or(HOST).to_owned();
        let affinity = self.affinities(place, plan, &label)?;
        let spawned = self.ctx.ports.workers.spawn(&plan.config, &affinity);
        let handle = spawned.map_err(refused(place, &label))?;
        let pids = handle.pids();
        // Held before anything else can fail, so that it is stopped in any case.
        self.groups.push(Group {
            handle,
            cgroup: plan.cgroup.clone(),
            owner: place.0,
            workers: plan.config.num_workers,
            allowed: plan.allowed.clone(),
            nodes: plan.nodes.clone(),
            started: false,
            progress: Progress::default(),
        });
        match &plan.cgroup {
            Some(name) => self.ctx.cgroups.move_tasks(name, &pids).map_err(failed(place, name)),
            None => Ok(()),
        }
    }

    /// One affinity a worker, of the CPUs that the cgroup has right now.
    fn affinities(
        &mut self,
        place: Place,
        plan: &SpawnPlan,
        label: &str,
    ) -> Result<Vec<Option<CpuSet>>, ScenarioError> {
        let workers = plan.config.num_workers;
        if plan.config.affinity == AffinityIntent::Inherit {
            return Ok(vec![None; workers]);
        }
        let cpus = match &plan.cgroup {
            Some(name) => self.ctx.cgroups.effective_cpus(name).map_err(failed(place, name))?,
            None => self.ctx.topo.all_cpuset(),
        };
        let seed = self.next_seed();
        plan.config
            .affinity
            .resolve(self.ctx.topo, &cpus, workers, seed)
            .map_err(|source| ScenarioError::Affinity { place, cgroup: label.to_owned(), source })
    }

    /// One set for all workers of a group; another draw for each group.
    fn set_affinity(
        &mut self,
        place: Place,
        name: &str,
        affinity: &AffinityIntent,
    ) -> Result<(), ScenarioError> {
        let cpus = self.ctx.cgroups.effective_cpus(name).map_err(failed(place, name))?;
        for i in 0..self.groups.len() {
            if self.groups[i].cgroup.as_deref() != Some(name) {
                continue;
            }
            let seed = self.next_seed();
            let sets = affinity
                .resolve(self.ctx.topo, &cpus, 1, seed)
                .map_err(|source| ScenarioError::Affinity { place, cgroup: name.to_owned(), source })?;
            // `Inherit` gives back all that the cgroup has.
            let set = sets.into_iter().next().flatten().unwrap_or_else(|| cpus.clone());
            self.groups[i].handle.set_affinity(&set).map_err(refused(place, name))?;
        }
        Ok(())
    }

    fn move_all(&mut self, place: Place, from: &str, to: &str) -> Result<(), ScenarioError> {
        let pids = self.ctx.cgroups.procs(from).map_err(failed(place, from))?;
        self.ctx.cgroups.move_tasks(to, &pids).map_err(failed(place, to))?;
        for group in self.groups.iter_mut().filter(|g| g.cgroup.as_deref() == Some(from)) {
            group.cgroup = Some(to.to_owned());
        }
        Ok(())
    }

    fn freeze(&mut self, place: Place, name: &str, frozen: bool) -> Result<(), ScenarioError> {
        if frozen && !self.frozen.iter().any(|n| n == name) {
            // Noted first: a freeze that fails half-way is thawed too.
            self.frozen.push(name.to_owned());
        }
        self.ctx.cgroups.set_frozen(name, frozen).map_err(failed(place, name))?;
        if !frozen {
            self.frozen.retain(|n| n != name);
        }
        Ok(())
    }

    fn stop(&mut self, place: Place, name: &str) -> Result<(), ScenarioError> {
        self.collect(place, |g| g.cgroup.as_deref() == Some(name))
    }

    fn remove(&mut self, place: Place, name: &str) -> Result<(), ScenarioError> {
        self.stop(place, name)?;
        if self.frozen.iter().any(|n| n == name) {
            self.freeze(place, name, false)?;
        }
        self.ctx.cgroups.remove_cgroup(name).map_err(failed(place, name))?;
        self.made.retain(|n| n != name);
        Ok(())
    }

    fn start_waiting(&mut self) {
        for group in self.groups.iter_mut().filter(|g| !g.started) {
            group.handle.start();
            group.started = true;
        }
    }

    /// Adds the CPUs and nodes that groups may use from now on to those they could before.
    fn widen(&mut self) {
        for group in &mut self.groups {
            let Some(name) = &group.cgroup else { continue };
            group.allowed = match (group.allowed.take(), self.planner.model.allowed(name)) {
                (Some(before), Some(now)) => Some(before.union(&now)),
                _ => None,
            };
            if let (Some(before), Some(now)) = (&group.nodes, self.planner.model.nodes(name)) {
                group.nodes = Some(before.union(&now));
            }
        }
    }

    /// Stops the groups that `which` chooses and judges them. What holds them frozen is
    /// thawed before, or they could not stop.
    fn collect(&mut self, place: Place, which: impl Fn(&Group) -> bool) -> Result<(), ScenarioError> {
        let chosen = self.groups.iter().filter(|g| which(g)).filter_map(|g| g.cgroup.as_deref());
        let above: BTreeSet<&str> = chosen.flat_map(path_to).collect();
        let frozen: Vec<String> =
            self.frozen.iter().filter(|n| above.contains(n.as_str())).cloned().collect();
        for name in &frozen {
            self.freeze(place, name, false)?;
        }
        self.collect_thawed(which);
        Ok(())
    }

    fn collect_thawed(&mut self, which: impl Fn(&Group) -> bool) {
        let (ended, rest) = std::mem::take(&mut self.groups).into_iter().partition(|g| which(g));
        self.groups = rest;
        self.judge.take(ended);
    }

    fn next_seed(&mut self) -> u64 {
        self.draws += 1;
        mix(self.ctx.seed, self.draws)
    }

    fn thaw_all(&mut self) -> Vec<String> {
        let names = std::mem::take(&mut self.frozen);
        names
            .iter()
            .filter_map(|name| self.ctx.cgroups.set_frozen(name, false).err())
            .map(|e| e.to_string())
            .collect()
    }

    /// Stops workers that are left and removes cgroups, the deepest first. What fails is
    /// said and does not keep the rest from being taken down.
    fn tear_down(&mut self) -> Vec<String> {
        self.torn_down = true;
        for mut group in std::mem::take(&mut self.groups) {
            group.handle.stop_and_collect();
        }
        let mut names: Vec<String> = std::mem::take(&mut self.made).into_iter().rev().collect();
        deepest_first(&mut names);
        names
            .iter()
            .filter_map(|name| self.ctx.cgroups.remove_cgroup(name).err())
            .map(|e| e.to_string())
            .collect()
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        if self.torn_down {
            return;
        }
        // A panic is on its way: nothing can be returned, so failures go to the timeline.
        let mut failures = self.thaw_all();
        failures.extend(self.tear_down());
        for failure in failures {
            self.timeline.teardown_failed(&failure);
        }
    }
}

fn failed(place: Place, cgroup: &str) -> impl FnOnce(CgroupError) -> ScenarioError {
    let cgroup = cgroup.to_owned();
    move |source| ScenarioError::Cgroup { place, cgroup, source }
}

fn refused(place: Place, cgroup: &str) -> impl FnOnce(WorkerError) -> ScenarioError {
    let cgroup = cgroup.to_owned();
    move |source| ScenarioError::Spawn { place, cgroup, source }
}

fn unscheduled(place: Place) -> impl FnOnce(SchedulerError) -> ScenarioError {
    move |source| ScenarioError::Scheduler { place, source }
}
