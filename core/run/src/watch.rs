//! An eye on the kernel of the machine that is driven.

use crate::ports::HostClock;
use ktstr_machine::{MachineError, VcpuRegisters, Vm};
use ktstr_monitor::{
    COUNTERS_DIFFER, HostCounters, Inspector, KernelState, LongestWait, Mark, Monitor, MonitorLog, Snapshots,
    VcpuReadings,
};
use ktstr_wire::{Answer, Stimulus};
use std::time::Duration;

/// Who looks into the kernel, and when.
pub struct Watch<'a> {
    pub(crate) inspector: Option<&'a mut dyn Inspector>,
    pub(crate) monitor: Monitor,
    /// Counts what the host does for the vCPUs.
    counting: Counting<'a>,
    attached: bool,
    booted: bool,
    needed: bool,
    /// Hears when the test begins.
    begins: Option<Box<dyn FnOnce() + 'a>>,
    /// Stopping the machine at an instant of the host's would change what the guest does.
    pub(crate) own_instants: bool,
    /// Values that every snapshot holds.
    pub(crate) paths: &'a [&'a str],
    pub(crate) snapshots: Snapshots,
    /// The kernel when the workload ended.
    pub(crate) ending: Option<KernelState>,
    /// The kernel when something was wrong; the first such moment.
    pub(crate) wrong: Option<KernelState>,
    looked_early: bool,
    /// The kernel while a scheduler let a task wait for half of what the watchdog allows.
    pub(crate) early: Option<KernelState>,
    complaints: Vec<String>,
    /// Variables whose writes stop the machine.
    pub(crate) watched: Vec<Watched>,
    /// The last request's id, and its answer.
    pub(crate) answered: Option<(u64, Answer)>,
    /// How often the machine could not be stopped in time.
    pub(crate) unstopped: usize,
}

/// What counts on the host, and whether it has begun to.
#[derive(Default)]
struct Counting<'a> {
    counters: Option<&'a mut dyn HostCounters>,
    opened: bool,
}

/// Why nothing is counted on the host where nothing has begun to.
const NO_THREADS: &str =
    "performance counters of the vCPUs: the host's threads that run them aren't known, or they share one";

impl Counting<'_> {
    /// Begins, once the threads are known.
    fn begin(&mut self, vm: &mut dyn Vm) {
        if let Some(counters) = self.counters.as_deref_mut().filter(|_| !self.opened)
            && let Some(threads) = vm.vcpu_threads()
        {
            counters.open(&threads);
            self.opened = true;
        }
    }

    /// What the host knows of the vCPUs now.
    fn readings(&mut self, vm: &mut dyn Vm, with_counters: bool) -> VcpuReadings {
        let mut readings = VcpuReadings { times: vm.vcpu_times(), ..VcpuReadings::default() };
        if with_counters {
            self.begin(vm);
            self.add_to(&mut readings);
        }
        readings
    }

    fn add_to(&mut self, readings: &mut VcpuReadings) {
        let Some(counters) = self.counters.as_deref_mut() else { return };
        if self.opened {
            readings.counters = counters.read();
            readings.left_out = counters.left_out();
        } else {
            readings.left_out.push(NO_THREADS.to_string());
        }
    }
}

/// A variable whose writes stop the machine.
pub(crate) struct Watched {
    pub(crate) symbol: String,
    pub(crate) address: u64,
    pub(crate) hits: usize,
}

/// All that a watch has to tell.
pub(crate) struct Told {
    pub(crate) log: MonitorLog,
    pub(crate) snapshots: Snapshots,
    pub(crate) complaints: Vec<String>,
    pub(crate) state: Option<KernelState>,
    /// An earlier one, before the kernel acted on what was wrong.
    pub(crate) early: Option<KernelState>,
}

/// How long a machine is held for the reader of its kernel.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
const MAX_COMPLAINTS: usize = 32;

