//! Telling the host what the scenario does, as it does it.

use crate::engine::error::Place;
use crate::engine::layout::layout;
use crate::engine::plan::Action;
use crate::ports::{Clock, EventSink};
use crate::{Op, StimulusEvent};
use std::time::Duration;

/// Stamps events with the scenario's time and sends them.
pub(crate) struct Timeline<'c> {
    clock: &'c dyn Clock,
    sink: &'c dyn EventSink,
    begin: Duration,
    place: Place,
}

impl<'c> Timeline<'c> {
    /// The scenario begins now.
    pub(crate) fn new(clock: &'c dyn Clock, sink: &'c dyn EventSink) -> Self {
        Self { clock, sink, begin: clock.now(), place: Place::BACKDROP }
    }

    /// When the scenario began, by the clock.
    pub(crate) fn begin(&self) -> Duration {
        self.begin
    }

    /// ms since then.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        let elapsed = self.clock.now().saturating_sub(self.begin);
        u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
    }

    pub(crate) fn scenario_begin(&self, steps: usize) {
        self.send(StimulusEvent {
            label: "scenario begin".to_owned(),
            detail: format!("{steps} steps"),
            ..StimulusEvent::default()
        });
    }

    /// `cgroups` are those that the step sets up.
    pub(crate) fn step_begin(&mut self, place: Place, cgroups: &[String]) {
        self.place = place;
        self.send(StimulusEvent {
            label: place.to_string(),
            detail: cgroups.join(" "),
            ..StimulusEvent::default()
        });
    }

    /// A cgroup with its workers, and the actions that made them; told apart from what is done to them later.
    pub(crate) fn set_up(&self, place: Place, name: &str, actions: &[Action]) {
        self.sink.stimulus(&StimulusEvent {
            elapsed_ms: self.elapsed_ms(),
            step_index: place.index(),
            label: name.to_owned(),
            op_kind: "Setup".to_owned(),
            detail: layout(actions),
            ..StimulusEvent::default()
        });
    }

    pub(crate) fn step_end(&self, place: Place, total_iterations: u64) {
        self.send(StimulusEvent {
            label: place.to_string(),
            total_iterations: Some(total_iterations),
            is_step_end: true,
            ..StimulusEvent::default()
        });
    }

    /// An op, and the actions that it came to.
    pub(crate) fn op(&self, op: &Op, actions: &[Action]) {
        self.send(StimulusEvent {
            label: op.label(),
            op_kind: op.kind().to_owned(),
            detail: detail(op, actions),
            ..StimulusEvent::default()
        });
    }

    pub(crate) fn terminal(&self, total_iterations: u64) {
        self.send(StimulusEvent {
            label: "scenario end".to_owned(),
            total_iterations: Some(total_iterations),
            is_terminal: true,
            ..StimulusEvent::default()
        });
    }

    /// Workers that get no further, and what was done about it.
    pub(crate) fn stuck(&self, workers: &str, done: &str) {
        self.send(StimulusEvent {
            label: "worker_stuck".to_owned(),
            op_kind: "WorkerStuck".to_owned(),
            detail: format!("{workers}: {done}"),
            ..StimulusEvent::default()
        });
    }

    pub(crate) fn teardown_failed(&self, what: &str) {
        self.send(StimulusEvent {
            label: "teardown failed".to_owned(),
            detail: what.to_owned(),
            ..StimulusEvent::default()
        });
    }

    fn send(&self, event: StimulusEvent) {
        let stamped =
            StimulusEvent { elapsed_ms: self.elapsed_ms(), step_index: self.place.index(), ..event };
        self.sink.stimulus(&stamped);
    }
}

/// What an op was applied to, such as `cg_0 0-3`.
fn detail(op: &Op, actions: &[Action]) -> String {
    match op {
        Op::AddCgroup { name }
        | Op::RemoveCgroup { name }
        | Op::StopCgroup { name }
        | Op::ClearCpuset { name }
        | Op::FreezeCgroup { name }
        | Op::UnfreezeCgroup { name } => name.clone(),
        Op::AddCgroupDef(def) => format!("{}: {}", def.name, layout(actions)),
        Op::SetCpuset { .. } | Op::SwapCpusets { .. } => cpusets(actions),
        Op::Spawn { name, work } => format!("{name} {}", work.work_type.name()),
        Op::SpawnHost { work } => work.work_type.name().to_owned(),
        Op::SetAffinity { name, affinity } => format!("{name} {affinity:?}"),
        Op::MoveAllTasks { from, to } => format!("{from} {to}"),
        Op::CaptureSnapshot { name } => name.clone(),
        Op::WatchSnapshot { symbol } => symbol.clone(),
        Op::CaptureCgroupProcs { tag, cgroup } => format!("{tag} {cgroup}"),
        Op::ReadKernelHot { tag, path } | Op::ReadKernelCold { tag, path } => format!("{tag} {path}"),
        Op::WriteKernelHot { path, value } | Op::WriteKernelCold { path, value } => {
            format!("{path} {value}")
        }
        Op::SteerIrq { irq, cpus } => format!("{irq} {cpus}"),
        Op::PinBpfMap { map, path } => format!("{map} {path}"),
        Op::AttachScheduler { .. } | Op::RestartScheduler | Op::ReplaceScheduler { .. } => attached(actions),
        Op::DetachScheduler => String::new(),
    }
}

/// The scheduler that came in.
fn attached(actions: &[Action]) -> String {
    let name = actions.iter().find_map(|action| match action {
        Action::Attach(name) => Some(name.clone()),
        _ => None,
    });
    name.unwrap_or_default()
}

/// The cpusets that came out, such as `cg_0 0-1 cg_1 -`.
fn cpusets(actions: &[Action]) -> String {
    let parts = actions.iter().filter_map(|action| match action {
        Action::SetCpuset(name, cpus) => Some(format!("{name} {cpus}")),
        Action::ClearCpuset(name) => Some(format!("{name} -")),
        _ => None,
    });
    parts.collect::<Vec<_>>().join(" ")
}
