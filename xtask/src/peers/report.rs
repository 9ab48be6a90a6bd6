//! What came of the runs, as a table for people.

use super::Peer;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// The file of the verifier sweep, beside the sidecars.
pub(super) const SWEEP: &str = "verifier.json";

/// What is between these marks in the document is written here.
const BEGIN: &str = "<!-- results: written by `cargo xtask peers` -->";
const END: &str = "<!-- end of results -->";

/// The scenarios and machines of cli/tests/peers.rs, in its order.
const SCENARIOS: [&str; 14] = [
    "steady",
    "steady_llc",
    "oversubscribed",
    "cpuset_apply",
    "cpuset_clear",
    "cpuset_resize",
    "cgroup_add",
    "cgroup_remove",
    "affinity_change",
    "affinity_pinned",
    "host_contention",
    "mixed_workloads",
    "nested_steady",
    "nested_task_move",
];
const MACHINES: [&str; 4] = ["1n1l2c1t", "1n2l2c1t", "1n2l2c2t", "2n4l2c1t"];

/// One test's end.
#[derive(Debug, Clone, Default, PartialEq)]
struct Ending {
    /// As in the sidecar: `passed`, `failed`, `inconclusive` or `skipped`.
    outcome: String,
    /// Why, unless it passed.
    reasons: Vec<String>,
    /// The worst of its cgroups: percent between workers that may expect the same, and ms in
    /// which a worker did not run; `None` if no workload was played.
    worst_spread: Option<f64>,
    worst_gap_ms: Option<u64>,
}

/// What is known of one scheduler.
#[derive(Debug, Default)]
pub(super) struct Entry {
    name: &'static str,
    version: &'static str,
    not_built: Option<String>,
    /// By the name of the test.
    endings: BTreeMap<String, Ending>,
    /// Kernel, mode and hypervisor; one, unless something is odd.
    platforms: BTreeSet<String>,
    /// What `cargo ktstr verifier` wrote.
    sweep: Option<Value>,
    /// What the document tells of an earlier run, if this one knows nothing.
    told: Option<Told>,
}

/// A scheduler's row and section in the document.
#[derive(Debug, Clone, PartialEq)]
struct Told {
    row: String,
    section: String,
}

