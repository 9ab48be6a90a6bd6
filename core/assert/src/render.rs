//! The text of a result, as a failing test prints it.

use crate::{AssertResult, Detail, DetailKind, Outcome, ScenarioStats};
use std::cmp::Reverse;
use std::fmt::Write;

/// The report of a test: its name and topology, what was found, and the numbers.
///
/// `topo_label` is a topology in the short form `1n1l2c1t`. Lines end with `\n`; the
/// numbers are left out when no worker ran.
pub fn render_failure(name: &str, topo_label: &str, result: &AssertResult) -> String {
    let mut out = format!("ktstr_test '{name}' [topo={topo_label}] {}:\n", result.outcome);
    let mut details: Vec<&Detail> = result.details.iter().collect();
    // The worst first; stable, so that the order of finding stays within an outcome.
    details.sort_by_key(|d| Reverse(d.outcome));
    for detail in details {
        line(&mut out, &describe(detail, result.outcome));
    }
    for note in &result.notes {
        line(&mut out, &format!("note: {note}"));
    }
    for pass in &result.passes {
        line(&mut out, &format!("passed: {pass}"));
    }
    if !result.stats.is_empty() {
        out.push('\n');
        out.push_str(&render_stats(&result.stats));
    }
    out
}

/// The numbers: a line of totals, then a line a cgroup.
pub fn render_stats(stats: &ScenarioStats) -> String {
    let mut out = String::from("--- stats ---\n");
    // Writing to a String can't fail.
    let _ = writeln!(
        out,
        "{} workers, {} cpus, {} migrations, worst_spread={}, worst_gap={}ms",
        stats.total_workers(),
        stats.total_cpus(),
        stats.total_migrations(),
        percent(stats.worst_spread()),
        stats.worst_gap_ms(),
    );
    for c in &stats.cgroups {
        let name = if c.name.is_empty() { "(unnamed)" } else { &c.name };
        let _ = writeln!(
            out,
            "  {name}: workers={} cpus={} spread={} gap={}ms migrations={} iter={}",
            c.num_workers,
            c.num_cpus,
            percent(c.spread),
            c.max_gap_ms,
            c.total_migrations,
            c.total_iterations,
        );
    }
    out
}

/// A detail, led by its cgroup and, when it is not what decided, by its own outcome.
/// The line of a gap has a fixed form and stands alone: the numbers below it show the cgroup.
fn describe(detail: &Detail, overall: Outcome) -> String {
    let mut text = String::new();
    if detail.outcome != overall {
        let _ = write!(text, "{}: ", detail.outcome);
    }
    if let Some(cgroup) = detail.cgroup.as_ref().filter(|_| detail.kind != DetailKind::Gap) {
        let _ = write!(text, "{cgroup}: ");
    }
    text + &detail.message
}

/// Two spaces, and four for what follows a line break.
fn line(out: &mut String, text: &str) {
    out.push_str("  ");
    out.push_str(&text.trim_end().replace('\n', "\n    "));
    out.push('\n');
}

fn percent(value: Option<f64>) -> String {
    value.map_or_else(|| "n/a".to_owned(), |v| format!("{v:.1}%"))
}

#[cfg(test)]
mod tests;
