//! What of an ELF file is loaded, and what it asks the dynamic linker for.

use crate::InitramfsError;
use object::elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64, PT_LOAD, SHT_NOBITS, SHT_SYMTAB};
use object::read::elf::{Dyn, FileHeader, ProgramHeader, SectionHeader};
use object::read::{ReadCache, ReadRef};
use object::{Endianness, LittleEndian};
use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;

/// Bytes of a 64-bit ELF file's header.
const ELF_HEADER: usize = 64;

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

/// Reads the dynamic section of a file, and little else of it. A static binary gives an
/// empty answer.
pub(crate) fn dynamic(path: &Path) -> Result<Dynamic, InitramfsError> {
    let file = File::open(path).map_err(InitramfsError::read(path))?;
    dynamic_in(path, &ReadCache::new(file))
}

fn dynamic_in<'data>(path: &Path, bytes: impl ReadRef<'data>) -> Result<Dynamic, InitramfsError> {
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
    forget_sections(&mut stripped);
    Cow::Owned(stripped)
}

/// e_shoff (8 bytes at 40), e_shentsize, e_shnum, e_shstrndx (58..64).
fn forget_sections(bytes: &mut [u8]) {
    bytes[40..48].fill(0);
    bytes[58..64].fill(0);
}

/// The part of an ELF file that is loaded: its first bytes, with another beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadedPart {
    /// The ELF header, which says that there are no sections.
    pub head: Vec<u8>,
    /// Bytes of the part, those of the header included.
    pub bytes: u64,
}

/// What [`without_debug`] leaves of a file, found without reading it: most of a test
/// binary is debug information. `None` if it is no plain 64-bit ELF file.
///
/// # Errors
/// When the file can't be read.
pub fn loaded_part(path: &Path) -> Result<Option<LoadedPart>, InitramfsError> {
    let mut file = File::open(path).map_err(InitramfsError::read(path))?;
    let Some(end) = loaded_end(&ReadCache::new(&mut file)) else { return Ok(None) };
    let mut head = vec![0; ELF_HEADER];
    file.rewind().and_then(|()| file.read_exact(&mut head)).map_err(InitramfsError::read(path))?;
    forget_sections(&mut head);
    Ok(Some(LoadedPart { head, bytes: end as u64 }))
}

/// [`without_debug`] of a file, of which no more is read.
///
/// # Errors
/// When the file can't be read.
pub fn read_without_debug(path: &Path) -> Result<Vec<u8>, InitramfsError> {
    let Some(part) = loaded_part(path)? else {
        return std::fs::read(path).map_err(InitramfsError::read(path));
    };
    let mut bytes = Vec::with_capacity(part.bytes as usize);
    let file = File::open(path).map_err(InitramfsError::read(path))?;
    file.take(part.bytes).read_to_end(&mut bytes).map_err(InitramfsError::read(path))?;
    if let Some(head) = bytes.get_mut(..ELF_HEADER) {
        head.copy_from_slice(&part.head);
    }
    Ok(bytes)
}

/// The file without debug information but with its symbol table, so that a back-trace
/// has names (no lines). Anything else than a plain 64-bit ELF file comes back as it was.
pub fn with_symbols_only(bytes: &[u8]) -> Cow<'_, [u8]> {
    match keep_symbols(bytes) {
        Some(kept) => Cow::Owned(kept),
        None => Cow::Borrowed(bytes),
    }
}

