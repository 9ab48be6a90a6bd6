//! QEMU itself inside the lab, with its libraries and firmware, as a peer to measure against.

use crate::child::Child;
use crate::project::Project;
use anyhow::{Context, Result, bail};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `-M microvm` and `-kernel` load.
const FIRMWARE: [&str; 6] =
    ["bios-microvm.bin", "qboot.rom", "linuxboot.bin", "linuxboot_dma.bin", "pvh.bin", "kvmvapic.bin"];

/// The files of a QEMU that runs where nothing else is installed, program first. Each keeps its
/// place, so that the program finds them.
///
/// # Errors
/// It isn't installed, or lacks a file.
pub(super) fn files(project: &Project, qemu: &Path) -> Result<Vec<PathBuf>> {
    let program = on_path(qemu)?;
    let mut files = vec![program.clone()];
    let mut libraries = Command::new("ldd");
    libraries.arg(&program);
    let listed = Child::new(&project.logs, "kvm-lab: libraries of QEMU", libraries).keep_stdout().check()?;
    files.extend(absolute_paths(&listed.stdout));
    let mut folders = Command::new(&program);
    folders.args(["-L", "help"]);
    let listed = Child::new(&project.logs, "kvm-lab: folders of QEMU", folders).keep_stdout().check()?;
    for name in FIRMWARE {
        let folders = listed.stdout.lines().filter_map(|dir| std::fs::canonicalize(dir).ok());
        match folders.map(|dir| dir.join(name)).find(|path| path.exists()) {
            Some(path) => files.push(path),
            None => bail!("looking for QEMU's {name} in {}: not there", listed.stdout.trim()),
        }
    }
    Ok(files)
}

/// What `ldd` names by its path: `NAME => PATH (ADDRESS)`, and the loader as `PATH (ADDRESS)`.
fn absolute_paths(listed: &str) -> impl Iterator<Item = PathBuf> {
    listed
        .lines()
        .filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')))
        .map(PathBuf::from)
}

fn on_path(program: &Path) -> Result<PathBuf> {
    if program.components().count() > 1 {
        return Ok(program.to_owned());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file());
    found.with_context(|| {
        let name = program.file_name().unwrap_or(OsStr::new("QEMU")).display();
        format!("looking for {name} on PATH: not there; `cargo xtask setup` installs it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_taken_by_their_paths() {
        let listed = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f00)\n\
            \t/lib64/ld-linux-x86-64.so.2 (0x00007f01)\n\tlibgone.so => not found\n";
        let paths: Vec<_> = absolute_paths(listed).collect();
        let expected = ["/lib/x86_64-linux-gnu/libz.so.1", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths, expected.map(PathBuf::from));
    }
}
