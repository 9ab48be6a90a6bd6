//! Makes one verdict of everything that was seen of a run.

use crate::drive::{Deadline, Observation};
use crate::guest::TestReturn;
use crate::kernel_log;
use crate::last_words;
use crate::reported::judge_reports;
use crate::scheduler::{judge_schedulers, unexpected_failure};
use crate::spec::TestSpec;
use crate::vm_result::VmResult;
use ktstr_assert::{AssertResult, Detail, DetailKind, Outcome};
use ktstr_machine::VmExit;
use ktstr_monitor::{Assessment, MAX_SNAPSHOTS, MonitorLog, SnapshotCause, assess};
use std::time::Duration;

/// What the guest's init prints when it can't go on.
pub(crate) const INIT_FAILED: &str = "ktstr: init failed: ";

/// A judged run.
#[derive(Debug, Clone)]
pub struct CaseResult {
    /// The verdict with its reasons and statistics.
    pub result: AssertResult,
    /// True when the failure is the machine's or the harness's rather than a check's:
    /// the report then shows diagnostics.
    pub broken: bool,
    /// What the monitor made of the kernel's state; `None` without a machine.
    pub monitor: Option<Assessment>,
}

/// The verdict on a run of `spec`.
pub fn judge(spec: &TestSpec, seen: &Observation) -> CaseResult {
    let mut case = verdict(seen);
    if let Some(reason) = out_of_memory(seen).filter(|_| !case.result.is_pass()) {
        case.result.push(Detail::fail(DetailKind::Worker, reason));
    }
    judge_schedulers(spec, seen, &mut case);
    judge_reports(spec, &seen.schedulers, &mut case);
    kernel_log::tell(seen, &mut case);
    last_words::tell(seen, &mut case);
    judge_kernel_state(spec, &seen.monitor, &mut case);
    judge_snapshots(spec, seen, &mut case);
    if spec.expect_err {
        let wrong = unexpected_failure(spec, seen, case.broken);
        invert(case, wrong)
    } else {
        case
    }
}

/// Adds what the monitor's checks say. A check without data never passes; what was skipped
/// has nothing to check.
pub fn judge_kernel_state(spec: &TestSpec, log: &MonitorLog, case: &mut CaseResult) {
    let assessment = assess(log, &spec.own_checks());
    if !case.result.is_skip() {
        // A run that broke has its reason; what could not be checked for it adds nothing.
        let told = |d: &&Detail| !case.broken || d.outcome == Outcome::Fail;
        let details: Vec<Detail> = assessment.details.iter().filter(told).cloned().collect();
        for detail in details {
            case.result.push(detail);
        }
        case.result.passed_checks += assessment.passed_checks;
        for check in unwatched(spec) {
            let text = format!("`{check}` needs statistics of pages, which this version does not collect");
            case.result.push(Detail::inconclusive(DetailKind::Monitor, text));
        }
    }
    case.monitor = Some(assessment);
}

/// Has the test's own checks on the host look at what was seen. They add to a verdict and never
/// mend one.
fn judge_snapshots(spec: &TestSpec, seen: &Observation, case: &mut CaseResult) {
    for complaint in &seen.complaints {
        case.result.note(complaint.clone());
    }
    if seen.snapshots.evicted() > 0 {
        case.result.note(format!(
            "{} snapshots were pushed out by later ones: {MAX_SNAPSHOTS} are kept",
            seen.snapshots.evicted()
        ));
    }
    let periodic = seen.snapshots.all().iter().filter(|s| s.cause == SnapshotCause::Periodic).count();
    if periodic < spec.num_snapshots as usize && !case.result.is_skip() {
        case.result.note(format!("{periodic} of {} periodic snapshots were taken", spec.num_snapshots));
    }
    let summary = case.monitor.as_ref().map(|seen| seen.summary.clone()).unwrap_or_default();
    let conditional = spec.post_vm.filter(|_| !case.result.is_fail() && !case.result.is_skip());
    for check in [conditional, spec.post_vm_unconditional].into_iter().flatten() {
        let found = check(&VmResult::new(seen, &case.result, &summary));
        case.result.merge(found);
    }
}

