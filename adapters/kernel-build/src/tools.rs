//! Is everything installed that a kernel build needs?

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ktstr_kernel::ports::BuildError;

/// Programs, and the Debian and Ubuntu packages that have them. `lz4` packs
/// the image (`CONFIG_KERNEL_LZ4`), `pahole` makes BTF, `xz` unpacks source.
const PROGRAMS: [(&str, &str); 8] = [
    ("make", "make"),
    ("gcc", "gcc"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("pahole", "dwarves"),
    ("lz4", "lz4"),
    ("xz", "xz-utils"),
];

/// Headers that the kernel's own build tools include, and their packages.
const HEADERS: [(&str, &str); 2] = [("gelf.h", "libelf-dev"), ("openssl/opensslv.h", "libssl-dev")];

/// Checks programs and headers; one error names all that is missing.
pub(crate) fn check(path: &OsStr) -> Result<(), BuildError> {
    let mut missing = Vec::new();
    let mut packages = Vec::new();
    let programs = PROGRAMS.iter().filter(|(program, _)| find(path, program).is_none());
    for (program, package) in programs {
        missing.push((*program).to_owned());
        packages.push(*package);
    }
    // Without a compiler it can't be asked for headers; they get a line then
    // too, since one who installs the compiler will need them next.
    let gcc = find(path, "gcc");
    for (header, package) in HEADERS {
        if !gcc.as_deref().is_some_and(|gcc| has_header(gcc, path, header)) {
            missing.push(format!("<{header}>"));
            packages.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    Err(BuildError::MissingTools { missing, remedy: remedy(path, &packages) })
}

fn remedy(path: &OsStr, packages: &[&str]) -> String {
    let packages = packages.join(" ");
    if find(path, "apt-get").is_some() {
        format!("install them: apt-get install -y --no-install-recommends {packages}")
    } else {
        format!("install the packages that Debian calls {packages}")
    }
}

/// The first executable file `program` in a list of directories.
pub(crate) fn find(path: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(path).map(|dir| dir.join(program)).find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    file.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Does the preprocessor find `header`? Asked of the compiler because only it
/// knows where it looks.
fn has_header(gcc: &Path, path: &OsStr, header: &str) -> bool {
    let started = Command::new(gcc)
        .args(["-E", "-x", "c", "-"])
        .env("PATH", path)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = started else {
        return false;
    };
    if let Some(mut stdin) = child.stdin.take() {
        // A compiler that doesn't read fails below.
        let _ = writeln!(stdin, "#include <{header}>");
    }
    child.wait().is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests;
