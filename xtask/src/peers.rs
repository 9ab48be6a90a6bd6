//! `cargo xtask peers`: schedulers that others wrote, under ktstr.
//!
//! Pinned releases from crates.io are built outside the workspace, run through
//! cli/tests/peers.rs and swept through the verifier. What came of it, failures included,
//! is the content of docs/peers.md.

mod build;
mod report;

use crate::args::{Args, UsageError};
use crate::child::Child;
use crate::project::Project;
use crate::say;
use crate::setup::{self, Part};
use crate::suite::{Tally, is_cargo_progress};
use anyhow::{Context, Result};
use build::Build;
use report::{Report, Results};
use std::path::{Path, PathBuf};

pub(crate) const HELP: &str = "\
cargo xtask peers [--only NAME]... [--accel MODE]

Builds schedulers of the scx project from crates.io (pinned; a few minutes each, once),
plays the canned scenarios under each on four machines, and under the kernel's own for
comparison, sweeps them through the verifier, and prints what came of it. A run of all
of them also writes docs/peers.md.

  --only NAME   only this scheduler (scx_bpfland, …); may be given several times
  --accel MODE  auto, kvm, tcg or deterministic

Exit code 1 if something has no result; a scheduler that fails is a result.";

/// A release that is tested with. Its name is that of its crate and its program.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

/// cli/tests/peers.rs declares each of them.
const PEERS: [Peer; 7] = [
    Peer { name: "scx_bpfland", version: "1.1.4" },
    Peer { name: "scx_rusty", version: "1.1.4" },
    Peer { name: "scx_flash", version: "1.1.4" },
    Peer { name: "scx_p2dq", version: "1.1.4" },
    Peer { name: "scx_cosmos", version: "1.1.7" },
    Peer { name: "scx_lavd", version: "1.1.4" },
    Peer { name: "scx_rustland", version: "1.1.4" },
];

/// The kernel with sched_ext.
const KERNEL: &str = "apt:6.12";
/// Larger machines take minutes each where code is emulated.
const SWEPT_CPUS: &str = "8";
const DOCUMENT: &str = "docs/peers.md";

pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let only = args.values("--only")?;
    let accel = args.values("--accel")?.pop();
    args.finish()?;
    let peers = chosen(&only)?;

    say::heading("What this machine needs");
    setup::ensure(project, &[Part::Machine, Part::KernelBuild, Part::Tests, Part::Peers])?;
    say::heading("The schedulers");
    let builds = peers.iter().map(|peer| build::build(project, peer)).collect::<Result<Vec<_>>>()?;
    say::heading("The kernel and the tests");
    let kernel = prepare(project)?;
    say::heading("The scenarios");
    let play = Play { project, kernel: &kernel, accel: accel.as_deref() };
    let results = play.scenarios(&builds)?;
    let mut sweeps = Vec::new();
    for build in builds.iter().filter(|build| build.program.is_ok()) {
        say::heading(&format!("The verifier on {}", build.peer.name));
        sweeps.push((build.peer.name, play.sweep(build)?));
    }

    let report = Report { kernel: &kernel, builds: &builds, results: &results, sweeps: &sweeps };
    let text = report.markdown();
    say::heading("Results");
    println!("{text}");
    if only.is_empty() {
        let document = project.root.join(DOCUMENT);
        report::write(&document, &text)?;
        println!("written to {DOCUMENT}");
    } else {
        println!("not written to {DOCUMENT}: that takes a run of all of them");
    }
    Ok(report.is_complete())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Peer>> {
    let known = |name: &String| PEERS.iter().any(|peer| peer.name == name);
    if let Some(name) = only.iter().find(|name| !known(name)) {
        let names: Vec<_> = PEERS.iter().map(|peer| peer.name).collect();
        let text = format!("there is no scheduler {name:?} here; there are: {}", names.join(", "));
        return Err(UsageError(text).into());
    }
    Ok(PEERS.iter().filter(|peer| only.is_empty() || only.iter().any(|name| name == peer.name)).collect())
}

/// The kernel's cache key. All is compiled here, so that no build runs beside a machine.
fn prepare(project: &Project) -> Result<String> {
    for (label, words) in [
        ("building ktstr", vec!["build", "-p", "ktstr", "--bins"]),
        ("building the tests", vec!["test", "-p", "ktstr", "--test", "peers", "--no-run"]),
    ] {
        Child::new(&project.logs, label, project.cargo(words)).check()?;
    }
    let command = project.ktstr(&["kernel", "build", KERNEL]);
    let got = Child::new(&project.logs, "peers: kernel", command).keep_stdout().check()?;
    let key = got.last_line().context("getting a kernel: no answer")?.to_owned();
    println!("  {key}");
    Ok(key)
}

