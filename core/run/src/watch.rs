//! An eye on the kernel of the machine that is driven.

use crate::ports::HostClock;
use ktstr_machine::{MachineError, Vm};
use ktstr_monitor::{Inspector, KernelState, Monitor, MonitorLog};
use ktstr_wire::Stimulus;
use std::time::Duration;

/// Who looks into the kernel, and when.
pub struct Watch<'a> {
    inspector: Option<&'a mut dyn Inspector>,
    monitor: Monitor,
    attached: bool,
    booted: bool,
    needed: bool,
    begins: Option<Box<dyn FnOnce() + 'a>>,
}

/// How long a machine is held for the reader of its kernel.
const PATIENCE: Duration = Duration::from_secs(20);

impl<'a> Watch<'a> {
    /// Looks into the kernel through `inspector` when `monitor` says so, and when the machine
    /// hangs.
    pub fn new(inspector: &'a mut dyn Inspector, monitor: Monitor) -> Self {
        Self { inspector: Some(inspector), ..Self::of(monitor) }
    }

    /// Nobody looks, for that reason.
    pub fn blind(reason: &str) -> Self {
        Self::of(Monitor::off(reason))
    }

    fn of(monitor: Monitor) -> Self {
        Self { inspector: None, monitor, attached: false, booted: false, needed: false, begins: None }
    }

    /// Calls `told` when the test begins: work that can wait for it does not keep the guest
    /// from getting there.
    #[must_use]
    pub fn telling_when_the_test_begins(self, told: impl FnOnce() + 'a) -> Self {
        Self { begins: Some(Box::new(told)), ..self }
    }

    /// The machine resumes with its kernel already up, which can be looked for at once
    /// rather than when the guest greets.
    #[must_use]
    pub fn of_booted(self) -> Self {
        Self { booted: true, ..self }
    }

    /// The test's own checks need samples: the machine is held, its clock with it, until its
    /// kernel can be read, so that a loaded host does not cost them.
    #[must_use]
    pub fn before_the_test(self) -> Self {
        Self { needed: true, ..self }
    }

    /// The machine was started.
    pub(crate) fn started(&mut self, vm: &mut dyn Vm) {
        if self.booted {
            self.look(vm);
        }
    }

    /// The guest has greeted: its kernel is up and can be looked for.
    pub(crate) fn greeted(&mut self, vm: &mut dyn Vm) -> Result<(), MachineError> {
        self.look(vm);
        match self.inspector.as_deref_mut() {
            Some(inspector) if self.needed && self.monitor.is_on() => {
                vm.pause()?;
                // Why it failed, the samples tell.
                let _ = inspector.wait_ready(PATIENCE);
                vm.resume()
            }
            _ => Ok(()),
        }
    }

    fn look(&mut self, vm: &mut dyn Vm) {
        // Only a machine that is sampled needs it now; a dump finds the kernel by itself.
        if self.monitor.is_on() && !self.attached {
            self.attach(vm);
            // The first question may take the hypervisor a while; no sample shall wait for it.
            let _ = vm.vcpu_times();
        }
    }

    pub(crate) fn test_begins(&mut self, now: Duration) {
        self.monitor.begin(now);
        if let Some(told) = self.begins.take() {
            told();
        }
    }

    pub(crate) fn test_ends(&mut self) {
        self.monitor.end();
    }

    /// Steps of a scenario, not its single ops, are phases.
    pub(crate) fn stimulus(&mut self, now: Duration, stimulus: &Stimulus) {
        if stimulus.kind.is_empty() {
            let ends = if stimulus.is_step_end { " ends" } else { "" };
            self.monitor.mark(now, &format!("{}{ends}", stimulus.label));
        }
    }

    /// How long to wait for the machine's next word.
    pub(crate) fn wait(&self, now: Duration, longest: Duration) -> Duration {
        self.monitor.due_in(now).map_or(longest, |due| due.min(longest))
    }

    /// Takes a sample if one is due.
    pub(crate) fn poll(&mut self, vm: &mut dyn Vm, clock: &dyn HostClock) {
        if let Some(inspector) = self.inspector.as_deref_mut() {
            self.monitor.poll(inspector, &|| clock.now(), &mut || vm.vcpu_times());
        }
    }

    /// What the kernel of a machine that hangs looks like; the machine is paused for good.
    /// `None` when nobody looks. What goes wrong is part of the answer.
    pub(crate) fn state(&mut self, vm: &mut dyn Vm) -> Option<KernelState> {
        if !self.attached {
            self.attach(vm);
        }
        let inspector = self.inspector.as_deref_mut()?;
        let mut problems = Vec::new();
        let mut note = |what: &str, error: MachineError| problems.push(format!("{what}: {error}"));
        let paused = vm.pause();
        let registers = paused.and_then(|()| vm.registers());
        let registers = registers.unwrap_or_else(|e| {
            note("registers", e);
            Vec::new()
        });
        let mut state = inspector.state(&registers).unwrap_or_else(|e| {
            problems.push(format!("the kernel's state: {e}"));
            KernelState::of_registers(&registers)
        });
        state.problems.extend(problems);
        Some(state)
    }

    pub(crate) fn into_log(self) -> MonitorLog {
        self.monitor.into_log()
    }

    fn attach(&mut self, vm: &dyn Vm) {
        if let Some(inspector) = self.inspector.as_deref_mut() {
            inspector.attach(vm.memory());
            self.attached = true;
        }
    }
}
