//! The files under version control, in memory.

use anyhow::{Context, Result, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// All files of a workspace that git knows or would take.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub(super) files: Vec<SourceFile>,
}

/// One text file.
#[derive(Debug)]
pub(super) struct SourceFile {
    /// Relative to the workspace, with slashes.
    pub(super) path: String,
    pub(super) text: String,
}

impl Tree {
    /// Reads the text files under `root`, without those below `except`. Files
    /// that aren't UTF-8 are left out: no rule speaks of them.
    pub(super) fn read(root: &Path, except: &[&str]) -> Result<Self> {
        let mut files = Vec::new();
        for path in git_files(root)? {
            if except.iter().any(|prefix| path.starts_with(prefix)) {
                continue;
            }
            let full = root.join(&path);
            // Deleted but not yet committed, or a link to elsewhere.
            if !full.symlink_metadata().is_ok_and(|data| data.is_file()) {
                continue;
            }
            let bytes = std::fs::read(&full).with_context(|| format!("reading {}", full.display()))?;
            if let Ok(text) = String::from_utf8(bytes) {
                files.push(SourceFile { path, text });
            }
        }
        ensure!(!files.is_empty(), "reading {}: git knows no file there", root.display());
        Ok(Self { files })
    }

    /// The Rust files among them.
    pub(super) fn rust(&self) -> impl Iterator<Item = &SourceFile> {
        self.files.iter().filter(|file| file.path.ends_with(".rs"))
    }

    pub(super) fn get(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

fn git_files(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .stdin(Stdio::null())
        .output()
        .context("listing files: running git (the rules need it)")?;
    ensure!(
        output.status.success(),
        "listing files: git ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8(output.stdout).context("listing files: a name is not UTF-8")?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Tree {
    fn from(files: [(&str, &str); N]) -> Self {
        let file = |(path, text): (&str, &str)| SourceFile { path: path.to_owned(), text: text.to_owned() };
        Self { files: files.map(file).into() }
    }
}
