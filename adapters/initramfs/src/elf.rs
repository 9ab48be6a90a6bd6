//! What of an ELF file is loaded, and what it asks the dynamic linker for.

use crate::InitramfsError;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64, PT_LOAD};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};
use object::{Endianness, LittleEndian};
use std::borrow::Cow;
use std::path::Path;

/// What the dynamic linker is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dynamic {
    /// `PT_INTERP`, the dynamic linker itself.
    pub(crate) interpreter: Option<String>,
    /// `DT_NEEDED`.
    pub(crate) needed: Vec<String>,
    /// `DT_RPATH` and `DT_RUNPATH`, split, `$ORIGIN` not yet replaced.
    pub(crate) run_paths: Vec<String>,
}

/// Reads the dynamic section. A static binary gives an empty answer.
pub(crate) fn dynamic(path: &Path, bytes: &[u8]) -> Result<Dynamic, InitramfsError> {
    let bad =
        |why: &dyn std::fmt::Display| InitramfsError::Elf { path: path.to_path_buf(), why: why.to_string() };
    let header = FileHeader64::<Endianness>::parse(bytes).map_err(|e| bad(&e))?;
    let endian = header.endian().map_err(|e| bad(&e))?;
    let mut found = Dynamic::default();
    let segments = header.program_headers(endian, bytes).map_err(|e| bad(&e))?;
    for segment in segments {
        if let Some(name) = segment.interpreter(endian, bytes).map_err(|e| bad(&e))? {
            found.interpreter = Some(text(name));
        }
    }
    let sections = header.sections(endian, bytes).map_err(|e| bad(&e))?;
    let Some((entries, link)) = sections.dynamic(endian, bytes).map_err(|e| bad(&e))? else {
        return Ok(found);
    };
    let strings = sections.strings(endian, bytes, link).map_err(|e| bad(&e))?;
    for entry in entries {
        let tag = entry.d_tag(endian);
        let string = || entry.string(endian, strings).map(text).map_err(|e| bad(&e));
        if tag == DT_NEEDED {
            found.needed.push(string()?);
        } else if tag == DT_RPATH || tag == DT_RUNPATH {
            found.run_paths.extend(string()?.split(':').map(String::from));
        }
    }
    Ok(found)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The file without what is never loaded: debug information, symbol table and
/// section headers. Such a file runs as before; only names in back-traces go.
///
/// Anything that is not a plain 64-bit ELF file comes back as it was.
pub fn without_debug(bytes: &[u8]) -> Cow<'_, [u8]> {
    let Some(end) = loaded_end(bytes) else { return Cow::Borrowed(bytes) };
    let mut stripped = bytes[..end].to_vec();
    // e_shoff (8 bytes at 40), e_shentsize, e_shnum, e_shstrndx (58..64).
    stripped[40..48].fill(0);
    stripped[58..64].fill(0);
    Cow::Owned(stripped)
}

fn loaded_end(bytes: &[u8]) -> Option<usize> {
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let table =
        header.e_phoff(endian) + u64::from(header.e_phnum(endian)) * u64::from(header.e_phentsize(endian));
    let segments = header.program_headers(endian, bytes).ok()?;
    let loaded = segments
        .iter()
        .filter(|s| s.p_type(endian) == PT_LOAD)
        .map(|s| s.p_offset(endian).saturating_add(s.p_filesz(endian)))
        .max()?;
    let end = usize::try_from(loaded.max(table)).ok()?;
    (end >= 64 && end <= bytes.len()).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn our_own_binary_needs_libc() {
        let path = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let dynamic = dynamic(&path, &bytes).unwrap();
        assert!(dynamic.needed.iter().any(|n| n.starts_with("libc.so")), "{dynamic:?}");
        assert!(dynamic.interpreter.is_some());
    }

    #[test]
    fn a_binary_without_debug_information_still_runs() {
        let path = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let stripped = without_debug(&bytes);
        assert!(stripped.len() < bytes.len());
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        std::fs::write(&copy, &stripped).unwrap();
        std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = Command::new(&copy).arg("--list").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("still_runs: test"), "{output:?}");
    }

    #[test]
    fn what_is_no_elf_file_stays_as_it_is() {
        assert_eq!(&*without_debug(b"#!/bin/sh\n"), b"#!/bin/sh\n");
        let err = dynamic(Path::new("/x"), b"#!/bin/sh\n").unwrap_err().to_string();
        assert!(err.contains("/x") && err.contains("ELF"), "{err}");
    }
}
