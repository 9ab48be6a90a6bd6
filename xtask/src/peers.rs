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
use crate::suite::Tally;
use anyhow::{Context, Result};
use build::Build;
use report::{Entry, Report};
use std::path::{Path, PathBuf};

pub(crate) const HELP: &str = "\
cargo xtask peers [--only NAME]... [--accel MODE]
cargo xtask peers --document

Builds schedulers of the scx project from crates.io (pinned; a few minutes each, once),
plays the canned scenarios under each on four machines, and under the kernel's own for
comparison, sweeps them through the verifier, and writes what came of it to docs/peers.md.
Five minutes for each scheduler where code is emulated.

  --only NAME   only this scheduler (scx_bpfland, …), may be given several times; the
                document keeps what is known of the others
  --accel MODE  auto, kvm, tcg or deterministic
  --document    run nothing, and write the document from what is known

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

/// What they are compared with.
const BASELINE: Peer = Peer { name: "eevdf", version: "kernel" };

/// The kernel with sched_ext.
const KERNEL: &str = "apt:6.12";
/// Larger machines take minutes each where code is emulated.
const SWEPT_CPUS: &str = "8";
const DOCUMENT: &str = "docs/peers.md";

pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let only = args.values("--only")?;
    let accel = args.values("--accel")?.pop();
    let document = args.flag("--document");
    args.finish()?;
    let peers = chosen(&only)?;
    if document {
        return write_document(project, &[], &[]);
    }

    say::heading("What this machine needs");
    setup::ensure(project, &[Part::Machine, Part::KernelBuild, Part::Tests, Part::Peers])?;
    say::heading("The schedulers");
    let builds = peers.iter().map(|peer| build::build(project, peer)).collect::<Result<Vec<_>>>()?;
    say::heading("The kernel and the tests");
    let kernel = prepare(project)?;
    let play = Play { project, kernel: &kernel, accel: accel.as_deref(), programs: programs(&builds) };
    if only.is_empty() {
        say::heading("The scenarios under the kernel's own scheduler");
        play.scenarios(&BASELINE)?;
    }
    for Build { peer, .. } in builds.iter().filter(|build| build.program.is_ok()) {
        say::heading(&format!("The scenarios and the verifier sweep under {}", peer.name));
        play.scenarios(peer)?;
        play.sweep(peer)?;
    }

    write_document(project, &peers, &builds)
}

/// True if nothing is missing of those chosen.
fn write_document(project: &Project, chosen: &[&Peer], builds: &[Build]) -> Result<bool> {
    let entries = std::iter::once(&BASELINE).chain(&PEERS).map(|peer| {
        let build = builds.iter().find(|build| build.peer.name == peer.name);
        Entry::read(peer, build.and_then(|build| build.program.as_ref().err().cloned()), &kept(project, peer))
    });
    let document = project.root.join(DOCUMENT);
    let old =
        std::fs::read_to_string(&document).with_context(|| format!("reading {}", document.display()))?;
    let report = Report { entries: entries.collect::<Result<_>>()? }.keeping(&old);
    say::heading("Results");
    println!("{}", report.overview());
    report::write(&document, &old, &report.markdown())?;
    println!("All of it is in {DOCUMENT} now.");
    Ok(chosen.iter().all(|peer| report.is_complete(peer.name)))
}

/// Where the results of one are kept, so that a run of another finds them.
fn kept(project: &Project, peer: &Peer) -> PathBuf {
    project.target().join("peers/results").join(format!("{}-{}", peer.name, peer.version))
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
    programs: Vec<(String, PathBuf)>,
}

impl Play<'_> {
    fn scenarios(&self, peer: &Peer) -> Result<()> {
        let filter = format!("test(/^ktstr\\/{}\\//)", peer.name);
        let dir = kept(self.project, peer);
        empty(&dir)?;
        let mut words = self.words("test");
        words.extend(["--", "-p", "ktstr", "--test", "peers", "--run-ignored", "all", "--no-fail-fast"]);
        words.extend(["-E", &filter]);
        let mut command = self.project.ktstr(&words);
        command.env("KTSTR_SIDECAR_DIR", &dir).env_remove("KTSTR_DURATION_S").envs(self.programs.clone());
        // A failing test's words are in the log; what it comes to is in the table.
        let verdict = |line: &str| {
            let word = line.split_whitespace().next().unwrap_or_default();
            matches!(word, "PASS" | "FAIL" | "TIMEOUT" | "error:")
        };
        let label = format!("peers: scenarios {}", peer.name);
        let ran = Child::new(&self.project.logs, &label, command).show(verdict).run()?;
        println!("  {}, took {}", Tally::of_nextest(&ran.output), say::duration(ran.elapsed));
        Ok(())
    }

    fn sweep(&self, peer: &Peer) -> Result<()> {
        let file = kept(self.project, peer).join(report::SWEEP);
        let place = file.display().to_string();
        let mut words = self.words("verifier");
        words.extend(["--scheduler", peer.name, "--max-cpus", SWEPT_CPUS, "--output", &place]);
        words.extend(["--", "-p", "ktstr", "--test", "peers"]);
        let mut command = self.project.ktstr(&words);
        command.envs(self.programs.clone());
        let label = format!("peers: verifier {}", peer.name);
        let ran = Child::new(&self.project.logs, &label, command).run()?;
        println!("  verifier sweep: took {}", say::duration(ran.elapsed));
        if !file.is_file() {
            println!("  {}", ran.failure());
        }
        Ok(())
    }

    fn words<'s>(&'s self, command: &'s str) -> Vec<&'s str> {
        let mut words = vec![command, "--kernel", self.kernel];
        words.extend(self.accel.iter().flat_map(|accel| ["--accel", *accel]));
        words
    }
}

/// Makes an empty folder: what an earlier run left must not pass for a result.
fn empty(dir: &Path) -> Result<()> {
    if dir.exists() {
        std::fs::remove_dir_all(dir).with_context(|| format!("emptying {}", dir.display()))?;
    }
    std::fs::create_dir_all(dir).with_context(|| format!("creating {}", dir.display()))
}

/// The variables that tell ktstr where the programs are.
fn programs(builds: &[Build]) -> Vec<(String, PathBuf)> {
    let variable = |build: &Build| {
        let program = build.program.as_ref().ok()?;
        Some((format!("KTSTR_SCHEDULER_BIN_{}", build.peer.name.to_uppercase()), program.clone()))
    };
    builds.iter().filter_map(variable).collect()
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
