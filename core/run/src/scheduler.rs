//! What the fate of a scheduler means for the verdict.

use crate::drive::Observation;
use crate::expected::Expected;
use crate::judge::CaseResult;
use crate::spec::TestSpec;
use ktstr_assert::{Detail, DetailKind, Outcome};
use ktstr_monitor::{KernelState, SchedulerExit};
use ktstr_scheduler::{Detach, ExitKind, SchedulerReport, ScxExit, without_colours};

/// Adds what went wrong with schedulers, unless the scenario has said it already.
pub(crate) fn judge_schedulers(spec: &TestSpec, seen: &Observation, case: &mut CaseResult) {
    if spec.scheduler.is_eevdf() {
        return;
    }
    if seen.schedulers.is_empty() {
        if case.result.is_pass() {
            let text = format!(
                "the guest told nothing of scheduler {:?}: nobody knows whether it ran",
                spec.scheduler.name
            );
            case.result.push(Detail::inconclusive(DetailKind::Scheduler, text));
        }
        return;
    }
    for report in &seen.schedulers {
        for remark in report.remarks() {
            case.result.note(remark);
        }
        // A test that wants another timeout than it got tells nothing of the one that it wanted.
        if let Some(watchdog) =
            report.watchdog.as_ref().filter(|w| w.problem.is_some() && !case.result.is_skip())
        {
            let text = format!("scheduler {:?}: {watchdog}", report.name);
            case.result.push(Detail::inconclusive(DetailKind::Scheduler, text));
        }
        for (text, whole) in problems(report) {
            if !case.result.details.iter().any(|d| d.message.contains(&text)) {
                case.result.push(Detail::fail(DetailKind::Scheduler, whole));
            }
        }
    }
}

/// The problem's own words, and the whole sentence.
fn problems(report: &SchedulerReport) -> Vec<(String, String)> {
    let name = &report.name;
    let mut problems = Vec::new();
    if let Some(why) = &report.not_attached {
        problems.push((why.clone(), format!("scheduler {name:?} did not attach: {why}")));
    }
    if let Some(why) = &report.failure {
        problems.push((why.clone(), format!("scheduler {name:?} failed: {why}")));
    }
    if let Some(Detach::Failed(why)) = &report.detach {
        problems.push((why.clone(), format!("scheduler {name:?} did not stop in order: {why}")));
    }
    problems
}

/// Adds to a look at a kernel that has dropped its scheduler why it did so. The kernel frees its `scx_exit_info` with the
/// scheduler, and the scheduler's own record goes with its maps: a look that comes later finds neither.
pub(crate) fn tell_the_end(state: &mut KernelState, reports: &[SchedulerReport]) {
    let Some(scx) = state.sched_ext.as_mut().filter(|scx| scx.exit.is_none() && scx.state == "disabled")
    else {
        return;
    };
    let last = reports.iter().rev().find_map(|report| report.exit.as_ref());
    scx.exit = last.and_then(of_log);
}

/// The kernel's log on the end of a scheduler; nothing of one that left in order.
fn of_log(exit: &ScxExit) -> Option<SchedulerExit> {
    // As `enum scx_exit_kind` has them (kernel/sched/ext.c).
    let kind = match exit.kind {
        ExitKind::Unregistered => return None,
        ExitKind::SysRq => "sysrq",
        ExitKind::Error => "error",
        ExitKind::BpfError => "error_bpf",
        ExitKind::Stall => "error_stall",
        ExitKind::Other => "unknown",
    };
    Some(SchedulerExit {
        kind: kind.to_string(),
        exit_code: None,
        reason: exit.reason.clone(),
        message: exit.message.clone(),
        trace: exit.backtrace.clone(),
    })
}

/// Whether what a test expects of its scheduler's end can be told at all: to be asked before a machine is started.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_expected(spec: &TestSpec) -> Result<(), String> {
    Expected::of(spec).map(drop)
}

/// Why the failure of a test that is meant to fail is not the one that was meant; `None` if it
/// is. `broken` is true of a run that did not come to its end: that is no failure of the test's own unless a scheduler
/// brought it about.
pub(crate) fn unexpected_failure(spec: &TestSpec, seen: &Observation, broken: bool) -> Option<String> {
    if broken && !seen.schedulers.iter().any(is_failed) {
        return Some(
            "the test is meant to fail (`expect_err`), but not by a machine or a harness that breaks down"
                .to_string(),
        );
    }
    if let Some(broken) =
        seen.schedulers.iter().filter_map(|s| s.watchdog.as_ref()).find(|w| w.problem.is_some())
    {
        return Some(format!("whatever failed did so under another timeout than the test's: {broken}"));
    }
    let expected = match Expected::of(spec) {
        Ok(expected) => expected,
        Err(problem) => return Some(problem),
    };
    if expected.is_any() {
        // A scheduler that never ran can't have failed the way a test wants to see.
        let never = !spec.scheduler.is_eevdf() && seen.schedulers.iter().all(|s| s.ops.is_none());
        return never.then(|| {
            "the test is meant to fail (`expect_err`), but not by a scheduler that never attached".to_string()
        });
    }
    expected.misses(&what_was_said(seen))
}

