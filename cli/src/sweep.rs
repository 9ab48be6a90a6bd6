//! Cells of the verifier sweep: a declared scheduler on a machine of one shape must verify,
//! attach and schedule a spin load.
//!
//! `cargo ktstr verifier` has them listed beside the tests and reads what each records.

use crate::registry::{KTSTR_SCHEDULERS, KtstrTestEntry};
use crate::run::kernel::Kernel;
use anyhow::{Context, Result};
use ktstr_assert::{Assert, AssertResult, Outcome};
use ktstr_run::{Observation, TestSpec, file_stem};
use ktstr_scenario::{CgroupDef, Ctx, HoldSpec, Step};
use ktstr_scheduler::{Scheduler, without_colours};
use ktstr_topology::{PRESETS, Preset};
use ktstr_verifier::{Cell, Mode, VerifierLog, render_program};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names of cells are `verifier/<scheduler>/<preset>`.
const PREFIX: &str = "verifier/";
const MODULE: &str = "verifier";

/// The machine that a scheduler boots on before all others: one CPU.
const ONE_CPU: Preset = Preset { name: "1cpu-1llc-nosmt", numa_nodes: 1, llcs: 1, cores: 1, threads: 1 };

/// Name of the variable with the directory in which each cell of a sweep writes what came of it; set by
/// `cargo ktstr verifier`.
pub const KTSTR_VERIFIER_RESULT_DIR_ENV: &str = "KTSTR_VERIFIER_RESULT_DIR";
/// Name of the variable with the declared names of the schedulers that are wanted, with commas between; unset is all.
pub const KTSTR_VERIFIER_SCHEDULER_ENV: &str = "KTSTR_VERIFIER_SCHEDULER";
/// Name of the variable that has verifier logs shown as they came, whatever its value.
pub const KTSTR_VERIFIER_RAW_ENV: &str = "KTSTR_VERIFIER_RAW";
/// The largest machine that is wanted, CPUs.
pub(crate) const MAX_CPUS: &str = "KTSTR_VERIFIER_MAX_CPUS";
/// The words by which the kernel of this pass was named; unset is the one found.
pub(crate) const KERNEL: &str = "KTSTR_VERIFIER_KERNEL";
/// Present where nobody named kernels: each scheduler is swept on those of its declaration, without any on the one found.
pub(crate) const OWN_KERNELS: &str = "KTSTR_VERIFIER_OWN_KERNELS";
/// Files of the result directory that name, a line each, the kernels of declarations.
pub(crate) const KERNEL_LIST: &str = "kernels";

/// What the environment says of a sweep.
#[derive(Debug, Default)]
struct Asked {
    results: Option<PathBuf>,
    schedulers: Option<String>,
    max_cpus: Option<u32>,
    kernel: Option<String>,
    own_kernels: bool,
}

impl Asked {
    fn from_env() -> Self {
        let get = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        Self {
            results: std::env::var_os(KTSTR_VERIFIER_RESULT_DIR_ENV)
                .filter(|d| !d.is_empty())
                .map(PathBuf::from),
            schedulers: get(KTSTR_VERIFIER_SCHEDULER_ENV),
            max_cpus: get(MAX_CPUS).and_then(|n| n.parse().ok()),
            kernel: get(KERNEL),
            own_kernels: get(OWN_KERNELS).is_some(),
        }
    }

    /// Whether a scheduler is swept at all. Who asks for one by name gets it.
    fn wants(&self, scheduler: &Scheduler) -> bool {
        let named = |names: &String| names.split(',').any(|name| name == scheduler.name);
        scheduler.has_program() && self.schedulers.as_ref().map_or(scheduler.verifier, named)
    }

    /// Whether this pass over the cells is one for it.
    fn this_pass(&self, scheduler: &Scheduler) -> bool {
        match &self.kernel {
            _ if !self.own_kernels => true,
            None => scheduler.kernels.is_empty(),
            Some(kernel) => scheduler.kernels.contains(&kernel.as_str()),
        }
    }

