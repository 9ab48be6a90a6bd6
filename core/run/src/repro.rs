//! A scheduler that crashed under test is run again with probes: when, and what comes of it.

use crate::drive::Observation;
use crate::guest::TestReturn;
use crate::judge::{CaseResult, inverted};
use crate::spec::TestSpec;
use ktstr_assert::{Detail, DetailKind, Outcome};
use ktstr_monitor::FailureDump;
use ktstr_scheduler::repro::{Choice, Rerun, choose, render};
use ktstr_scheduler::{ScxExit, without_colours};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A crash that is worth a second run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crash {
    /// Which start of a scheduler it was.
    start: usize,
    exit: ScxExit,
    choice: Choice,
}

/// What came of the second run. It never changes the verdict on the first, unless the test is about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repro {
    /// In words.
    pub text: String,
    /// What its kernel looked like, where that was seen.
    pub dump: Option<FailureDump>,
    /// Why it did not do what a test with `expect_auto_repro` wants of it.
    pub invalid: Option<String>,
}

impl Crash {
    /// The first crash of a run by the kernel's word: an error, or a task that starved. `None` without one, and for a
    /// test that has failed as it should or wants no second run.
    pub fn of(spec: &TestSpec, case: &CaseResult, seen: &Observation) -> Option<Self> {
        let wanted = spec.auto_repro && !spec.expect_err && case.result.outcome == Outcome::Fail;
        let exits = seen.schedulers.iter().enumerate();
        let mut crashes = exits.filter_map(|(start, report)| {
            let exit = report.exit.as_ref()?;
            Some(Self { start, exit: exit.clone(), choice: choose(exit)? })
        });
        crashes.next().filter(|_| wanted)
    }

    /// Why this kernel takes no probes, as the guest found out.
    pub fn without_probes<'a>(&self, seen: &'a Observation) -> Option<&'a str> {
        seen.schedulers.get(self.start)?.no_probes.as_deref()
    }

    /// The functions that the second run is to probe.
    pub fn functions(&self) -> &[String] {
        &self.choice.functions
    }

    /// The functions that were probed in the second run.
    pub fn probed<'a>(&self, again: &'a Observation) -> Vec<&'a str> {
        let traces = again.schedulers.iter().filter_map(|report| report.probes.as_ref());
        traces.flat_map(|trace| trace.probes.iter().map(|probe| probe.function.as_str())).collect()
    }

    /// Tells of the second run; `lines` says where its functions stand in the kernel's source.
    pub fn told(&self, again: &Observation, lines: &BTreeMap<String, String>) -> Repro {
        let crashed = |report: &&ktstr_scheduler::SchedulerReport| {
            report.exit.as_ref().is_some_and(ScxExit::is_failure)
        };
        let report = again.schedulers.get(self.start).filter(crashed);
        let report = report.or_else(|| again.schedulers.iter().find(crashed));
        let outcome = outcome(again);
        let rerun = Rerun { report, outcome: &outcome, took: again.times.total, lines };
        let mut text = render(&self.exit, &self.choice, &rerun);
        tails(&mut text, again);
        let exit = report.and_then(|report| report.exit.as_ref());
        let events = report.and_then(|report| report.probes.as_ref()).map_or(0, |probes| probes.of_task);
        let invalid = match exit {
            None => Some(format!("the crash did not come again ({outcome})")),
            Some(exit) if exit.kind != self.exit.kind => Some(format!("another crash came: {exit}")),
            Some(_) if events == 0 => {
                Some("the probes saw nothing of the task that triggered it".to_string())
            }
            Some(_) => None,
        };
        Repro { text, invalid, dump: again.failure_dump() }
    }
}

impl Repro {
    /// There was no second run, for that reason.
    pub fn not_made(why: &str) -> Self {
        let text = format!("the test could not be run again with probes: {why}");
        Self { invalid: Some(text.clone()), text, dump: None }
    }
}

/// Lines of each tail.
const TAIL: usize = 40;

/// The last lines of what the second run said.
fn tails(text: &mut String, again: &Observation) {
    let kernel_log = String::from_utf8_lossy(&again.kernel_log);
    let dumps: Vec<&str> = again.schedulers.iter().map(|report| report.dump_text.as_str()).collect();
    let parts = [
        ("scheduler log", again.scheduler_log.text()),
        ("sched_ext dump", dumps.join("\n")),
        ("kernel log", kernel_log.into_owned()),
    ];
    for (what, said) in parts {
        let said = without_colours(&said);
        let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
        if lines.is_empty() {
            continue;
        }
        let shown = &lines[lines.len().saturating_sub(TAIL)..];
        let _ = writeln!(text, "its {what}, the last {} of {} lines:", shown.len(), lines.len());
        for line in shown {
            let _ = writeln!(text, "  {line}");
        }
    }
}

/// How a run ended, in a line.
fn outcome(seen: &Observation) -> String {
    let first = |text: &str| text.lines().next().unwrap_or_default().to_string();
    match &seen.returned {
        Some(TestReturn::Judged(result)) => {
            let why = result.details.first().map(|d| format!(": {}", first(&d.message)));
            format!("{}{}", result.outcome.word(), why.unwrap_or_default())
        }
        Some(TestReturn::Error(text) | TestReturn::Panicked(text)) => first(text),
        None => match (&seen.deadline, &seen.exit) {
            (Some(deadline), _) => format!("no result: {deadline:?} passed"),
            (None, exit) => format!("no result: machine {exit:?}"),
        },
    }
}

