//! What came of the runs, as a table for people.

use super::build::Build;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// The kernel's own scheduler, in the names of tests.
pub(super) const BASELINE: &str = "eevdf";

/// What is between these marks in the document is written here.
const BEGIN: &str = "<!-- results: written by `cargo xtask peers` -->";
const END: &str = "<!-- end of results -->";

/// The scenarios and machines of cli/tests/peers.rs, in its order.
const SCENARIOS: [&str; 6] =
    ["steady", "oversubscribed", "cpuset_resize", "affinity_change", "mixed_workloads", "nested_task_move"];
const MACHINES: [&str; 4] = ["1n1l2c1t", "1n2l2c1t", "1n2l2c2t", "2n4l2c1t"];

/// One test's end.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Ending {
    /// As in the sidecar: `passed`, `failed`, `inconclusive` or `skipped`.
    outcome: String,
    /// Why, unless it passed.
    reasons: Vec<String>,
}

/// The ends of all tests, by name, and what they ran on.
#[derive(Debug, Default)]
pub(super) struct Results {
    endings: BTreeMap<String, Ending>,
    /// Kernel, mode and hypervisor; one, unless something is odd.
    platforms: BTreeSet<String>,
}

impl Results {
    /// From the sidecars of a run.
    pub(super) fn read(dir: &Path) -> Result<Self> {
        let mut results = Self::default();
        let entries = std::fs::read_dir(dir).with_context(|| format!("listing {}", dir.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.to_string_lossy().ends_with(".ktstr.json") {
                let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
                let sidecar =
                    serde_json::from_slice(&bytes).with_context(|| format!("reading {}", path.display()))?;
                results.add(&sidecar);
            }
        }
        Ok(results)
    }

    fn add(&mut self, sidecar: &Value) {
        let text = |key: &str| sidecar[key].as_str().unwrap_or("?").to_owned();
        let details = sidecar["result"]["details"].as_array();
        let reasons = details.into_iter().flatten().filter_map(|detail| detail["message"].as_str());
        let reasons = reasons.map(one_line).collect();
        self.endings.insert(text("test_name"), Ending { outcome: text("outcome"), reasons });
        self.platforms.insert(format!(
            "kernel {}, mode {}, {}",
            text("kernel_version"),
            text("accel"),
            text("hypervisor")
        ));
    }

    fn of(&self, scheduler: &str, scenario: &str, machine: &str) -> Option<&Ending> {
        self.endings.get(&format!("{scheduler}/{scenario}/{machine}"))
    }
}

/// All there is to tell.
pub(super) struct Report<'a> {
    /// Its cache key.
    pub(super) kernel: &'a str,
    pub(super) builds: &'a [Build],
    pub(super) results: &'a Results,
    /// Scheduler, and the grid that `cargo ktstr verifier` wrote.
    pub(super) sweeps: &'a [(&'static str, Option<Value>)],
}

impl Report<'_> {
    /// Every test and every sweep that could run has a result.
    pub(super) fn is_complete(&self) -> bool {
        let all = self.schedulers().all(|scheduler| {
            places().all(|(scenario, machine)| self.results.of(scheduler, scenario, machine).is_some())
        });
        all && self.sweeps.iter().all(|(_, grid)| grid.is_some())
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = String::new();
        let platforms: Vec<_> = self.results.platforms.iter().map(String::as_str).collect();
        let _ = writeln!(text, "Ran on: {} (`{}`).\n", platforms.join("; "), self.kernel);
        text += "## Overview\n\n";
        text += &self.overview();
        for scheduler in self.schedulers() {
            let _ = write!(text, "\n## {scheduler}\n\n{}", self.scenarios(scheduler));
        }
        text += "\n## Verifier sweep\n\n";
        text += &self.verifier();
        text
    }

    /// Those that ran.
    fn schedulers(&self) -> impl Iterator<Item = &'static str> {
        let built = self.builds.iter().filter(|build| build.program.is_ok()).map(|build| build.peer.name);
        std::iter::once(BASELINE).chain(built)
    }

    fn overview(&self) -> String {
        let mut text =
            "| scheduler | version | passed | failed | inconclusive | skipped | no result |\n|---|---|---|---|---|---|---|\n"
                .to_owned();
        let _ = writeln!(text, "| {BASELINE} | the kernel's | {} |", self.counts(BASELINE));
        for build in self.builds {
            let (name, version) = (build.peer.name, build.peer.version);
            let _ = match &build.program {
                Ok(_) => writeln!(text, "| {name} | {version} | {} |", self.counts(name)),
                Err(why) => writeln!(text, "| {name} | {version} | not built: {} | | | | |", cell(why)),
            };
        }
        text
    }

    fn counts(&self, scheduler: &str) -> String {
        let endings: Vec<_> = places().map(|(s, m)| self.results.of(scheduler, s, m)).collect();
        let count = |outcome: &str| {
            endings.iter().flatten().filter(|ending| ending.outcome == outcome).count().to_string()
        };
        let mut counts: Vec<_> = ["passed", "failed", "inconclusive", "skipped"].map(count).into();
        counts.push(endings.iter().filter(|ending| ending.is_none()).count().to_string());
        counts.join(" | ")
    }

    fn scenarios(&self, scheduler: &str) -> String {
        let mut text = format!("| scenario | {} |\n|---|---|---|---|---|\n", MACHINES.join(" | "));
        for scenario in SCENARIOS {
            let outcomes = MACHINES.map(|machine| {
                self.results.of(scheduler, scenario, machine).map_or("no result", |end| word(&end.outcome))
            });
            let _ = writeln!(text, "| {scenario} | {} |", outcomes.join(" | "));
        }
        let bad = places().filter_map(|(scenario, machine)| {
            let ending = self.results.of(scheduler, scenario, machine)?;
            (ending.outcome != "passed").then_some((scenario, machine, ending))
        });
        let mut lines = String::new();
        for (scenario, machine, ending) in bad {
            let first = ending.reasons.first().map_or("without a reason", String::as_str);
            let more = match ending.reasons.len() {
                0 | 1 => String::new(),
                n => format!(" (and {} more)", n - 1),
            };
            let _ = writeln!(lines, "- {scenario} on {machine}: `{}`{more}", first.replace('`', "'"));
        }
        if !lines.is_empty() {
            let _ = write!(text, "\n{lines}");
        }
        text
    }

    fn verifier(&self) -> String {
        let mut text =
            "| scheduler | machine | outcome | programs | instructions verified |\n|---|---|---|---|---|\n"
                .to_owned();
        for (scheduler, grid) in self.sweeps {
            let cells = grid.as_ref().and_then(|grid| grid["cells"].as_array());
            let Some(cells) = cells else {
                let _ = writeln!(text, "| {scheduler} | | no result | | |");
                continue;
            };
            for cell in cells {
                let insns = cell["verified_insns"].as_object();
                let total: u64 = insns.iter().flat_map(|all| all.values()).filter_map(Value::as_u64).sum();
                let programs = insns.map_or(0, serde_json::Map::len);
                let outcome = cell["outcome"].as_str().unwrap_or("?");
                let detail = cell["detail"].as_str().map(one_line).filter(|detail| !detail.is_empty());
                let _ = writeln!(
                    text,
                    "| {scheduler} | {} | {outcome}{} | {programs} | {total} |",
                    cell["topology"].as_str().unwrap_or("?"),
                    detail.map(|detail| format!(": {}", self::cell(&detail))).unwrap_or_default()
                );
            }
        }
        text
    }
}

