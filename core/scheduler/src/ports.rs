//! What finding a scheduler's program needs of the world.

use std::path::{Path, PathBuf};

/// Why a program could not be built or looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The build failed; `tail` is the end of what it printed.
    #[error("building package {package:?} with profile {profile:?} in {workspace}: {status}{}", tail_of(.tail))]
    Build {
        /// The cargo package.
        package: String,
        /// The cargo profile.
        profile: String,
        /// Where it was built.
        workspace: PathBuf,
        /// How cargo ended.
        status: String,
        /// The end of what it printed; empty if nothing.
        tail: String,
    },
    /// cargo or the file system refused.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done and with what.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// cargo's answer could not be understood.
    #[error("{doing}: {why}")]
    Answer {
        /// What was being done and with what.
        doing: String,
        /// What is wrong with the answer.
        why: String,
    },
}

fn tail_of(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!("; it said:\n{}", tail.trim_end()) }
}

/// Programs on the host.
#[cfg_attr(test, mockall::automock)]
pub trait Programs {
    /// Is this an executable file?
    fn is_program(&self, path: &Path) -> bool;
    /// The program of that name on `$PATH`.
    fn on_path(&self, name: &str) -> Option<PathBuf>;
    /// True if the workspace around `dir` has a cargo package of that name.
    ///
    /// # Errors
    /// When cargo can't say.
    fn has_package(&self, dir: &Path, package: &str) -> Result<bool, ProgramError>;
    /// Builds that package and returns its program.
    ///
    /// # Errors
    /// When the build fails, or makes no program of that name.
    fn build(&self, dir: &Path, package: &str, profile: &str) -> Result<PathBuf, ProgramError>;
    /// Programs of an earlier build of that package, newest first.
    fn built_before(&self, dir: &Path, package: &str, profile: &str) -> Vec<PathBuf>;
}