/// Turns the verdict on a test that is declared with `expect_auto_repro`: it passes when it failed by a crash that came
/// again under probes.
pub fn judge_repro(case: &mut CaseResult, repro: Option<&Repro>) {
    let push =
        |case: &mut CaseResult, text: String| case.result.push(Detail::fail(DetailKind::Scheduler, text));
    match (case.result.outcome, repro) {
        (Outcome::Inconclusive, _) => {}
        (Outcome::Fail, Some(Repro { invalid: None, .. })) => *case = inverted(case.clone()),
        (Outcome::Fail, Some(Repro { invalid: Some(why), .. })) => {
            push(case, format!("the test is declared with `expect_auto_repro`, but {why}"));
        }
        (Outcome::Fail, None) => push(
            case,
            "the test is declared with `expect_auto_repro`, but there was no second run: the kernel dropped no scheduler, or `auto_repro` is off"
                .to_string(),
        ),
        (Outcome::Pass | Outcome::Skip, _) => push(
            case,
            format!(
                "the test ended in {}, but it is declared with `expect_auto_repro`: a crash was expected",
                case.result.outcome.word()
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drive::tests_support::silent;
    use ktstr_assert::AssertResult;
    use ktstr_scheduler::SchedulerReport;
    use ktstr_scheduler::repro::ProbeTrace;

    const STALL: &str = "sched_ext: BPF scheduler \"demo\" disabled (runnable task stall)\n\
                         sched_ext: demo: w[7] failed to run for 2.001s\n";
    const ERROR: &str = "sched_ext: BPF scheduler \"demo\" disabled (scx_bpf_error)\nsched_ext: demo: no\n";

    fn failed() -> CaseResult {
        CaseResult { result: AssertResult::fail("the kernel dropped it"), broken: false, monitor: None }
    }

    fn seen(log: &str, of_task: u64) -> Observation {
        let probes = Some(ProbeTrace { of_task, ..ProbeTrace::default() });
        let report = SchedulerReport { exit: ScxExit::last_in(log), probes, ..SchedulerReport::default() };
        Observation { schedulers: vec![report], ..silent() }
    }

    #[test]
    fn only_a_crash_that_nobody_expected_is_repeated() {
        let crash = |spec: &TestSpec, log: &str| Crash::of(spec, &failed(), &seen(log, 0));
        assert!(crash(&TestSpec::DEFAULT, STALL).is_some());
        assert!(crash(&TestSpec::DEFAULT, ERROR).is_some());
        assert_eq!(crash(&TestSpec { auto_repro: false, ..TestSpec::DEFAULT }, STALL), None);
        assert_eq!(crash(&TestSpec { expect_err: true, ..TestSpec::DEFAULT }, STALL), None);
        assert_eq!(crash(&TestSpec::DEFAULT, "nothing"), None);
        let left = "sched_ext: BPF scheduler \"demo\" disabled (unregistered from user space)";
        assert_eq!(crash(&TestSpec::DEFAULT, left), None);
        let passed = CaseResult { result: AssertResult::pass(), ..failed() };
        assert_eq!(Crash::of(&TestSpec::DEFAULT, &passed, &seen(STALL, 0)), None);
    }

    #[test]
    fn a_kernel_without_probes_is_asked_once() {
        let mut seen = seen(STALL, 0);
        let crash = Crash::of(&TestSpec::DEFAULT, &failed(), &seen).unwrap();
        assert_eq!(crash.without_probes(&seen), None);
        seen.schedulers[0].no_probes = Some("no kprobe_events".to_string());
        assert_eq!(crash.without_probes(&seen), Some("no kprobe_events"));
    }

    #[test]
    fn the_second_run_is_told_for_what_it_is() {
        let crash = Crash::of(&TestSpec::DEFAULT, &failed(), &seen(STALL, 0)).unwrap();
        let told = |log: &str, events| crash.told(&seen(log, events), &BTreeMap::new());
        let again = told(STALL, 3);
        assert!(again.text.starts_with("the crash came again: runnable task stall: w[7] "), "{}", again.text);
        assert_eq!(again.invalid, None);
        assert!(told(STALL, 0).invalid.unwrap().contains("saw nothing"));
        assert!(told(ERROR, 3).invalid.unwrap().contains("another crash"));
        let gone =
            Observation { returned: Some(TestReturn::Judged(AssertResult::pass())), ..seen("quiet", 0) };
        let gone = crash.told(&gone, &BTreeMap::new());
        assert!(gone.text.contains("did not come again; the second run ended in: pass"), "{}", gone.text);
        assert!(gone.invalid.is_some());
    }

    #[test]
    fn a_test_about_repeating_passes_by_it() {
        let judged = |mut case: CaseResult, repro: Option<Repro>| {
            judge_repro(&mut case, repro.as_ref());
            case.result.outcome
        };
        let valid = Repro { text: String::new(), invalid: None, dump: None };
        assert_eq!(judged(failed(), Some(valid.clone())), Outcome::Pass);
        assert_eq!(judged(failed(), Some(Repro::not_made("no machine"))), Outcome::Fail);
        assert_eq!(judged(failed(), None), Outcome::Fail);
        let passed = CaseResult { result: AssertResult::pass(), ..failed() };
        assert_eq!(judged(passed, None), Outcome::Fail);
    }
}