impl Entry {
    /// From the sidecars and the sweep that were left in a folder, if it is there.
    pub(super) fn read(peer: &Peer, not_built: Option<String>, dir: &Path) -> Result<Self> {
        let mut entry = Self { name: peer.name, version: peer.version, not_built, ..Self::default() };
        if entry.not_built.is_some() || !dir.exists() {
            return Ok(entry);
        }
        let files = std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
        for file in files {
            let path = file?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let json = || -> Result<Value> {
                let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))
            };
            if name == SWEEP {
                entry.sweep = Some(json()?);
            } else if name.ends_with(".ktstr.json") {
                entry.add(&json()?);
            }
        }
        Ok(entry)
    }

    fn add(&mut self, sidecar: &Value) {
        let text = |key: &str| sidecar[key].as_str().unwrap_or("?").to_owned();
        let details = sidecar["result"]["details"].as_array();
        let reasons = details.into_iter().flatten().filter_map(|detail| detail["message"].as_str());
        let cgroups = || sidecar["result"]["stats"]["cgroups"].as_array().into_iter().flatten();
        let ending = Ending {
            outcome: text("outcome"),
            reasons: reasons.map(one_line).collect(),
            worst_spread: cgroups().filter_map(|cgroup| cgroup["spread"].as_f64()).reduce(f64::max),
            worst_gap_ms: cgroups().filter_map(|cgroup| cgroup["max_gap_ms"].as_u64()).max(),
        };
        self.endings.insert(text("test_name"), ending);
        let (version, kernel) = (text("kernel_version"), text("kernel"));
        let (accel, hypervisor) = (text("accel"), text("hypervisor"));
        self.platforms.insert(format!("kernel {version} (`{kernel}`), mode {accel}, {hypervisor}"));
    }

    fn of(&self, scenario: &str, machine: &str) -> Option<&Ending> {
        self.endings.get(&format!("{}/{scenario}/{machine}", self.name))
    }

    fn is_unknown(&self) -> bool {
        self.endings.is_empty() && self.not_built.is_none()
    }

    fn overview(&self) -> String {
        if let Some(told) = &self.told {
            return format!("{}\n", told.row);
        }
        let (name, version) = (self.name, self.version);
        let counts = match &self.not_built {
            Some(why) => format!("not built: {} | | | | | | |", cell(why)),
            None if self.endings.is_empty() => "not run | | | | | | |".to_owned(),
            None => {
                let endings: Vec<_> =
                    places().filter_map(|(scenario, machine)| self.of(scenario, machine)).collect();
                let count = |outcome: &str| endings.iter().filter(|ending| ending.outcome == outcome).count();
                let [passed, failed, inconclusive, skipped] =
                    ["passed", "failed", "inconclusive", "skipped"].map(count);
                let missing = places().count() - endings.len();
                // Where nothing was played there is no best value either.
                let spread = endings.iter().filter_map(|ending| ending.worst_spread).reduce(f64::max);
                let gap = endings.iter().filter_map(|ending| ending.worst_gap_ms).max();
                let spread = spread.map_or("-".to_owned(), |spread| format!("{spread:.0} %"));
                let gap = gap.map_or("-".to_owned(), |gap| format!("{gap} ms"));
                format!("{passed} | {failed} | {inconclusive} | {skipped} | {missing} | {spread} | {gap} |")
            }
        };
        format!("| {name} | {version} | {counts}\n")
    }

    fn section(&self) -> String {
        if let Some(told) = &self.told {
            return told.section.clone();
        }
        let platforms: Vec<_> = self.platforms.iter().map(String::as_str).collect();
        let mut text = format!("\n### {}\n\nRan on {}.\n\n", self.name, platforms.join("; "));
        text += &self.scenarios();
        text += &self.reasons();
        if let Some(sweep) = &self.sweep {
            text += &verifier(sweep);
        }
        text
    }

    fn scenarios(&self) -> String {
        let mut text = format!("| scenario | {} |\n|---|---|---|---|---|\n", MACHINES.join(" | "));
        for scenario in SCENARIOS {
            let outcomes = MACHINES
                .map(|machine| self.of(scenario, machine).map_or("no result", |end| word(&end.outcome)));
            let _ = writeln!(text, "| {scenario} | {} |", outcomes.join(" | "));
        }
        text
    }

    /// Each reason once, with where it was seen.
    fn reasons(&self) -> String {
        let mut reasons: Vec<(String, Vec<String>)> = Vec::new();
        for (scenario, machine) in places() {
            let Some(ending) = self.of(scenario, machine).filter(|ending| ending.outcome != "passed") else {
                continue;
            };
            let first = ending.reasons.first().map_or("without a reason", String::as_str);
            let more = match ending.reasons.len() {
                0 | 1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            let (reason, place) =
                (format!("`{}`{more}", first.replace('`', "'")), format!("{scenario} on {machine}"));
            match reasons.iter_mut().find(|(known, _)| *known == reason) {
                Some((_, seen)) => seen.push(place),
                None => reasons.push((reason, vec![place])),
            }
        }
        let all = places().count();
        let mut text = String::new();
        for (reason, seen) in reasons {
            let place = if seen.len() == all { "everywhere".to_owned() } else { seen.join(", ") };
            let _ = writeln!(text, "- {place}: {reason}");
        }
        if text.is_empty() { text } else { format!("\n{text}") }
    }
}

fn verifier(sweep: &Value) -> String {
    let mut text =
        "\n| verifier sweep | outcome | programs | instructions verified |\n|---|---|---|---|\n".to_owned();
    for swept in sweep["cells"].as_array().into_iter().flatten() {
        let insns = swept["verified_insns"].as_object();
        let total: u64 = insns.iter().flat_map(|all| all.values()).filter_map(Value::as_u64).sum();
        let programs = insns.map_or(0, serde_json::Map::len);
        let (machine, outcome) = (swept["topology"].as_str(), swept["outcome"].as_str());
        let detail = swept["detail"].as_str().map(cell).filter(|detail| !detail.is_empty());
        let detail = detail.map(|detail| format!(": `{}`", detail.replace('`', "'"))).unwrap_or_default();
        let (machine, outcome) = (machine.unwrap_or("?"), outcome.unwrap_or("?"));
        let _ = writeln!(text, "| {machine} | {outcome}{detail} | {programs} | {total} |");
    }
    text
}

