//! The sections of debug information in an ELF file.

use std::borrow::Cow;

use addr2line::gimli::{self, DwarfSections, EndianSlice, LittleEndian, Section, SectionId};
use ktstr_introspect_memory::VirtAddr;
use object::elf::{ELFCOMPRESS_ZLIB, ELFCOMPRESS_ZSTD, FileHeader64};
use object::read::elf::{CompressionHeader as _, FileHeader, SectionHeader};
use object::{CompressedData, CompressionFormat};

pub(crate) type Slice<'a> = EndianSlice<'a, LittleEndian>;
pub(crate) type Dwarf<'a> = gimli::Dwarf<Slice<'a>>;

/// Sections that nothing here reads: a vmlinux has hundreds of megabytes of them.
const UNREAD: [SectionId; 4] =
    [SectionId::DebugLoc, SectionId::DebugLocLists, SectionId::DebugMacinfo, SectionId::DebugMacro];

/// A section of a kernel built with everything takes 400 MiB.
const MAX_SECTION: u64 = 4 << 30;
/// Zlib makes a byte of at most 1032 (zlib.net, "Maximum Compression Factor"); debug information is far from that.
const MAX_RATIO: u64 = 1032;

/// Debug information can't be read.
#[derive(Debug, thiserror::Error)]
pub enum DwarfError {
    /// Not a little-endian ELF64 file, or broken.
    #[error("cannot look for debug information: not a readable little-endian ELF64 file: {0}")]
    Elf(#[from] object::read::Error),
    /// The file has no debug information.
    #[error(
        "the file has no {section}: expected a vmlinux built with CONFIG_DEBUG_INFO_DWARF5 or similar, unstripped"
    )]
    NoDwarf {
        /// The first section that is missing.
        section: &'static str,
    },
    /// A compressed section can't be decompressed.
    #[error(
        "section {section} can't be decompressed: {reason}; objcopy --decompress-debug-sections might tell more"
    )]
    Compressed {
        /// The section.
        section: &'static str,
        /// What the decompressor said.
        reason: object::read::Error,
    },
    /// A compressed section says that it is larger than can be.
    #[error("section {section} says that its {length} bytes hold {size}: expected at most {limit}")]
    TooLarge {
        /// The section.
        section: &'static str,
        /// Its length.
        length: u64,
        /// Its size when decompressed.
        size: u64,
        /// What that could be.
        limit: u64,
    },
    /// The debug information is broken.
    #[error("cannot read debug information{}: {reason}", address.map(|at| format!(" for {at}")).unwrap_or_default())]
    Dwarf {
        /// The address asked for, if it was one.
        address: Option<VirtAddr>,
        /// What the DWARF reader said.
        reason: gimli::Error,
    },
    /// The types that were made of it can't be read again.
    #[error("cannot put the variables' types on top of the kernel's: {0}")]
    Types(#[from] ktstr_introspect_types::BtfError),
}

/// The debug information of one file: its own bytes, or what they decompress to.
pub struct DebugSections<'a> {
    sections: DwarfSections<Cow<'a, [u8]>>,
}

impl std::fmt::Debug for DebugSections<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DebugSections").finish_non_exhaustive()
    }
}

impl<'a> DebugSections<'a> {
    /// Takes them out of the bytes of a vmlinux.
    ///
    /// # Errors
    /// [`DwarfError`] when there are none, or none that can be read.
    pub fn read(file: &'a [u8]) -> Result<Self, DwarfError> {
        let header = FileHeader64::<object::LittleEndian>::parse(file)?;
        let endian = header.endian()?;
        let table = header.sections(endian, file)?;
        let load = |id: SectionId| -> Result<Cow<'a, [u8]>, DwarfError> {
            if UNREAD.contains(&id) {
                return Ok(Cow::Borrowed(&[]));
            }
            let Some((_, section)) = table.section_by_name(endian, id.name().as_bytes()) else {
                return Ok(Cow::Borrowed(&[]));
            };
            match section.compression(endian, file)? {
                None => Ok(Cow::Borrowed(section.data(endian, file)?)),
                Some((header, offset, length)) => decompress(id, file, header, offset, length, endian),
            }
        };
        let sections = DwarfSections::load(load)?;
        let this = Self { sections };
        let dwarf = this.dwarf();
        for (section, bytes) in [
            (".debug_info", dwarf.debug_info.reader().slice()),
            (".debug_line", dwarf.debug_line.reader().slice()),
        ] {
            if bytes.is_empty() {
                return Err(DwarfError::NoDwarf { section });
            }
        }
        Ok(this)
    }

    pub(crate) fn dwarf(&self) -> Dwarf<'_> {
        self.sections.borrow(|section| EndianSlice::new(section, LittleEndian))
    }
}

type CompressionHeader = object::elf::CompressionHeader64<object::LittleEndian>;

fn decompress<'a>(
    id: SectionId,
    file: &'a [u8],
    header: &CompressionHeader,
    offset: u64,
    length: u64,
    endian: object::LittleEndian,
) -> Result<Cow<'a, [u8]>, DwarfError> {
    let section = id.name();
    let (size, limit) = (header.ch_size(endian), length.saturating_mul(MAX_RATIO).min(MAX_SECTION));
    if size > limit {
        return Err(DwarfError::TooLarge { section, length, size, limit });
    }
    let format = match header.ch_type(endian) {
        ELFCOMPRESS_ZLIB => CompressionFormat::Zlib,
        ELFCOMPRESS_ZSTD => CompressionFormat::Zstandard,
        _ => CompressionFormat::Unknown,
    };
    let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
    let data = range.and_then(|(start, length)| file.get(start..)?.get(..length)).unwrap_or(&[]);
    let failed = |reason| DwarfError::Compressed { section, reason };
    CompressedData { format, data, uncompressed_size: size }.decompress().map_err(failed)
}
