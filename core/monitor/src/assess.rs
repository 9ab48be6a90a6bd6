//! Makes of a log what a verdict needs: numbers, violations, and what could not be checked.

use crate::checks::{frozen, violations};
use crate::summary::summarize;
use crate::{Check, Limits, MonitorLog, MonitorSummary, implausible};
use ktstr_assert::{Assert, Detail, DetailKind};

/// A judged log.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Assessment {
    /// Numbers and violations.
    pub summary: MonitorSummary,
    /// What changes the verdict: violations of checks that the test set, and such checks
    /// that could not be made.
    pub details: Vec<Detail>,
    /// Checks that the test set and that held.
    pub passed_checks: u64,
}

/// Judges a log. Every limit is looked at, the test's own or the default; only those that
/// `asked` sets change the verdict. Without enough believable data they are inconclusive.
pub fn assess(log: &MonitorLog, asked: &Assert) -> Assessment {
    let limits = Limits::of(asked);
    let mut summary = summarize(log);
    summary.no_data = no_data(log, &limits);
    if summary.no_data.is_none() {
        summary.violations = violations(&log.samples, &limits);
    }
    let end = log.samples.last().map_or(0, |s| s.at.as_millis() as u64);
    summary.violations.extend(log.left_frozen.iter().map(|cgroup| frozen(cgroup, end)));
    let mut assessment = Assessment { summary, ..Assessment::default() };
    for check in Check::ALL.into_iter().filter(|c| c.is_set(asked)) {
        let missing = match &assessment.summary.no_data {
            Some(why) => Some(why.clone()),
            None => check.lacks(&log.samples).map(str::to_string),
        };
        let broken = assessment.summary.violations.iter().filter(|v| v.check == check);
        let mut details: Vec<Detail> = broken
            .map(|v| Detail::fail(DetailKind::Monitor, format!("{}: {}", check.name(), v.text)))
            .collect();
        if let Some(why) = missing {
            let text = format!("`{}` could not be checked: {why}", check.name());
            details.push(Detail::inconclusive(DetailKind::Monitor, text));
        }
        if details.is_empty() {
            assessment.passed_checks += 1;
        }
        assessment.details.extend(details);
    }
    assessment
}

/// Why nothing can be judged by this log.
fn no_data(log: &MonitorLog, limits: &Limits) -> Option<String> {
    if let Some(reason) = &log.unsampled {
        return Some(reason.clone());
    }
    if let Some(error) = log.last_error.as_ref().filter(|_| log.broken_off) {
        return Some(format!("sampling ended after {} samples: {error}", log.samples.len()));
    }
    // A stall is seen between samples, so the window takes one more.
    let (seen, needed) = (log.samples.len(), limits.sustained_samples.saturating_add(1));
    if seen < needed {
        let because = match (&log.last_error, log.not_ready) {
            (Some(error), _) => format!(": {error}"),
            (None, 0) => " (the test was over before)".to_string(),
            (None, n) => {
                format!(" ({n} tries came while the kernel's symbols and types were still being read)")
            }
        };
        let what = match seen {
            0 => "no sample of the kernel's state was taken".to_string(),
            1 => format!("1 sample was taken, {needed} are needed"),
            n => format!("{n} samples were taken, {needed} are needed"),
        };
        return Some(format!("{what}{because}"));
    }
    implausible(&log.samples).map(|why| format!("the samples can't be believed: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use ktstr_assert::Outcome;

    fn log(count: u64, nr_running: &[u32]) -> MonitorLog {
        let samples = (0..count).map(|i| sample(i * 100, nr_running)).collect();
        MonitorLog { samples, ..MonitorLog::default() }
    }

    const ASKED: Assert = Assert::NO_OVERRIDES.max_imbalance_ratio(3.0).fail_on_stall(true);

    #[test]
    fn a_violated_check_that_the_test_set_fails() {
        let found = assess(&log(10, &[8, 1]), &ASKED);
        assert_eq!(found.details.len(), 1);
        assert_eq!((found.details[0].outcome, found.details[0].kind), (Outcome::Fail, DetailKind::Monitor));
        assert!(
            found.details[0].message.starts_with("max_imbalance_ratio: runqueues differ by a ratio of 8.0")
        );
        assert_eq!(found.passed_checks, 1, "the stall check held");
    }

    #[test]
    fn a_violated_default_is_only_reported() {
        let found = assess(&log(10, &[8, 1]), &Assert::NO_OVERRIDES);
        assert!(found.details.is_empty());
        assert_eq!(found.summary.violations.len(), 1);
    }

    #[test]
    fn no_data_is_inconclusive_for_what_was_asked() {
        let unsampled = MonitorLog::unsampled("not sampled in deterministic mode");
        let late = MonitorLog { not_ready: 4, ..log(2, &[1, 1]) };
        let cut_off =
            MonitorLog { last_error: Some("a bug".to_string()), broken_off: true, ..log(10, &[1, 1]) };
        let lost = MonitorLog { last_error: Some("no kallsyms".to_string()), ..MonitorLog::default() };
        let mut frozen = log(10, &[1, 1]);
        frozen.samples.iter_mut().flat_map(|s| &mut s.cpus).for_each(|c| c.clock = 0);
        for (log, needle) in [
            (unsampled, "not sampled in deterministic mode"),
            (late, "2 samples were taken, 6 are needed (4 tries came while"),
            (lost, "no sample of the kernel's state was taken: no kallsyms"),
            (cut_off, "sampling ended after 10 samples: a bug"),
            (frozen, "can't be believed: all 20 readings"),
        ] {
            let found = assess(&log, &ASKED);
            assert_eq!(found.details.len(), 2, "{needle}");
            assert_eq!(found.passed_checks, 0);
            for detail in &found.details {
                assert_eq!(detail.outcome, Outcome::Inconclusive);
                assert!(detail.message.contains(needle), "{:?} lacks {needle:?}", detail.message);
            }
            assert!(assess(&log, &Assert::NO_OVERRIDES).details.is_empty());
        }
    }

    #[test]
    fn a_cgroup_that_was_left_frozen_is_told_even_without_samples() {
        let frozen = crate::CgroupState {
            path: "/ktstr/cg_0".into(),
            frozen: true,
            tasks: vec![(7, "spin".into())],
            ..Default::default()
        };
        let log = MonitorLog { left_frozen: vec![frozen], ..MonitorLog::unsampled("deterministic") };
        let found = assess(&log, &Assert::NO_OVERRIDES.fail_on_stall(true));
        assert_eq!(found.details[0].outcome, Outcome::Fail);
        assert!(
            found.details[0]
                .message
                .contains("cgroup /ktstr/cg_0 was left frozen: spin (pid 7) could not run"),
            "{found:?}"
        );
        assert!(assess(&log, &Assert::NO_OVERRIDES).details.is_empty());
    }

    #[test]
    fn a_check_whose_kind_of_data_is_missing_is_inconclusive_alone() {
        let asked = ASKED.max_fallback_rate(10.0);
        let found = assess(&log(10, &[1, 1]), &asked);
        assert_eq!((found.details.len(), found.passed_checks), (1, 2));
        assert!(found.details[0].message.starts_with("`max_fallback_rate` could not be checked"));
    }
}
