//! `cargo xtask lint`: format, clippy, and the rules that neither can keep.

mod allow_list;
mod arch_names;
mod arrows;
mod crate_count;
mod machine_paths;
mod manifests;
mod metadata;
mod paths;
mod purity;
mod style;
mod tokens;
mod tree;

use crate::args::Args;
use crate::child::Child;
use crate::project::Project;
use crate::say;
use crate::suite::is_cargo_progress;
use anyhow::{Context, Result};
use metadata::Package;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;
use tree::Tree;

pub(crate) const HELP: &str = "\
cargo xtask lint [--quick]

Checks the format, clippy without warnings, and the project's own rules: which
crate may depend on which, no operating system in core/, which libraries core/
may use, file headers and sizes, manifests, no paths of one machine, no names of
a processor's own in what the monitor (vmm/) offers, and the number of crates in
a user's build. All findings are shown, not the first only. The rules
and their exceptions are tables in xtask/src/lint/.

  --quick   only the format and the rules, which compiles nothing";

/// A rule that is broken somewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// The file, relative to the workspace.
    path: String,
    /// From 1; 0 means the whole file.
    line: usize,
    /// The rule's name.
    rule: &'static str,
    /// What was found, what is expected, what to do.
    text: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { path, line, rule, text } = self;
        match line {
            0 => write!(f, "{path}: {rule}: {text}"),
            _ => write!(f, "{path}:{line}: {rule}: {text}"),
        }
    }
}

/// The command itself.
pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let quick = args.flag("--quick");
    args.finish()?;
    run(project, quick)
}

/// The checks, all or those that compile nothing; true if nothing was found.
pub(crate) fn run(project: &Project, quick: bool) -> Result<bool> {
    let checks: [(&str, Check); 4] =
        [("format", format), ("rules", rules), ("clippy", clippy), ("crates in a user's build", crate_count)];
    let mut good = true;
    for (name, check) in checks.into_iter().take(if quick { 2 } else { usize::MAX }) {
        let started = Instant::now();
        let findings = check(project).with_context(|| format!("checking the {name}"))?;
        let took = say::duration(started.elapsed());
        match findings {
            Ok(note) => println!("  {name}: ok{note} ({took})"),
            Err(text) => {
                good = false;
                println!("  {name}: FAILED ({took})\n{text}");
            }
        }
    }
    Ok(good)
}

/// A check's outcome: a note for the good case, or the findings as text. An
/// error means that it could not be checked.
type Check = fn(&Project) -> Result<Result<String, String>>;

fn format(project: &Project) -> Result<Result<String, String>> {
    let words = ["fmt", "--all", "--check", "--", "--files-with-diff"];
    let ended = Child::new(&project.logs, "cargo fmt", project.cargo(words)).keep_stdout().run()?;
    if ended.success && ended.stdout.trim().is_empty() {
        return Ok(Ok(String::new()));
    }
    // Standard output names files; the rest is why one could not be checked.
    let lines = ended.output.lines().map(|line| project.shown(Path::new(line)).to_string());
    let list = lines.filter(|line| !line.is_empty()).map(|line| format!("    {line}\n")).collect::<String>();
    Ok(Err(format!("{list}  `cargo fmt --all` sets it right")))
}

fn clippy(project: &Project) -> Result<Result<String, String>> {
    let words = ["clippy", "--workspace", "--all-targets", "--keep-going", "--", "-D", "warnings"];
    // Its findings are what one came for: they are shown, progress isn't.
    let ended = Child::new(&project.logs, "cargo clippy", project.cargo(words))
        .show(|line| !is_cargo_progress(line))
        .run()?;
    Ok(if ended.success { Ok(String::new()) } else { Err("  clippy's findings are above".into()) })
}

fn rules(project: &Project) -> Result<Result<String, String>> {
    let tree = Tree::read(&project.root, &["xtask/fixtures/"])?;
    let packages = read_packages(project.cargo(["metadata"]), &project.root)?;
    let findings = check_rules(&tree, &packages, &project.root);
    if findings.is_empty() {
        return Ok(Ok(format!(", {} files, {} crates", tree.files.len(), packages.len())));
    }
    let lines: Vec<_> = findings.iter().map(|finding| format!("    {finding}")).collect();
    Ok(Err(format!("{}\n  {} findings", lines.join("\n"), findings.len())))
}

fn crate_count(project: &Project) -> Result<Result<String, String>> {
    let words =
        ["tree", "--locked", "-p", "ktstr", "--edges", "normal,build", "--prefix", "none", "--format", "{p}"];
    let ended = Child::new(&project.logs, "cargo tree", project.cargo(words)).keep_stdout().check()?;
    Ok(crate_count::judge(&ended.stdout))
}

/// The rules over files and manifests, sorted by place.
fn check_rules(tree: &Tree, packages: &[Package], root: &Path) -> Vec<Finding> {
    let mut findings = [
        arrows::check(packages),
        allow_list::check(packages),
        purity::check(tree),
        style::check(tree),
        manifests::check(tree, packages),
        machine_paths::check(tree, root),
        arch_names::check(tree),
    ]
    .concat();
    findings.sort();
    findings
}

/// What cargo says of the workspace's own crates; no registry is asked.
fn read_packages(mut metadata: Command, root: &Path) -> Result<Vec<Package>> {
    metadata.args(["--no-deps", "--offline", "--format-version", "1"]).stdin(Stdio::null());
    let output = metadata.output().context("running cargo metadata")?;
    anyhow::ensure!(
        output.status.success(),
        "cargo metadata ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    metadata::parse(&output.stdout, root)
}

#[cfg(test)]
mod tests {
    //! The deliberately wrong workspace in fixtures/wrong breaks each rule.

    use super::*;
    use std::path::PathBuf;

    #[test]
    fn each_rule_fails_on_the_wrong_workspace() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/wrong");
        let mut metadata = Command::new(env!("CARGO"));
        metadata.arg("metadata").current_dir(&root);
        let packages = read_packages(metadata, &root).unwrap();
        let findings = check_rules(&Tree::read(&root, &[]).unwrap(), &packages, &root);
        let seen: Vec<_> =
            findings.iter().map(|it| format!("{}:{}: {}", it.path, it.line, it.rule)).collect();
        let model = include_str!("../fixtures/wrong/findings.txt");
        let expected: Vec<_> = model.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(seen, expected, "{findings:#?}");
    }
}
