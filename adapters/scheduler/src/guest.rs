//! From a plan to an attached scheduler, and back.

use crate::bpf::struct_ops_programs;
use crate::kernel::{Kernel, Scx};
use crate::maps;
use crate::probes::Probes;
use crate::process::{Process, how};
use crate::stats::Poller;
use crate::watchdog::Hook;
use ktstr_scenario::ports::{SchedulerError, SchedulerOps};
use ktstr_scheduler::bpf::Places;
use ktstr_scheduler::repro::{Callbacks, Probe, ProbeTrace};
use ktstr_scheduler::{
    Detach, NotAttached, Program, Refusal, SchedulerPlan, SchedulerReport, ScxDump, ScxExit, StartOutcome,
    last_words, why_not_attached,
};
use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Takes a scheduler's log as it is written.
pub type LogSink = Arc<dyn Fn(&[u8]) + Send + Sync>;

/// Reads the kernel's log.
type KernelLog = fn() -> std::io::Result<String>;

/// Between two looks at the kernel's state.
pub(crate) const LOOK: Duration = Duration::from_millis(5);
/// For a program that was asked to stop.
const STOPS_WITHIN: Duration = Duration::from_secs(5);
/// For the kernel to have its own scheduler again once the program is gone.
const DISABLED_WITHIN: Duration = Duration::from_secs(10);
/// For a program whose scheduler was dropped, to say its last words.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Before each start, in the kernel's log: what comes after it is about that scheduler.
const MARK: &str = "ktstr: starting scheduler ";
/// Bytes of the kernel's log that are told of a failure: its end.
const KERNEL_LOG: usize = 16 << 10;

/// The schedulers of a test: at most one is attached.
pub struct GuestSchedulers {
    plans: Vec<SchedulerPlan>,
    pub(crate) kernel: Kernel,
    kernel_log: KernelLog,
    sink: LogSink,
    probes: Option<Probes>,
    places: Result<Places, String>,
    live: Mutex<Option<Live>>,
    reports: Mutex<Vec<SchedulerReport>>,
    begun: OnceLock<Instant>,
}

/// The attached scheduler.
pub(crate) struct Live {
    pub(crate) process: Option<Process>,
    /// Shell commands that switch it off, where it is no program.
    pub(crate) disable: Vec<String>,
    pub(crate) report: SchedulerReport,
    pub(crate) stats: Option<Poller>,
    /// When its program was started.
    pub(crate) started: Instant,
    /// When it was attached.
    pub(crate) since: Instant,
}

/// What the kernel says of a scheduler's end.
struct Told {
    exit: Option<ScxExit>,
    /// What keeps from hearing it, as the end of a sentence; empty if nothing does.
    unread: String,
    /// The end of its log since the scheduler's start.
    log: String,
}

impl GuestSchedulers {
    /// The test's own scheduler first; none is started yet. `places` says where things are in this kernel's structures.
    pub fn new(
        plans: Vec<SchedulerPlan>,
        places: Result<Places, String>,
        kernel_log: KernelLog,
        sink: LogSink,
    ) -> Self {
        let (live, reports, begun) = (Mutex::new(None), Mutex::new(Vec::new()), OnceLock::new());
        Self {
            plans,
            kernel: Kernel::running(),
            kernel_log,
            sink,
            probes: None,
            places,
            live,
            reports,
            begun,
        }
    }

    /// The test begins now: reports tell times from here on.
    pub fn test_begins(&self) -> Instant {
        *self.begun.get_or_init(Instant::now)
    }

    /// With probes on kernel functions and on the schedulers' own callbacks; each report of a failure tells what they saw.
    #[must_use]
    pub fn with_probes(mut self, probes: Vec<Probe>, callbacks: Callbacks) -> Self {
        self.probes = Some(Probes::arm(&self.kernel.tracefs(), probes, callbacks));
        self
    }

    /// The pid of the attached scheduler's program.
    pub fn pid(&self) -> Option<u32> {
        self.live().as_ref().and_then(|live| live.process.as_ref()).map(Process::pid)
    }

