//! Kernel trees of the user's.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use ktstr_kernel::crc_hex;
use ktstr_kernel::ports::{SourceError, TreeId, TreeState};

use crate::command::{self, CommandError, Commands};
use crate::file_error;

/// What every kernel tree has at its top.
const LANDMARKS: [&str; 2] = ["Makefile", "Kconfig"];

/// Names what `dir` holds at this moment.
///
/// Untracked files don't make a tree dirty: a file that takes part in a build
/// is named by a tracked Makefile or Kconfig, and kernel trees are full of
/// patches, logs and notes.
pub(crate) fn identify(commands: &Commands, dir: &Path) -> Result<TreeId, SourceError> {
    check(dir)?;
    let dir = fs::canonicalize(dir).map_err(file_error("opening the kernel tree", dir))?;
    let config = dir.join(".config");
    let config_hash = match fs::read(&config) {
        Ok(bytes) => Some(crc_hex(&bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(file_error("reading", config)(error)),
    };
    Ok(TreeId { state: git_state(commands, &dir)?, config_hash, dir })
}

/// Is it a kernel tree?
pub(crate) fn check(dir: &Path) -> Result<(), SourceError> {
    match LANDMARKS.iter().find(|name| !dir.join(name).is_file()) {
        None => Ok(()),
        Some(missing) => Err(SourceError::NotATree { path: dir.to_owned(), missing }),
    }
}

fn git_state(commands: &Commands, dir: &Path) -> Result<TreeState, SourceError> {
    // The repository of a directory further up says nothing about this tree,
    // which it may well ignore.
    let top = match git(commands, dir, &["rev-parse", "--show-cdup"]) {
        Ok(up) => up.trim().is_empty(),
        Err(CommandError::Failed { .. } | CommandError::NotInstalled { .. }) => false,
        Err(other) => return Err(SourceError::Other(Box::new(other))),
    };
    if !top {
        return Ok(TreeState::NotGit);
    }
    let Ok(commit) = git(commands, dir, &["rev-parse", "--verify", "HEAD"]) else {
        // A repository without a commit.
        return Ok(TreeState::NotGit);
    };
    let commit = commit.trim().to_owned();
    let changes = git(commands, dir, &["status", "--porcelain", "--untracked-files=no"])
        .map_err(|error| SourceError::Other(Box::new(error)))?;
    if changes.trim().is_empty() { Ok(TreeState::Clean { commit }) } else { Ok(TreeState::Dirty { commit }) }
}

fn git(commands: &Commands, dir: &Path, args: &[&str]) -> Result<String, CommandError> {
    let mut git = commands.command("git");
    git.arg("-C")
        .arg(dir)
        .args(args)
        // A look must not write to the user's repository.
        .env("GIT_OPTIONAL_LOCKS", "0");
    // Set while a git hook runs us, and then about another repository.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX"] {
        git.env_remove(name);
    }
    command::run("asking git about the kernel tree", &mut git)
}

#[cfg(test)]
mod tests;
