//! Checks of what a scheduler's report says: tasks that it left to the kernel's own, time that its callbacks take.

use crate::judge::CaseResult;
use crate::spec::TestSpec;
use ktstr_assert::{Detail, DetailKind};
use ktstr_scheduler::{ProgramStats, SchedulerReport};

/// Runs that a mean takes: of fewer, one that the host interrupted would decide.
const FEWEST_RUNS: u64 = 10;

/// What a check came to.
enum Finding {
    Held,
    Failed(String),
    /// It could not be made, for that reason.
    Open(String),
}

/// Adds what those of the checks say that the test sets. Without data they are inconclusive, unless the run has failed
/// anyway: why is said there.
pub(crate) fn judge_reports(spec: &TestSpec, reports: &[SchedulerReport], case: &mut CaseResult) {
    if case.result.is_skip() {
        return;
    }
    let asked = spec.own_checks();
    let mut findings = Vec::new();
    if let Some(most) = asked.max_rejected_tasks {
        findings.push(("max_rejected_tasks", each(reports, |report| rejected(report, most))));
    }
    if let Some(most_ns) = asked.max_callback_ns {
        findings.push(("max_callback_ns", each(reports, |report| callbacks(report, most_ns))));
    }
    for (check, found) in findings {
        let text = |why: String| format!("{check}: {why}");
        let failed = found.iter().any(|one| matches!(one, Finding::Failed(_)));
        let has_failed_anyway = case.broken || case.result.is_fail();
        let mut held = !found.is_empty();
        for one in found {
            match one {
                Finding::Held => {}
                Finding::Failed(why) => {
                    held = false;
                    case.result.push(Detail::fail(DetailKind::Scheduler, text(why)));
                }
                Finding::Open(why) => {
                    held = false;
                    if !failed && !has_failed_anyway {
                        let why = format!("`{check}` could not be checked: {why}");
                        case.result.push(Detail::inconclusive(DetailKind::Scheduler, why));
                    }
                }
            }
        }
        case.result.passed_checks += u64::from(held);
    }
}

/// One finding for each start that came to anything.
fn each(reports: &[SchedulerReport], check: impl Fn(&SchedulerReport) -> Finding) -> Vec<Finding> {
    let found: Vec<Finding> = reports.iter().filter(|report| report.ops.is_some()).map(check).collect();
    match found.is_empty() {
        true => vec![Finding::Open("no BPF scheduler ran".to_string())],
        false => found,
    }
}

fn rejected(report: &SchedulerReport, most: u64) -> Finding {
    let name = &report.name;
    match (report.switch_all, report.nr_rejected) {
        (Some(false), _) => Finding::Failed(format!(
            "scheduler {name:?} takes only tasks of policy SCHED_EXT (SCX_OPS_SWITCH_PARTIAL): every ordinary task was \
             left to the kernel's own"
        )),
        (_, Some(seen)) if seen > most => Finding::Failed(format!(
            "scheduler {name:?} refused {seen} tasks, which ran under the kernel's own (limit {most})"
        )),
        (Some(true), Some(_)) => Finding::Held,
        _ => Finding::Open(format!(
            "the kernel did not say to the end what scheduler {name:?} left to its own (/sys/kernel/sched_ext/nr_rejected)"
        )),
    }
}

