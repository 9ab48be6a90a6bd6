//! The monitor's findings in words.

mod around;
mod scheduler;
mod state;

pub use state::render_state;

use crate::{Assessment, Check, Counters, IrqUtil, PhaseSummary, Schedstat, VcpuCounters};
use ktstr_assert::Assert;
use std::fmt::Write;

/// BPF programs that are named, those that took most time.
const PROGRAMS: usize = 6;

/// The numbers of a run, what lasted beyond a limit, and what could not be seen. `asked`
/// tells the checks that count from those that are only reported.
pub fn render_assessment(assessment: &Assessment, asked: &Assert) -> String {
    let summary = &assessment.summary;
    let total = &summary.total;
    let mut text = match &summary.no_data {
        Some(why) if total.samples == 0 => return format!("nothing to report: {why}"),
        Some(why) => format!("no check was made: {why}\n"),
        None => String::new(),
    };
    let _ = writeln!(
        text,
        "{} samples, {:.0} µs each (the slowest {:.0}); {}",
        total.samples,
        summary.cost_us,
        summary.max_cost_us,
        numbers(total)
    );
    for (what, count) in [("left out as implausible", summary.skipped), ("failed", summary.failed)] {
        if count > 0 {
            let why = summary.last_error.as_deref().filter(|_| what == "failed").unwrap_or_default();
            let _ = writeln!(text, "{count} samples {what}{}{why}", if why.is_empty() { "" } else { ": " });
        }
    }
    if summary.phases.len() > 1 {
        let mut before: Option<&PhaseSummary> = None;
        for phase in &summary.phases {
            let changes = before.map(|before| changes(before, phase)).unwrap_or_default();
            let _ = writeln!(text, "  +{} ms {}: {}{changes}", phase.from_ms, phase.label, told(phase));
            before = Some(phase);
        }
    }
    for (name, rate) in summary.events.iter().filter(|(_, rate)| rate.delta != 0) {
        let _ = writeln!(text, "  {name}: {} (at most {:.0} a second)", rate.delta, rate.max_per_s);
    }
    if let Some(s) = &summary.schedstat {
        let _ = writeln!(text, "{}", schedstat(s));
    }
    if let Some(counters) = &summary.counters {
        text.push_str(&grown(counters));
    }
    if let Some(IrqUtil { max, cpu, avg }) = summary.irq_util {
        let (max, avg) = (max * 100.0, avg * 100.0);
        let _ =
            writeln!(text, "interrupts took at most {max:.1} % of a CPU (cpu{cpu}), {avg:.1} % on average");
    }
    if let Some(us) = summary.irq_pressure_us {
        let _ = writeln!(text, "interrupts held up all tasks for {us} µs");
    }
    for violation in &summary.violations {
        let weight = if violation.check.is_set(asked) { "violation" } else { "report only" };
        let _ = writeln!(text, "{weight}: {}: {}", violation.check.name(), violation.text);
    }
    let set = Check::ALL.iter().filter(|c| c.is_set(asked)).count();
    let _ = match (summary.no_data.is_some(), summary.violations.len()) {
        (true, _) => Ok(()),
        (false, 0) => writeln!(text, "no violation ({set} checks set by the test)"),
        (false, n) => writeln!(text, "{n} violations ({set} checks set by the test)"),
    };
    text
}

/// All but the first two are counted only while `kernel.sched_schedstats` is on
/// (`schedstat_inc` of kernel/sched/stats.h), and a kernel that runs does schedule.
fn schedstat(s: &Schedstat) -> String {
    let mut text = format!("schedstat: waited {} ms over {} slices", s.run_delay / 1_000_000, s.pcount);
    let _ = if s.sched_count == 0 {
        write!(text, " (kernel.sched_schedstats is off: it counted no schedules and wake-ups)")
    } else {
        let (schedules, idle) = (s.sched_count, s.sched_goidle);
        let (wakeups, local, yields) = (s.ttwu_count, s.ttwu_local, s.yld_count);
        write!(
            text,
            ", {schedules} schedules ({idle} to idle), {wakeups} wake-ups ({local} local), {yields} yields"
        )
    };
    text
}

