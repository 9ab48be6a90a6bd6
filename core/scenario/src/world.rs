//! A machine of mocks for the tests of this crate.
//!
//! Every port is a `mockall` mock; together they keep a small model of a machine
//! (cgroups that exist, workers and what became of them, a clock that only moves when
//! slept on), write a log of the calls, and can be told to fail at any one of them.

use crate::ports::{
    CgroupError, CgroupLimit, HostError, HostRequest, IrqError, MockCgroupOps, MockClock, MockEventSink,
    MockHostLink, MockIrqOps, MockSchedulerOps, MockWorkerGroup, MockWorkerOps, SchedulerError, WorkerError,
    WorkerGroup,
};
use crate::{Ctx, Ports, StimulusEvent};
use ktstr_topology::{CpuSet, TestTopology, Topology};
use ktstr_workload::{Pid, WorkType, WorkerReport, WorkloadConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What became of a worker group.
#[derive(Debug, Clone, Default)]
pub(crate) struct GroupState {
    pub(crate) config: WorkloadConfig,
    pub(crate) affinity: Vec<Option<CpuSet>>,
    pub(crate) pids: Vec<Pid>,
    pub(crate) started_at: Option<Duration>,
    pub(crate) stopped: bool,
    pub(crate) dropped: bool,
}

/// The machine's state and what was done to it.
#[derive(Default)]
pub(crate) struct State {
    /// Calls that change or read something, in order.
    pub(crate) log: Vec<String>,
    /// Calls that may fail, so far.
    pub(crate) fallible: usize,
    /// The one of them that fails.
    pub(crate) fail_at: Option<usize>,
    /// cgroups that exist, with their own cpuset.
    pub(crate) cgroups: BTreeMap<String, Option<CpuSet>>,
    pub(crate) frozen: BTreeSet<String>,
    /// Where each pid is.
    pub(crate) places: BTreeMap<Pid, String>,
    pub(crate) groups: Vec<GroupState>,
    pub(crate) now: Duration,
    /// What a call that may fail takes.
    pub(crate) cost: Duration,
    /// When sleeping past this, the clock panics.
    pub(crate) panic_at: Option<Duration>,
    /// When all workers get stuck.
    pub(crate) stuck_from: Option<Duration>,
    /// When the scheduler dies.
    pub(crate) scheduler_dies_at: Option<Duration>,
    /// Schedulers of the test; the first is attached at the beginning.
    pub(crate) schedulers: Vec<String>,
    /// The scheduler that is attached.
    pub(crate) attached: Option<String>,
    pub(crate) events: Vec<StimulusEvent>,
    /// Changes a worker's report before it is handed over.
    pub(crate) spoil: Option<fn(&mut WorkerReport)>,
    /// Reports that are lost on the way, a group.
    pub(crate) lose: usize,
    /// cgroups that can't be removed.
    pub(crate) stuck: BTreeSet<String>,
}

impl State {
    fn call(&mut self, what: String) -> bool {
        let fails = self.fail_at == Some(self.fallible);
        self.fallible += 1;
        self.now += self.cost;
        self.log.push(if fails { format!("{what} FAILS") } else { what });
        fails
    }

    fn cgroup_call(&mut self, name: &str, doing: &'static str, what: &str) -> Result<(), CgroupError> {
        let line = if what.is_empty() { format!("{doing} {name}") } else { format!("{doing} {name} {what}") };
        if self.call(line) {
            return Err(io_error(doing, name, io::ErrorKind::PermissionDenied));
        }
        Ok(())
    }

    fn existing(&mut self, name: &str, doing: &'static str, what: &str) -> Result<(), CgroupError> {
        self.cgroup_call(name, doing, what)?;
        if self.cgroups.contains_key(name) {
            return Ok(());
        }
        Err(CgroupError::NotOurs { doing, name: name.to_owned() })
    }

    fn worker_call(&mut self, what: String) -> Result<(), WorkerError> {
        if self.call(what) {
            let source = io::ErrorKind::OutOfMemory.into();
            return Err(WorkerError::Os { doing: "forking".to_owned(), hint: String::new(), source });
        }
        Ok(())
    }

    /// Every cgroup is gone and every group was stopped or dropped.
    pub(crate) fn is_clean(&self) -> bool {
        self.cgroups.is_empty() && self.groups.iter().all(|g| g.stopped || g.dropped)
    }

    fn report(&self, id: usize, index: usize) -> WorkerReport {
        let group = &self.groups[id];
        let now = self.stuck_from.map_or(self.now, |from| self.now.min(from));
        let wall = group.started_at.map_or(Duration::ZERO, |at| now.saturating_sub(at));
        let wall_ns = wall.as_nanos() as u64;
        let pid = group.pids[index];
        let cpus = self.places.get(&pid).and_then(|c| self.cgroups.get(c).cloned().flatten());
        let mut report = WorkerReport {
            tid: pid,
            index: index as u32,
            work_units: wall.as_millis() as u64,
            iterations: wall.as_millis() as u64,
            cpu_time_ns: wall_ns / 2,
            wall_time_ns: wall_ns,
            off_cpu_ns: wall_ns / 2,
            cpus_used: cpus.unwrap_or_else(|| CpuSet::from_iter([0])),
            completed: true,
            ..WorkerReport::default()
        };
        if let Some(spoil) = self.spoil {
            spoil(&mut report);
        }
        report
    }
}

fn io_error(doing: &str, path: &str, kind: io::ErrorKind) -> CgroupError {
    CgroupError::Io {
        doing: doing.to_owned(),
        path: path.to_owned(),
        hint: String::new(),
        source: kind.into(),
    }
}

/// The machine's shared state.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<State>>);

impl Shared {
    /// The state, also after a test's panic.
    pub(crate) fn get(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A machine of mocks.
pub(crate) struct World {
    pub(crate) state: Shared,
    pub(crate) topo: TestTopology,
    cgroups: MockCgroupOps,
    workers: MockWorkerOps,
    clock: MockClock,
    events: MockEventSink,
    scheduler: MockSchedulerOps,
    host: MockHostLink,
    irqs: MockIrqOps,
}

impl World {
    /// One node, `llcs` LLCs of `cores` CPUs.
    pub(crate) fn new(llcs: u32, cores: u32) -> Self {
        Self::with_topology(&Topology::new(1, llcs, cores, 1).unwrap())
    }

    pub(crate) fn with_topology(topology: &Topology) -> Self {
        let state = Shared::default();
        let topo = TestTopology::from_vm_topology(topology).unwrap();
        Self {
            cgroups: cgroups(&state, &topo),
            workers: workers(&state),
            clock: clock(&state),
            events: events(&state),
            scheduler: scheduler(&state),
            host: host(&state),
            irqs: irqs(&state),
            state,
            topo,
        }
    }

    /// A context on this machine: 2 s, 2 workers a cgroup.
    pub(crate) fn ctx(&self) -> Ctx<'_> {
        let ports = Ports {
            workers: &self.workers,
            clock: &self.clock,
            events: &self.events,
            scheduler: &self.scheduler,
            host: &self.host,
            irqs: &self.irqs,
        };
        Ctx::new(&self.topo, &self.cgroups, ports)
    }

    /// The log without the lines that only read.
    pub(crate) fn log(&self) -> Vec<String> {
        let reads = ["effective", "procs"];
        self.state.get().log.iter().filter(|l| !reads.iter().any(|r| l.starts_with(r))).cloned().collect()
    }
}

fn cgroups(state: &Shared, topo: &TestTopology) -> MockCgroupOps {
    let mut mock = MockCgroupOps::new();
    let s = state.clone();
    mock.expect_create_cgroup().returning(move |name| {
        let mut s = s.get();
        s.cgroup_call(name, "create", "")?;
        if let Some((parent, _)) = name.rsplit_once('/') {
            assert!(s.cgroups.contains_key(parent), "the engine makes {name} before what is above it");
        }
        match s.cgroups.insert(name.to_owned(), None) {
            None => Ok(()),
            Some(_) => Err(CgroupError::Exists { name: name.to_owned() }),
        }
    });
    let s = state.clone();
    mock.expect_remove_cgroup().returning(move |name| {
        let mut s = s.get();
        s.cgroup_call(name, "remove", "")?;
        let below = format!("{name}/");
        if s.stuck.contains(name) || s.cgroups.keys().any(|n| n.starts_with(&below)) {
            return Err(io_error("removing", name, io::ErrorKind::ResourceBusy));
        }
        s.places.retain(|_, at| at != name);
        s.cgroups.remove(name);
        s.frozen.remove(name);
        Ok(())
    });
    let s = state.clone();
    mock.expect_set_cpuset().returning(move |name, cpus| {
        let mut s = s.get();
        s.existing(name, "cpuset", &cpus.to_string())?;
        s.cgroups.insert(name.to_owned(), Some(cpus.clone()));
        Ok(())
    });
    let s = state.clone();
    mock.expect_clear_cpuset().returning(move |name| {
        let mut s = s.get();
        s.existing(name, "clear", "")?;
        s.cgroups.insert(name.to_owned(), None);
        Ok(())
    });
    let s = state.clone();
    mock.expect_set_cpuset_mems()
        .returning(move |name, nodes| s.get().existing(name, "mems", &nodes.to_string()));
    let (s, all) = (state.clone(), topo.all_cpuset());
    mock.expect_effective_cpus().returning(move |name| {
        let mut s = s.get();
        s.existing(name, "effective", "")?;
        Ok(s.cgroups[name].clone().unwrap_or_else(|| all.clone()))
    });
    let s = state.clone();
    mock.expect_set_limit()
        .returning(move |name, limit: CgroupLimit| s.get().existing(name, "limit", &format!("{limit:?}")));
    let s = state.clone();
    mock.expect_move_tasks().returning(move |name, pids| {
        let mut s = s.get();
        s.existing(name, "move", &format!("{pids:?}"))?;
        s.places.extend(pids.iter().map(|&pid| (pid, name.to_owned())));
        Ok(())
    });
    let s = state.clone();
    mock.expect_procs().returning(move |name| {
        let mut s = s.get();
        s.existing(name, "procs", "")?;
        Ok(s.places.iter().filter(|(_, at)| *at == name).map(|(&pid, _)| pid).collect())
    });
    let s = state.clone();
    mock.expect_set_frozen().returning(move |name, frozen| {
        let mut s = s.get();
        s.existing(name, if frozen { "freeze" } else { "thaw" }, "")?;
        if frozen {
            s.frozen.insert(name.to_owned());
        } else {
            s.frozen.remove(name);
        }
        Ok(())
    });
    mock
}

fn workers(state: &Shared) -> MockWorkerOps {
    let mut mock = MockWorkerOps::new();
    let s = state.clone();
    mock.expect_spawn().returning(move |config, affinity| {
        let mut inner = s.get();
        let id = inner.groups.len();
        inner.worker_call(format!("spawn {id}: {} {}", config.num_workers, config.work_type.name()))?;
        assert_eq!(affinity.len(), config.num_workers, "one affinity a worker");
        let first = 100 * (id as Pid + 1);
        inner.groups.push(GroupState {
            config: config.clone(),
            affinity: affinity.to_vec(),
            pids: (first..).take(config.num_workers).collect(),
            ..GroupState::default()
        });
        Ok(Box::new(group(&s, id)) as Box<dyn WorkerGroup>)
    });
    mock
}

/// Notes that the group was let go.
struct OnDrop(Shared, usize);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.get().groups[self.1].dropped = true;
    }
}