/// Puts the results into the document, between its marks.
pub(super) fn write(document: &Path, results: &str) -> Result<()> {
    let old = std::fs::read_to_string(document).with_context(|| format!("reading {}", document.display()))?;
    let new = between_marks(&old, results)
        .with_context(|| format!("{}: expected the lines {BEGIN:?} and {END:?}", document.display()))?;
    std::fs::write(document, new).with_context(|| format!("writing {}", document.display()))
}

fn between_marks(old: &str, results: &str) -> Option<String> {
    let (head, rest) = old.split_once(BEGIN)?;
    let (_, tail) = rest.split_once(END)?;
    Some(format!("{head}{BEGIN}\n\n{results}\n{END}{tail}"))
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
    use crate::peers::PEERS;
    use serde_json::json;
    use std::path::PathBuf;

    fn sidecar(name: &str, outcome: &str, messages: &[&str]) -> Value {
        let details: Vec<_> = messages.iter().map(|message| json!({ "message": message })).collect();
        json!({
            "test_name": name, "outcome": outcome, "result": { "details": details },
            "kernel_version": "6.12.1", "accel": "tcg", "hypervisor": "QEMU 7.2",
        })
    }

    #[test]
    fn failures_and_gaps_are_told() {
        let mut results = Results::default();
        results.add(&sidecar("scx_bpfland/steady/1n1l2c1t", "passed", &[]));
        results.add(&sidecar("scx_bpfland/steady/2n4l2c1t", "failed", &["unfair: 40%\nmore", "stuck"]));
        let builds = [
            Build { peer: &PEERS[0], program: Ok(PathBuf::from("/p")) },
            Build { peer: &PEERS[1], program: Err("a | b".to_owned()) },
        ];
        let grid = json!({ "cells": [
            { "topology": "4cpu-1llc-nosmt", "outcome": "pass", "detail": "", "verified_insns": { "a": 3, "b": 4 } },
        ] });
        let sweeps = [("scx_bpfland", Some(grid)), ("scx_rusty", None)];
        let report = Report { kernel: "key", builds: &builds, results: &results, sweeps: &sweeps };
        assert!(!report.is_complete());
        let text = report.markdown();
        for part in [
            "Ran on: kernel 6.12.1, mode tcg, QEMU 7.2 (`key`).",
            "| scx_bpfland | 1.1.4 | 1 | 1 | 0 | 0 | 22 |",
            "| scx_rusty | 1.1.4 | not built: a \\| b | | | | |",
            "| steady | pass | no result | no result | **fail** |",
            "- steady on 2n4l2c1t: `unfair: 40%` (and 1 more)",
            "| scx_bpfland | 4cpu-1llc-nosmt | pass | 2 | 7 |",
            "| scx_rusty | | no result | | |",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
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
        assert!(tests.contains(&format!("$name: {});", SCENARIOS.join(" "))));
        for machine in MACHINES {
            assert_eq!(tests.matches(&format!("\"{machine}\"")).count(), 1, "{machine}");
        }
        assert_eq!(tests.matches("played!(@on").count(), MACHINES.len());
    }
}