/// How scheduling domains balanced, a line each, and which BPF programs took most time.
fn grown(counters: &Counters) -> String {
    let mut text = String::new();
    for (name, domain) in &counters.domains {
        let sum = |prefix: &str| -> u64 {
            let of =
                |(counter, n): (&String, &u64)| (counter.split('.').next() == Some(prefix)).then_some(*n);
            domain.iter().filter_map(of).sum()
        };
        let (balances, failed, gained) = (sum("lb_count"), sum("lb_failed"), sum("lb_gained"));
        let (pushed, remote, affine) = (sum("alb_pushed"), sum("ttwu_wake_remote"), sum("ttwu_move_affine"));
        if balances + pushed + remote + affine > 0 {
            let _ = writeln!(
                text,
                "domain {name}: {balances} balances ({failed} failed), {gained} tasks pulled, {pushed} pushed, {remote} \
                 remote wake-ups, {affine} moved for the cache"
            );
        }
    }
    let all = counters.vcpus.iter().copied().reduce(VcpuCounters::plus);
    if let Some(all) = all.filter(|all| !all.is_empty()) {
        let _ = writeln!(text, "{} vCPUs on the host: {}", counters.vcpus.len(), all.in_words());
    }
    let mut programs: Vec<_> = counters.programs.iter().filter(|(_, p)| p.runs > 0 || p.misses > 0).collect();
    programs.sort_by_key(|(_, p)| std::cmp::Reverse(p.run_time_ns));
    for (name, program) in programs.iter().take(PROGRAMS) {
        let mean = program.run_time_ns.checked_div(program.runs).unwrap_or_default();
        let missed = match program.misses {
            0 => String::new(),
            n => format!(", {n} runs prevented by recursion"),
        };
        let _ = writeln!(text, "BPF program {name}: {} runs, {mean} ns each{missed}", program.runs);
    }
    if programs.len() > PROGRAMS {
        let _ = writeln!(text, "… and {} more BPF programs", programs.len() - PROGRAMS);
    }
    text
}

fn told(phase: &PhaseSummary) -> String {
    let rate = phase.iteration_rate.map(|r| format!(", {r:.0} iterations a second")).unwrap_or_default();
    match phase.samples {
        0 => format!("no samples{rate}"),
        n => format!("{n} samples, {}{rate}", numbers(phase)),
    }
}

/// What is markedly better or worse than in the phase before.
fn changes(before: &PhaseSummary, now: &PhaseSummary) -> String {
    let mut found = Vec::new();
    let mut mark = |what: &str, change: Option<f64>, least: f64, more_is_better: bool| {
        if let Some(change) = change.filter(|c| c.abs() >= least) {
            let word = if (change > 0.0) == more_is_better { "improved" } else { "degraded" };
            found.push(format!("{what} {word}"));
        }
    };
    let both = |a: Option<f64>, b: Option<f64>| Some(b? - a?);
    if before.samples > 0 && now.samples > 0 {
        mark("imbalance", Some(now.avg_imbalance_ratio - before.avg_imbalance_ratio), 0.5, false);
        mark("local DSQ", both(before.avg_local_dsq_depth, now.avg_local_dsq_depth), 3.0, false);
        mark("runnable", Some(now.avg_nr_running - before.avg_nr_running), 1.0, false);
    }
    mark("fallbacks", both(before.fallback_rate, now.fallback_rate), 10.0, false);
    mark("keep-last", both(before.keep_last_rate, now.keep_last_rate), 10.0, false);
    let relative = |a: Option<f64>, b: Option<f64>| a.filter(|a| *a > 0.0).and_then(|a| Some(b? / a - 1.0));
    mark("iterations", relative(before.iteration_rate, now.iteration_rate), 0.3, true);
    if found.is_empty() { String::new() } else { format!(" [{}]", found.join(", ")) }
}