impl<'a> Watch<'a> {
    /// Looks into the kernel through `inspector` when `monitor` says so, when the guest asks
    /// for it, and when the machine hangs.
    pub fn new(inspector: &'a mut dyn Inspector, monitor: Monitor) -> Self {
        Self { inspector: Some(inspector), ..Self::watching(monitor) }
    }

    /// Nobody looks, for that reason.
    pub fn blind(reason: &str) -> Self {
        Self::watching(Monitor::off(reason))
    }

    fn watching(monitor: Monitor) -> Self {
        Self {
            inspector: None,
            monitor,
            counting: Counting::default(),
            attached: false,
            booted: false,
            needed: false,
            begins: None,
            own_instants: false,
            paths: &[],
            snapshots: Snapshots::default(),
            ending: None,
            wrong: None,
            looked_early: false,
            early: None,
            complaints: Vec::new(),
            watched: Vec::new(),
            answered: None,
            unstopped: 0,
        }
    }

    /// The guest must only be stopped at instants that it reaches itself.
    #[must_use]
    pub fn at_the_guests_instants(self) -> Self {
        Self { own_instants: true, ..self }
    }

    /// What the host does for the vCPUs is counted by `counters`. Not at the guest's own instants: it differs from run to
    /// run.
    #[must_use]
    pub fn counting(self, counters: &'a mut dyn HostCounters) -> Self {
        Self { counting: Counting { counters: Some(counters), opened: false }, ..self }
    }