    fn cells(&self, schedulers: &[Scheduler]) -> Vec<String> {
        let taken = schedulers.iter().filter(|s| self.wants(s) && self.this_pass(s));
        taken.flat_map(|s| self.presets(s).map(move |p| format!("{PREFIX}{}/{}", s.name, p.name))).collect()
    }

    /// The kernels that wanted schedulers name, each once.
    fn kernels(&self, schedulers: &[Scheduler]) -> Vec<&'static str> {
        let wanted = schedulers.iter().filter(|s| self.wants(s) && self.presets(s).next().is_some());
        let mut kernels: Vec<&'static str> = wanted.flat_map(|s| s.kernels.iter().copied()).collect();
        kernels.sort_unstable();
        kernels.dedup();
        kernels
    }

    /// The machines that a scheduler is made for. Gauntlets stop at a size that a host can be expected to run at speed;
    /// a sweep asks what verifies, so that only the limits of the declaration's own count.
    fn presets(&self, scheduler: &Scheduler) -> impl Iterator<Item = &'static Preset> {
        let (bounds, left_out) =
            (scheduler.constraints.without_default_maxima(), scheduler.verifier_exclude_topologies);
        let max_cpus = self.max_cpus.unwrap_or(u32::MAX);
        std::iter::once(&ONE_CPU).chain(PRESETS).filter(move |preset| {
            preset.topology().total_cpus() <= max_cpus
                && bounds.admits(&preset.topology())
                && !left_out.contains(&preset.name)
        })
    }
}

/// The cells that the environment asks for; none outside a sweep.
///
/// # Errors
/// When the kernels that declarations name can't be told to the sweep.
pub(crate) fn cells() -> Result<Vec<String>> {
    let asked = Asked::from_env();
    let Some(results) = &asked.results else { return Ok(Vec::new()) };
    if asked.own_kernels && asked.kernel.is_none() {
        tell_kernels(results, &asked.kernels(&KTSTR_SCHEDULERS))?;
    }
    Ok(asked.cells(&KTSTR_SCHEDULERS))
}

fn tell_kernels(results: &Path, kernels: &[&str]) -> Result<()> {
    if kernels.is_empty() {
        return Ok(());
    }
    let exe = std::env::current_exe().context("finding the test binary's own path")?;
    let name = exe.file_name().unwrap_or_default().to_string_lossy();
    let path = results.join(format!("{name}.{KERNEL_LIST}"));
    std::fs::write(&path, kernels.join("\n")).with_context(|| format!("writing {}", path.display()))
}

