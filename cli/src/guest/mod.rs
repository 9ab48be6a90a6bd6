//! The guest's composition root: the test binary as PID 1.

mod clocked;
mod kernel_types;
mod link;

use crate::registry::{KTSTR_TESTS, KernelsOwn, KtstrTestEntry};
use crate::sweep;
use anyhow::{Context, Result, anyhow, bail};
use clocked::{Samples, Snapshots};
use ktstr_assert::{Assert, AssertResult, Detail, DetailKind};
use ktstr_cgroupfs::CgroupManager;
use ktstr_guest_init::{Channel, Guest, HostCalls, LastLook, give_up};
use ktstr_guest_scheduler::{GuestSchedulers, LogSink, SchedulerReport};
use ktstr_run::{GuestPlan, TestReturn, encode_reports};
use ktstr_scenario::ports::{CgroupOps, EventSink, HostLink, HostRequest, SchedulerOps};
use ktstr_scenario::{Ctx, Ports, StimulusEvent};
use ktstr_scheduler::bpf::Places;
use ktstr_scheduler::repro::Callbacks;
use ktstr_topology::{TestTopology, Topology};
use ktstr_wire::{LogLevel, Message, Stage, Stimulus};
use ktstr_workers::{ForkedWorkers, MonotonicClock};
use ktstr_workload::WorkType;
use link::GuestLink;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

static CHANNEL: OnceLock<Arc<Channel>> = OnceLock::new();

/// True inside a machine of ours.
pub(crate) fn in_guest() -> bool {
    std::process::id() == 1 && Path::new(GuestPlan::PATH).exists()
}

/// Runs the planned test and powers the machine off.
pub(crate) fn main() -> ! {
    let plan = match read_plan() {
        Ok(plan) => plan,
        Err(e) => give_up(&format!("{e:#}")),
    };
    for (name, value) in &plan.env {
        // SAFETY: no other thread runs yet.
        unsafe { std::env::set_var(name, value) };
    }
    let guest = match Guest::start(&plan.build_id) {
        Ok(guest) => guest,
        Err(e) => give_up(&e.to_string()),
    };
    // Only the first call counts, and this is it.
    let _ = CHANNEL.set(Arc::clone(guest.channel()));
    let returned = run(&guest, &plan);
    finish(guest, &plan, &returned)
}

fn read_plan() -> Result<GuestPlan> {
    let bytes = std::fs::read(GuestPlan::PATH).with_context(|| format!("reading {}", GuestPlan::PATH))?;
    Ok(GuestPlan::decode(&bytes)?)
}

fn finish(guest: Guest, plan: &GuestPlan, returned: &TestReturn) -> ! {
    let sent = report(&guest, plan, returned);
    if let Err(e) = sent {
        // The host will say that there was no result, and show this line.
        eprintln!("ktstr: reporting the result: {e:#}");
    }
    // Buffered output of the test; the port takes it or the host is gone.
    let _ = std::io::stdout().flush();
    guest.power_off()
}

fn report(guest: &Guest, plan: &GuestPlan, returned: &TestReturn) -> Result<()> {
    guest.channel().send(&Message::Result(returned.encode()?))?;
    if plan.want_kernel_log && !passed(returned) {
        guest.send_kernel_log()?;
    }
    Ok(())
}

fn passed(returned: &TestReturn) -> bool {
    matches!(returned, TestReturn::Judged(result) if result.is_pass() || result.is_skip())
}

