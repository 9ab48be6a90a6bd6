//! Follows one machine from its start to its end and notes what it says.

use crate::guest::{TestReturn, decode_reports};
use crate::limits::Limits;
use crate::ports::HostClock;
use crate::scheduler::tell_the_end;
use crate::setup::SETUP;
use crate::watch::Watch;
use ktstr_machine::{ConsoleTail, MachineError, Vm, VmEvent, VmExit};
use ktstr_monitor::{FailureDump, KernelState, MonitorLog, Snapshots, event_timeline};
use ktstr_scheduler::{BoundedLog, SchedulerReport};
use ktstr_wire::{Decoder, Message, Stage, Stimulus};
use std::time::Duration;

/// Lines of console and of test output that are kept.
const KEEP_LINES: usize = 400;
/// Lines of console that go with the kernel's state.
const CONSOLE_LINES: usize = 20;
const MAX_KERNEL_LOG: usize = 4 << 20;
/// Bytes of a scheduler's log that are kept: of its beginning, and of its end.
const SCHEDULER_LOG: (usize, usize) = (128 << 10, 256 << 10);
const MAX_TIMELINE: usize = 10_000;
/// A pause in what the guest says after which the clock is looked at.
const TICK: Duration = Duration::from_millis(200);

/// A deadline of the host that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deadline {
    /// The guest never greeted.
    Boot(Duration),
    /// The guest greeted but did not finish.
    Run(Duration),
    /// The guest said goodbye but its machine went on.
    PowerOff(Duration),
}

/// A panic of the test process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panic {
    /// Its message.
    pub message: String,
    /// Where.
    pub location: Option<String>,
    /// Back-trace, empty unless asked for.
    pub backtrace: String,
}

/// A deadly signal of the test process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// Signal number.
    pub signo: i32,
    /// Faulting address.
    pub address: u64,
    /// Instruction pointer.
    pub ip: u64,
    /// Thread name.
    pub thread: String,
}

/// How long the parts of a run took, host time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// Start of the machine to the guest's greeting.
    pub boot: Option<Duration>,
    /// Start of the machine to the test function's first line.
    pub to_test: Option<Duration>,
    /// The test function.
    pub test: Option<Duration>,
    /// Start to end of the machine.
    pub total: Duration,
}

/// All that was seen of a run.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The last stage the guest reported; `None` before its greeting.
    pub stage: Option<Stage>,
    /// What the test function returned.
    pub returned: Option<TestReturn>,
    /// A panic, which the function may have survived.
    pub panic: Option<Panic>,
    /// A deadly signal.
    pub signal: Option<Signal>,
    /// The guest's watchdog ended it: time given (guest time), whereabouts.
    pub timed_out: Option<(Duration, String)>,
    /// What the scenario did.
    pub timeline: Vec<Stimulus>,
    /// The cgroups that its steps made, with their settings and workers.
    pub made: Vec<Stimulus>,
    /// Warnings of the guest's init.
    pub warnings: Vec<String>,
    /// The kernel's log, where the guest sent it.
    pub kernel_log: Vec<u8>,
    /// What became of the schedulers, one report a start.
    pub schedulers: Vec<SchedulerReport>,
    /// What they wrote.
    pub scheduler_log: BoundedLog,
    /// The end of what the test printed.
    pub output: ConsoleTail,
    /// The end of the console.
    pub console: ConsoleTail,
    /// The end of what came over the second serial port: what the guest could say nowhere else.
    pub last_words: ConsoleTail,
    /// What was wrong with the data stream.
    pub wire_error: Option<String>,
    /// True once the guest said goodbye.
    pub goodbye: bool,
    /// How the machine ended; `None` when we ended it for a deadline.
    pub exit: Option<VmExit>,
    /// The deadline that passed.
    pub deadline: Option<Deadline>,
    /// Durations.
    pub times: Times,
    /// What the monitor saw of the kernel's state.
    pub monitor: MonitorLog,
    /// What the kernel looked like at the moment that tells most of a failure: when a deadline
    /// passed, when it died, when a check was first violated, or when the workload ended.
    pub kernel_state: Option<KernelState>,
    /// What it looked like before the sched_ext watchdog acted, when a task had waited for half of
    /// what that allows.
    pub early_state: Option<KernelState>,
    /// What was captured at the test's request.
    pub snapshots: Snapshots,
    /// What was wrong with serving the guest's requests.
    pub complaints: Vec<String>,
}