    /// Stops what is attached and tells what became of each start.
    pub fn finish(&self) -> Vec<SchedulerReport> {
        // What died since the last look must not pass for one that stopped when asked.
        let _ = self.failure();
        if let Some(live) = self.live().take() {
            let report = self.stop(live);
            self.reports().push(report);
        }
        std::mem::take(&mut *self.reports())
    }

    fn live(&self) -> MutexGuard<'_, Option<Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reports(&self) -> MutexGuard<'_, Vec<SchedulerReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts it and waits until the kernel has it; the report of one that did not attach.
    fn start(&self, plan: &SchedulerPlan) -> Result<Live, Box<SchedulerReport>> {
        let report = SchedulerReport { name: plan.name.clone(), ..SchedulerReport::default() };
        for (key, value) in &plan.sysctls {
            self.kernel.set(key, value).map_err(|why| unprepared(&report, why))?;
        }
        match &plan.program {
            Program::Commands { enable, disable } => self.switch_on(plan, enable, disable, report),
            Program::Binary { path, args } => {
                self.has_room().map_err(|why| refused(&report, &why))?;
                self.prepare(&plan.name);
                let hook = plan.watchdog.map(|order| Hook::set(&self.places, order));
                let started = Instant::now();
                let process = Process::start(path, args, &self.sink).map_err(|why| refused(&report, &why))?;
                let mut live = self.wait_attached(plan, process, report, started)?;
                live.report.watchdog = hook.map(|hook| hook.take(&self.places));
                if let Some(probes) = &self.probes {
                    probes.attach_callbacks();
                }
                Ok(live)
            }
        }
    }

    /// Whether this kernel can take a scheduler now.
    pub(crate) fn has_room(&self) -> Result<(), NotAttached> {
        match self.kernel.scx() {
            None => Err(NotAttached::NoSchedExt),
            Some(scx) if !scx.ops.is_empty() => Err(NotAttached::Taken { by: scx.ops }),
            Some(_) => Ok(()),
        }
    }

    /// What helps to understand a failure later; a kernel without it only tells less.
    pub(crate) fn prepare(&self, name: &str) {
        if let Some(probes) = &self.probes {
            probes.start_over();
        }
        let told = [
            self.kernel.arm_dump().err().map(|e| format!("no sched_ext dump can be had: {e}")),
            self.kernel.mark(&format!("{MARK}{name}")).err().map(|e| format!("marking the kernel log: {e}")),
            self.kernel.set("kernel.bpf_stats_enabled", "1").err(),
        ];
        for problem in told.into_iter().flatten() {
            eprintln!("ktstr: {problem}");
        }
    }

    fn wait_attached(
        &self,
        plan: &SchedulerPlan,
        mut process: Process,
        mut report: SchedulerReport,
        started: Instant,
    ) -> Result<Live, Box<SchedulerReport>> {
        let deadline = started + Duration::from_millis(plan.attach_within_ms);
        let why = loop {
            let scx = self.kernel.scx();
            if let Some(status) = process.ended() {
                // One that goes to the background may need a moment there.
                let attached = if status.success() { self.attached_after_all() } else { None };
                break NotAttached::Exited { how: status.to_string(), success: status.success(), attached };
            }
            match scx {
                Some(scx) if scx.is_enabled() => {
                    report.attach_ms = ms(started.elapsed());
                    report.ops = Some(scx.ops.clone());
                    report.programs = programs();
                    report.switch_all = self.kernel.switch_all();
                    match plan.ops.as_ref().filter(|ops| !scx.ops.starts_with(ops.as_str())) {
                        Some(expected) => {
                            break NotAttached::OtherName { expected: expected.clone(), seen: scx.ops };
                        }
                        None => {
                            report.outcome = StartOutcome::Attached;
                            let stats = Some(Poller::start(started));
                            let (process, since) = (Some(process), Instant::now());
                            return Ok(Live { process, disable: Vec::new(), report, stats, started, since });
                        }
                    }
                }
                other if Instant::now() >= deadline => {
                    let state = other.as_ref().map_or_else(String::new, Scx::describe);
                    break NotAttached::TimedOut { after_ms: plan.attach_within_ms, state };
                }
                _ => std::thread::sleep(LOOK),
            }
        };
        Err(Box::new(self.not_attached(why, process, report)))
    }

