//! What the fate of a scheduler means for the verdict.

use crate::drive::Observation;
use crate::judge::CaseResult;
use crate::spec::TestSpec;
use ktstr_assert::{Detail, DetailKind, Outcome};
use ktstr_monitor::{KernelState, SchedulerExit};
use ktstr_scheduler::{Detach, ExitKind, SchedulerReport, ScxExit};
use regex_lite::Regex;

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

/// Why the failure of a test that is meant to fail is not the one that was meant; `None` if it
/// is.
pub(crate) fn unexpected_failure(spec: &TestSpec, seen: &Observation) -> Option<String> {
    if let Some(broken) =
        seen.schedulers.iter().filter_map(|s| s.watchdog.as_ref()).find(|w| w.problem.is_some())
    {
        return Some(format!("whatever failed did so under another timeout than the test's: {broken}"));
    }
    let expected = [spec.scx_error_contains, spec.scx_error_matches];
    if expected == [None, None] {
        // A scheduler that never ran can't have failed the way a test wants to see.
        let never = !spec.scheduler.is_eevdf() && seen.schedulers.iter().all(|s| s.ops.is_none());
        return never.then(|| {
            "the test is meant to fail (`expect_err`), but not by a scheduler that never attached".to_string()
        });
    }
    let said = what_it_said(seen);
    if let Some(part) = spec.scx_error_contains
        && !said.contains(part)
    {
        return Some(format!("the scheduler's error was expected to contain {part:?}, but it is {said:?}"));
    }
    let pattern = spec.scx_error_matches?;
    match Regex::new(pattern) {
        Err(e) => Some(format!("`expect_scx_bpf_error_matches = {pattern:?}` is no regular expression: {e}")),
        Ok(regex) if regex.is_match("") => Some(format!(
            "`expect_scx_bpf_error_matches = {pattern:?}` matches an empty text, so it would match any; say what must be there"
        )),
        Ok(regex) if !regex.is_match(&said) => {
            Some(format!("the scheduler's error was expected to match {pattern:?}, but it is {said:?}"))
        }
        Ok(_) => None,
    }
}

/// The kernel's words on the schedulers' ends, or ours on why one did not attach.
fn what_it_said(seen: &Observation) -> String {
    let words = |report: &SchedulerReport| match (&report.exit, &report.failure, &report.not_attached) {
        (Some(exit), Some(_), _) if exit.is_failure() => Some(exit.to_string()),
        (_, Some(failure), _) => Some(failure.clone()),
        (_, _, Some(why)) => Some(why.clone()),
        _ => None,
    };
    seen.schedulers.iter().filter_map(words).collect::<Vec<_>>().join("\n")
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
    use ktstr_scheduler::{Scheduler, WatchdogOrder, WatchdogReport};

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
    fn a_timeout_that_does_not_hold_proves_nothing() {
        let order = WatchdogOrder { timeout_ms: 4000 };
        let problem = Some("the kernel refused".to_string());
        let broken = WatchdogReport { order, own_ms: None, effective_ms: None, problem };
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
        let wanted = TestSpec { scx_error_contains: Some("exit code 1"), ..spec(true) };
        assert!(judge(&wanted, &seen(AssertResult::pass(), report())).result.is_pass());
    }
}
