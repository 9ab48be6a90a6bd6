//! The port to schedulers' programs on the host: files, `$PATH`, cargo packages.
//!
//! [`HostPrograms`] runs `cargo metadata` and `cargo build`; it may touch the target
//! directory of the user's workspace through cargo, and nothing else.

use ktstr_scheduler::ports::{ProgramError, Programs};
use serde::Deserialize;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

/// Bytes of a failed build's output that are shown.
const TAIL: usize = 4000;

/// The programs of this host.
#[derive(Debug, Clone, Default)]
pub struct HostPrograms {
    /// `$PATH`.
    pub path: Option<OsString>,
    /// The cargo to run; `$CARGO`, or `cargo`.
    pub cargo: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
}

/// A line of `cargo build --message-format json`.
#[derive(Deserialize)]
struct Message {
    reason: String,
    executable: Option<PathBuf>,
    target: Option<Target>,
    message: Option<Diagnostic>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}

#[derive(Deserialize)]
struct Diagnostic {
    rendered: Option<String>,
}

impl HostPrograms {
    fn cargo(&self) -> Command {
        Command::new(self.cargo.as_deref().unwrap_or(Path::new("cargo")))
    }

    fn metadata(&self, dir: &Path) -> Result<Metadata, ProgramError> {
        let doing = format!("asking cargo for the packages around {}", dir.display());
        let os = |source| ProgramError::Os { doing: doing.clone(), source };
        let mut command = self.cargo();
        command.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(dir);
        let output = command.stdin(Stdio::null()).output().map_err(os)?;
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr).trim().to_string();
            return Err(ProgramError::Answer { doing, why });
        }
        serde_json::from_slice(&output.stdout).map_err(|e| ProgramError::Answer { doing, why: e.to_string() })
    }
}

impl Programs for HostPrograms {
    fn is_program(&self, path: &Path) -> bool {
        path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    }

    fn on_path(&self, name: &str) -> Option<PathBuf> {
        let path = self.path.as_ref()?;
        std::env::split_paths(path).map(|dir| dir.join(name)).find(|program| self.is_program(program))
    }

    fn has_package(&self, dir: &Path, package: &str) -> Result<bool, ProgramError> {
        // A binary that was moved away from where it was built has no workspace around.
        if !dir.is_dir() {
            return Ok(false);
        }
        Ok(self.metadata(dir)?.packages.iter().any(|p| p.name == package))
    }

    fn build(&self, dir: &Path, package: &str, profile: &str) -> Result<PathBuf, ProgramError> {
        let doing = format!("building package {package:?}");
        let os = |source| ProgramError::Os { doing: doing.clone(), source };
        let mut command = self.cargo();
        command.args(["build", "--package", package, "--bin", package, "--profile", profile]);
        command.args(["--message-format", "json-render-diagnostics"]).current_dir(dir);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(os)?;
        // Read side by side, so that neither pipe fills up.
        let (stderr, stdout) = (child.stderr.take(), child.stdout.take());
        let (program, said) = std::thread::scope(|scope| {
            let said = scope.spawn(move || stderr.map(std::io::read_to_string));
            let program = stdout.and_then(|out| executable(BufReader::new(out), package));
            (program, said.join().ok().flatten().and_then(Result::ok).unwrap_or_default())
        });
        let status = child.wait().map_err(os)?;
        match program {
            Some(program) if status.success() => Ok(program),
            None if status.success() => Err(ProgramError::Answer {
                doing,
                why: format!("cargo made no program of that name; is there a binary target {package:?}?"),
            }),
            _ => Err(ProgramError::Build {
                package: package.to_string(),
                profile: profile.to_string(),
                workspace: dir.to_path_buf(),
                status: status.to_string(),
                tail: tail(&said).to_string(),
            }),
        }
    }

    fn built_before(&self, dir: &Path, package: &str, profile: &str) -> Vec<PathBuf> {
        // What can't be found out is no program; the failed build is the news.
        let Ok(target) = self.metadata(dir).map(|m| m.target_directory) else { return Vec::new() };
        // Cargo's directory for the profile `dev` is `debug`.
        let of = |profile: &str| if profile == "dev" { "debug".to_string() } else { profile.to_string() };
        let mut found: Vec<(SystemTime, PathBuf)> = [of(profile), "release".to_string(), "debug".to_string()]
            .iter()
            .map(|dir| target.join(dir).join(package))
            .filter(|program| self.is_program(program))
            .filter_map(|program| Some((program.metadata().ok()?.modified().ok()?, program)))
            .collect();
        found.sort();
        found.dedup();
        found.into_iter().rev().map(|(_, program)| program).collect()
    }
}

/// The program that a build's messages name.
fn executable(messages: impl BufRead, package: &str) -> Option<PathBuf> {
    let mut program = None;
    for line in messages.lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Message>(&line) else { continue };
        if let Some(text) = message.message.and_then(|m| m.rendered) {
            eprint!("{text}");
        }
        if message.reason == "compiler-artifact" && message.target.is_some_and(|t| t.name == package) {
            program = message.executable.or(program);
        }
    }
    program
}

fn tail(text: &str) -> &str {
    let mut at = text.len().saturating_sub(TAIL);
    while !text.is_char_boundary(at) {
        at += 1;
    }
    &text[at..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A workspace of one package, whose program says what `body` does.
    fn package(body: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("src")).unwrap();
        let manifest =
            "[package]\nname = \"scx-none\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n";
        fs::write(dir.path().join("Cargo.toml"), manifest).unwrap();
        fs::write(dir.path().join("src/main.rs"), body).unwrap();
        dir
    }

    fn host() -> HostPrograms {
        HostPrograms { path: std::env::var_os("PATH"), cargo: std::env::var_os("CARGO").map(PathBuf::from) }
    }

    #[test]
    fn a_package_is_built_with_its_profile() {
        let dir = package("fn main() {}\n");
        let host = host();
        assert!(host.has_package(dir.path(), "scx-none").unwrap());
        assert!(!host.has_package(dir.path(), "scx-other").unwrap());
        assert_eq!(host.built_before(dir.path(), "scx-none", "dev"), Vec::<PathBuf>::new());
        let program = host.build(dir.path(), "scx-none", "dev").unwrap();
        assert!(program.ends_with("debug/scx-none") && host.is_program(&program), "{}", program.display());
        assert_eq!(host.built_before(dir.path(), "scx-none", "dev"), [program]);
        let error = host.build(dir.path(), "scx-none", "no-such").unwrap_err().to_string();
        assert!(error.contains("no-such"), "{error}");
    }

    #[test]
    fn a_failed_build_says_what_the_compiler_said() {
        let dir = package("fn main() { nonsense }\n");
        let error = host().build(dir.path(), "scx-none", "dev").unwrap_err().to_string();
        assert!(error.contains("profile \"dev\"") && error.contains("could not compile"), "{error}");
        assert!(error.contains("nonsense"), "{error}");
    }

    #[test]
    fn the_path_holds_programs_not_just_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("plain"), "x").unwrap();
        let host = HostPrograms { path: Some(dir.path().into()), cargo: None };
        assert_eq!(host.on_path("plain"), None);
        fs::set_permissions(dir.path().join("plain"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(host.on_path("plain"), Some(dir.path().join("plain")));
    }
}