/// The loaded part, then the symbol table, its strings and the section names, then a
/// section table in which what was left out is null (ELF gABI, chapter 4).
fn keep_symbols(bytes: &[u8]) -> Option<Vec<u8>> {
    const HEADER: usize = 64;
    let end = loaded_end(bytes)?;
    let header = FileHeader64::<LittleEndian>::parse(bytes).ok()?;
    let endian = header.endian().ok()?;
    let table = usize::try_from(header.e_shoff(endian)).ok()?;
    let (count, names) = (usize::from(header.e_shnum(endian)), usize::from(header.e_shstrndx(endian).0));
    let mut sections: Vec<Vec<u8>> =
        bytes.get(table..table + count * HEADER)?.chunks_exact(HEADER).map(<[u8]>::to_vec).collect();
    let sections_of = header.sections(endian, bytes).ok()?;
    let mut kept = bytes[..end].to_vec();
    for (index, section) in sections_of.iter().enumerate() {
        let kind = section.sh_type(endian);
        let (offset, size) = (section.sh_offset(endian), section.sh_size(endian));
        if kind == SHT_NOBITS || offset.saturating_add(size) <= end as u64 {
            continue;
        }
        let is_symbols_string = sections_of
            .iter()
            .any(|s| s.sh_type(endian) == SHT_SYMTAB && s.sh_link(endian) as usize == index);
        if kind == SHT_SYMTAB || is_symbols_string || index == names {
            let from = usize::try_from(offset).ok()?;
            let content = bytes.get(from..from.checked_add(usize::try_from(size).ok()?)?)?;
            kept.resize(kept.len().next_multiple_of(8), 0);
            // sh_offset is 8 bytes at 24.
            sections[index][24..32].copy_from_slice(&(kept.len() as u64).to_le_bytes());
            kept.extend_from_slice(content);
        } else {
            sections[index].fill(0);
        }
    }
    kept.resize(kept.len().next_multiple_of(8), 0);
    let new_table = kept.len() as u64;
    kept.extend(sections.concat());
    kept[40..48].copy_from_slice(&new_table.to_le_bytes());
    Some(kept)
}

/// Where the last byte that is loaded ends; `None` if it is no plain 64-bit ELF file.
fn loaded_end<'data>(bytes: impl ReadRef<'data>) -> Option<usize> {
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
    (end >= ELF_HEADER && end as u64 <= bytes.len().ok()?).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn our_own_binary_needs_libc() {
        let path = std::env::current_exe().unwrap();
        let dynamic = dynamic(&path).unwrap();
        assert!(dynamic.needed.iter().any(|n| n.starts_with("libc.so")), "{dynamic:?}");
        assert!(dynamic.interpreter.is_some());
    }

    #[test]
    fn a_binary_without_debug_information_still_runs() {
        let path = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let stripped = without_debug(&bytes);
        assert!(stripped.len() < bytes.len());
        assert!(read_without_debug(&path).unwrap() == *stripped);
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        std::fs::write(&copy, &stripped).unwrap();
        std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = Command::new(&copy).arg("--list").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("still_runs: test"), "{output:?}");
    }

    /// `readelf` is an oracle that we did not write.
    #[test]
    fn a_binary_with_symbols_only_runs_and_has_its_names() {
        let path = std::env::current_exe().unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let kept = with_symbols_only(&bytes);
        assert!(without_debug(&bytes).len() < kept.len() && kept.len() < bytes.len());
        let dir = tempfile::tempdir().unwrap();
        let copy = dir.path().join("copy");
        std::fs::write(&copy, &kept).unwrap();
        std::fs::set_permissions(&copy, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let output = Command::new(&copy).arg("--list").output().unwrap();
        assert!(String::from_utf8_lossy(&output.stdout).contains("has_its_names: test"), "{output:?}");
        let symbols = |file: &Path| {
            let output = Command::new("readelf").args(["--wide", "--symbols"]).arg(file).output().ok()?;
            Some(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        if let Some(theirs) = symbols(&path) {
            assert_eq!(symbols(&copy).unwrap(), theirs);
        }
    }

    #[test]
    fn what_is_no_elf_file_stays_as_it_is() {
        assert_eq!(&*without_debug(b"#!/bin/sh\n"), b"#!/bin/sh\n");
        assert_eq!(&*with_symbols_only(b"#!/bin/sh\n"), b"#!/bin/sh\n");
        let err = dynamic_in(Path::new("/x"), &b"#!/bin/sh\n"[..]).unwrap_err().to_string();
        assert!(err.contains("/x") && err.contains("ELF"), "{err}");
    }
}
