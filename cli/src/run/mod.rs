//! The host's composition root: one case from its declaration to its verdict.

mod baseline;
mod host_only;
mod hypervisor;
mod image;
pub(crate) mod kernel;
mod machine;
mod performance;
pub(crate) mod programs;
mod record;
mod repro;
mod schedulers;
pub(crate) mod shares;
mod stalls;

use crate::registry::KtstrTestEntry;
use crate::settings::Settings;
use crate::sweep;
use anyhow::{Context, Result, anyhow, bail};
use kernel::Kernel;
use ktstr_assert::{AssertResult, Outcome, ScenarioStats};
use ktstr_machine::{Accel, CommandLine, MachineSpec, Pace, memory_floor_mib, memory_to_boot_mib};
use ktstr_monitor::MonitorLog;
use ktstr_run::{
    CaseResult, Crash, GuestPlan, Limits, Observation, Repro, RunFacts, check_expected, judge,
    judge_kernel_state, judge_repro, render,
};
#[cfg(feature = "cli-bins")]
pub(crate) use machine::index_cache;
use record::{Provenance, Run};
use schedulers::Schedulers;
use std::time::Duration;

/// What attaching and detaching may take in all.
const AROUND_SCHEDULERS: Duration = Duration::from_secs(90);

/// The saved machines that the environment names.
#[cfg(feature = "cli-bins")]
pub(crate) fn template_store() -> Result<ktstr_templates::TemplateStore> {
    machine::store(&Settings::from_env()?)
}

/// A case that has run.
pub(crate) struct CaseRun {
    pub(crate) outcome: Outcome,
    pub(crate) text: String,
    /// What its workers measured.
    stats: ScenarioStats,
}

/// Runs a test on its own machine (or on the host, if it says so). Whatever goes
/// wrong is part of the verdict: this never panics and never hangs.
pub(crate) fn run_case(entry: &'static KtstrTestEntry) -> CaseRun {
    let settings = match Settings::from_env() {
        Ok(settings) => settings,
        Err(e) => return not_run(entry, "?", &e),
    };
    if entry.spec.host_only {
        let mut case = host_only::run(entry, &settings);
        judge_kernel_state(
            &entry.spec,
            &MonitorLog::unsampled("a test on the host has no machine"),
            &mut case,
        );
        let facts =
            RunFacts { mode: "host".to_string(), topology: "host".to_string(), ..facts(entry, &settings) };
        return finish(&settings, &facts, &case, None);
    }
    let ran = if entry.spec.baseline {
        baseline::run(entry, &settings)
    } else {
        run_in_machine(entry, &settings, None)
    };
    match ran {
        Ok(run) => run,
        Err(e) => {
            let kernel = kernel::resolve_for_test().ok().map(|kernel| kernel.label());
            let result = AssertResult::fail(format!("{e:#}"));
            if let Err(e) = sweep::record(entry, kernel.as_deref(), &result, None) {
                eprintln!("ktstr: warning: {e:#}");
            }
            not_run(entry, "not started", &e)
        }
    }
}

fn not_run(entry: &KtstrTestEntry, mode: &str, error: &anyhow::Error) -> CaseRun {
    let case = CaseResult { result: AssertResult::fail(format!("{error:#}")), broken: true, monitor: None };
    let facts = RunFacts {
        test: entry.spec.name.to_string(),
        topology: entry.spec.topology.label(),
        mode: mode.to_string(),
        kernel: "-".to_string(),
        ..RunFacts::default()
    };
    CaseRun { outcome: Outcome::Fail, text: render(&facts, &case, None), stats: ScenarioStats::default() }
}

/// A test that was not run, for that reason.
fn skipped(entry: &KtstrTestEntry, settings: &Settings, why: String) -> CaseRun {
    let case = CaseResult { result: AssertResult::skip(why), broken: false, monitor: None };
    let facts =
        RunFacts { mode: "not started".to_string(), kernel: "-".to_string(), ..facts(entry, settings) };
    finish(settings, &facts, &case, None)
}

fn facts(entry: &KtstrTestEntry, settings: &Settings) -> RunFacts {
    RunFacts {
        test: entry.spec.name.to_string(),
        topology: entry.spec.topology.label(),
        seed: settings.seed,
        duration: settings.duration.unwrap_or(entry.spec.duration),
        checks: entry.spec.own_checks(),
        verbose: settings.verbose,
        scheduler: entry.spec.scheduler.name.to_string(),
        raw_verifier_log: std::env::var_os(sweep::KTSTR_VERIFIER_RAW_ENV).is_some(),
        ..RunFacts::default()
    }
}

