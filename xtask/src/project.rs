//! Where the project is, and how its tools are called.

use anyhow::{Context, Result};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The checkout that this program was started in.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    /// The workspace's folder.
    pub(crate) root: PathBuf,
    /// Where children's output is kept.
    pub(crate) logs: PathBuf,
}

impl Project {
    /// Cargo tells where xtask's package is; the workspace is one up.
    pub(crate) fn find() -> Result<Self> {
        let package = std::env::var_os("CARGO_MANIFEST_DIR")
            .context("finding the project: CARGO_MANIFEST_DIR is not set; run it as `cargo xtask …`")?;
        let root = Path::new(&package).parent().context("finding the project: xtask has no parent folder")?;
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(dir) => root.join(dir),
            None => root.join("target"),
        };
        let logs = target.join("xtask");
        std::fs::create_dir_all(&logs).with_context(|| format!("creating {}", logs.display()))?;
        Ok(Self { root: root.to_owned(), logs })
    }

    /// Where cargo builds.
    pub(crate) fn target(&self) -> &Path {
        self.logs.parent().unwrap_or(&self.root)
    }

    /// Cargo in the workspace's folder, without colours: its output goes through
    /// a log file and is read again.
    pub(crate) fn cargo<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
            .current_dir(&self.root)
            .env("CARGO_TERM_COLOR", "never")
            .env("CARGO_TERM_PROGRESS_WHEN", "never")
            .args(args);
        command
    }

    /// `cargo ktstr …`, from this checkout rather than from what is installed.
    pub(crate) fn ktstr(&self, args: &[&str]) -> Command {
        let mut command =
            self.cargo(["run", "--quiet", "-p", "ktstr", "--bin", "cargo-ktstr", "--", "ktstr"]);
        command.args(args);
        command
    }

    /// A path as people read it: relative to the checkout if it is in there.
    pub(crate) fn shown<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}