    /// The scheduler that attached although its program has ended.
    fn attached_after_all(&self) -> Option<String> {
        let deadline = Instant::now() + LAST_WORDS;
        loop {
            let scx = self.kernel.scx().filter(Scx::is_enabled);
            if scx.is_some() || Instant::now() >= deadline {
                return scx.map(|scx| scx.ops);
            }
            std::thread::sleep(LOOK);
        }
    }

    fn not_attached(
        &self,
        why: NotAttached,
        mut process: Process,
        report: SchedulerReport,
    ) -> SchedulerReport {
        // Its end is not judged: it failed already. What went to the background is out of reach.
        if !matches!(why, NotAttached::Exited { attached: Some(_), .. }) {
            let _ = self.end(&mut process);
        }
        let Told { exit, unread, log: kernel_log } = self.told();
        let exit = exit.filter(ScxExit::is_failure);
        let log = process.log_text();
        let dropped = exit.as_ref().map(|exit| NotAttached::Dropped { why: exit.to_string() });
        let mut text = match &dropped {
            Some(dropped) => dropped.to_string(),
            None => format!("{why}{unread}"),
        };
        let outcome = dropped.as_ref().unwrap_or(&why).outcome();
        // What a program that failed said last may be all there is.
        let failed = matches!(why, NotAttached::Exited { success: false, .. }) && exit.is_none();
        let explained = why_not_attached(&log).or_else(|| last_words(&log).filter(|_| failed));
        if let Some(explained) = explained {
            text = format!("{text}: {explained}");
        }
        let (dump_text, dump) = self.dump();
        let probes = self.probed(exit.as_ref(), dump.as_ref());
        SchedulerReport {
            outcome,
            not_attached: Some(text),
            no_probes: self.kernel.no_probes(),
            kernel_log,
            probes,
            exit,
            dump_text,
            dump,
            log_tail: process.unsent_log(),
            ..report
        }
    }

    /// What is wrong with the attached scheduler, noted in its report.
    fn look(&self, live: &mut Live) -> Option<String> {
        if live.report.failure.is_some() {
            return live.report.failure.clone();
        }
        let scx = self.kernel.scx();
        let ended = live.process.as_mut().and_then(Process::ended);
        let still_there = match (&live.report.ops, &scx) {
            (None, _) => true,
            (Some(ops), Some(scx)) => scx.is_enabled() && scx.ops == *ops,
            (Some(_), None) => false,
        };
        if ended.is_none() && still_there {
            return None;
        }
        live.report.failed_after_ms = Some(ms(live.since.elapsed()));
        // Whichever of the two went first, the other follows; both are worth hearing.
        let ended = live.process.as_mut().and_then(|p| p.wait_for_last_words(LAST_WORDS));
        self.wait_disabled(DISABLED_WITHIN);
        let Told { exit, unread, log } = self.told();
        let failure = match (exit.as_ref().filter(|e| e.is_failure()), ended) {
            (Some(exit), _) => format!("the kernel dropped it: {exit}"),
            (None, Some(status)) => {
                let said = live.process.as_mut().and_then(|process| last_words(&process.log_text()));
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                format!("its program ended with {status} in the middle of the test{unread}{said}")
            }
            (None, None) => {
                let state = self.kernel.scx().as_ref().map_or_else(String::new, Scx::describe);
                format!("it let go of the kernel while its program went on ({state}){unread}")
            }
        };
        (live.report.dump_text, live.report.dump) = self.dump();
        live.report.probes = self.probed(exit.as_ref(), live.report.dump.as_ref());
        live.report.exit = exit;
        live.report.kernel_log = log;
        live.report.offline_cpus = self.kernel.offline_cpus();
        live.report.no_probes = self.kernel.no_probes();
        live.report.failure = Some(failure.clone());
        Some(failure)
    }

    /// What is wrong with the attached scheduler, if nobody has noticed before.
    pub(crate) fn new_failure(&self) -> Option<String> {
        let mut live = self.live();
        let live = live.as_mut().filter(|live| live.report.failure.is_none())?;
        self.look(live)
    }

