//! The same test under the kernel's own scheduler first, for numbers to compare with.

use super::{CaseRun, run_in_machine};
use crate::registry::KtstrTestEntry;
use crate::settings::Settings;
use anyhow::{Result, bail};
use ktstr_run::TestSpec;
use ktstr_scheduler::Scheduler;

/// Runs the test under EEVDF and then under its own scheduler, which is given the numbers.
pub(super) fn run(entry: &'static KtstrTestEntry, settings: &Settings) -> Result<CaseRun> {
    let spec = TestSpec {
        scheduler: &Scheduler::EEVDF,
        extra_sched_args: &[],
        staged_schedulers: &[],
        bpf_map_write: &[],
        scx_error_contains: None,
        scx_error_matches: None,
        expect_err: false,
        baseline: false,
        ..entry.spec.clone()
    };
    // A process runs one case.
    let under_eevdf: &'static KtstrTestEntry = Box::leak(Box::new(KtstrTestEntry { spec, func: entry.func }));
    let base = run_in_machine(under_eevdf, settings, None)?;
    if base.stats.is_empty() {
        bail!(
            "running {} under EEVDF for a baseline: it gave no numbers\n{}",
            entry.spec.name,
            base.text.trim_end()
        );
    }
    run_in_machine(entry, settings, Some(base.stats))
}