/// How ktstr is called.
struct Play<'a> {
    project: &'a Project,
    kernel: &'a str,
    accel: Option<&'a str>,
}

impl Play<'_> {
    fn scenarios(&self, builds: &[Build]) -> Result<Results> {
        let names: Vec<_> =
            builds.iter().filter(|build| build.program.is_ok()).map(|build| build.peer.name).collect();
        let filter = format!("test(/^ktstr\\/({}|{})\\//)", report::BASELINE, names.join("|"));
        let dir = self.fresh("peers-results")?;
        let mut words = self.words("test");
        words.extend(["--", "-p", "ktstr", "--test", "peers", "--run-ignored", "all", "--no-fail-fast"]);
        words.extend(["-E", &filter]);
        let mut command = self.project.ktstr(&words);
        command.env("KTSTR_SIDECAR_DIR", &dir).env_remove("KTSTR_DURATION_S").envs(programs(builds));
        // A failing test's words are in the log; what it comes to is in the table.
        let verdict = |line: &str| {
            let word = line.split_whitespace().next().unwrap_or_default();
            matches!(word, "PASS" | "FAIL" | "TIMEOUT" | "error:") && !is_cargo_progress(line)
        };
        let ran = Child::new(&self.project.logs, "peers: scenarios", command).show(verdict).run()?;
        println!("  {}, took {}", Tally::of_nextest(&ran.output), say::duration(ran.elapsed));
        Results::read(&dir)
    }

    /// The sweep's own result file; `None` if it left none.
    fn sweep(&self, build: &Build) -> Result<Option<serde_json::Value>> {
        let name = build.peer.name;
        let file = self.fresh("peers-verifier")?.join(format!("{name}.json"));
        let place = file.display().to_string();
        let mut words = self.words("verifier");
        words.extend(["--scheduler", name, "--max-cpus", SWEPT_CPUS, "--output", &place]);
        words.extend(["--", "-p", "ktstr", "--test", "peers"]);
        let mut command = self.project.ktstr(&words);
        command.envs(programs(std::slice::from_ref(build)));
        let label = format!("peers: verifier {name}");
        let ran = Child::new(&self.project.logs, &label, command).run()?;
        println!("  took {}", say::duration(ran.elapsed));
        let Ok(bytes) = std::fs::read(&file) else {
            println!("  {}", ran.failure());
            return Ok(None);
        };
        let grid = serde_json::from_slice(&bytes).with_context(|| format!("reading {}", file.display()))?;
        Ok(Some(grid))
    }

    fn words<'s>(&'s self, command: &'s str) -> Vec<&'s str> {
        let mut words = vec![command, "--kernel", self.kernel];
        words.extend(self.accel.iter().flat_map(|accel| ["--accel", *accel]));
        words
    }

    /// An empty folder: what an earlier run left must not pass for a result.
    fn fresh(&self, name: &str) -> Result<PathBuf> {
        let dir = self.project.logs.join(name);
        if dir.exists() {
            std::fs::remove_dir_all(&dir).with_context(|| format!("emptying {}", dir.display()))?;
        }
        std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        Ok(dir)
    }
}

/// The variables that tell ktstr where the programs are.
fn programs(builds: &[Build]) -> impl Iterator<Item = (String, &Path)> {
    builds.iter().filter_map(|build| {
        let program = build.program.as_deref().ok()?;
        Some((format!("KTSTR_SCHEDULER_BIN_{}", build.peer.name.to_uppercase()), program))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_chosen() {
        let names = |only: &[&str]| {
            let only: Vec<_> = only.iter().map(ToString::to_string).collect();
            chosen(&only).map(|peers| peers.iter().map(|peer| peer.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), PEERS.len());
        assert_eq!(names(&["scx_rusty"]).unwrap(), ["scx_rusty"]);
        let error = names(&["scx_rustic"]).unwrap_err();
        assert!(error.is::<UsageError>() && error.to_string().contains("scx_bpfland"), "{error}");
    }

    #[test]
    fn every_peer_is_declared_by_the_tests() {
        let tests = include_str!("../../cli/tests/peers.rs");
        for Peer { name, .. } in &PEERS {
            assert!(tests.contains(&format!("binary = \"{name}\"")), "{name}");
            assert!(tests.contains(&format!(", \"{name}\");")), "{name}");
        }
    }
}
