//! Has QEMU's main loop and its vCPUs take turns, without which a deterministic run is another one now and then: a
//! library that QEMU's process loads first (`LD_PRELOAD`, ld.so(8)). `turns/main.rs` tells why and how.

use ktstr_machine::{Accel, MachineError};
use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::os::fd::RawFd;

/// `turns/`, compiled.
#[cfg(target_arch = "x86_64")]
const LIBRARY: Option<&[u8]> = Some(include_bytes!("../turns/turns.so"));
#[cfg(not(target_arch = "x86_64"))]
const LIBRARY: Option<&[u8]> = None;

const NAME: &str = "ktstr-turns";
/// From Linux 6.3 on, which may not let memory files be run that don't ask for it (`vm.memfd_noexec`).
const MFD_EXEC: MFdFlags = MFdFlags::from_bits_retain(0x10);

/// The library, in memory.
///
/// # Errors
/// There is none for this processor, or no memory.
pub(crate) fn library() -> Result<File, MachineError> {
    let bytes =
        LIBRARY.ok_or_else(|| unsupported("hosts with another processor than x86-64 are not supported"))?;
    let make = |flags| memfd_create(NAME, MFdFlags::MFD_CLOEXEC | flags);
    let made = match make(MFD_EXEC) {
        Err(Errno::EINVAL) => make(MFdFlags::empty()),
        made => made,
    };
    let doing = "making a library for QEMU to load";
    let mut file = File::from(made.map_err(|e| MachineError::os(doing)(e.into()))?);
    file.write_all(bytes).map_err(MachineError::os(doing))?;
    Ok(file)
}

/// What `LD_PRELOAD` is to be for a child that inherits the library as `fd`: that first, then what is asked for already.
pub(crate) fn preload(fd: RawFd) -> OsString {
    let mut list = OsString::from(format!("/proc/self/fd/{fd}"));
    if let Some(more) = std::env::var_os("LD_PRELOAD").filter(|more| !more.is_empty()) {
        list.push(" ");
        list.push(more);
    }
    list
}

/// Looks whether process `pid` has loaded it.
///
/// # Errors
/// [`MachineError::Unsupported`] if it has not.
pub(crate) fn check(pid: u32) -> Result<(), MachineError> {
    let path = format!("/proc/{pid}/maps");
    let maps = std::fs::read_to_string(&path).map_err(MachineError::os(format!("reading {path}")))?;
    if maps.lines().any(|line| line.contains(&format!("/memfd:{NAME}"))) {
        return Ok(());
    }
    Err(unsupported(
        "QEMU has not loaded the library by which its main loop and vCPUs take turns, and runs would differ now and \
         then; that takes a QEMU that is dynamically linked and has no capabilities or set-user-ID bit, and \
         vm.memfd_noexec below 2",
    ))
}

fn unsupported(what: &str) -> MachineError {
    MachineError::Unsupported { accel: Accel::Deterministic, what: format!("{what}; use --accel tcg") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::process::Command;

    /// The toolchain that the committed library was built with; another one makes other code of the same source.
    const TOOLCHAIN: &str = "rustc 1.95.0 (59807616e 2026-04-14)";

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_committed_library_is_what_its_source_compiles_to() {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
        let version = Command::new(&rustc).arg("--version").output().unwrap();
        if String::from_utf8_lossy(&version.stdout).trim() != TOOLCHAIN {
            eprintln!("not compared: it takes {TOOLCHAIN}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("turns.so");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("turns/build.sh");
        let output = Command::new(&script).arg(&built).env("RUSTC", &rustc).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            std::fs::read(&built).unwrap() == LIBRARY.unwrap(),
            "turns.so is not what its source compiles to; run {}",
            script.display()
        );
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn a_program_loads_it_and_goes_on_as_before() {
        let library = library().unwrap();
        let path = format!("/proc/{}/fd/{}", std::process::id(), library.as_raw_fd());
        let output = Command::new("cat").arg("/proc/self/maps").env("LD_PRELOAD", path).output().unwrap();
        let maps = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && maps.contains("/memfd:ktstr-turns"), "{output:?}");
    }

    #[test]
    fn one_that_has_not_loaded_it_is_told() {
        let error = check(std::process::id()).unwrap_err();
        assert!(
            error.to_string().contains("take turns") && error.to_string().contains("use --accel tcg"),
            "{error}"
        );
    }
}
