//! Finding QEMU, and booting machines with it.

use crate::template;
use crate::vm::QemuVm;
use ktstr_machine::{Accel, Hypervisor, MachineError, MachineSpec, Template, Vm, Wake};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const PROGRAM: &str = "qemu-system-x86_64";
const REMEDY: &str = "apt-get install --no-install-recommends qemu-system-x86";

/// A QEMU that boots machines in the modes `tcg` and `deterministic`.
#[derive(Debug, Clone)]
pub struct Qemu {
    program: PathBuf,
}

impl Qemu {
    /// The QEMU at `chosen` (a user's choice), else the first
    /// `qemu-system-x86_64` in the directories of `path` (as `$PATH` lists them).
    pub fn find(chosen: Option<&Path>, path: Option<&str>) -> Result<Self, MachineError> {
        let missing = |program: String, searched: String| MachineError::Missing {
            program,
            searched,
            remedy: REMEDY.to_string(),
        };
        if let Some(program) = chosen {
            return if program.is_file() {
                Ok(Self { program: program.to_path_buf() })
            } else {
                Err(missing(program.display().to_string(), " (named by KTSTR_QEMU)".to_string()))
            };
        }
        let path = path.unwrap_or_default();
        path.split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| Path::new(dir).join(PROGRAM))
            .find(|p| p.is_file())
            .map(|program| Self { program })
            .ok_or_else(|| missing(PROGRAM.to_string(), format!(" in PATH={path}")))
    }

    /// The program that is run.
    pub fn program(&self) -> &Path {
        &self.program
    }

    fn asking(&self) -> String {
        format!("running {} --version", self.program.display())
    }

    /// Such as `7.2.22`.
    fn version(&self) -> Result<String, MachineError> {
        let output =
            Command::new(&self.program).arg("--version").output().map_err(MachineError::os(self.asking()))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let word = text.split_whitespace().skip_while(|w| *w != "version").nth(1).map(str::to_string);
        word.ok_or_else(|| MachineError::Refused {
            doing: self.asking(),
            answer: format!("{:?}", text.trim()),
        })
    }
}

/// Major and minor number.
fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

impl Hypervisor for Qemu {
    fn describe(&self) -> Result<String, MachineError> {
        Ok(format!("QEMU {}", self.version()?))
    }

    /// Mended by QEMU's commit deba78709a ("accel/tcg: Always lock pages before
    /// translation"), which 8.1 is the first to have. A single thread never did so.
    fn loses_code_patches(&self, accel: Accel) -> Result<bool, MachineError> {
        if accel != Accel::Tcg {
            return Ok(false);
        }
        let version = self.version()?;
        match numbers(&version) {
            Some(numbers) => Ok(numbers < (8, 1)),
            None => Err(MachineError::Refused { doing: self.asking(), answer: format!("{version:?}") }),
        }
    }

    fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Vm>, MachineError> {
        if spec.accel == Accel::Kvm {
            return Err(MachineError::Unsupported {
                accel: spec.accel,
                what: "QEMU serves the modes tcg and deterministic; kvm is served by the VMM of our own"
                    .to_string(),
            });
        }
        Ok(Box::new(QemuVm::boot(&self.program, spec)?))
    }

    fn template_identity(&self, spec: &MachineSpec) -> Result<Option<String>, MachineError> {
        if spec.accel == Accel::Kvm {
            return Ok(None);
        }
        template::identity(&self.program, spec).map(Some)
    }

    fn prepare(
        &self,
        spec: &MachineSpec,
        mailbox_pages: u64,
        dir: &Path,
        limit: Duration,
    ) -> Result<(), MachineError> {
        let loses_code_patches = || self.loses_code_patches(spec.accel).unwrap_or(false);
        template::prepare(&self.program, spec, mailbox_pages, dir, limit, &loses_code_patches)
    }

    fn resume(&self, saved: &Template, spec: &MachineSpec, wake: &Wake) -> Result<Box<dyn Vm>, MachineError> {
        Ok(Box::new(template::resume(&self.program, &saved.dir, spec, wake)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_qemu_says_where_it_was_sought_and_how_to_install_it() {
        let text = Qemu::find(None, Some("/nonexistent")).unwrap_err().to_string();
        assert!(text.contains("PATH=/nonexistent") && text.contains("apt-get install"), "{text}");
        let text = Qemu::find(Some(Path::new("/no/qemu")), None).unwrap_err().to_string();
        assert!(text.contains("/no/qemu") && text.contains("KTSTR_QEMU"), "{text}");
    }

    #[test]
    fn only_a_qemu_before_8_1_with_many_threads_loses_code_patches() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let loses = |version: &str, accel| {
            let program = dir.path().join(format!("qemu-{version}"));
            let script = format!("#!/bin/sh\necho 'QEMU emulator version {version} (Debian 1:1)'\n");
            std::fs::write(&program, script).unwrap();
            std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
            let qemu = Qemu { program };
            // Another test's fork may hold the script open for writing for a moment.
            (0..100).find_map(|_| match qemu.loses_code_patches(accel) {
                Err(MachineError::Os { source, .. }) if source.raw_os_error() == Some(libc::ETXTBSY) => {
                    std::thread::sleep(Duration::from_millis(20));
                    None
                }
                other => Some(other.ok()),
            })
        };
        assert_eq!(loses("7.2.22", Accel::Tcg), Some(Some(true)));
        assert_eq!(loses("8.0.5", Accel::Tcg), Some(Some(true)));
        assert_eq!(loses("8.1.0", Accel::Tcg), Some(Some(false)));
        assert_eq!(loses("10.0.2", Accel::Tcg), Some(Some(false)));
        assert_eq!(loses("7.2.22", Accel::Deterministic), Some(Some(false)));
        assert_eq!(loses("unknown", Accel::Tcg), Some(None));
    }

    #[test]
    fn the_first_directory_of_the_path_wins() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(PROGRAM), "").unwrap();
        let path = format!("/nonexistent:{}", dir.path().display());
        assert_eq!(Qemu::find(None, Some(&path)).unwrap().program(), dir.path().join(PROGRAM));
    }
}
