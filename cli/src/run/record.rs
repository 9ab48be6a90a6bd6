//! What a run leaves: its sidecar, and the kernel's state where the guest hung.

use super::kernel::Kernel;
use crate::registry::KtstrTestEntry;
use crate::settings::Settings;
use ktstr_machine::{Accel, Digest, Hypervisor, MachineSpec};
use ktstr_monitor::FailureDump;
use ktstr_results::{ResultsDir, project_commit};
use ktstr_run::ports::SidecarStore;
use ktstr_run::{CaseResult, Observation, RunFacts, SIDECAR_SCHEMA, Sidecar, SidecarTimes};
use ktstr_scheduler::SchedulerReport;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a record says of the host's side.
pub(super) struct Provenance {
    hypervisor: String,
    kernel_crc: String,
    project_commit: String,
}

impl Provenance {
    pub(super) fn find(settings: &Settings, kernel: &Kernel, hypervisor: &dyn Hypervisor) -> Self {
        let here = std::env::current_dir().unwrap_or_else(|_| PathBuf::from("."));
        Self {
            hypervisor: hypervisor.describe().unwrap_or_else(|e| format!("unknown: {e}")),
            kernel_crc: kernel.crc(),
            project_commit: settings.project_commit.clone().unwrap_or_else(|| project_commit(&here)),
        }
    }

    /// Nothing is known, for that reason.
    pub(super) fn unknown(why: &str) -> Self {
        let unknown = format!("unknown: {why}");
        Self { hypervisor: unknown.clone(), kernel_crc: unknown, project_commit: "unknown".to_string() }
    }
}

/// A run that has ended and was judged.
pub(super) struct Run<'a> {
    pub(super) spec: &'a MachineSpec,
    pub(super) kernel: &'a Kernel,
    pub(super) entry: &'a KtstrTestEntry,
    pub(super) case: &'a CaseResult,
    pub(super) seen: &'a Observation,
    /// When the machine that was seen began.
    pub(super) began: SystemTime,
    pub(super) provenance: Provenance,
    /// What the kernel of a second run looked like.
    pub(super) repro_dump: Option<&'a FailureDump>,
}

impl Run<'_> {
    /// Writes the sidecar. A result that can't be recorded is still the result.
    pub(super) fn record(&self, settings: &Settings, facts: &mut RunFacts) {
        let sidecar = self.sidecar(facts);
        let dir = settings.sidecar_dir.clone().unwrap_or_else(|| {
            target_dir().join("ktstr").join(format!("{}-{}", sidecar.kernel_version, sidecar.project_commit))
        });
        let results = ResultsDir::new(dir);
        match self.failure_dump().map(|dump| results.write_dump(&sidecar, &dump)) {
            Some(Ok(path)) => facts.kernel_state = Some(path.display().to_string()),
            Some(Err(e)) => eprintln!("ktstr: warning: {e} (the verdict stands)"),
            None => {}
        }
        if let Some(Err(e)) = self.repro_dump.map(|dump| results.write_repro_dump(&sidecar, dump)) {
            eprintln!("ktstr: warning: {e} (the verdict stands)");
        }
        match results.write(&sidecar) {
            Ok(path) => facts.sidecar = Some(path.display().to_string()),
            Err(e) => eprintln!("ktstr: warning: {e} (the verdict stands)"),
        }
    }

    /// What a failed run knows of its kernel.
    fn failure_dump(&self) -> Option<FailureDump> {
        self.seen.failure_dump().filter(|_| self.case.result.is_fail())
    }

    fn sidecar(&self, facts: &RunFacts) -> Sidecar {
        let Self { spec, kernel, entry, case, seen, began, provenance, .. } = self;
        let ms = |d: Duration| d.as_millis() as u64;
        let result = &case.result;
        let hash = |value: u64| format!("{value:016x}");
        let mut kernel_log = Digest::default();
        kernel_log.push(&seen.kernel_log);
        let finished = SystemTime::now().duration_since(UNIX_EPOCH).map(ms).unwrap_or_default();
        let test_began =
            seen.times.to_test.map(|t| *began + t).and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let monitor = case.monitor.as_ref().map(|m| m.summary.clone());
        let text =
            |s: &ktstr_wire::Stimulus| [s.kind.as_str(), &s.label, &s.detail].join(" ").trim().to_string();
        Sidecar {
            schema: SIDECAR_SCHEMA,
            test_name: facts.test.clone(),
            module: entry.spec.module.to_string(),
            topology: facts.topology.clone(),
            memory_mib: spec.memory_mib,
            accel: facts.mode.clone(),
            hypervisor: provenance.hypervisor.clone(),
            start: if facts.resumed { "resumed" } else { "booted" }.to_string(),
            seed: facts.seed,
            kernel_version: kernel.release.clone().unwrap_or_else(|| "unknown".to_string()),
            kernel: kernel.origin.clone(),
            kernel_crc: provenance.kernel_crc.clone(),
            scheduler: entry.spec.scheduler.name.to_string(),
            schedulers: seen.schedulers.iter().map(SchedulerReport::without_texts).collect(),
            project_commit: provenance.project_commit.clone(),
            outcome: result.outcome.word().to_string(),
            passed: result.is_pass(),
            skipped: result.is_skip(),
            inconclusive: result.is_inconclusive(),
            expected_failure: entry.spec.expect_err,
            result: result.clone(),
            stimulus_events: seen.timeline.iter().map(|s| (s.elapsed_ms, text(s))).collect(),
            console_hash: hash(seen.console.digest()),
            output_hash: hash(seen.output.digest()),
            kernel_log_hash: hash(kernel_log.value()),
            vcpus: spec.topology.total_cpus(),
            monitor: monitor.clone().map(|summary| match spec.accel {
                Accel::Deterministic => summary.without_costs(),
                Accel::Tcg | Accel::Kvm => summary,
            }),
            snapshots: seen.snapshots.all().to_vec(),
            host: SidecarTimes {
                finished_unix_ms: finished,
                boot_ms: seen.times.boot.map(ms),
                to_test_ms: seen.times.to_test.map(ms),
                test_unix_us: test_began.map(|t| t.as_micros() as u64),
                test_ms: seen.times.test.map(ms),
                sample_us: monitor.as_ref().map(|m| m.cost_us).filter(|us| *us > 0.0),
                total_ms: ms(seen.times.total),
            },
        }
    }
}

/// cargo's target directory: `CARGO_TARGET_DIR`, else the one this binary lies in.
fn target_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("CARGO_TARGET_DIR").filter(|d| !d.is_empty()) {
        return PathBuf::from(dir);
    }
    let exe = std::env::current_exe().unwrap_or_default();
    let tagged = |dir: &&Path| dir.join("CACHEDIR.TAG").exists();
    exe.ancestors().skip(1).find(tagged).map_or_else(|| PathBuf::from("target"), Path::to_path_buf)
}