    /// Every snapshot holds the values at these paths.
    #[must_use]
    pub fn with_paths(self, paths: &'a [&'a str]) -> Self {
        Self { paths, ..self }
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
            Some(inspector) if self.needed && self.monitor.is_on() && !self.own_instants => {
                let paused = vm.pause();
                // Why it failed, the samples tell.
                let _ = inspector.wait_ready(PATIENCE);
                self.go_on(vm, paused.err(), "holding the machine until its kernel was found")
            }
            _ => Ok(()),
        }
    }

    /// Lets a machine go on that was stopped, or, for that reason, was not in time: a stop that comes late must not hold
    /// it for ever. One that can't be let go on either has its deadline.
    pub(crate) fn go_on(
        &mut self,
        vm: &mut dyn Vm,
        unstopped: Option<MachineError>,
        doing: &str,
    ) -> Result<(), MachineError> {
        let late = unstopped.is_some();
        if let Some(why) = unstopped.filter(|e| !matches!(e, MachineError::Gone { .. })) {
            self.unstopped += 1;
            self.complain(format!("{doing}: {why}"));
        }
        match vm.resume() {
            Err(MachineError::Gone { .. }) => Ok(()),
            Err(e) if late => {
                self.complain(format!("letting the machine go on: {e}"));
                Ok(())
            }
            other => other,
        }
    }

    /// Has the kernel looked for meanwhile, so that no guest has to wait for that later.
    fn look(&mut self, vm: &mut dyn Vm) {
        if !self.attached {
            self.attach(vm);
            if self.monitor.is_on() {
                // The first question may take the hypervisor a while; no sample shall wait for it.
                let _ = vm.vcpu_times();
            }
            if !self.own_instants {
                self.counting.begin(vm);
            }
        }
    }

    pub(crate) fn test_begins(&mut self, now: Duration) {
        self.monitor.begin(if self.own_instants { Duration::ZERO } else { now });
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
            let label = format!("{}{ends}", stimulus.label);
            let (step, guest_ms, iterations) = (stimulus.step, stimulus.elapsed_ms, stimulus.iterations);
            let now = if self.own_instants { Duration::from_millis(stimulus.since_test_ms) } else { now };
            self.monitor.mark(now, Mark { label, step, guest_ms, iterations, ..Mark::default() });
        }
    }

    /// How long to wait for the machine's next word.
    pub(crate) fn wait(&self, now: Duration, longest: Duration) -> Duration {
        self.monitor.due_in(now).map_or(longest, |due| due.min(longest))
    }

    /// Takes a sample if one is due. Where a check that the test set is violated for the first
    /// time, the machine is stopped for a look at who does it.
    pub(crate) fn poll(&mut self, vm: &mut dyn Vm, clock: &dyn HostClock) -> Result<(), MachineError> {
        if self.own_instants {
            return Ok(());
        }
        let Some(inspector) = self.inspector.as_deref_mut() else { return Ok(()) };
        let counting = &mut self.counting;
        let taken = self.monitor.poll(inspector, &|| clock.now(), &mut |with| counting.readings(vm, with));
        if let Some(when) = self.early_moment(taken) {
            match self.held(vm, &when) {
                Ok(state) => self.early = state,
                Err(e) => self.complain(format!("looking at the kernel {when}: {e}")),
            }
        }
        match self.monitor.alarm() {
            Some(what) => self.crashed(vm, &format!("when this had lasted long enough: {what}")),
            None => Ok(()),
        }
    }

    /// Which moment it is, once, when a task has waited for half of what the sched_ext watchdog allows; looked at with
    /// each sample that was `taken`.
    pub(crate) fn early_moment(&mut self, taken: bool) -> Option<String> {
        if !taken || self.looked_early {
            return None;
        }
        // A reading that fails now may go well with the next sample; it is only a warning.
        let wait = self.inspector.as_deref_mut()?.longest_wait().ok().flatten();
        let LongestWait { cpu, pid, comm, waited, limit } = wait.filter(LongestWait::is_past_half)?;
        // Once: a machine that can't be held now has its deadline, and no run fails by a look.
        self.looked_early = true;
        Some(format!(
            "early, when {comm} (pid {pid}) on cpu{cpu} had been runnable for {waited} of the {limit} jiffies \
             that the sched_ext watchdog allows"
        ))
    }

    /// Something is wrong in a guest that runs: what its kernel looks like now, the first time.
    pub(crate) fn crashed(&mut self, vm: &mut dyn Vm, when: &str) -> Result<(), MachineError> {
        if self.own_instants || self.wrong.is_some() {
            return Ok(());
        }
        self.wrong = self.held(vm, when)?;
        Ok(())
    }

    /// What the kernel of a guest that runs looks like, which stands still for that. `None` when
    /// nobody looks or the machine is gone.
    fn held(&mut self, vm: &mut dyn Vm, when: &str) -> Result<Option<KernelState>, MachineError> {
        if self.inspector.is_none() {
            return Ok(None);
        }
        let unstopped = match vm.pause() {
            Ok(()) => None,
            Err(MachineError::Gone { .. }) => return Ok(None),
            Err(e) => Some(e),
        };
        let state = self.state(vm, unstopped.is_none());
        let state = unread_for(state, unstopped.as_ref());
        let resumed = self.go_on(vm, unstopped, "stopping the machine for a look at its kernel");
        // Source lines take a while and are the same later.
        let state = self.dated(state, when);
        resumed.map(|()| state)
    }

    /// The machine hangs: what its kernel looks like; it is paused for good.
    pub(crate) fn hangs(&mut self, vm: &mut dyn Vm) {
        let paused = vm.pause();
        let state = self.state(vm, paused.is_ok());
        let state = unread_for(state, paused.err().as_ref());
        self.wrong = self.dated(state, "when the host's patience was over");
    }

    /// The machine died: what of its kernel is left in memory.
    pub(crate) fn died(&mut self, vm: &mut dyn Vm) {
        if self.wrong.is_none() {
            // That they are gone with the machine is no problem of the reader's.
            let registers = vm.registers().unwrap_or_default();
            let when = match registers.is_empty() {
                false => "when the guest's kernel had its machine reset",
                true => "after the machine's end; its vCPUs are gone",
            };
            let state = self.state_with(vm, Ok(registers));
            self.wrong = self.dated(state, when);
        }
    }

    /// Says which moment the state is of, and what its addresses mean.
    pub(crate) fn dated(&mut self, state: Option<KernelState>, when: &str) -> Option<KernelState> {
        let mut state = KernelState { moment: format!("{when}:"), ..state? };
        if let Some(inspector) = self.inspector.as_deref_mut() {
            inspector.explain(&mut state);
        }
        Some(state)
    }

    /// What the kernel looks like. `None` when nobody looks. What goes wrong is part of the
    /// answer.
    pub(crate) fn state(&mut self, vm: &mut dyn Vm, with_registers: bool) -> Option<KernelState> {
        let registers = if with_registers { vm.registers() } else { Ok(Vec::new()) };
        self.state_with(vm, registers)
    }

    fn state_with(
        &mut self,
        vm: &mut dyn Vm,
        registers: Result<Vec<VcpuRegisters>, MachineError>,
    ) -> Option<KernelState> {
        if !self.attached {
            self.attach(vm);
        }
        let inspector = self.inspector.as_deref_mut()?;
        let mut problems = Vec::new();
        let registers = registers.unwrap_or_else(|e| {
            problems.push(format!("registers: {e}"));
            Vec::new()
        });
        let mut state = inspector.state(&registers).unwrap_or_else(|e| {
            let why = format!("the kernel's state: {e}");
            problems.push(why.clone());
            KernelState { unread: Some(why), ..KernelState::of_registers(&registers) }
        });
        state.problems.extend(problems);
        self.add_counters(&mut state);
        Some(state)
    }

    /// What the host counted for the vCPUs whose registers are told.
    fn add_counters(&mut self, state: &mut KernelState) {
        if self.own_instants {
            state.left_out.push(COUNTERS_DIFFER.to_string());
            return;
        }
        let mut readings = VcpuReadings::default();
        self.counting.add_to(&mut readings);
        for vcpu in &mut state.vcpus {
            vcpu.counters = readings.counters.get(vcpu.cpu as usize).filter(|of| !of.is_empty()).copied();
        }
        state.left_out.extend(readings.left_out);
    }

    /// The reader, looking at this machine.
    pub(crate) fn inspector_of(&mut self, vm: &dyn Vm) -> Result<&mut (dyn Inspector + 'a), String> {
        if !self.attached {
            self.attach(vm);
        }
        self.inspector.as_deref_mut().ok_or_else(|| "nobody looks into this machine's kernel".to_string())
    }

    pub(crate) fn complain(&mut self, what: String) {
        if self.complaints.len() < MAX_COMPLAINTS {
            self.complaints.push(what);
        }
    }

    /// All there is to tell; `failed` when the test has.
    pub(crate) fn into_told(mut self, failed: bool) -> Told {
        let mut ending = self.ending.take();
        if let (true, None, Some(state), Some(inspector)) =
            (failed, &self.wrong, &mut ending, self.inspector.as_deref_mut())
        {
            inspector.explain(state);
        }
        Told {
            log: self.monitor.into_log(),
            snapshots: self.snapshots,
            complaints: self.complaints,
            // Where nothing was seen later, the early look is all there is.
            state: self.wrong.or(ending).or_else(|| self.early.take()),
            early: self.early,
        }
    }

    fn attach(&mut self, vm: &dyn Vm) {
        if let Some(inspector) = self.inspector.as_deref_mut() {
            inspector.attach(vm.memory());
            self.attached = true;
        }
    }
}

/// A state that was read of a machine that could not be stopped, which says so.
fn unread_for(state: Option<KernelState>, unstopped: Option<&MachineError>) -> Option<KernelState> {
    let mut state = state?;
    if let Some(e) = unstopped {
        let why = format!("pausing the machine: {e}");
        state.unread.get_or_insert_with(|| why.clone());
        state.problems.push(why);
    }
    Some(state)
}
