//! ELF cores of a whole machine, as QMP `dump-guest-memory` (paging off) and kdump write them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object::LittleEndian;
use object::elf::{EM_AARCH64, EM_X86_64, FileHeader64, PT_LOAD, PT_NOTE};
use object::read::elf::{FileHeader, ProgramHeader};

use crate::{
    ImageError, Mapping, MemoryFault, PhysAddr, PhysRange, PhysicalMemory, RawImage, Segment, VirtAddr,
};

/// An ELF core couldn't be opened.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// The file couldn't be mapped or its segments don't fit it.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Not a little-endian ELF64 file, or one with broken headers.
    #[error(
        "{path} isn't a little-endian ELF64 core: {reason}; take one with QMP dump-guest-memory, paging=false"
    )]
    Elf {
        /// The file.
        path: PathBuf,
        /// What the ELF reader said.
        reason: object::read::Error,
    },
    /// The core holds no memory.
    #[error("{path} has no PT_LOAD segment with bytes in it: expected the guest's RAM")]
    NoMemory {
        /// The file.
        path: PathBuf,
    },
}

/// Control registers of one vCPU, from the note named `QEMU` that its x86-64 cores carry for each CPU (struct
/// `QEMUCPUState` of QEMU's target/i386/arch_dump.c).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuRegisters {
    /// Instruction pointer.
    pub rip: VirtAddr,
    /// Stack pointer.
    pub rsp: VirtAddr,
    /// CR3: the page-table root in bits 12 to 51 (with PTI perhaps the user half).
    pub cr3: u64,
    /// CR4; bit 12 is LA57.
    pub cr4: u64,
    /// Base of GS in use.
    pub gs_base: VirtAddr,
    /// The other base, which `swapgs` brings in.
    pub kernel_gs_base: VirtAddr,
}

/// The architecture of a machine, as an ELF header has it (`e_machine`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// x86-64, whose kernels these crates find.
    X86_64,
    /// aarch64, likewise.
    Aarch64,
    /// Another, by its number.
    Other(u16),
}

impl std::fmt::Display for Architecture {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::X86_64 => f.write_str("x86-64"),
            Self::Aarch64 => f.write_str("aarch64"),
            Self::Other(number) => write!(f, "ELF machine {number}"),
        }
    }
}

/// A machine's memory in an ELF core.
#[derive(Debug, Clone)]
pub struct ElfCore {
    architecture: Architecture,
    image: RawImage,
    cpus: Vec<CpuRegisters>,
}

impl ElfCore {
    /// Opens the core at `path`.
    ///
    /// # Errors
    /// [`CoreError`] when it can't be mapped, isn't an ELF64 core, or holds no memory.
    pub fn open(path: &Path) -> Result<Self, CoreError> {
        let mapping = Arc::new(Mapping::open(path).map_err(ImageError::from)?);
        let (architecture, segments, cpus) =
            layout(mapping.stable_bytes()).map_err(|reason| CoreError::Elf { path: path.into(), reason })?;
        let image = RawImage::with_segments(mapping, segments)?;
        if image.ranges().is_empty() {
            return Err(CoreError::NoMemory { path: path.into() });
        }
        Ok(Self { architecture, image, cpus })
    }

    /// What kind of machine it was.
    #[must_use]
    pub fn architecture(&self) -> Architecture {
        self.architecture
    }

    /// Registers of each vCPU, in CPU order; empty when the core wasn't written by QEMU for x86-64.
    #[must_use]
    pub fn cpus(&self) -> &[CpuRegisters] {
        &self.cpus
    }
}

impl PhysicalMemory for ElfCore {
    #[inline]
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.image.read(at, into)
    }

    fn ranges(&self) -> &[PhysRange] {
        self.image.ranges()
    }
}

type Layout = (Architecture, Vec<Segment>, Vec<CpuRegisters>);

fn layout(data: &[u8]) -> Result<Layout, object::read::Error> {
    let header = FileHeader64::<LittleEndian>::parse(data)?;
    let endian = header.endian()?;
    let architecture = match header.e_machine(endian) {
        EM_X86_64 => Architecture::X86_64,
        EM_AARCH64 => Architecture::Aarch64,
        other => Architecture::Other(other.0),
    };
    let (mut segments, mut cpus) = (Vec::new(), Vec::new());
    for program in header.program_headers(endian, data)? {
        if program.p_type(endian) == PT_LOAD {
            segments.push(Segment {
                physical: PhysAddr(program.p_paddr(endian)),
                offset: program.p_offset(endian),
                length: program.p_filesz(endian),
            });
        } else if program.p_type(endian) == PT_NOTE
            // Those of aarch64 have no control registers, and QEMU 7.2 writes them in a form that can't be walked.
            && architecture == Architecture::X86_64
            && let Some(mut notes) = program.notes(endian, data)?
        {
            while let Some(note) = notes.next()? {
                if note.name() == b"QEMU" {
                    cpus.extend(registers(note.desc()));
                }
            }
        }
    }
    Ok((architecture, segments, cpus))
}

/// Decodes a `QEMUCPUState`: version and size, 18 general registers, 10 segments of 24 bytes, CR0 to CR4, the kernel
/// GS base. A note of another size belongs to another architecture.
fn registers(desc: &[u8]) -> Option<CpuRegisters> {
    const SEGMENTS: usize = 8 + 18 * 8;
    const CONTROL: usize = SEGMENTS + 10 * 24;
    let word = |at: usize| Some(u64::from_le_bytes(desc.get(at..at + 8)?.try_into().ok()?));
    let version = u32::from_le_bytes(desc.get(..4)?.try_into().ok()?);
    (version == 1 && desc.len() >= CONTROL + 48).then_some(())?;
    Some(CpuRegisters {
        rsp: VirtAddr(word(8 + 6 * 8)?),
        rip: VirtAddr(word(8 + 16 * 8)?),
        gs_base: VirtAddr(word(SEGMENTS + 4 * 24 + 16)?),
        cr3: word(CONTROL + 3 * 8)?,
        cr4: word(CONTROL + 4 * 8)?,
        kernel_gs_base: VirtAddr(word(CONTROL + 5 * 8)?),
    })
}

#[cfg(test)]
mod tests;