/// `baseline` are the numbers of the same test under the kernel's own scheduler.
fn run_in_machine(
    entry: &'static KtstrTestEntry,
    settings: &Settings,
    baseline: Option<ScenarioStats>,
) -> Result<CaseRun> {
    entry.spec.topology.validate()?;
    check_expected(&entry.spec).map_err(|why| anyhow!(why))?;
    let duration = settings.duration.unwrap_or(entry.spec.duration);
    if let Some(problem) = entry.spec.snapshots_problem(duration) {
        bail!("KTSTR_DURATION_S is set: {problem}");
    }
    if entry.spec.performance_mode && settings.no_perf_mode {
        return Ok(skipped(
            entry,
            settings,
            "it is in performance mode, and KTSTR_NO_PERF_MODE is set".to_string(),
        ));
    }
    let (hypervisor, accel) = hypervisor::choose(settings)?;
    let pace = hypervisor.pace(accel);
    let kernel = kernel::resolve_for_test()?;
    if let Some(why) = sweep::left_out(entry, &kernel)? {
        sweep::record(entry, Some(&kernel.label()), &AssertResult::skip(why.as_str()), None)?;
        return Ok(skipped(entry, settings, why));
    }
    let image = image::of_this_binary(settings)?;
    if let Ok(store) = machine::store(settings)
        && !settings.no_template
    {
        kernel.summed_up_by(&store);
    }
    let schedulers = Schedulers::of(entry, settings, &image)?;
    let plan = GuestPlan {
        emulated: pace == Pace::Emulated,
        bell: accel == Accel::Deterministic,
        // Elsewhere the host samples at its own pace.
        sample_period_ms: settings
            .monitor_period
            .filter(|_| accel == Accel::Deterministic)
            .map(|period| period.as_millis() as u64),
        schedulers: schedulers.plans.clone(),
        baseline: baseline.clone(),
        ..plan(entry, settings, &image.build_id)
    };
    let mut spec = MachineSpec {
        kernel: kernel.image.clone(),
        initramfs: vec![image::plan_archive(&plan, &schedulers)?],
        cmdline: kernel_arguments(entry)?,
        topology: entry.spec.topology.clone(),
        memory_mib: memory(entry, &kernel, image.len() + schedulers.len()),
        accel,
        seed: settings.seed,
        verbose: settings.verbose,
        kaslr: entry.spec.kaslr,
        performance: None,
    };
    // Held until the run is judged: a second run of a crash has the same CPUs.
    let host = performance::prepare(&entry.spec, settings, hypervisor.as_ref(), &mut spec)?;
    if let Some(lacks) = host.lacks().filter(|_| settings.require_perf_mode) {
        bail!("KTSTR_REQUIRE_PERF_MODE is set, and performance mode lacks something here: {lacks}");
    }
    if let Some(why) = host.contended() {
        return Ok(skipped(entry, settings, why));
    }
    // Schedulers attach and detach outside of the test function's own time.
    let around = if schedulers.plans.is_empty() { Duration::ZERO } else { AROUND_SCHEDULERS };
    let limits = Limits::new(pace, spec.topology.total_cpus(), duration, entry.spec.timeout + around);
    let machine = machine::Machine {
        name: entry.spec.name,
        hypervisor: hypervisor.as_ref(),
        spec: &spec,
        image: &image,
        kernel: &kernel,
        limits,
        checks: entry.spec.own_checks(),
        monitor_period: settings.monitor_period,
        snapshot_paths: entry.spec.snapshot_paths,
        verbose: settings.verbose,
    };
    // What the record needs of the host is looked up while the test runs, not before: the
    // machine's start needs the host's CPUs itself.
    let (begun, begins) = std::sync::mpsc::channel();
    let (of_kernel, by) = (&kernel, hypervisor.as_ref());
    let find = move || {
        // Or the machine has ended before.
        let _ = begins.recv();
        Provenance::find(settings, of_kernel, by)
    };
    let (provenance, played) = std::thread::scope(|scope| {
        let provenance = scope.spawn(find);
        let played = machine.run(settings, begun);
        (provenance.join(), played)
    });
    let played = played?;
    let seen = played.seen;
    let provenance = provenance.unwrap_or_else(|_| Provenance::unknown("looking it up panicked"));
    // For the test's own checks on the host.
    ktstr_assert::set_log_passes(settings.log_passes);
    let mut case = judge(&entry.spec, &seen);
    for _ in 0..played.restarts {
        case.result.note(machine::LOST_PATCH);
    }
    for note in host.notes() {
        case.result.note(note);
    }
    if accel == Accel::Deterministic && !played.resumed && !settings.no_template && !settings.verbose {
        case.result.note(machine::NOT_SAVED);
    }
    let (resumed, began) = (played.resumed, played.began);
    let repro = Crash::of(&entry.spec, &case, &seen).map(|crash| match crash.without_probes(&seen) {
        Some(why) => Repro::not_made(why),
        None => repro::again(&machine, settings, &crash, |probes| {
            image::plan_archive(&GuestPlan { probes, ..plan.clone() }, &schedulers)
        }),
    });
    if entry.spec.expect_auto_repro {
        judge_repro(&mut case, repro.as_ref());
    }
    let (repro, repro_dump) = repro.map(|repro| (repro.text, repro.dump)).unzip();
    let repro_dump = repro_dump.flatten();
    let mut facts = RunFacts {
        mode: accel.to_string(),
        emulated_processor: pace != accel.pace(),
        kernel: kernel.label(),
        resumed,
        repro,
        baseline,
        ..facts(entry, settings)
    };
    let run = Run {
        spec: &spec,
        kernel: &kernel,
        entry,
        case: &case,
        seen: &seen,
        began,
        provenance,
        repro_dump: repro_dump.as_ref(),
    };
    run.record(settings, &mut facts);
    sweep::record(entry, Some(&kernel.label()), &case.result, Some(&seen))?;
    Ok(finish(settings, &facts, &case, Some(&seen)))
}

