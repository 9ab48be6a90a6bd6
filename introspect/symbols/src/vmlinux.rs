//! The vmlinux ELF file.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ktstr_introspect_memory::{MapError, Mapping, ReadFault, VirtAddr, VirtualMemory};
use object::LittleEndian;
use object::elf::{FileHeader64, PT_LOAD, SHN_UNDEF, SHT_SYMTAB, STT_FUNC, STT_NOTYPE, STT_OBJECT};
use object::read::elf::{FileHeader, ProgramHeader, SectionHeader, SectionTable, Sym};

use crate::{SymbolKind, SymbolTable, SymbolTableBuilder};

/// A vmlinux couldn't be used.
#[derive(Debug, thiserror::Error)]
pub enum VmlinuxError {
    /// The file couldn't be mapped.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Not a little-endian ELF64 file, or broken.
    #[error(
        "{path} isn't a readable little-endian ELF64 vmlinux: {reason}; a bzImage must be unpacked first"
    )]
    Elf {
        /// The file.
        path: PathBuf,
        /// What the ELF reader said.
        reason: object::read::Error,
    },
    /// The file was stripped.
    #[error(
        "{path} has no symbol table: expected .symtab; use an unstripped vmlinux, or kallsyms from guest memory"
    )]
    Stripped {
        /// The file.
        path: PathBuf,
    },
}

/// The running kernel isn't the one of the file.
#[derive(Debug, thiserror::Error)]
pub enum BuildIdError {
    /// The file says nothing.
    #[error("{path} has no GNU build id, so it can't be told whether it is the running kernel's")]
    FileHasNone {
        /// The file.
        path: PathBuf,
    },
    /// The guest's notes couldn't be read.
    #[error("cannot read the kernel's notes at {address}: {fault}")]
    Unreadable {
        /// Where they should be.
        address: VirtAddr,
        /// The fault.
        fault: ReadFault,
    },
    /// They differ.
    #[error("{path} has build id {expected} but the running kernel has {}: they are different builds", seen.as_deref().unwrap_or("none"))]
    Mismatch {
        /// The file.
        path: PathBuf,
        /// Its build id, in hexadecimal.
        expected: String,
        /// The guest's.
        seen: Option<String>,
    },
}

type Sections<'a> = SectionTable<'a, FileHeader64<LittleEndian>>;

/// A mapped vmlinux.
#[derive(Debug, Clone)]
pub struct Vmlinux {
    path: PathBuf,
    mapping: Arc<Mapping>,
}

impl Vmlinux {
    /// Opens the file and checks that its section table can be read.
    ///
    /// # Errors
    /// [`VmlinuxError::Map`] or [`VmlinuxError::Elf`].
    pub fn open(path: &Path) -> Result<Self, VmlinuxError> {
        let this = Self { path: path.into(), mapping: Arc::new(Mapping::open(path)?) };
        this.sections().map_err(|reason| this.broken(reason))?;
        Ok(this)
    }