/// Checks of the test that nothing here could make.
fn unwatched(spec: &TestSpec) -> Vec<&'static str> {
    let c = spec.own_checks();
    let asked = [
        ("max_cross_node_migration_ratio", c.max_cross_node_migration_ratio.is_some()),
        ("max_slow_tier_ratio", c.max_slow_tier_ratio.is_some()),
    ];
    asked.into_iter().filter(|(_, yes)| *yes).map(|(name, _)| name).collect()
}

/// True when the emulator broke the guest kernel: [`ConsoleTail::shows_lost_code_patch`](ktstr_machine::ConsoleTail::shows_lost_code_patch).
pub fn died_of_lost_code_patch(seen: &Observation) -> bool {
    matches!(seen.exit, Some(VmExit::Reset)) && seen.console.shows_lost_code_patch()
}

fn verdict(seen: &Observation) -> CaseResult {
    match (&seen.returned, abnormal_end(seen)) {
        (Some(returned), None) => {
            CaseResult { result: of_return(returned, seen), broken: false, monitor: None }
        }
        (Some(returned), Some(why)) => {
            let mut result = of_return(returned, seen);
            result.push(Detail::fail(DetailKind::Other, why));
            CaseResult { result, broken: true, monitor: None }
        }
        (None, Some(why)) => broken(why),
        (None, None) => broken(no_result(seen)),
    }
}

fn broken(why: String) -> CaseResult {
    CaseResult { result: AssertResult::fail(why), broken: true, monitor: None }
}

fn of_return(returned: &TestReturn, seen: &Observation) -> AssertResult {
    match returned {
        TestReturn::Judged(result) => result.clone(),
        TestReturn::Error(text) => AssertResult::fail(format!("the test function returned an error: {text}")),
        TestReturn::Panicked(message) => {
            let place = seen.panic.as_ref().and_then(|p| p.location.as_deref());
            let place = place.map(|l| format!(" at {l}")).unwrap_or_default();
            AssertResult::fail(format!("the test function panicked{place}: {message}"))
        }
    }
}

/// Why a run did not end as it should, if it did not.
fn abnormal_end(seen: &Observation) -> Option<String> {
    let stage = stage(seen);
    if let Some((given, whereabouts)) = &seen.timed_out {
        return Some(format!(
            "the test function did not return within {} of guest time (its duration plus `timeout_s`): {whereabouts}",
            seconds(*given)
        ));
    }
    if let Some(signal) = &seen.signal {
        return Some(format!(
            "the test process was hit by signal {} in thread {:?} at ip {:#x}, address {:#x}, while {stage}",
            signal_name(signal.signo),
            signal.thread,
            signal.ip,
            signal.address
        ));
    }
    if let Some(error) = &seen.wire_error
        && !seen.goodbye
        && seen.deadline.is_none()
        && !died(seen)
    {
        return Some(format!("what the guest said could not be understood, while {stage}: {error}"));
    }
    match seen.deadline {
        Some(Deadline::Boot(limit)) => {
            return Some(format!(
                "the guest did not start its init within {}: the kernel hangs while booting, or lacks what a \
                 ktstr guest needs; see the console below, or boot it with KTSTR_VERBOSE=1",
                seconds(limit)
            ));
        }
        Some(Deadline::Run(limit)) => {
            return Some(format!(
                "the guest went silent: not finished {} after it had started, while {stage}; it was killed \
                 (its own watchdog did not speak: the whole machine hangs)",
                seconds(limit)
            ));
        }
        Some(Deadline::PowerOff(limit)) => {
            return Some(format!("the guest finished but did not power off within {}", seconds(limit)));
        }
        None => {}
    }
    match seen.exit.as_ref()? {
        VmExit::PowerOff | VmExit::Stopped => None,
        VmExit::Reset => {
            let panic = seen.console.find_last("Kernel panic").map(|l| from(&l, "Kernel panic").to_string());
            Some(match panic {
                Some(line) => format!("the guest kernel panicked while {stage}: {line}"),
                None => format!("the guest reset itself while {stage}, without a panic message"),
            })
        }
        VmExit::Killed { signal, stderr } => Some(format!(
            "the hypervisor was killed by signal {} while {stage}{}; it was not ktstr: look for the OOM killer \
             (`dmesg`) or another process",
            signal_name(*signal),
            quoted(stderr)
        )),
        VmExit::Failed { code, stderr } => {
            Some(format!("the hypervisor ended with exit code {code} while {stage}{}", quoted(stderr)))
        }
    }
}