fn group(state: &Shared, id: usize) -> MockWorkerGroup {
    let mut mock = MockWorkerGroup::new();
    let s = state.clone();
    mock.expect_pids().returning(move || s.get().groups[id].pids.clone());
    let s = state.clone();
    mock.expect_start().returning(move || {
        let mut s = s.get();
        s.log.push(format!("start {id}"));
        assert_eq!(s.groups[id].started_at, None, "a group starts once");
        s.groups[id].started_at = Some(s.now);
    });
    let s = state.clone();
    mock.expect_set_affinity().returning(move |cpus| s.get().worker_call(format!("affinity {id} {cpus}")));
    let s = state.clone();
    mock.expect_iterations().returning(move || {
        let s = s.get();
        (0..s.groups[id].pids.len()).map(|i| s.report(id, i).iterations).collect()
    });
    mock.expect_request_stop().return_const(());
    let (s, guard) = (state.clone(), OnDrop(state.clone(), id));
    mock.expect_stop_and_collect().returning(move || {
        let _held = &guard;
        let mut s = s.get();
        s.log.push(format!("stop {id}"));
        let home = s.groups[id].pids.first().and_then(|p| s.places.get(p)).cloned();
        let frozen =
            home.is_some_and(|at| s.frozen.iter().any(|f| at == *f || at.starts_with(&format!("{f}/"))));
        // Where thawing failed, the kernel still lets frozen workers be killed.
        let tried = s.log.iter().any(|l| l.starts_with("thaw") && l.ends_with("FAILS"));
        assert!(!frozen || tried, "group {id} is frozen and can't stop");
        if std::mem::replace(&mut s.groups[id].stopped, true) {
            return Vec::new();
        }
        let n = s.groups[id].pids.len() - s.lose.min(s.groups[id].pids.len());
        (0..n).map(|i| s.report(id, i)).collect()
    });
    mock
}

