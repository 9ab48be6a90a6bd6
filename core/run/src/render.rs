//! A run in words.

use crate::drive::{Observation, Times};
use crate::judge::CaseResult;
use crate::scheduler::bug_summary;
use ktstr_assert::{Assert, ScenarioStats, render_comparison, render_failure};
use ktstr_monitor::{KernelState, render_assessment, render_state};
use ktstr_scheduler::{
    Detach, ProgramStats, SchedulerReport, SchedulerStats, bytes_left_out, without_colours,
};
use ktstr_verifier::{Mode, VerifierLog, collapse};
use ktstr_wire::Stimulus;
use std::fmt::Write;
use std::time::Duration;

/// Console lines shown with a broken run.
const CONSOLE_LINES: usize = 20;
const OUTPUT_LINES: usize = 20;
const TIMELINE_LINES: usize = 60;
const SCHEDULER_LINES: usize = 60;
const VERIFIER_LINES: usize = 150;
const DUMP_LINES: usize = 80;
const STATS_LINES: usize = 40;

/// What a reader wants to know of how a result came about.
#[derive(Debug, Clone, Default)]
pub struct RunFacts {
    /// Test name.
    pub test: String,
    /// Machine label.
    pub topology: String,
    /// Acceleration mode, `host` without a machine.
    pub mode: String,
    /// True where the mode is made for hardware and the host's processor is emulated, so that
    /// the limits of emulation held.
    pub emulated_processor: bool,
    /// Kernel release or path.
    pub kernel: String,
    /// True if the machine was resumed instead of booted.
    pub resumed: bool,
    /// Seed.
    pub seed: u64,
    /// How long its workload holds, guest time.
    pub duration: Duration,
    /// The sidecar's path, where one was written.
    pub sidecar: Option<String>,
    /// The checks that the test set itself.
    pub checks: Assert,
    /// The file with the kernel's state, where one was written.
    pub kernel_state: Option<String>,
    /// What came of repeating a crash with probes, in words.
    pub repro: Option<String>,
    /// The numbers of the same test under the kernel's own scheduler.
    pub baseline: Option<ScenarioStats>,
    /// The scheduler's name.
    pub scheduler: String,
    /// Show what a verifier said as it came.
    pub raw_verifier_log: bool,
    /// Show diagnostics in any case.
    pub verbose: bool,
}

/// The text for a run: a line for a skip, everything that helps for a failure,
/// the statistics for a pass.
pub fn render(facts: &RunFacts, case: &CaseResult, seen: Option<&Observation>) -> String {
    let result = &case.result;
    if result.is_skip() {
        let reasons: Vec<&str> = result.details.iter().map(|d| d.message.as_str()).collect();
        return format!("ktstr: SKIP: {}\n", reasons.join("; "));
    }
    let mut text = render_failure(&facts.test, &facts.topology, result);
    if let Some(summary) = seen.and_then(|seen| bug_summary(case, seen)) {
        let _ = writeln!(text, "BUG SUMMARY: {summary}");
    }
    if let Some(seen) = seen {
        observation(&mut text, facts, case, seen);
    }
    section(
        &mut text,
        "run",
        &run_lines(facts, seen.map(|s| &s.times), seen.map_or(&[], |s| s.schedulers.as_slice())),
    );
    text
}

fn observation(text: &mut String, facts: &RunFacts, case: &CaseResult, seen: &Observation) {
    if let Some(base) = facts.baseline.as_ref().filter(|_| !case.result.stats.is_empty()) {
        let names = ("eevdf", facts.scheduler.as_str());
        section(text, "beside eevdf", &render_comparison(names, base, &case.result.stats));
    }
    if has_diagnostics(facts, case, seen) {
        section(text, "diagnostics", &diagnostics(seen));
    }
    if !seen.timeline.is_empty() {
        section(
            text,
            "timeline",
            &format!("{}\n{}", timeline_header(facts), render_timeline(&seen.timeline)),
        );
    }
    let show_all = !case.result.is_pass() || facts.verbose;
    let scheduler_log = scheduler_log(seen);
    if show_all && !scheduler_log.is_empty() {
        let mut shown = readable(&scheduler_log, facts.raw_verifier_log);
        // Its own line may be among those that are not shown.
        let left_out = bytes_left_out(&scheduler_log);
        if left_out > 0 {
            let _ = write!(shown, "\n(it wrote more than is kept: {left_out} bytes were left out)");
        }
        section(text, "scheduler log", &shown);
    }
    if let Some(monitor) = &case.monitor {
        section(text, "monitor", &render_assessment(monitor, &facts.checks));
    }
    if !show_all {
        return;
    }
    for report in seen.schedulers.iter().filter(|r| r.programs.iter().any(|p| p.run_cnt > 0)) {
        section(text, &format!("programs of {}", report.name), &program_lines(report));
    }
    for (report, stats) in seen.schedulers.iter().filter_map(|r| Some((r, r.stats.as_ref()?))) {
        section(text, &format!("scx_stats of {}", report.name), &stats_lines(stats));
    }
    for report in seen.schedulers.iter().filter(|r| !r.dump_text.is_empty()) {
        section(text, "sched_ext dump", &shortened(&report.dump_text, DUMP_LINES));
    }
    if let Some(repro) = &facts.repro {
        section(text, "auto-repro", repro);
    }
    if let Some(panic) = seen.panic.as_ref().filter(|p| !p.backtrace.is_empty()) {
        section(text, "panic back-trace", &panic.backtrace);
    }
    let output = seen.output.last(OUTPUT_LINES);
    if !output.is_empty() {
        section(text, "test output (last lines)", &output.join("\n"));
    }
    // Of what merely lacks data it would explain nothing.
    if let Some(state) = seen.early_state.as_ref().filter(|_| case.result.is_fail()) {
        section(text, "kernel state before the watchdog acted", &render_state(state));
    }
    if let Some(state) = seen.kernel_state.as_ref().filter(|_| case.result.is_fail()) {
        // The console stands once: among the diagnostics, where those are shown.
        let console = if has_diagnostics(facts, case, seen) { Vec::new() } else { state.console.clone() };
        section(text, "kernel state", &render_state(&KernelState { console, ..state.clone() }));
    }
}