fn numbers(phase: &PhaseSummary) -> String {
    let mut text = format!(
        "imbalance max {:.1} avg {:.1}, {:.1} runnable a CPU",
        phase.max_imbalance_ratio, phase.avg_imbalance_ratio, phase.avg_nr_running
    );
    if let (Some(max), Some(avg)) = (phase.max_local_dsq_depth, phase.avg_local_dsq_depth) {
        let _ = write!(text, ", local DSQ max {max} avg {avg:.1}");
    }
    if phase.stalled_intervals > 0 {
        let _ = write!(text, ", a busy clock stood still {} times", phase.stalled_intervals);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::sample;
    use crate::{MonitorLog, ProgramRuns, assess};

    #[test]
    fn a_report_only_violation_is_called_that() {
        let samples = (0..8).map(|i| sample(i * 100, &[9, 1])).collect();
        let log = MonitorLog { samples, ..MonitorLog::default() };
        let text = |asked: &Assert| render_assessment(&assess(&log, asked), asked);
        let lenient = text(&Assert::NO_OVERRIDES);
        assert!(
            lenient.contains("8 samples, 0 µs each") && lenient.contains("report only: max_imbalance"),
            "{lenient}"
        );
        let strict = text(&Assert::NO_OVERRIDES.max_imbalance_ratio(4.0));
        assert!(
            strict.contains("violation: max_imbalance_ratio: runqueues differ by a ratio of 9.0"),
            "{strict}"
        );
    }

    #[test]
    fn marked_changes_are_told_and_small_ones_are_not() {
        let phase = |imbalance, rate| PhaseSummary {
            samples: 3,
            avg_imbalance_ratio: imbalance,
            iteration_rate: Some(rate),
            ..PhaseSummary::default()
        };
        let calm = phase(1.0, 100.0);
        assert_eq!(changes(&calm, &phase(1.4, 120.0)), "");
        assert_eq!(changes(&calm, &phase(1.5, 60.0)), " [imbalance degraded, iterations degraded]");
        assert_eq!(
            changes(&phase(4.0, 100.0), &phase(1.0, 200.0)),
            " [imbalance improved, iterations improved]"
        );
        let unseen = PhaseSummary { samples: 0, ..phase(9.0, 100.0) };
        assert_eq!(changes(&calm, &unseen), "");
        assert!(told(&unseen).starts_with("no samples, 100 iterations"));
    }

    #[test]
    fn nothing_is_said_plainly() {
        let log = MonitorLog::unsampled("not sampled in deterministic mode");
        let text = render_assessment(&assess(&log, &Assert::NO_OVERRIDES), &Assert::NO_OVERRIDES);
        assert_eq!(text, "nothing to report: not sampled in deterministic mode");
    }

    #[test]
    fn domains_and_programs_have_a_line_each_and_those_without_news_none() {
        let counter = |name: &str, n| (name.to_string(), n);
        let busy = [
            counter("lb_count.idle", 3),
            counter("lb_count.newly_idle", 4),
            counter("lb_failed.idle", 1),
            counter("lb_gained.newly_idle", 2),
            counter("ttwu_wake_remote", 9),
        ];
        let quiet = [counter("lb_count.idle", 0), counter("lb_imbalance.idle", 5)];
        let runs = |runs, run_time_ns, misses| ProgramRuns { runs, run_time_ns, misses };
        let mut programs: Vec<_> =
            (0..PROGRAMS as u64).map(|i| (format!("p{i} (id {i})"), runs(i + 1, 7 - i, 0))).collect();
        programs.push(("stuck (id 9)".to_string(), runs(2, 1000, 3)));
        programs.push(("idle (id 8)".to_string(), runs(0, 0, 0)));
        let counters = Counters {
            domains: [("MC".to_string(), busy.into()), ("PKG".to_string(), quiet.into())].into(),
            programs: programs.into_iter().collect(),
            vcpus: vec![VcpuCounters { context_switches: Some(4), ..VcpuCounters::default() }; 2],
            left_out: Vec::new(),
        };
        let text = grown(&counters);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "domain MC: 7 balances (1 failed), 2 tasks pulled, 0 pushed, 9 remote wake-ups, 0 moved for the cache"
        );
        assert_eq!(lines[1], "2 vCPUs on the host: 8 context switches");
        assert_eq!(lines[2], "BPF program stuck (id 9): 2 runs, 500 ns each, 3 runs prevented by recursion");
        assert_eq!(lines[3], "BPF program p0 (id 0): 1 runs, 7 ns each");
        assert_eq!(lines[lines.len() - 1], "… and 1 more BPF programs");
        assert_eq!(lines.len(), 3 + PROGRAMS);
    }

    #[test]
    fn what_was_not_counted_is_no_zero() {
        let off = Schedstat { run_delay: 7_000_000, pcount: 3, ..Schedstat::default() };
        let text = schedstat(&off);
        assert!(
            text.contains("waited 7 ms over 3 slices") && text.contains("sched_schedstats is off"),
            "{text}"
        );
        let text = schedstat(&Schedstat { sched_count: 5, ttwu_count: 2, ..off });
        assert!(text.ends_with("5 schedules (0 to idle), 2 wake-ups (0 local), 0 yields"), "{text}");
    }
}