/// Attaches the scheduler, calls the test function, detaches.
fn run(guest: &Guest, plan: &GuestPlan) -> TestReturn {
    let prepared = find_entry(plan).and_then(|entry| Ok((entry, prepare(guest, entry, plan)?)));
    let (entry, (topo, cgroups)) = match prepared {
        Ok(prepared) => prepared,
        Err(e) => return TestReturn::Error(format!("{e:#}")),
    };
    if plan.schedulers.is_empty() {
        let test = Test { guest, plan, entry, topo: &topo, cgroups: &cgroups };
        return test.play(&KernelsOwn, None, Instant::now());
    }
    let sink: LogSink = {
        let channel = Arc::clone(guest.channel());
        // A lost piece of log is a hole in it; the verdict doesn't hang on it.
        Arc::new(move |bytes: &[u8]| drop(channel.send(&Message::SchedulerLog(bytes.to_vec()))))
    };
    let wanted = !plan.probes.is_empty() || plan.schedulers.iter().any(|s| s.watchdog.is_some());
    // Reading them takes time that most tests need not spend.
    let types = if wanted { kernel_types::open() } else { Err("nobody asked for them".to_string()) };
    let places = types.as_ref().map_err(Clone::clone).and_then(|types| Places::of(types));
    let mut schedulers =
        GuestSchedulers::new(plan.schedulers.clone(), places, ktstr_guest_init::read_kmsg, sink);
    if !plan.probes.is_empty() {
        schedulers = schedulers.with_probes(
            kernel_types::probes(&plan.probes, types.as_ref()),
            types.as_ref().map(|types| Callbacks::of(types)).unwrap_or_default(),
        );
    }
    stage(guest, Stage::Scheduler);
    let returned = match schedulers.attach(&plan.schedulers[0].name) {
        Ok(()) => {
            let test = Test { guest, plan, entry, topo: &topo, cgroups: &cgroups };
            let begin = schedulers.test_begins();
            let events = WireEvents { channel: Arc::clone(guest.channel()), begin };
            let tell = |why: &str, at: Duration| events.stimulus(&failed_event(why, at));
            schedulers.watched(&tell, || test.play(&schedulers, schedulers.pid(), begin))
        }
        // The report says why.
        Err(e) => {
            let text = format!("scheduler {:?} did not attach: {}", e.name, e.why);
            let detail = Detail::fail(DetailKind::Scheduler, text);
            let mut result = AssertResult::pass();
            result.push(detail);
            TestReturn::Judged(result)
        }
    };
    let reports = schedulers.finish();
    // The host won't let it pass, and will want to know what the kernel said.
    if plan.want_kernel_log && passed(&returned) && reports.iter().any(|report| report.failure.is_some()) {
        // A log that can't be had is no reason to lose the reports.
        if let Err(e) = guest.send_kernel_log() {
            eprintln!("ktstr: sending the kernel's log: {e}");
        }
    }
    match send_reports(guest, &reports) {
        Ok(()) => returned,
        Err(e) => TestReturn::Error(format!("reporting on the scheduler: {e:#}")),
    }
}

fn send_reports(guest: &Guest, reports: &[SchedulerReport]) -> Result<()> {
    Ok(guest.channel().send(&Message::SchedulerReports(encode_reports(reports)?))?)
}

/// A test whose machine is ready.
struct Test<'a> {
    guest: &'a Guest,
    plan: &'a GuestPlan,
    entry: &'static KtstrTestEntry,
    topo: &'a TestTopology,
    cgroups: &'a CgroupManager,
}