    /// Stops it; the report is complete then.
    fn stop(&self, mut live: Live) -> SchedulerReport {
        // Before its program ends, which would look like a fault of the socket's.
        live.report.stats = live.stats.take().and_then(|stats| stats.told());
        live.report.started_ms = self.begun.get().map(|begun| ms_between(*begun, live.started));
        let failed = live.report.failure.is_some();
        if !failed {
            let now = programs();
            if !now.is_empty() {
                live.report.programs = now;
            }
            live.report.events = self.kernel.events();
            live.report.nr_rejected = self.kernel.nr_rejected();
        }
        let detach = match &mut live.process {
            Some(process) => self.end(process),
            None => run_all(&live.disable).map_or_else(Detach::Failed, |()| Detach::InOrder(String::new())),
        };
        live.report.detach = Some(if failed { Detach::NotRunning } else { detach });
        live.report.log_tail = live.process.as_mut().map(Process::unsent_log).unwrap_or_default();
        live.report
    }

    /// Asks a program to end, and sees to it.
    fn end(&self, process: &mut Process) -> Detach {
        let mut problems = Vec::new();
        let mut status = process.ended();
        if status.is_none() {
            process.signal(libc::SIGTERM);
            status = process.wait(STOPS_WITHIN);
        }
        match status {
            None => {
                process.signal(libc::SIGKILL);
                let killed = process.wait(STOPS_WITHIN);
                let seconds = STOPS_WITHIN.as_secs();
                problems.push(match killed {
                    Some(_) => {
                        format!("its program did not stop within {seconds} s of SIGTERM and was killed")
                    }
                    None => format!("its program did not even end {seconds} s after SIGKILL"),
                });
            }
            Some(ref status) if !status.success() && status.to_string() != "signal 15" => {
                let said = last_words(&process.log_text()).map(|said| format!(": {said}"));
                let said = said.unwrap_or_default();
                problems.push(format!("its program ended with {status} when asked to stop{said}"));
            }
            Some(_) => {}
        }
        // Also children that outlived the program.
        process.signal(libc::SIGKILL);
        if !self.wait_disabled(DISABLED_WITHIN) {
            let state = self.kernel.scx().as_ref().map_or_else(String::new, Scx::describe);
            problems.push(format!("{} s after its program's end {state}", DISABLED_WITHIN.as_secs()));
        }
        match problems.is_empty() {
            true => Detach::InOrder(status.map(|status| status.to_string()).unwrap_or_default()),
            false => Detach::Failed(problems.join("; ")),
        }
    }

    fn wait_disabled(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        loop {
            match self.kernel.scx() {
                Some(scx) if !scx.is_disabled() => {}
                _ => return true,
            }
            if Instant::now() >= deadline {
                return false;
            }
            std::thread::sleep(LOOK);
        }
    }

    /// The kernel's words on the end of the scheduler that was started last.
    fn told(&self) -> Told {
        match (self.kernel_log)() {
            Ok(log) => {
                let log = &log[log.rfind(MARK).unwrap_or(0)..];
                let end = log.ceil_char_boundary(log.len().saturating_sub(KERNEL_LOG));
                Told { exit: ScxExit::last_in(log), unread: String::new(), log: log[end..].to_string() }
            }
            Err(e) => {
                let unread = format!("; why, the kernel's log may say, but reading it failed: {e}");
                Told { exit: None, unread, log: String::new() }
            }
        }
    }

    /// What the probes saw of the task that the end is about.
    fn probed(&self, exit: Option<&ScxExit>, dump: Option<&ScxDump>) -> Option<ProbeTrace> {
        let exit = exit.filter(|exit| exit.is_failure())?;
        Some(self.probes.as_ref()?.of_end(exit, dump))
    }

    fn dump(&self) -> (String, Option<ScxDump>) {
        let text = self.kernel.dump();
        let dump = ScxDump::parse(&text);
        (text, dump)
    }
}

impl SchedulerOps for GuestSchedulers {
    fn failure(&self) -> Option<String> {
        self.live().as_mut().and_then(|live| self.look(live))
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        self.kernel.events()
    }

    fn staged(&self) -> Vec<String> {
        self.plans.iter().map(|plan| plan.name.clone()).collect()
    }

    fn attached(&self) -> Option<String> {
        self.live().as_ref().map(|live| live.report.name.clone())
    }