fn died(seen: &Observation) -> bool {
    matches!(seen.exit, Some(VmExit::Killed { .. } | VmExit::Failed { .. } | VmExit::Reset))
}

/// The guest powered off in order but sent no result.
fn no_result(seen: &Observation) -> String {
    let found = [&seen.last_words, &seen.console].into_iter().find_map(|said| said.find_last(INIT_FAILED));
    if let Some(line) = found {
        return format!(
            "the guest could not be brought up: {}",
            from(&line, INIT_FAILED).trim_start_matches(INIT_FAILED)
        );
    }
    match seen.stage {
        None => "the guest powered off before its init said a word: is the kernel's initramfs support \
                 (CONFIG_BLK_DEV_INITRD) on, and is the test binary built for it?"
            .to_string(),
        Some(stage) => format!("the guest powered off without a result, while {stage}"),
    }
}

/// The kernel's OOM killer at work: more RAM is the remedy.
fn out_of_memory(seen: &Observation) -> Option<String> {
    let log = String::from_utf8_lossy(&seen.kernel_log);
    let killed = log.lines().rev().find(|l| l.contains("Out of memory: Killed process"));
    let panicked = seen.console.find_last("System is deadlocked on memory");
    let line = killed.map(str::to_string).or(panicked)?;
    Some(format!("the guest ran out of memory ({}); give the test more: `memory_mib = …`", line.trim()))
}

/// `wrong` says why a failure is not the one that was expected.
fn invert(mut case: CaseResult, wrong: Option<String>) -> CaseResult {
    match wrong {
        Some(wrong) if case.result.outcome == Outcome::Fail => {
            case.result.push(Detail::fail(DetailKind::Scheduler, wrong));
            case
        }
        _ => {
            let monitor = case.monitor.clone();
            CaseResult { monitor, ..inverted(case) }
        }
    }
}

/// A failure that was expected passes, and nothing else does.
pub(crate) fn inverted(case: CaseResult) -> CaseResult {
    match case.result.outcome {
        Outcome::Fail => {
            let mut result = AssertResult::pass();
            result.stats = case.result.stats;
            for detail in case.result.details {
                result.note(format!("failed as expected: {}", detail.message));
            }
            CaseResult { result, broken: false, monitor: None }
        }
        Outcome::Pass => {
            let mut result = AssertResult::fail(
                "the test passed, but it is declared with `expect_err`: a failure was expected",
            );
            result.stats = case.result.stats;
            CaseResult { result, broken: false, monitor: None }
        }
        Outcome::Skip => CaseResult {
            result: AssertResult::fail(
                "the test was skipped, but it is declared with `expect_err`: a skip is not the expected failure",
            ),
            broken: false,
            monitor: None,
        },
        Outcome::Inconclusive => case,
    }
}

fn stage(seen: &Observation) -> String {
    seen.stage.map_or_else(|| "booting".to_string(), |s| s.to_string())
}

fn from<'a>(line: &'a str, needle: &str) -> &'a str {
    line.find(needle).map_or(line, |at| &line[at..])
}

fn quoted(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(", saying: {stderr}") }
}

fn seconds(time: Duration) -> String {
    let ms = time.as_millis();
    if ms.is_multiple_of(1000) { format!("{} s", ms / 1000) } else { format!("{:.1} s", time.as_secs_f64()) }
}

fn signal_name(signo: i32) -> String {
    let name = match signo {
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        15 => "SIGTERM",
        _ => return signo.to_string(),
    };
    format!("{signo} ({name})")
}

#[cfg(test)]
mod tests;