fn plan(entry: &KtstrTestEntry, settings: &Settings, build_id: &str) -> GuestPlan {
    let mut env = vec![
        ("PATH".to_string(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_string()),
        ("HOME".to_string(), "/".to_string()),
        ("KTSTR_GUEST_INIT".to_string(), "1".to_string()),
    ];
    env.extend(settings.backtrace.iter().map(|v| ("RUST_BACKTRACE".to_string(), v.clone())));
    GuestPlan {
        test: entry.spec.name.to_string(),
        module: entry.spec.module.to_string(),
        build_id: build_id.to_string(),
        seed: settings.seed,
        emulated: false,
        bell: false,
        sample_period_ms: None,
        duration_ms: settings.duration.map(|d| d.as_millis() as u64),
        log_passes: settings.log_passes,
        work_type: settings.work_type.clone(),
        env,
        want_kernel_log: true,
        schedulers: Vec::new(),
        probes: Vec::new(),
        baseline: None,
        cgroup_parent: cgroup_parent(entry),
    }
}

/// Below the scheduler's own cgroup where it has one.
fn cgroup_parent(entry: &KtstrTestEntry) -> String {
    let parent = entry.spec.scheduler.cgroup_parent.map(|path| path.trim_matches('/'));
    parent.map_or_else(|| GuestPlan::CGROUP_PARENT.to_string(), |parent| format!("{parent}/ktstr"))
}

fn kernel_arguments(entry: &KtstrTestEntry) -> Result<CommandLine> {
    let mut line = CommandLine::new();
    line.extend(entry.spec.scheduler.kargs.iter().copied())
        .with_context(|| format!("in `kargs` of scheduler {:?}", entry.spec.scheduler.name))?;
    line.extend(entry.spec.kargs.iter().copied())
        .with_context(|| format!("in `kargs` of {}", entry.spec.name))?;
    Ok(line)
}

fn memory(entry: &KtstrTestEntry, kernel: &Kernel, initramfs_bytes: usize) -> u64 {
    let boot = memory_to_boot_mib(kernel.bytes_to_boot(), initramfs_bytes as u64);
    memory_floor_mib(entry.spec.topology.total_cpus(), boot.max(u64::from(entry.spec.memory_mib)))
}

fn finish(settings: &Settings, facts: &RunFacts, case: &CaseResult, seen: Option<&Observation>) -> CaseRun {
    let mut outcome = case.result.outcome;
    let mut text = render(facts, case, seen);
    if outcome == Outcome::Skip && settings.no_skip {
        outcome = Outcome::Fail;
        text.push_str("a skip counts as a failure here (KTSTR_NO_SKIP_MODE)\n");
    }
    if outcome == Outcome::Pass && !settings.log_passes && !settings.verbose {
        text.clear();
    }
    CaseRun { outcome, text, stats: case.result.stats.clone() }
}