/// Whether the failure is more than a check's: then how the machine stood is told.
fn has_diagnostics(facts: &RunFacts, case: &CaseResult, seen: &Observation) -> bool {
    let failed = |report: &SchedulerReport| report.failure.is_some() || report.not_attached.is_some();
    let of_scheduler = seen.schedulers.iter().any(failed) && case.result.is_fail();
    case.broken || facts.verbose || of_scheduler
}

/// How often each BPF program ran, and how long.
fn program_lines(report: &SchedulerReport) -> String {
    let mut programs: Vec<_> = report.programs.iter().filter(|p| p.run_cnt > 0).collect();
    programs.sort_by_key(|p| std::cmp::Reverse(p.run_time_ns));
    let line = |p: &&ProgramStats| {
        let each = p.run_time_ns / p.run_cnt.max(1);
        format!(
            "{:<16} {:>9} runs, {each:>7} ns each, {} instructions verified",
            p.name, p.run_cnt, p.verified_insns
        )
    };
    programs.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Figures by name: the first, the last, and the time between them.
fn stats_lines(stats: &SchedulerStats) -> String {
    let mut lines = Vec::new();
    if let (Some(first), Some(last)) = (stats.samples.first(), stats.last()) {
        lines.push(format!("{} answers, +{} ms to +{} ms", stats.answers, first.at_ms, last.at_ms));
        let left_out = last.figures.len().saturating_sub(STATS_LINES);
        let of = |(name, value): (&String, &f64)| match first.figures.get(name) {
            Some(before) if before != value => format!("{name} {before} → {value}"),
            _ => format!("{name} {value}"),
        };
        lines.extend(last.figures.iter().take(STATS_LINES).map(of));
        if left_out > 0 {
            lines.push(format!("… {left_out} more in the result file …"));
        }
    }
    lines.extend(stats.problem.clone());
    lines.join("\n")
}

/// What the schedulers wrote: as it came, then the end of what was too much.
fn scheduler_log(seen: &Observation) -> String {
    let mut log = seen.scheduler_log.text();
    for report in &seen.schedulers {
        log.push_str(&report.log_tail);
    }
    // A scheduler built on libbpf prints the kernel's dump when it ends; once is enough.
    let shown_below = seen.schedulers.iter().any(|r| !r.dump_text.is_empty());
    if shown_below { without_dump(&log) } else { log }
}

/// A log without what stands between `DEBUG DUMP` and the second line of `=`, as
/// `tools/sched_ext/include/scx/user_exit_info.h` prints it.
fn without_dump(log: &str) -> String {
    let mut text = String::new();
    let mut rules_left = 0;
    for line in log.lines() {
        if rules_left == 0 && line == "DEBUG DUMP" {
            rules_left = 2;
            text.push_str("(the kernel's debug dump is shown below)\n");
        } else if rules_left == 0 {
            text.push_str(line);
            text.push('\n');
        } else if line.len() > 20 && line.bytes().all(|b| b == b'=') {
            rules_left -= 1;
        }
    }
    text
}

/// A log with what a verifier said shortened, loop by loop.
fn readable(log: &str, raw: bool) -> String {
    if raw {
        return log.to_string();
    }
    let log = &without_colours(log);
    if VerifierLog::parse(log).programs.is_empty() {
        // Not framed as a verifier's log, but what repeats itself repeats itself.
        let lines: Vec<&str> = log.lines().collect();
        return shortened(&collapse(&lines).lines.join("\n"), SCHEDULER_LINES);
    }
    shortened(&ktstr_verifier::render(log, Mode::Readable), VERIFIER_LINES)
}

/// Beginning and end of a long text.
fn shortened(text: &str, most: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= most {
        return text.to_string();
    }
    let (head, tail) = (most / 3, most - most / 3);
    let left_out = format!("… {} more lines …", lines.len() - most);
    let parts = [&lines[..head], &[left_out.as_str()], &lines[lines.len() - tail..]];
    parts.concat().join("\n")
}

fn diagnostics(seen: &Observation) -> String {
    let mut text = String::new();
    let stage = seen.stage.map_or_else(|| "booting".to_string(), |s| s.to_string());
    let _ = writeln!(text, "last stage: {stage}");
    if let Some(exit) = &seen.exit {
        let _ = writeln!(text, "machine: {exit:?}");
    }
    for warning in &seen.warnings {
        let _ = writeln!(text, "guest {warning}");
    }
    let console = seen.console.last(CONSOLE_LINES);
    if console.is_empty() {
        text.push_str("console: (nothing printed)");
    } else {
        let _ = writeln!(text, "console, last {} lines:", console.len());
        for line in console {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// What a timeline is of: the events alone could be anybody's.
fn timeline_header(facts: &RunFacts) -> String {
    format!(
        "kernel {}, topology {}, scheduler {}, scenario {}, {:.1} s",
        facts.kernel,
        facts.topology,
        facts.scheduler,
        facts.test,
        facts.duration.as_secs_f64()
    )
}

/// The scenario's events, a line each; a long list keeps its beginning and end.
pub fn render_timeline(events: &[Stimulus]) -> String {
    let line = |e: &Stimulus| {
        let what = match (e.kind.is_empty(), e.is_step_end) {
            (false, _) => format!("  {}", e.kind),
            (true, true) => format!("{} ends", e.label),
            (true, false) => e.label.clone(),
        };
        let detail = if e.detail.is_empty() { String::new() } else { format!(" {}", e.detail) };
        let iterations = e.iterations.map(|n| format!(" ({n} iterations)")).unwrap_or_default();
        format!("{:>8}ms  {what}{detail}{iterations}", e.elapsed_ms)
    };
    if events.len() <= TIMELINE_LINES {
        return events.iter().map(line).collect::<Vec<_>>().join("\n");
    }
    let half = TIMELINE_LINES / 2;
    let mut lines: Vec<String> = events[..half].iter().map(line).collect();
    lines.push(format!("            … {} more …", events.len() - 2 * half));
    lines.extend(events[events.len() - half..].iter().map(line));
    lines.join("\n")
}

fn scheduler_line(report: &SchedulerReport) -> String {
    let mut line = report.name.clone();
    match &report.ops {
        Some(ops) => {
            let _ = write!(line, " attached as {ops:?} in {} ms", report.attach_ms);
        }
        None if report.not_attached.is_some() => line.push_str(" never attached"),
        None => {}
    }
    if let Some(Detach::InOrder(how)) = &report.detach {
        let how = if how.is_empty() { String::new() } else { format!(", {how}") };
        let _ = write!(line, ", stopped in order{how}");
    }
    line
}

fn run_lines(facts: &RunFacts, times: Option<&Times>, schedulers: &[SchedulerReport]) -> String {
    let mut text = format!("mode={} kernel={} seed={}", facts.mode, facts.kernel, facts.seed);
    if facts.emulated_processor {
        text.push_str("\non an emulated processor: limits as for tcg");
    }
    if let Some(times) = times {
        let part = |name: &str, time: Option<Duration>| {
            time.map(|t| format!("{name} {:.2} s, ", t.as_secs_f64())).unwrap_or_default()
        };
        let _ = write!(
            text,
            "\n{}{}machine in all {:.2} s",
            part(if facts.resumed { "resumed in" } else { "boot" }, times.boot),
            part("test", times.test),
            times.total.as_secs_f64()
        );
    }
    for report in schedulers {
        let _ = write!(text, "\nscheduler: {}", scheduler_line(report));
    }
    if let Some(sidecar) = &facts.sidecar {
        let _ = write!(text, "\nresult: {sidecar}");
    }
    if let Some(state) = &facts.kernel_state {
        let _ = write!(text, "\nkernel state: {state}");
    }
    text
}

fn section(text: &mut String, title: &str, body: &str) {
    if !text.ends_with('\n') {
        text.push('\n');
    }
    let _ = write!(text, "\n--- {title} ---\n{}\n", body.trim_end());
}

#[cfg(test)]
mod tests;