/// The cell of that name, as a test; the same on both sides.
pub(crate) fn entry(case: &str) -> Option<&'static KtstrTestEntry> {
    let (name, preset) = case.strip_prefix(PREFIX)?.rsplit_once('/')?;
    let scheduler = KTSTR_SCHEDULERS.iter().find(|s| s.name == name)?;
    let preset = if preset == ONE_CPU.name { &ONE_CPU } else { Preset::by_name(preset)? };
    // One for each process, which runs one case.
    let case: &'static str = String::leak(case.to_string());
    let spec = TestSpec {
        scheduler,
        duration: Duration::from_secs(1),
        auto_repro: false,
        ..TestSpec::new(case, MODULE, preset.topology())
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

/// Why a cell is not tried on this kernel; `None` for one that is, and for anything that is no cell.
///
/// # Errors
/// When the declaration names a kernel in words that name none.
pub(crate) fn left_out(entry: &KtstrTestEntry, kernel: &Kernel) -> Result<Option<String>> {
    let scheduler = entry.spec.scheduler;
    if entry.spec.module != MODULE || scheduler.kernels.is_empty() {
        return Ok(None);
    }
    let swept = std::env::var(KERNEL).unwrap_or_default();
    if scheduler.kernels.contains(&swept.as_str()) {
        return Ok(None);
    }
    let listed = kernel
        .is_among(scheduler.kernels, Path::new(scheduler.declared_in))
        .with_context(|| format!("reading `kernels` of scheduler {:?}", scheduler.name))?;
    let list = scheduler.kernels.join(", ");
    Ok((!listed)
        .then(|| format!("its declaration has it swept on {list} only, and {} is none", kernel.label())))
}

/// Writes what came of a cell, if the entry is one. `kernel` is `None` where none was found, `seen` where no machine ran.
pub(crate) fn record(
    entry: &KtstrTestEntry,
    kernel: Option<&str>,
    result: &AssertResult,
    seen: Option<&Observation>,
) -> Result<()> {
    let (Some(dir), true) = (Asked::from_env().results, entry.spec.module == MODULE) else {
        return Ok(());
    };
    let kernel = kernel.unwrap_or("no kernel");
    let outcome = match result.outcome {
        Outcome::Pass => ktstr_verifier::Outcome::Pass,
        Outcome::Skip => ktstr_verifier::Outcome::Skip,
        Outcome::Inconclusive => ktstr_verifier::Outcome::Inconclusive,
        Outcome::Fail => ktstr_verifier::Outcome::Fail,
    };
    let topology = entry.spec.name.rsplit('/').next().unwrap_or_default();
    let mut cell = Cell::new(entry.spec.scheduler.name, topology, kernel, outcome);
    cell.detail = result.details.first().map(|d| d.message.clone()).unwrap_or_default();
    if let Some(seen) = seen {
        let programs = seen.schedulers.iter().flat_map(|report| &report.programs);
        cell.verified_insns = programs.map(|p| (p.name.clone(), u64::from(p.verified_insns))).collect();
        said(&mut cell, &log_of(seen), std::env::var_os(KTSTR_VERIFIER_RAW_ENV).is_some());
    }
    let path = dir.join(format!("{}.json", file_stem(entry.spec.name, &[kernel])));
    let json = serde_json::to_vec_pretty(&cell).context("writing a verifier cell as JSON")?;
    std::fs::write(&path, json).with_context(|| format!("writing {}", path.display()))
}

/// What the scheduler's program printed, as it came.
fn log_of(seen: &Observation) -> String {
    seen.schedulers.iter().fold(seen.scheduler_log.text(), |log, report| log + &report.log_tail)
}

/// Adds what a verifier said in `log`: of each program its statistics and verdict, of the one that was refused the log.
fn said(cell: &mut Cell, log: &str, raw: bool) {
    let parsed = VerifierLog::parse(&without_colours(log));
    cell.programs = parsed.programs.iter().map(ktstr_verifier::ProgramLog::summary).collect();
    if let Some(refused) = parsed.rejected() {
        cell.log = if raw { log.to_string() } else { render_program(refused, Mode::Readable) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_scheduler::SchedulerSpec;
    use ktstr_topology::ShapeBounds;

    const PLAIN: Scheduler = Scheduler::named("plain");
    const SHY: Scheduler = Scheduler { verifier: false, ..Scheduler::named("shy") };
    const LISTED: Scheduler = Scheduler { kernels: &["apt:6.12", "6.14"], ..Scheduler::named("listed") };
    const BUILTIN: Scheduler =
        Scheduler::new("builtin", SchedulerSpec::KernelBuiltin { enable: &["true"], disable: &["true"] });
    const ALL: &[Scheduler] = &[PLAIN, SHY, LISTED, BUILTIN, Scheduler::EEVDF];

    fn small() -> Asked {
        Asked { max_cpus: Some(4), ..Asked::default() }
    }

    fn of(asked: &Asked, scheduler: Scheduler) -> Vec<&'static str> {
        asked.presets(&scheduler).map(|preset| preset.name).collect()
    }

    #[test]
    fn programs_are_swept_on_small_machines_first() {
        let cells = small().cells(ALL);
        assert_eq!(
            cells,
            [
                "verifier/plain/1cpu-1llc-nosmt",
                "verifier/plain/4cpu-1llc-nosmt",
                "verifier/plain/4cpu-2llc-nosmt",
                "verifier/listed/1cpu-1llc-nosmt",
                "verifier/listed/4cpu-1llc-nosmt",
                "verifier/listed/4cpu-2llc-nosmt",
            ]
        );
    }

    #[test]
    fn who_asks_by_name_gets_it() {
        let asked = |names: &str| Asked {
            schedulers: Some(names.to_string()),
            max_cpus: Some(1),
            ..Asked::default()
        };
        assert_eq!(asked("shy").cells(ALL), ["verifier/shy/1cpu-1llc-nosmt"]);
        let both = ["verifier/plain/1cpu-1llc-nosmt", "verifier/shy/1cpu-1llc-nosmt"];
        assert_eq!(asked("shy,plain").cells(ALL), both);
        assert!(asked("eevdf,builtin,nobody").cells(ALL).is_empty());
    }

    #[test]
    fn only_limits_of_the_declaration_count() {
        let all = Asked::default();
        assert_eq!(of(&all, PLAIN).len(), PRESETS.len() + 1);
        let bounds = ShapeBounds { cpus: (2, 16), ..ShapeBounds::DEFAULT };
        let bounded = of(&all, Scheduler { constraints: bounds, ..PLAIN });
        assert!(bounded.contains(&"2numa-16cpu-4llc-nosmt"), "{bounded:?}");
        assert!(!bounded.contains(&"1cpu-1llc-nosmt") && !bounded.contains(&"32cpu-4llc-smt"), "{bounded:?}");
        let smt = ShapeBounds { requires_smt: true, ..ShapeBounds::DEFAULT };
        let smt = of(&all, Scheduler { constraints: smt, ..PLAIN });
        assert!(!smt.is_empty() && smt.iter().all(|name| name.ends_with("-smt")), "{smt:?}");
        let left_out = Scheduler { verifier_exclude_topologies: &["4cpu-1llc-nosmt"], ..PLAIN };
        assert_eq!(of(&small(), left_out), ["1cpu-1llc-nosmt", "4cpu-2llc-nosmt"]);
    }

    /// Where nobody named kernels, each scheduler has a pass for each of its own.
    #[test]
    fn each_scheduler_has_its_own_kernels() {
        let one = |kernel: Option<&str>| Asked {
            max_cpus: Some(1),
            kernel: kernel.map(String::from),
            own_kernels: true,
            ..Asked::default()
        };
        assert_eq!(one(None).cells(ALL), ["verifier/plain/1cpu-1llc-nosmt"]);
        assert_eq!(one(Some("6.14")).cells(ALL), ["verifier/listed/1cpu-1llc-nosmt"]);
        assert!(one(Some("6.15")).cells(ALL).is_empty());
        assert_eq!(one(None).kernels(ALL), ["6.14", "apt:6.12"]);
        let named = Asked { own_kernels: false, ..one(Some("6.15")) };
        assert_eq!(named.cells(ALL).len(), 2, "those that don't list it are told as left out when they run");
    }

    #[test]
    fn a_log_becomes_statistics_and_a_refusal() {
        let log = "libbpf: prog 'enqueue': -- BEGIN PROG LOAD LOG --\n0: (b7) r0 = 0\nprocessed 55 insns (limit \
                   1000000) max_states_per_insn 0 total_states 4 peak_states 3 mark_read 1\n-- END PROG LOAD LOG --\n\
                   libbpf: prog 'running': BPF program load failed: Permission denied\n\
                   libbpf: prog 'running': -- BEGIN PROG LOAD LOG --\n0: (b7) r0 = 0 ; R0_w=0\n\
                   R0 invalid mem access 'map_value_or_null'\nprocessed 7 insns (limit 1000000) max_states_per_insn 0 \
                   total_states 0 peak_states 0 mark_read 0\n-- END PROG LOAD LOG --\n";
        let mut cell = Cell::new("s", "t", "k", ktstr_verifier::Outcome::Fail);
        said(&mut cell, log, false);
        let stats = cell.programs[0].stats.as_ref().unwrap();
        assert_eq!((cell.programs[0].name.as_str(), stats.processed, stats.total_states), ("enqueue", 55, 4));
        assert!(cell.log.contains("R0 invalid mem access") && !cell.log.contains("enqueue"), "{}", cell.log);
        said(&mut cell, log, true);
        assert_eq!(cell.log, log);
        let mut sound = Cell::new("s", "t", "k", ktstr_verifier::Outcome::Pass);
        said(&mut sound, "scx: attached\n", false);
        assert!(sound.programs.is_empty() && sound.log.is_empty());
    }
}