    /// Where it was opened from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The whole file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.mapping.stable_bytes()
    }

    /// Its functions, variables and labels, at their link addresses.
    ///
    /// # Errors
    /// [`VmlinuxError::Stripped`] without `.symtab`, [`VmlinuxError::Elf`] when that is broken.
    pub fn symbols(&self) -> Result<SymbolTable, VmlinuxError> {
        let data = self.bytes();
        let sections = self.sections().map_err(|reason| self.broken(reason))?;
        let symbols =
            sections.symbols(LittleEndian, data, SHT_SYMTAB).map_err(|reason| self.broken(reason))?;
        let mut builder = SymbolTableBuilder::with_capacity(symbols.len(), symbols.len() * 24);
        for symbol in symbols.iter() {
            let kind = match symbol.st_type() {
                STT_FUNC => SymbolKind::Function,
                STT_OBJECT => SymbolKind::Object,
                STT_NOTYPE => SymbolKind::Label,
                _ => continue,
            };
            if symbol.st_shndx(LittleEndian) == SHN_UNDEF {
                continue;
            }
            let name = symbol.name(LittleEndian, symbols.strings()).map_err(|reason| self.broken(reason))?;
            if is_mapping_symbol(kind, name) {
                continue;
            }
            builder.push(name, VirtAddr(symbol.st_value(LittleEndian)), symbol.st_size(LittleEndian), kind);
        }
        let table = builder.build();
        if table.is_empty() {
            return Err(VmlinuxError::Stripped { path: self.path.clone() });
        }
        Ok(table)
    }

    /// The contents of a section, if there is one of that name with bytes in the file.
    #[must_use]
    pub fn section(&self, name: &str) -> Option<&[u8]> {
        let sections = self.sections().ok()?;
        let (_, section) = sections.section_by_name(LittleEndian, name.as_bytes())?;
        section.data(LittleEndian, self.bytes()).ok().filter(|bytes| !bytes.is_empty())
    }

    /// The link address of a section.
    #[must_use]
    pub fn section_address(&self, name: &str) -> Option<VirtAddr> {
        let sections = self.sections().ok()?;
        let (_, section) = sections.section_by_name(LittleEndian, name.as_bytes())?;
        Some(VirtAddr(section.sh_addr(LittleEndian)))
    }

    /// The bytes that the file loads at link address `at`, to the end of their segment.
    #[must_use]
    pub fn loaded_at(&self, at: VirtAddr) -> Option<&[u8]> {
        let header = FileHeader64::<LittleEndian>::parse(self.bytes()).ok()?;
        for program in header.program_headers(LittleEndian, self.bytes()).ok()? {
            let inside = at.0.wrapping_sub(program.p_vaddr(LittleEndian));
            if program.p_type(LittleEndian) == PT_LOAD && inside < program.p_filesz(LittleEndian) {
                let data = program.data(LittleEndian, self.bytes()).ok()?;
                return data.get(usize::try_from(inside).ok()?..);
            }
        }
        None
    }

    /// The GNU build id in hexadecimal, from `.notes`.
    #[must_use]
    pub fn build_id(&self) -> Option<String> {
        gnu_build_id(self.section(".notes")?)
    }

    /// Checks that the kernel in `memory`, moved by `symbols`' offset, is this file's.
    ///
    /// # Errors
    /// [`BuildIdError`] when it isn't, or when one of the two can't be told.
    pub fn check_build_id(&self, symbols: &SymbolTable, memory: &VirtualMemory) -> Result<(), BuildIdError> {
        let none = || BuildIdError::FileHasNone { path: self.path.clone() };
        let expected = self.build_id().ok_or_else(none)?;
        let link = self.section_address(".notes").ok_or_else(none)?;
        let mut notes = vec![0; self.section(".notes").ok_or_else(none)?.len()];
        let address = symbols.offset().apply(link);
        memory.read(address, &mut notes).map_err(|fault| BuildIdError::Unreadable { address, fault })?;
        match gnu_build_id(&notes) {
            Some(seen) if seen == expected => Ok(()),
            seen => Err(BuildIdError::Mismatch { path: self.path.clone(), expected, seen }),
        }
    }

    fn sections(&self) -> Result<Sections<'_>, object::read::Error> {
        FileHeader64::<LittleEndian>::parse(self.bytes())?.sections(LittleEndian, self.bytes())
    }

    fn broken(&self, reason: object::read::Error) -> VmlinuxError {
        VmlinuxError::Elf { path: self.path.clone(), reason }
    }
}

/// `$x`, `$d.1`: where code and data begin (ELF for the Arm 64-bit architecture, 5.7 "Mapping symbols"), which name
/// nothing. kallsyms leaves them out as well (scripts/mksysmap).
fn is_mapping_symbol(kind: SymbolKind, name: &[u8]) -> bool {
    kind == SymbolKind::Label
        && matches!(name, [b'$', b'x' | b'd', rest @ ..] if rest.is_empty() || rest[0] == b'.')
}

/// The build id, in hexadecimal, among the ELF notes in `notes` (`NT_GNU_BUILD_ID` of name `GNU`).
#[must_use]
pub fn gnu_build_id(mut notes: &[u8]) -> Option<String> {
    loop {
        let word = |at: usize| Some(u32::from_le_bytes(notes.get(at..at + 4)?.try_into().ok()?));
        let (names, descs, kind) = (word(0)? as usize, word(4)? as usize, word(8)?);
        let desc_at = 12usize.checked_add(names.checked_next_multiple_of(4)?)?;
        let end = desc_at.checked_add(descs)?;
        if kind == 3 && notes.get(12..12 + names.min(4)) == Some(b"GNU\0") {
            return Some(notes.get(desc_at..end)?.iter().map(|byte| format!("{byte:02x}")).collect());
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

#[cfg(test)]
mod tests;
