//! Cells of the verifier sweep: a declared scheduler on a machine of one shape must verify,
//! attach and schedule a spin load.
//!
//! `cargo ktstr verifier` has them listed beside the tests and reads what each records.

use crate::registry::{KTSTR_SCHEDULERS, KtstrTestEntry};
use anyhow::{Context, Result};
use ktstr_assert::{Assert, AssertResult, Outcome};
use ktstr_run::{TestSpec, file_stem};
use ktstr_scenario::{CgroupDef, Ctx, HoldSpec, Step};
use ktstr_scheduler::{Scheduler, SchedulerReport};
use ktstr_topology::{PRESETS, Preset};
use ktstr_verifier::Cell;
use std::path::Path;
use std::time::Duration;

/// Names of cells are `verifier/<scheduler>/<preset>`.
const PREFIX: &str = "verifier/";
const MODULE: &str = "verifier";

/// Set by `cargo ktstr verifier`: where each cell writes what came of it.
pub(crate) const RESULT_DIR: &str = "KTSTR_VERIFIER_RESULT_DIR";
/// The one scheduler that is wanted.
pub(crate) const SCHEDULER: &str = "KTSTR_VERIFIER_SCHEDULER";
/// The largest machine that is wanted, CPUs.
pub(crate) const MAX_CPUS: &str = "KTSTR_VERIFIER_MAX_CPUS";
/// Present: verifier logs are shown as they came.
pub(crate) const RAW: &str = "KTSTR_VERIFIER_RAW";

/// The cells that the environment asks for; none outside a sweep.
pub(crate) fn cells() -> Vec<String> {
    if std::env::var_os(RESULT_DIR).is_none_or(|dir| dir.is_empty()) {
        return Vec::new();
    }
    let only = std::env::var(SCHEDULER).ok().filter(|name| !name.is_empty());
    let max_cpus = std::env::var(MAX_CPUS).ok().and_then(|n| n.parse().ok()).unwrap_or(u32::MAX);
    let wanted = |s: &&Scheduler| {
        // Who asks for one by name gets it.
        s.has_program() && only.as_ref().map_or(s.verifier, |name| name == s.name)
    };
    let schedulers = KTSTR_SCHEDULERS.iter().filter(wanted);
    schedulers
        .flat_map(|s| presets(s, max_cpus).map(move |p| format!("{PREFIX}{}/{}", s.name, p.name)))
        .collect()
}

/// The machines that a scheduler is made for.
fn presets(scheduler: &Scheduler, max_cpus: u32) -> impl Iterator<Item = &'static Preset> {
    let (bounds, left_out) = (scheduler.constraints, scheduler.verifier_exclude_topologies);
    PRESETS.iter().filter(move |preset| {
        preset.topology().total_cpus() <= max_cpus
            && bounds.admits(&preset.topology())
            && !left_out.contains(&preset.name)
    })
}

/// The cell of that name, as a test; the same on both sides.
pub(crate) fn entry(case: &str) -> Option<&'static KtstrTestEntry> {
    let (name, preset) = case.strip_prefix(PREFIX)?.rsplit_once('/')?;
    let scheduler = KTSTR_SCHEDULERS.iter().find(|s| s.name == name)?;
    let topology = Preset::by_name(preset)?.topology();
    // One for each process, which runs one case.
    let case: &'static str = String::leak(case.to_string());
    let spec = TestSpec {
        scheduler,
        duration: Duration::from_secs(1),
        auto_repro: false,
        ..TestSpec::new(case, MODULE, topology)
    };
    Some(Box::leak(Box::new(KtstrTestEntry { spec, func: spin })))
}

/// A spinner for each CPU; each must get to run.
fn spin(ctx: &Ctx<'_>) -> Result<AssertResult> {
    let load = CgroupDef::named("load").workers(ctx.topo.total_cpus());
    let checks = Assert { not_starved: Some(true), ..Assert::NO_OVERRIDES };
    let steps = vec![Step::with_defs(vec![load], HoldSpec::FULL)];
    Ok(ktstr_scenario::execute_steps_with(ctx, steps, Some(&checks))?)
}

/// Writes what came of a cell, if the entry is one. `kernel` is `None` where none was found.
pub(crate) fn record(
    entry: &KtstrTestEntry,
    kernel: Option<&str>,
    result: &AssertResult,
    schedulers: &[SchedulerReport],
) -> Result<()> {
    let (Some(dir), true) = (std::env::var_os(RESULT_DIR), entry.spec.module == MODULE) else {
        return Ok(());
    };
    let kernel = kernel.unwrap_or("no kernel");
    let programs = schedulers.iter().flat_map(|report| &report.programs);
    let cell = Cell {
        scheduler: entry.spec.scheduler.name.to_string(),
        topology: entry.spec.name.rsplit('/').next().unwrap_or_default().to_string(),
        kernel: kernel.to_string(),
        outcome: match result.outcome {
            Outcome::Pass => ktstr_verifier::Outcome::Pass,
            Outcome::Skip => ktstr_verifier::Outcome::Skip,
            Outcome::Inconclusive => ktstr_verifier::Outcome::Inconclusive,
            Outcome::Fail => ktstr_verifier::Outcome::Fail,
        },
        detail: result.details.first().map(|d| d.message.clone()).unwrap_or_default(),
        verified_insns: programs.map(|p| (p.name.clone(), u64::from(p.verified_insns))).collect(),
    };
    let path = Path::new(&dir).join(format!("{}.json", file_stem(entry.spec.name, &[kernel])));
    let json = serde_json::to_vec_pretty(&cell).context("writing a verifier cell as JSON")?;
    std::fs::write(&path, json).with_context(|| format!("writing {}", path.display()))
}