/// All there is to tell.
pub(super) struct Report {
    pub(super) entries: Vec<Entry>,
}

impl Report {
    /// All that could run of a scheduler has a result; a failed build is one.
    pub(super) fn is_complete(&self, name: &str) -> bool {
        self.entries.iter().filter(|entry| entry.name == name).all(|entry| {
            let all = places().all(|(scenario, machine)| entry.of(scenario, machine).is_some());
            entry.not_built.is_some() || (all && entry.sweep.is_some())
        })
    }

    /// Takes over from the document what it tells of those that have no results here: a run of some does not lose
    /// what is known of the others, wherever it was found out.
    pub(super) fn keeping(mut self, document: &str) -> Self {
        for entry in self.entries.iter_mut().filter(|entry| entry.is_unknown()) {
            entry.told = told_before(document, entry.name, entry.version);
        }
        self
    }

    pub(super) fn overview(&self) -> String {
        let head = "| scheduler | version | passed | failed | inconclusive | skipped | no result | worst spread | worst gap |\n|---|---|---|---|---|---|---|---|---|\n";
        std::iter::once(head.to_owned()).chain(self.entries.iter().map(Entry::overview)).collect()
    }

    pub(super) fn markdown(&self) -> String {
        let ran = self.entries.iter().filter(|entry| !entry.endings.is_empty() || entry.told.is_some());
        std::iter::once(self.overview()).chain(ran.map(Entry::section)).collect()
    }
}

/// Puts the results into the document, between its marks.
pub(super) fn write(document: &Path, old: &str, results: &str) -> Result<()> {
    let new = between_marks(old, results)
        .with_context(|| format!("{}: expected the lines {BEGIN:?} and {END:?}", document.display()))?;
    std::fs::write(document, new).with_context(|| format!("writing {}", document.display()))
}

fn between_marks(old: &str, results: &str) -> Option<String> {
    let (head, rest) = old.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n\n{results}\n{END}{tail}"))
}

/// What the document has of this version; nothing where it says that it was not run.
fn told_before(document: &str, name: &str, version: &str) -> Option<Told> {
    let (_, rest) = document.split_once(BEGIN)?;
    let (results, _) = rest.split_once(END)?;
    let row = results.lines().find(|line| line.starts_with(&format!("| {name} | {version} | ")))?;
    let (_, after) = results.split_once(&format!("\n### {name}\n"))?;
    let body = after.split_once("\n### ").map_or(after.trim_end(), |(body, _)| body.trim_end());
    Some(Told { row: row.to_owned(), section: format!("\n### {name}\n{body}\n") })
}

fn places() -> impl Iterator<Item = (&'static str, &'static str)> {
    SCENARIOS.iter().flat_map(|scenario| MACHINES.iter().map(move |machine| (*scenario, *machine)))
}

fn word(outcome: &str) -> &str {
    match outcome {
        "passed" => "pass",
        "failed" => "**fail**",
        "skipped" => "skip",
        other => other,
    }
}

/// What a table's cell may hold.
fn cell(text: &str) -> String {
    one_line(text).replace('|', "\\|")
}