impl Test<'_> {
    /// Calls the test function under that scheduler and cleans up. All times count from `begin`.
    fn play(&self, scheduler: &dyn SchedulerOps, sched_pid: Option<u32>, begin: Instant) -> TestReturn {
        let events = WireEvents { channel: Arc::clone(self.guest.channel()), begin };
        let calls = HostCalls::open(Arc::clone(self.guest.channel()), self.plan.bell);
        let link = Arc::new(GuestLink::new(calls.map_err(|e| e.to_string()), begin));
        // Elsewhere the host looks as soon as it hears of it.
        let looking = self.plan.bell.then(|| last_look(&link));
        let ports = Ports {
            workers: &ForkedWorkers,
            clock: &MonotonicClock,
            events: &events,
            scheduler,
            host: &*link,
            irqs: &ktstr_procfs::Irqs::of_this_system(),
        };
        let mut ctx = Ctx::new(self.topo, self.cgroups, ports);
        ctx.sched_pid = sched_pid.and_then(|pid| pid.try_into().ok());
        if let Err(e) = configure(&mut ctx, self.entry, self.plan) {
            return TestReturn::Error(format!("{e:#}"));
        }
        if let Err(e) = self.write_maps(&link, &events) {
            return TestReturn::Error(format!("{e:#}"));
        }
        stage(self.guest, Stage::TestStart);
        self.guest.arm_watchdog(ctx.duration + self.entry.spec.timeout);
        let (count, duration) = (self.entry.spec.num_snapshots, ctx.duration);
        let snapshots = Snapshots { link: &link, count, duration, step: &|| ctx.current_step() };
        let samples = Samples { link: &link, period: self.plan.sample_period_ms.map(Duration::from_millis) };
        let returned = samples.during(|| snapshots.during(|| self.entry.call(&ctx)));
        link.workload_ends(ctx.current_step());
        self.guest.disarm_watchdog();
        drop(looking);
        stage(self.guest, Stage::TestEnd);
        match (self.cgroups.cleanup_all(), returned) {
            (Err(e), TestReturn::Judged(mut result)) => {
                result.note(format!("cleaning up after the test: {e}"));
                TestReturn::Judged(result)
            }
            (_, returned) => returned,
        }
    }
}

impl Test<'_> {
    /// Has the host write what the test declares into the scheduler's variables.
    fn write_maps(&self, link: &GuestLink, events: &WireEvents) -> Result<()> {
        for write in self.entry.spec.bpf_map_write {
            if let Some(problem) = write.problem() {
                bail!(problem);
            }
            // While it stands still, so that the program never sees a part of the number.
            let request = HostRequest::WriteKernel { path: write.path(), value: write.value, frozen: true };
            link.ask(0, &request).with_context(|| format!("writing {write} before the scenario"))?;
            events.stimulus(&StimulusEvent {
                op_kind: "BpfMapWrite".to_string(),
                detail: write.to_string(),
                ..StimulusEvent::default()
            });
        }
        Ok(())
    }
}

/// Has the host look at the kernel, through `link`, before it hears that the test went wrong.
fn last_look(link: &Arc<GuestLink>) -> LastLook {
    let link = Arc::clone(link);
    // The step is known to the thread that plays it only.
    LastLook::by(Arc::new(move |when| link.last_look(0, when)))
}

fn find_entry(plan: &GuestPlan) -> Result<&'static KtstrTestEntry> {
    KTSTR_TESTS
        .iter()
        .find(|e| e.spec.name == plan.test && e.spec.module == plan.module)
        .or_else(|| sweep::entry(&plan.test))
        .ok_or_else(|| anyhow!("looking for test {}::{}: not in this binary", plan.module, plan.test))
}

fn prepare(guest: &Guest, entry: &KtstrTestEntry, plan: &GuestPlan) -> Result<(TestTopology, CgroupManager)> {
    stage(guest, Stage::Topology);
    let topo = ktstr_procfs::test_topology_from_sysfs(Path::new("/sys"))?;
    check_shape(&entry.spec.topology, &topo)?;
    let root = Path::new("/sys/fs/cgroup");
    if plan.cgroup_parent != GuestPlan::CGROUP_PARENT {
        // A scheduler that walks the hierarchy is shown no cgroup that nobody asked for. A
        // machine that was booted for this test has none.
        let _ = std::fs::remove_dir(root.join(GuestPlan::CGROUP_PARENT));
    }
    let cgroups = CgroupManager::new(root, &plan.cgroup_parent)?;
    cgroups.setup()?;
    Ok((topo, cgroups))
}

