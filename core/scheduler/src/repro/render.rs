//! The section of the report.

use super::calls::{Call, calls};
use super::functions::Choice;
use super::probe::Probe;
use super::trace::ProbeTrace;
use crate::{SchedulerReport, ScxExit};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::time::Duration;

/// Calls that are shown: the last ones.
const CALLS: usize = 40;

/// How the second run went.
#[derive(Debug)]
pub struct Rerun<'a> {
    /// The scheduler's report, of the same start of it as in the first run.
    pub report: Option<&'a SchedulerReport>,
    /// What the run ended in, in a word or a line.
    pub outcome: &'a str,
    /// How long its machine lived, host time.
    pub took: Duration,
    /// Where probed functions stand in the kernel's source, as far as that is known.
    pub lines: &'a BTreeMap<String, String>,
}

/// What a reader gets: whether the crash came again, and what its task went through.
pub fn render(first: &ScxExit, choice: &Choice, rerun: &Rerun<'_>) -> String {
    let mut text = String::new();
    let exit = rerun.report.and_then(|report| report.exit.as_ref()).filter(|exit| exit.is_failure());
    match exit {
        Some(exit) if exit.kind == first.kind => {
            let _ = writeln!(text, "the crash came again: {exit}");
        }
        Some(exit) => {
            let _ = writeln!(text, "the scheduler crashed again, but in another way: {exit}");
        }
        None => {
            let _ =
                writeln!(text, "the crash did not come again; the second run ended in: {}", rerun.outcome);
        }
    }
    let _ = writeln!(text, "its machine took {:.1} s in all", rerun.took.as_secs_f64());
    let trace = rerun.report.and_then(|report| report.probes.as_ref());
    match trace {
        None => text.push_str("no probe data: the guest sent none\n"),
        Some(trace) => of_trace(&mut text, choice, trace, rerun.lines),
    }
    text
}

fn of_trace(text: &mut String, choice: &Choice, trace: &ProbeTrace, lines: &BTreeMap<String, String>) {
    probes(text, choice, trace);
    fired(text, trace);
    for problem in &trace.problems {
        let _ = writeln!(text, "note: {problem}");
    }
    let Some(task) = &trace.task else { return };
    let calls = calls(trace);
    let shown = &calls[calls.len().saturating_sub(CALLS)..];
    let _ = write!(
        text,
        "task {}[{}]: {} of {} events were its, {} of its calls are shown",
        task.comm,
        task.pid,
        trace.of_task,
        trace.seen,
        if shown.is_empty() { "none".to_string() } else { format!("the last {}", shown.len()) }
    );
    let lost = match trace.overwritten {
        0 => String::new(),
        lost => format!(" ({lost} older events were overwritten)"),
    };
    let _ = writeln!(text, "{lost}");
    let mut told = BTreeSet::new();
    for call in shown {
        // Once for each function.
        let line = call.probe.line.as_ref().or_else(|| lines.get(&call.probe.function));
        let line = line.filter(|_| told.insert(&call.probe.function));
        one(text, call, line.map(String::as_str));
    }
}

fn probes(text: &mut String, choice: &Choice, trace: &ProbeTrace) {
    let is_probed = |function: &&String| trace.probes.iter().any(|p| p.function == **function);
    let of_backtrace = &choice.functions[..choice.of_backtrace.min(choice.functions.len())];
    let hit: Vec<&str> = of_backtrace.iter().filter(is_probed).map(String::as_str).collect();
    let own: Vec<&Probe> = trace.probes.iter().filter(|probe| probe.callback.is_some()).collect();
    let around = trace.probes.len().saturating_sub(hit.len() + own.len());
    let of_stack = match (hit.is_empty(), of_backtrace.is_empty()) {
        (false, _) => format!("{} of the back-trace ({})", hit.len(), hit.join(", ")),
        (true, true) => "none of the back-trace, which is the watchdog's".to_string(),
        (true, false) => "none of the back-trace".to_string(),
    };
    let _ = writeln!(text, "probed functions: {of_stack}, {around} around the scheduler's callbacks");
    if !own.is_empty() {
        let names: Vec<&str> = own.iter().map(|probe| probe.function.as_str()).collect();
        let _ = writeln!(text, "probed BPF callbacks: {}", names.join(", "));
    }
    let of_bpf = choice.bpf.iter().filter(|name| !own.iter().any(|probe| probe.function == **name));
    let of_bpf: Vec<&str> = of_bpf.map(String::as_str).collect();
    if !of_bpf.is_empty() {
        let _ = writeln!(
            text,
            "not probed: {} (no program could be attached to it; the kernel's side of it is probed)",
            of_bpf.join(", ")
        );
    }
    // What this kernel does not have is no news, unless it was in the back-trace.
    for (function, why) in trace.refused.iter().filter(|(f, _)| of_backtrace.contains(f)) {
        let _ = writeln!(text, "not probed: {function} ({why})");
    }
}

/// How often each probe fired; those that never did together.
fn fired(text: &mut String, trace: &ProbeTrace) {
    let all: Vec<_> = trace.probes.iter().zip(&trace.counts).collect();
    let (never, some): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|(_, hits)| hits.entries + hits.exits == 0);
    let mut parts: Vec<String> = some
        .into_iter()
        .map(|(probe, hits)| {
            let returned =
                if hits.exits == hits.entries { String::new() } else { format!(", {} returned", hits.exits) };
            let missed = hits.missed.filter(|missed| *missed > 0);
            let missed = missed.map(|missed| format!(", {missed} missed")).unwrap_or_default();
            let left = if hits.exact { "" } else { " in the trace" };
            format!("{} {}{left}{returned}{missed}", probe.function, hits.entries)
        })
        .collect();
    if !never.is_empty() {
        let names: Vec<&str> = never.iter().map(|(probe, _)| probe.function.as_str()).collect();
        parts.push(format!("never {}", names.join(", ")));
    }
    if !parts.is_empty() {
        let _ = writeln!(text, "probes fired: {}", parts.join("; "));
    }
}

fn one(text: &mut String, call: &Call<'_>, line: Option<&str>) {
    let indent = "  ".repeat(call.depth);
    let (seconds, micros) = (call.entry.at_us / 1_000_000, call.entry.at_us % 1_000_000);
    let place = format!("{seconds:>6}.{micros:06} cpu{}", call.entry.cpu);
    let line = line.map(|line| format!("  at {line}")).unwrap_or_default();
    let _ = writeln!(text, "{place} {indent}{}({}){line}", call.probe.function, call.arguments());
    let left = " ".repeat(place.len() + 1);
    for (argument, members) in call.structs() {
        let _ = writeln!(text, "{left}{indent}  {argument}: {members}");
    }
    let _ = match &call.exit {
        None => writeln!(text, "{left}{indent}  no exit seen"),
        Some(exit) => {
            let took = exit.at_us.saturating_sub(call.entry.at_us);
            let value = call.returned().map(|value| format!(" {value}")).unwrap_or_default();
            let changes = call.changes().join(", ");
            let changes = if changes.is_empty() { String::new() } else { format!(": {changes}") };
            writeln!(text, "{left}{indent}  returned{value} after {took} us{changes}")
        }
    };
}