impl Observation {
    /// How the machine ended, in few words.
    pub fn ended(&self) -> String {
        match (&self.exit, self.deadline) {
            (_, Some(Deadline::Boot(_))) => "ended by the host: it never greeted".to_string(),
            (_, Some(Deadline::Run(_))) => "ended by the host: it went silent".to_string(),
            (_, Some(Deadline::PowerOff(_))) => "ended by the host: it did not power off".to_string(),
            (Some(VmExit::PowerOff), None) => "powered off".to_string(),
            (Some(VmExit::Reset), None) => "reset".to_string(),
            (Some(VmExit::Killed { signal, .. }), None) => format!("hypervisor killed by signal {signal}"),
            (Some(VmExit::Failed { code, .. }), None) => format!("hypervisor ended with exit code {code}"),
            (Some(VmExit::Stopped) | None, None) => "ended by the host".to_string(),
        }
    }

    /// What is known of its kernel.
    pub fn failure_dump(&self) -> Option<FailureDump> {
        let elapsed_ms = u64::try_from(self.times.total.as_millis()).unwrap_or(u64::MAX);
        let state = self.kernel_state.clone()?;
        Some(FailureDump {
            event_timeline: event_timeline(&self.monitor),
            setup: self.setup(),
            probe_counters: self.probe_counters(),
            ..FailureDump::new(state, self.early_state.clone(), self.ended(), elapsed_ms)
        })
    }

    fn new() -> Self {
        Self {
            stage: None,
            returned: None,
            panic: None,
            signal: None,
            timed_out: None,
            timeline: Vec::new(),
            made: Vec::new(),
            warnings: Vec::new(),
            kernel_log: Vec::new(),
            schedulers: Vec::new(),
            scheduler_log: BoundedLog::new(SCHEDULER_LOG.0, SCHEDULER_LOG.1),
            output: ConsoleTail::new(KEEP_LINES),
            console: ConsoleTail::new(KEEP_LINES),
            last_words: ConsoleTail::new(KEEP_LINES),
            wire_error: None,
            goodbye: false,
            exit: None,
            deadline: None,
            times: Times::default(),
            monitor: MonitorLog::default(),
            kernel_state: None,
            early_state: None,
            snapshots: Snapshots::default(),
            complaints: Vec::new(),
        }
    }
}