    fn attach(&self, name: &str) -> Result<(), SchedulerError> {
        let refuse = |why: String| SchedulerError { doing: "attaching", name: name.to_string(), why };
        let plan = self.plans.iter().find(|plan| plan.name == name).ok_or_else(|| {
            refuse(format!("it is none of the test's ({}); declare it there", self.staged().join(", ")))
        })?;
        let mut live = self.live();
        if let Some(live) = live.as_ref() {
            return Err(refuse(NotAttached::Taken { by: live.report.name.clone() }.to_string()));
        }
        match self.start(plan) {
            Ok(started) => {
                *live = Some(started);
                Ok(())
            }
            Err(report) => {
                let why = report.not_attached.clone().unwrap_or_default();
                self.reports().push(*report);
                Err(refuse(why))
            }
        }
    }

    fn detach(&self) -> Result<(), SchedulerError> {
        let refuse =
            |name: &str, why: String| SchedulerError { doing: "detaching", name: name.to_string(), why };
        let failed = self.failure();
        let Some(live) = self.live().take() else {
            return Err(refuse("?", "none is attached".to_string()));
        };
        let report = self.stop(live);
        let name = report.name.clone();
        let why = match (failed, &report.detach) {
            (Some(failed), _) => Some(failed),
            (None, Some(Detach::Failed(why))) => Some(why.clone()),
            _ => None,
        };
        self.reports().push(report);
        why.map_or(Ok(()), |why| Err(refuse(&name, why)))
    }

    fn pin_map(&self, map: &str, path: &str) -> Result<(), SchedulerError> {
        let name = self.attached().unwrap_or_else(|| "?".to_string());
        maps::pin(map, path).map_err(|why| SchedulerError { doing: "pinning a map of", name, why })
    }

    fn prompt(&self) -> Option<String> {
        // The repetition of a crash goes on as it is, for whoever looks at it by probes.
        if self.probes.is_some() {
            return None;
        }
        let live = self.live();
        let live = live.as_ref()?;
        let (name, process) = (&live.report.name, live.process.as_ref()?);
        Some(match process.catches(libc::SIGUSR2) {
            Ok(true) => {
                process.signal_alone(libc::SIGUSR2);
                format!("SIGUSR2 sent to the program of {name:?}")
            }
            Ok(false) => format!("the program of {name:?} handles no SIGUSR2, so none was sent"),
            Err(e) => format!("no SIGUSR2 sent to the program of {name:?}: {e}"),
        })
    }
}

/// The kernel may lack the query; the report then has no programs.
fn programs() -> Vec<ktstr_scheduler::ProgramStats> {
    struct_ops_programs().unwrap_or_else(|e| {
        eprintln!("ktstr: asking the kernel for its BPF programs: {e}");
        Vec::new()
    })
}

/// The report of a scheduler that was not started for that reason.
pub(crate) fn refused(report: &SchedulerReport, why: &NotAttached) -> Box<SchedulerReport> {
    let (outcome, not_attached) = (why.outcome(), Some(why.to_string()));
    Box::new(SchedulerReport { outcome, not_attached, ..report.clone() })
}

/// The same where what goes before it was refused.
pub(crate) fn unprepared(report: &SchedulerReport, why: String) -> Box<SchedulerReport> {
    let outcome = StartOutcome::NotAttached(Refusal::NotPrepared);
    Box::new(SchedulerReport { outcome, not_attached: Some(why), ..report.clone() })
}

pub(crate) fn run_all(commands: &[String]) -> Result<(), String> {
    commands.iter().try_for_each(|command| {
        let output = Command::new("/bin/sh").arg("-c").arg(command).output();
        let output = output.map_err(|e| format!("running {command:?}: /bin/sh: {e}"))?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(format!("running {command:?}: it ended with {}, saying: {}", how(output.status), said.trim()))
    })
}

pub(crate) fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// From one instant to another that may come before it.
fn ms_between(from: Instant, to: Instant) -> i64 {
    let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match to.checked_duration_since(from) {
        Some(after) => ms(after),
        None => -ms(from.saturating_duration_since(to)),
    }
}

#[cfg(test)]
mod tests;