/// True of a scheduler that did not live to be asked to stop.
fn is_failed(report: &SchedulerReport) -> bool {
    report.failure.is_some()
        || report.not_attached.is_some()
        || report.exit.as_ref().is_some_and(ScxExit::is_failure)
}

/// The kernel's words on the schedulers' ends, and where it has none, what the schedulers that failed said themselves.
/// Nothing of ours: a test that expects our own words would pass whatever went wrong.
fn what_was_said(seen: &Observation) -> Vec<String> {
    let failed: Vec<&SchedulerReport> = seen.schedulers.iter().filter(|report| is_failed(report)).collect();
    let kernels = failed.iter().filter_map(|report| report.exit.as_ref()).filter(|exit| exit.is_failure());
    let said: Vec<String> = kernels.map(ToString::to_string).collect();
    if !said.is_empty() || failed.is_empty() {
        return said;
    }
    let tails: String = failed.iter().map(|report| report.log_tail.as_str()).collect();
    vec![without_colours(&(seen.scheduler_log.text() + &tails))]
}

/// One line on a bug that was found in a scheduler.
pub(crate) fn bug_summary(case: &CaseResult, seen: &Observation) -> Option<String> {
    if case.result.outcome != Outcome::Fail {
        return None;
    }
    seen.schedulers.iter().find_map(SchedulerReport::bug_summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::tests_support::silent;
    use crate::guest::TestReturn;
    use crate::judge::judge;
    use ktstr_assert::AssertResult;
    use ktstr_machine::VmExit;
    use ktstr_monitor::SchedExtState;
    use ktstr_scheduler::{Scheduler, StartOutcome, WatchdogOrder, WatchdogReport};

    static DEMO: Scheduler = Scheduler::named("demo");

    fn spec(expect_err: bool) -> TestSpec {
        TestSpec { scheduler: &DEMO, expect_err, ..TestSpec::DEFAULT }
    }

    fn seen(result: AssertResult, report: SchedulerReport) -> Observation {
        Observation {
            returned: Some(TestReturn::Judged(result)),
            goodbye: true,
            exit: Some(VmExit::PowerOff),
            schedulers: vec![SchedulerReport { name: "demo".to_string(), ..report }],
            ..silent()
        }
    }

    fn healthy() -> SchedulerReport {
        SchedulerReport {
            ops: Some("demo".to_string()),
            outcome: StartOutcome::Attached,
            detach: Some(Detach::InOrder("exit code 0".to_string())),
            ..SchedulerReport::default()
        }
    }

    fn ejected() -> SchedulerReport {
        let exit = ScxExit::last_in(
            "sched_ext: BPF scheduler \"demo\" disabled (scx_bpf_error)\nsched_ext: demo: bad weight 7",
        );
        SchedulerReport {
            failure: Some("the kernel dropped it: scx_bpf_error: bad weight 7".to_string()),
            exit,
            ..healthy()
        }
    }

    #[test]
    fn a_healthy_scheduler_adds_nothing() {
        assert!(judge(&spec(false), &seen(AssertResult::pass(), healthy())).result.is_pass());
    }

    #[test]
    fn a_scheduler_that_died_unnoticed_fails_the_test() {
        let case = judge(&spec(false), &seen(AssertResult::pass(), ejected()));
        assert_eq!(case.result.outcome, Outcome::Fail);
        assert_eq!(
            case.result.details[0].message,
            "scheduler \"demo\" failed: the kernel dropped it: scx_bpf_error: bad weight 7"
        );
        let told = AssertResult::fail("step 1: the kernel dropped it: scx_bpf_error: bad weight 7");
        assert_eq!(judge(&spec(false), &seen(told, ejected())).result.details.len(), 1, "said once");
    }

    #[test]
    fn no_word_of_the_scheduler_is_no_pass() {
        let seen = Observation { schedulers: Vec::new(), ..seen(AssertResult::pass(), healthy()) };
        assert!(judge(&spec(false), &seen).result.is_inconclusive());
    }

    #[test]
    fn one_that_does_not_stop_fails_the_test() {
        let report = SchedulerReport { detach: Some(Detach::Failed("stuck".to_string())), ..healthy() };
        let case = judge(&spec(false), &seen(AssertResult::pass(), report));
        assert!(case.result.details[0].message.contains("did not stop in order: stuck"));
    }

    #[test]
    fn an_expected_error_must_be_the_one_that_came() {
        let outcome = |spec: TestSpec, report| judge(&spec, &seen(AssertResult::pass(), report)).result;
        assert!(outcome(spec(true), ejected()).is_pass());
        let contains = |part| TestSpec { scx_error_contains: Some(part), ..spec(true) };
        assert!(outcome(contains("bad weight"), ejected()).is_pass());
        let other = outcome(contains("stall"), ejected());
        assert!(other.details.iter().any(|d| d.message.contains("expected to contain \"stall\"")));
        assert_eq!(other.outcome, Outcome::Fail);
        let matches = |pattern| TestSpec { scx_error_matches: Some(pattern), ..spec(true) };
        assert!(outcome(matches(r"weight \d+$"), ejected()).is_pass());
        for vacuous in [".*", "x|", "("] {
            assert_eq!(outcome(matches(vacuous), ejected()).outcome, Outcome::Fail, "{vacuous}");
        }
    }

    #[test]
    fn a_machine_that_breaks_down_is_no_expected_failure() {
        let died = |schedulers: Vec<SchedulerReport>| Observation {
            exit: Some(VmExit::Killed { signal: 9, stderr: String::new() }),
            schedulers,
            ..silent()
        };
        let eevdf = TestSpec { expect_err: true, ..TestSpec::DEFAULT };
        let case = judge(&eevdf, &died(Vec::new()));
        assert_eq!(case.result.outcome, Outcome::Fail);
        assert!(
            case.broken && case.result.details[1].message.contains("machine or a harness that breaks down")
        );
        assert_eq!(judge(&spec(true), &died(Vec::new())).result.outcome, Outcome::Fail);
        assert_eq!(judge(&spec(true), &died(vec![healthy()])).result.outcome, Outcome::Fail);
        // The scheduler's failure had come before.
        assert!(judge(&spec(true), &died(vec![ejected()])).result.is_pass());
    }

    #[test]
    fn a_kernels_word_goes_before_the_schedulers() {
        let wanted = TestSpec { scx_error_contains: Some("attached as demo"), ..spec(true) };
        let report = SchedulerReport { log_tail: "attached as demo\n".to_string(), ..ejected() };
        assert_eq!(judge(&wanted, &seen(AssertResult::pass(), report.clone())).result.outcome, Outcome::Fail);
        let crashed = SchedulerReport { exit: None, ..report };
        assert!(judge(&wanted, &seen(AssertResult::pass(), crashed)).result.is_pass());
        assert!(check_expected(&wanted).is_ok());
        assert!(check_expected(&TestSpec { scx_error_matches: Some("."), ..spec(true) }).is_err());
    }

    #[test]
    fn a_timeout_that_does_not_hold_proves_nothing() {
        let order = WatchdogOrder { timeout_ms: 4000 };
        let problem = Some("the kernel refused".to_string());
        let broken =
            WatchdogReport { order, own_ms: None, effective_ms: None, effective_jiffies: None, problem };
        let with = |watchdog: &WatchdogReport, report: SchedulerReport, expect_err| {
            let report = SchedulerReport { watchdog: Some(watchdog.clone()), ..report };
            judge(&spec(expect_err), &seen(AssertResult::pass(), report)).result
        };
        let result = with(&broken, healthy(), false);
        assert!(result.is_inconclusive(), "{result:?}");
        assert!(
            result.details[0].message.contains("4.0 s was to be set, but the kernel refused"),
            "{result:?}"
        );
        assert_eq!(with(&broken, ejected(), true).outcome, Outcome::Fail);
        let held = WatchdogReport { effective_ms: Some(4000), problem: None, ..broken };
        let result = with(&held, healthy(), false);
        assert!(result.is_pass() && result.notes[0].contains("timeout is 4.0 s"), "{result:?}");
        assert!(with(&held, ejected(), true).is_pass());
    }

    #[test]
    fn an_end_that_only_the_log_tells_is_told() {
        let scx = |state: &str, exit| SchedExtState { state: state.into(), exit, ..SchedExtState::default() };
        let looked = |scx| {
            let mut state = KernelState { sched_ext: Some(scx), ..KernelState::default() };
            tell_the_end(&mut state, &[ejected(), SchedulerReport::default()]);
            state.sched_ext.unwrap().exit
        };
        let told = looked(scx("disabled", None)).unwrap();
        assert_eq!((told.kind.as_str(), told.exit_code), ("error_bpf", None));
        assert_eq!(looked(scx("enabled", None)), None);
        // What the kernel itself had left is better.
        let kernels = SchedulerExit { exit_code: Some(7), ..SchedulerExit::default() };
        assert_eq!(looked(scx("disabled", Some(kernels.clone()))), Some(kernels));
    }

    #[test]
    fn a_scheduler_that_never_ran_is_no_expected_failure() {
        let report = || SchedulerReport {
            not_attached: Some("its program ended with exit code 1".to_string()),
            ..SchedulerReport::default()
        };
        let case = judge(&spec(true), &seen(AssertResult::pass(), report()));
        assert_eq!(case.result.outcome, Outcome::Fail);
        // Our own words are none of the scheduler's.
        let wanted = |part| TestSpec { scx_error_contains: Some(part), ..spec(true) };
        let judged = |part, log_tail: &str| {
            let report = SchedulerReport { log_tail: log_tail.to_string(), ..report() };
            judge(&wanted(part), &seen(AssertResult::pass(), report)).result
        };
        assert_eq!(judged("exit code 1", "").outcome, Outcome::Fail);
        assert_eq!(judged("exit code 1", "Error: no such topology\n").outcome, Outcome::Fail);
        assert!(judged("no such topology", "hello\nError: no such topology\n").is_pass());
    }
}