/// The kernel counts calls and their time for each program: the mean is all that can be had.
fn callbacks(report: &SchedulerReport, most_ns: u64) -> Finding {
    let name = &report.name;
    let mean = |program: &ProgramStats| {
        (program.run_cnt >= FEWEST_RUNS).then(|| program.run_time_ns / program.run_cnt)
    };
    let means = report.programs.iter().filter_map(|program| Some((mean(program)?, program)));
    match means.max_by_key(|(ns, _)| *ns) {
        None => Finding::Open(format!(
            "no program of scheduler {name:?} was counted to run {FEWEST_RUNS} times (kernel.bpf_stats_enabled)"
        )),
        Some((ns, program)) if ns > most_ns => Finding::Failed(format!(
            "{} of scheduler {name:?} took {ns} ns a call, the mean of {} (limit {most_ns} ns)",
            program.name, program.run_cnt
        )),
        // One that failed was not asked at its end: what it said when it attached tells little.
        Some(_) if report.failure.is_some() => {
            Finding::Open(format!("scheduler {name:?} ended before its programs' times were read"))
        }
        Some(_) => Finding::Held,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_assert::{Assert, AssertResult, Outcome};

    fn program(name: &str, run_cnt: u64, run_time_ns: u64) -> ProgramStats {
        ProgramStats { name: name.to_string(), verified_insns: 9, run_cnt, run_time_ns }
    }

    fn report() -> SchedulerReport {
        SchedulerReport {
            name: "demo".to_string(),
            ops: Some("demo".to_string()),
            switch_all: Some(true),
            nr_rejected: Some(2),
            programs: vec![
                program("a", 10, 1000),
                program("b", 40, 8_000_000),
                program("init", 9, 90_000_000),
                program("c", 0, 0),
            ],
            ..SchedulerReport::default()
        }
    }

    fn judged(checks: Assert, reports: &[SchedulerReport], result: AssertResult) -> AssertResult {
        let mut case = CaseResult { result, broken: false, monitor: None };
        judge_reports(&TestSpec { checks, ..TestSpec::DEFAULT }, reports, &mut case);
        case.result
    }

    fn of(checks: Assert, report: SchedulerReport) -> (Outcome, String) {
        let result = judged(checks, &[report], AssertResult::pass());
        (result.outcome, result.details.first().map(|d| d.message.clone()).unwrap_or_default())
    }

    const REJECTED: Assert = Assert::NO_OVERRIDES.max_rejected_tasks(2);
    const CALLBACKS: Assert = Assert::NO_OVERRIDES.max_callback_ns(200_000);

    #[test]
    fn tasks_left_to_the_kernels_own_are_counted() {
        let held = judged(REJECTED, &[report()], AssertResult::pass());
        assert_eq!((held.outcome, held.passed_checks), (Outcome::Pass, 1));
        let (outcome, text) = of(REJECTED, SchedulerReport { nr_rejected: Some(3), ..report() });
        assert_eq!(outcome, Outcome::Fail);
        assert!(text.starts_with("max_rejected_tasks: scheduler \"demo\" refused 3 tasks"), "{text}");
        let (outcome, text) = of(REJECTED, SchedulerReport { switch_all: Some(false), ..report() });
        assert_eq!(outcome, Outcome::Fail);
        assert!(text.contains("SCX_OPS_SWITCH_PARTIAL"), "{text}");
        for unknown in [
            SchedulerReport { nr_rejected: None, ..report() },
            SchedulerReport { switch_all: None, ..report() },
            SchedulerReport { ops: None, ..report() },
        ] {
            let (outcome, text) = of(REJECTED, unknown);
            assert_eq!(outcome, Outcome::Inconclusive, "{text}");
            assert!(text.starts_with("`max_rejected_tasks` could not be checked: "), "{text}");
        }
        assert!(judged(REJECTED, &[], AssertResult::pass()).is_inconclusive(), "as under EEVDF");
    }

    #[test]
    fn the_slowest_callback_is_named() {
        assert_eq!(of(CALLBACKS, report()).0, Outcome::Pass);
        let (outcome, text) = of(Assert::NO_OVERRIDES.max_callback_ns(199_999), report());
        assert_eq!(outcome, Outcome::Fail);
        assert_eq!(
            text,
            "max_callback_ns: b of scheduler \"demo\" took 200000 ns a call, the mean of 40 (limit 199999 ns)"
        );
        let idle = SchedulerReport { programs: vec![program("init", 9, 1), program("c", 0, 0)], ..report() };
        assert_eq!(of(CALLBACKS, idle).0, Outcome::Inconclusive);
        let dead = SchedulerReport { failure: Some("dead".to_string()), ..report() };
        assert_eq!(of(CALLBACKS, dead.clone()).0, Outcome::Inconclusive);
        let failed = judged(CALLBACKS, &[dead], AssertResult::fail("dead"));
        assert_eq!(failed.details.len(), 1, "one reason is enough: {failed:?}");
    }

    #[test]
    fn every_start_counts() {
        let bad = SchedulerReport { nr_rejected: Some(9), ..report() };
        let result = judged(REJECTED, &[report(), bad], AssertResult::pass());
        assert_eq!((result.outcome, result.passed_checks), (Outcome::Fail, 0));
        assert!(judged(REJECTED, &[report()], AssertResult::skip("no")).is_skip());
    }
}