fn clock(state: &Shared) -> MockClock {
    let mut mock = MockClock::new();
    let s = state.clone();
    mock.expect_now().returning(move || s.get().now);
    let s = state.clone();
    mock.expect_sleep_until().returning(move |deadline| {
        let mut s = s.get();
        assert!(deadline > s.now, "sleeping until {deadline:?} at {:?} is pointless", s.now);
        let panics = s.panic_at.is_some_and(|at| deadline > at);
        s.now = deadline;
        drop(s);
        assert!(!panics, "the clock panics as told");
    });
    mock
}

fn events(state: &Shared) -> MockEventSink {
    let mut mock = MockEventSink::new();
    let s = state.clone();
    mock.expect_stimulus().returning(move |event| s.get().events.push(event.clone()));
    mock
}

fn unscheduled(doing: &'static str, name: &str) -> SchedulerError {
    SchedulerError { doing, name: name.to_owned(), why: "told to fail".to_owned() }
}

fn scheduler(state: &Shared) -> MockSchedulerOps {
    let mut mock = MockSchedulerOps::new();
    let s = state.clone();
    mock.expect_failure().returning(move || {
        let s = s.get();
        s.scheduler_dies_at
            .filter(|at| s.now >= *at)
            .map(|_| "scx_demo exited: runnable task stall".to_owned())
    });
    let s = state.clone();
    mock.expect_staged().returning(move || s.get().schedulers.clone());
    let s = state.clone();
    mock.expect_attached().returning(move || s.get().attached.clone());
    let s = state.clone();
    mock.expect_attach().returning(move |name| {
        let mut s = s.get();
        assert_eq!(s.attached, None, "the engine detaches before it attaches");
        if s.call(format!("attach {name}")) {
            return Err(unscheduled("attaching", name));
        }
        s.attached = Some(name.to_owned());
        Ok(())
    });
    let s = state.clone();
    mock.expect_detach().returning(move || {
        let mut s = s.get();
        let name = s.attached.take().expect("the engine detaches what is attached");
        match s.call(format!("detach {name}")) {
            true => Err(unscheduled("detaching", &name)),
            false => Ok(()),
        }
    });
    let s = state.clone();
    mock.expect_prompt().returning(move || {
        let mut s = s.get();
        s.attached.clone().map(|name| {
            s.log.push(format!("prompt {name}"));
            format!("{name} was asked")
        })
    });
    let s = state.clone();
    mock.expect_pin_map().returning(move |map, path| match s.get().call(format!("pin {map} at {path}")) {
        true => Err(unscheduled("pinning a map of", "mine")),
        false => Ok(()),
    });
    mock
}

fn host(state: &Shared) -> MockHostLink {
    let mut mock = MockHostLink::new();
    let s = state.clone();
    mock.expect_ask().returning(move |step, request| {
        if *request == HostRequest::WorkloadEnds {
            return Ok(0);
        }
        let fails = s.get().call(format!("ask in step {step}: {request:?}"));
        if fails { Err(HostError::Refused("no such variable".to_owned())) } else { Ok(0) }
    });
    mock
}

/// There is one interrupt, 24.
fn irqs(state: &Shared) -> MockIrqOps {
    let mut mock = MockIrqOps::new();
    let s = state.clone();
    mock.expect_steer().returning(move |irq, cpus| {
        let fails = s.get().call(format!("steer {irq} to {cpus}"));
        if irq == 24 && !fails { Ok(()) } else { Err(IrqError::Unknown { irq, known: "24".to_owned() }) }
    });
    mock
}

/// A work type for which workers come in pairs.
pub(crate) fn pairs() -> WorkType {
    WorkType::pipe_io(16)
}