/// A test on another machine than it declared would prove nothing.
fn check_shape(declared: &Topology, seen: &TestTopology) -> Result<()> {
    let want =
        (declared.total_cpus() as usize, declared.num_llcs() as usize, declared.num_numa_nodes() as usize);
    let have = (seen.total_cpus(), seen.num_llcs(), seen.num_numa_nodes());
    if want == have {
        return Ok(());
    }
    Err(anyhow!(
        "checking the machine's shape: declared {declared} ({} CPUs, {} LLCs, {} NUMA nodes), but the guest kernel \
         sees {} CPUs, {} LLCs, {} NUMA nodes; does the kernel lack CONFIG_SMP, CONFIG_NUMA or CONFIG_ACPI_NUMA, or \
         is CONFIG_NR_CPUS too small?",
        want.0,
        want.1,
        want.2,
        have.0,
        have.1,
        have.2
    ))
}

fn configure(ctx: &mut Ctx<'_>, entry: &KtstrTestEntry, plan: &GuestPlan) -> Result<()> {
    let spec = &entry.spec;
    ctx.duration = plan.duration_ms.map_or(spec.duration, Duration::from_millis);
    ctx.workers_per_cgroup = spec.workers_per_cgroup;
    ctx.seed = plan.seed;
    ctx.baseline = plan.baseline.clone();
    ctx.wait_for_map_write = !spec.bpf_map_write.is_empty();
    let defaults = if plan.emulated { Assert::default_checks_emulated() } else { Assert::default_checks() };
    ctx.assert = defaults.merge(&spec.own_checks());
    if let Some(name) = &plan.work_type {
        ctx.work_type_override = Some(WorkType::from_name(name)?);
    }
    ktstr_assert::set_log_passes(plan.log_passes);
    Ok(())
}

fn stage(guest: &Guest, stage: Stage) {
    // Without the channel the run ends in "no result", which says the rest.
    let _ = guest.channel().send(&Message::Stage(stage));
}

/// A scheduler's end that no scenario noticed.
fn failed_event(why: &str, at: std::time::Duration) -> StimulusEvent {
    StimulusEvent {
        elapsed_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
        op_kind: "SchedulerFailed".to_string(),
        detail: why.to_string(),
        ..StimulusEvent::default()
    }
}

/// Sends the scenario's events to the host.
struct WireEvents {
    channel: Arc<Channel>,
    /// When the test began.
    begin: Instant,
}

impl EventSink for WireEvents {
    fn stimulus(&self, event: &StimulusEvent) {
        let stimulus = Stimulus {
            elapsed_ms: event.elapsed_ms,
            step: event.step_index,
            kind: event.op_kind.clone(),
            label: event.label.clone(),
            detail: event.detail.clone(),
            iterations: event.total_iterations,
            is_step_end: event.is_step_end,
            is_terminal: event.is_terminal,
            since_test_ms: self.begin.elapsed().as_millis() as u64,
        };
        // A lost event is a hole in the timeline; the verdict doesn't hang on it.
        let _ = self.channel.send(&Message::Stimulus(stimulus));
    }
}

/// The guest kernel's ring buffer, as `dmesg --notime` prints it. Empty, with a
/// warning to the host, when it can't be read.
pub fn read_kmsg() -> String {
    ktstr_guest_init::read_kmsg().unwrap_or_else(|e| {
        if let Some(channel) = CHANNEL.get() {
            // Best effort: it is only a warning.
            let text = format!("reading the kernel log: {e}");
            let _ = channel.send(&Message::Log { level: LogLevel::Warn, text });
        }
        String::new()
    })
}

/// Sends bytes of the kernel's log to the host, where they are part of the run.
///
/// # Errors
/// Outside a guest, and when the channel to the host is broken.
pub fn send_kmsg(bytes: &[u8]) -> Result<()> {
    let channel = CHANNEL.get().context("sending the kernel log: not inside a guest")?;
    Ok(channel.send_kmsg(bytes)?)
}
