//! What the machine at hand is and has: distribution, rights, programs, headers.

use super::needs::{Distribution, Probe, Rights};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// The machine, as far as installing is concerned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Host {
    pub(super) distribution: Distribution,
    pub(super) rights: Rights,
}

impl Host {
    pub(super) fn look() -> Self {
        let os_release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
        let distribution =
            if in_path("apt-get") { Distribution::from_os_release(&os_release) } else { Distribution::Other };
        // The owner of a process's own folder is its effective user.
        let root = std::fs::metadata("/proc/self").is_ok_and(|data| data.uid() == 0);
        let rights = if root {
            Rights::Root
        } else if succeeds(Command::new("sudo").args(["-n", "true"])) {
            Rights::Sudo
        } else {
            Rights::None
        };
        Self { distribution, rights }
    }
}

impl Probe {
    /// Is it there? Looks at the thing, not at the package: it may have come
    /// another way.
    pub(super) fn present(self) -> bool {
        match self {
            Self::Program(name) => in_path(name),
            Self::Qemu(name) => match std::env::var_os("KTSTR_QEMU") {
                Some(chosen) => Path::new(&chosen).is_file(),
                None => in_path(name),
            },
            Self::Header(name) => {
                succeeds(Command::new("cc").args(["-fsyntax-only", "-include", name, "-x", "c", "/dev/null"]))
            }
            Self::CargoCommand(name) => {
                let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
                succeeds(Command::new(cargo).args([name, "--version"]))
            }
        }
    }
}

/// Can this package be installed from the lists there are?
pub(super) fn apt_knows(package: &str) -> bool {
    succeeds(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
}

/// Is there any package with such a name?
pub(super) fn apt_knows_any(prefix: &str) -> bool {
    let output = Command::new("apt-cache").args(["pkgnames", prefix]).stdin(Stdio::null()).output();
    output.is_ok_and(|output| !output.stdout.is_empty())
}

fn in_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| is_program(&dir.join(name)))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

/// What can't be started doesn't succeed.
fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_tell_there_from_not_there() {
        assert!(Probe::Program("sh").present());
        assert!(!Probe::Program("no-such-program-here").present());
        assert!(!Probe::Header("no/such/header.h").present());
        assert!(!Probe::CargoCommand("no-such-subcommand").present());
    }
}