/// The first line, not too long.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 240;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    match line.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sidecar(name: &str, outcome: &str, messages: &[&str]) -> Value {
        let details: Vec<_> = messages.iter().map(|message| json!({ "message": message })).collect();
        json!({
            "test_name": name, "outcome": outcome, "result": {
                "details": details,
                "stats": { "cgroups": [{ "spread": 2.5, "max_gap_ms": 90 }, { "spread": 40.6, "max_gap_ms": 7 }] },
            },
            "kernel_version": "6.12.1", "kernel": "key", "accel": "tcg", "hypervisor": "QEMU 7.2",
        })
    }

    #[test]
    fn failures_and_gaps_are_told() {
        let mut ran = Entry { name: "scx_bpfland", version: "1.1.4", ..Entry::default() };
        ran.add(&sidecar("scx_bpfland/steady/1n1l2c1t", "passed", &[]));
        ran.add(&sidecar("scx_bpfland/steady/2n4l2c1t", "failed", &["unfair: 40%\nmore", "stuck"]));
        ran.sweep = Some(json!({ "cells": [
            { "topology": "4cpu-1llc-nosmt", "outcome": "pass", "detail": "", "verified_insns": { "a": 3, "b": 4 } },
            { "topology": "8cpu-2llc-smt", "outcome": "fail", "detail": "a | b\nc" },
        ] }));
        let not_built =
            Entry { name: "scx_x", version: "2", not_built: Some("a | b".to_owned()), ..Entry::default() };
        let not_run = Entry { name: "scx_y", version: "3", ..Entry::default() };
        let report = Report { entries: vec![ran, not_built, not_run] };
        let complete = ["scx_bpfland", "scx_x", "scx_y"].map(|name| report.is_complete(name));
        assert_eq!(complete, [false, true, false]);
        let text = report.markdown();
        for part in [
            "Ran on kernel 6.12.1 (`key`), mode tcg, QEMU 7.2.",
            "| scx_bpfland | 1.1.4 | 1 | 1 | 0 | 0 | 54 | 41 % | 90 ms |",
            "| scx_x | 2 | not built: a \\| b | | | | | | |",
            "| scx_y | 3 | not run | | | | | | |",
            "| steady | pass | no result | no result | **fail** |",
            "- steady on 2n4l2c1t: `unfair: 40%` (and 1 more)",
            "| 4cpu-1llc-nosmt | pass | 2 | 7 |",
            "| 8cpu-2llc-smt | fail: `a \\| b` | 0 | 0 |",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn what_the_document_knows_of_others_stays() {
        let ran = |name| {
            let mut entry = Entry { name, version: "1", ..Entry::default() };
            entry.add(&sidecar(&format!("{name}/steady/1n1l2c1t"), "passed", &[]));
            entry
        };
        let written = |entries: Vec<Entry>, old: &str| {
            between_marks(old, &Report { entries }.keeping(old).markdown()).unwrap()
        };
        let unknown = |name, version| Entry { name, version, ..Entry::default() };
        let empty = format!("{BEGIN}\n{END}\n");
        let both = written(vec![ran("scx_a"), ran("scx_b")], &empty);
        assert_eq!(written(vec![ran("scx_a"), unknown("scx_b", "1")], &both), both);
        assert_eq!(written(vec![unknown("scx_a", "1"), ran("scx_b")], &both), both);
        // Of another version it is no news.
        assert!(written(vec![unknown("scx_a", "2")], &both).contains("| scx_a | 2 | not run "));
    }

    #[test]
    fn what_fails_everywhere_is_told_once() {
        let mut entry = Entry { name: "scx_x", ..Entry::default() };
        for (scenario, machine) in places() {
            entry.add(&sidecar(&format!("scx_x/{scenario}/{machine}"), "failed", &["no such map"]));
        }
        assert_eq!(entry.reasons(), "\n- everywhere: `no such map`\n");
        entry.add(&sidecar("scx_x/steady/1n1l2c1t", "passed", &[]));
        assert!(entry.reasons().starts_with("\n- steady on 1n2l2c1t, steady on 1n2l2c2t, "));
    }

    #[test]
    fn results_replace_results_and_nothing_else() {
        let old = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nThe rest.\n");
        let new = between_marks(&old, "new").unwrap();
        assert_eq!(new, format!("# Title\n\n{BEGIN}\n\nnew\n{END}\n\nThe rest.\n"));
        assert_eq!(between_marks(&new, "new").unwrap(), new);
        assert_eq!(between_marks("# Title\n", "new"), None);
    }

    #[test]
    fn lists_are_those_of_the_tests() {
        let tests = include_str!("../../../cli/tests/peers.rs");
        let listed = tests.split_once("$name:\n").and_then(|(_, rest)| rest.split_once(");")).unwrap().0;
        assert_eq!(listed.split_whitespace().collect::<Vec<_>>(), SCENARIOS);
        for machine in MACHINES {
            assert_eq!(tests.matches(&format!("\"{machine}\"")).count(), 1, "{machine}");
        }
        assert_eq!(tests.matches("played!(@on").count(), MACHINES.len());
    }
}
