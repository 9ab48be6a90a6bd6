//! Building a scheduler from crates.io, outside the workspace.

use super::Peer;
use crate::child::Child;
use crate::project::Project;
use crate::say;
use anyhow::{Context, Result};
use std::path::PathBuf;

/// What their build scripts compile BPF code with.
const CLANG: &str = "clang-19";

/// A scheduler, and where its program is or why there is none, in a line.
#[derive(Debug)]
pub(super) struct Build {
    pub(super) peer: &'static Peer,
    pub(super) program: Result<PathBuf, String>,
}

/// Builds one, unless it is there. A build that fails is a result.
pub(super) fn build(project: &Project, peer: &'static Peer) -> Result<Build> {
    let Peer { name, version } = peer;
    let home = project.target().join("peers");
    let root = home.join(format!("{name}-{version}"));
    let program = root.join("bin").join(name);
    if program.is_file() {
        println!("  {name} {version}: built before");
        return Ok(Build { peer, program: Ok(program) });
    }
    std::fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    println!("  {name} {version}: building");
    let mut command = project.cargo(["install", name, "--version", version, "--locked", "--jobs", "2"]);
    // They share most of what they are built from.
    command.arg("--root").arg(&root).env("CARGO_TARGET_DIR", home.join("build")).env("BPF_CLANG", CLANG);
    // The workspace's own toolchain file holds here, too; its flags for the tests don't.
    command.env_remove("RUSTFLAGS");
    let label = format!("peers: building {name}");
    let ended = Child::new(&project.logs, &label, command).run()?;
    println!("    took {}", say::duration(ended.elapsed));
    if ended.success && program.is_file() {
        return Ok(Build { peer, program: Ok(program) });
    }
    println!("  {}", ended.failure());
    Ok(Build { peer, program: Err(reason(&ended.output)) })
}

/// The line of a failed build's output that says why.
fn reason(output: &str) -> String {
    let lines: Vec<_> = output.lines().map(str::trim).collect();
    // cargo's own last words name only the package.
    let general = |line: &str| {
        line.starts_with("error: failed to compile") || line.starts_with("error: could not compile")
    };
    let error = lines.iter().find(|line| line.contains("error") && line.contains(": ") && !general(line));
    let last = lines.iter().rfind(|line| !line.is_empty());
    error.or(last).map_or_else(|| "it said nothing".to_owned(), ToString::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_the_reason() {
        let output = "   Compiling a v1\nsrc/bpf/main.bpf.c:7:1: error: unknown type name 'u128'\n\
                      error: could not compile `a`\nerror: failed to compile `a v1`\n";
        assert_eq!(reason(output), "src/bpf/main.bpf.c:7:1: error: unknown type name 'u128'");
        assert_eq!(reason("   Compiling a v1\nKilled\n\n"), "Killed");
        assert_eq!(reason(""), "it said nothing");
    }
}