/// Follows `vm` until it ends or a deadline passes; it is dead afterwards.
///
/// `build_id` is what the guest must greet with: another one means that it runs
/// another binary. `watch` looks into its kernel meanwhile.
pub fn drive(
    vm: &mut dyn Vm,
    build_id: &str,
    limits: &Limits,
    clock: &dyn HostClock,
    watch: Watch<'_>,
) -> Result<Observation, MachineError> {
    let now = clock.now();
    let mut driver = Driver {
        seen: Observation::new(),
        decoder: Decoder::new(),
        build_id,
        limits,
        start: now,
        since: now,
        held: Duration::ZERO,
        setup: vm.setup_time().unwrap_or_default(),
        clock,
        test_start: None,
        watch,
    };
    driver.watch.started(vm);
    loop {
        let now = clock.now();
        driver.seen.deadline = driver.overdue(now);
        if driver.seen.deadline.is_some() || driver.seen.wire_error.is_some() {
            if driver.seen.deadline.is_some() {
                driver.watch.hangs(vm);
            }
            vm.kill()?;
            break;
        }
        driver.timing(|driver| driver.watch.poll(vm, clock))?;
        match vm.next_event(driver.watch.wait(clock.now(), TICK))? {
            None => {}
            // Nobody asked a running test's machine to stop; the deadline decides.
            Some(VmEvent::Paused) => {}
            Some(VmEvent::Written { address }) => {
                let since = driver.test_start.map_or(Duration::ZERO, |t| clock.now().saturating_sub(t));
                let step = driver.seen.timeline.last().map_or(0, |s| s.step);
                driver.timing(|driver| driver.watch.written(vm, address, since, step))?;
            }
            Some(VmEvent::Console(bytes)) => driver.seen.console.push(&bytes),
            Some(VmEvent::LastWords(bytes)) => driver.seen.last_words.push(&bytes),
            Some(VmEvent::Output(bytes)) => driver.seen.output.push(&bytes),
            Some(VmEvent::Data(bytes)) => driver.data(&bytes, clock.now(), vm)?,
            Some(VmEvent::Exited(exit)) => {
                // Its memory outlives it: what a kernel that died looked like can still be read.
                if driver.seen.stage.is_some() && !matches!(exit, VmExit::PowerOff | VmExit::Stopped) {
                    driver.watch.died(vm);
                }
                driver.seen.exit = Some(exit);
                break;
            }
        }
    }
    Ok(driver.finish(clock.now()))
}

struct Driver<'a, 'w> {
    seen: Observation,
    decoder: Decoder,
    build_id: &'a str,
    limits: &'a Limits,
    start: Duration,
    setup: Duration,
    clock: &'a dyn HostClock,
    /// When the current deadline began to run.
    since: Duration,
    /// How much later it passes, since the guest was held for looks at it.
    held: Duration,
    test_start: Option<Duration>,
    watch: Watch<'w>,
}

impl Driver<'_, '_> {
    fn since_start(&self, now: Duration) -> Duration {
        now.saturating_sub(self.start) + self.setup
    }

    fn overdue(&self, now: Duration) -> Option<Deadline> {
        let waited = now.saturating_sub(self.since).saturating_sub(self.held);
        let (limit, deadline): (_, fn(Duration) -> Deadline) = if self.seen.goodbye {
            (self.limits.power_off, Deadline::PowerOff)
        } else if self.seen.stage.is_some() {
            (self.limits.run, Deadline::Run)
        } else {
            (self.limits.boot, Deadline::Boot)
        };
        (waited > limit).then(|| deadline(limit))
    }

    /// Does something that the guest may have to stand still for. What that takes is not the guest's time, so its
    /// deadline moves; a guest that asks on and on gets twice its time and no more.
    fn timing<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let begin = self.clock.now();
        let done = work(self);
        let held = self.held + self.clock.now().saturating_sub(begin);
        self.held = held.min(self.limits.run);
        done
    }

    /// Takes in bytes of the data port, up to the first that can't be believed.
    fn data(&mut self, bytes: &[u8], now: Duration, vm: &mut dyn Vm) -> Result<(), MachineError> {
        self.decoder.push(bytes);
        while self.seen.wire_error.is_none() {
            match self.decoder.next() {
                Ok(Some(message)) => self.message(message, now, vm)?,
                Ok(None) => break,
                Err(e) => self.seen.wire_error = Some(e.to_string()),
            }
        }
        Ok(())
    }

    fn message(&mut self, message: Message, now: Duration, vm: &mut dyn Vm) -> Result<(), MachineError> {
        let since_start = self.since_start(now);
        let seen = &mut self.seen;
        match message {
            Message::Hello { build_id, .. } => {
                if build_id != self.build_id {
                    seen.wire_error = Some(format!(
                        "the guest runs build {build_id:?}, the host build {:?}: rebuild the test binary",
                        self.build_id
                    ));
                    return Ok(());
                }
                seen.stage = Some(Stage::Init);
                seen.times.boot = Some(since_start);
                self.watch.greeted(vm)?;
                (self.since, self.held) = (self.clock.now(), Duration::ZERO);
            }
            Message::Stage(stage) => {
                seen.stage = Some(stage);
                if stage == Stage::TestStart {
                    seen.times.to_test = Some(since_start);
                    self.test_start = Some(now);
                    self.watch.test_begins(now);
                }
                if stage == Stage::TestEnd {
                    seen.times.test = self.test_start.map(|t| now.saturating_sub(t));
                    self.watch.test_ends();
                }
            }
            Message::Stimulus(stimulus) => {
                self.watch.stimulus(now, &stimulus);
                let kept = if stimulus.kind == SETUP { &mut seen.made } else { &mut seen.timeline };
                if kept.len() < MAX_TIMELINE {
                    kept.push(stimulus);
                }
            }
            Message::Result(bytes) => match TestReturn::decode(&bytes) {
                Ok(returned) => seen.returned = Some(returned),
                Err(e) => seen.wire_error = Some(e.to_string()),
            },
            Message::Panic { message, location, backtrace } => {
                seen.panic = Some(Panic { message, location, backtrace });
                self.timing(|driver| driver.watch.crashed(vm, "when the test panicked"))?;
            }
            Message::FatalSignal { signo, address, ip, thread } => {
                seen.signal = Some(Signal { signo, address, ip, thread });
                let when = "when the test process was hit by a deadly signal";
                self.timing(|driver| driver.watch.crashed(vm, when))?;
            }
            Message::TimedOut { after_ms, detail } => {
                seen.timed_out = Some((Duration::from_millis(after_ms), detail));
                self.timing(|driver| driver.watch.crashed(vm, "when the test's time was up"))?;
            }
            Message::Kmsg(bytes) => {
                let room = MAX_KERNEL_LOG.saturating_sub(seen.kernel_log.len());
                seen.kernel_log.extend_from_slice(&bytes[..bytes.len().min(room)]);
            }
            Message::Log { level, text } => {
                if seen.warnings.len() < KEEP_LINES {
                    seen.warnings.push(format!("{level}: {text}"));
                }
            }
            Message::SchedulerLog(bytes) => seen.scheduler_log.push(&bytes),
            Message::SchedulerReports(bytes) => match decode_reports(&bytes) {
                Ok(reports) => seen.schedulers = reports,
                Err(e) => seen.wire_error = Some(e.to_string()),
            },
            Message::Stdout(bytes) | Message::Stderr(bytes) => seen.output.push(&bytes),
            Message::Request(request) => {
                let clock = self.clock;
                self.timing(|driver| driver.watch.serve(vm, &request, clock))?;
            }
            Message::ExitCode(_) => {}
            Message::Goodbye => {
                seen.goodbye = true;
                (self.since, self.held) = (now, Duration::ZERO);
            }
        }
        Ok(())
    }

    fn finish(mut self, now: Duration) -> Observation {
        self.seen.times.total = self.since_start(now);
        if self.seen.wire_error.is_none()
            && let Err(e) = self.decoder.finish()
        {
            self.seen.wire_error = Some(e.to_string());
        }
        let console = self.seen.console.last(CONSOLE_LINES);
        let failed = !matches!(&self.seen.returned, Some(TestReturn::Judged(result)) if result.is_pass());
        let told = self.watch.into_told(failed);
        self.seen.monitor = told.log;
        self.seen.snapshots = told.snapshots;
        self.seen.complaints = told.complaints;
        self.seen.early_state = told.early;
        self.seen.kernel_state = told.state.map(|state| KernelState { console, ..state });
        if let Some(state) = &mut self.seen.kernel_state {
            tell_the_end(state, &self.seen.schedulers);
        }
        self.seen
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod tests_support {
    //! For the tests of this crate.

    /// A run of which nothing was seen.
    pub(crate) fn silent() -> super::Observation {
        super::Observation::new()
    }
}
