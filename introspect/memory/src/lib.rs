//! Guest memory as a debugger sees it: physical reads, page-table walks.
//!
//! The bottom of the introspection crates. [`PhysicalMemory`] is the one small trait that a source of memory has to
//! implement: a live VM's RAM ([`RawImage`] over a shared mapping), an ELF core ([`ElfCore`]), or bytes in this
//! process ([`SparseMemory`]). [`VirtualMemory`] reads kernel virtual addresses on top of it, through linear ranges
//! (the direct map, the kernel image) where it can and page tables where it must.
//!
//! Everything read is hostile: it may be random, it may change under the reader. Every walk is bounded by the number
//! of table levels, every address computation is checked, and every error keeps the address it happened at.

mod aarch64;
mod address;
mod core_file;
mod image;
mod mapping;
mod physical;
mod space;
mod stable;
mod virtual_memory;
mod x86;

pub use aarch64::{Aarch64PageTables, Granule, UnsupportedGeometry};
pub use address::{KernelOffset, PhysAddr, VirtAddr};
pub use core_file::{Architecture, CoreError, CpuRegisters, ElfCore};
pub use image::{ImageError, RawImage, Segment};
pub use mapping::{MapError, Mapping};
pub use physical::{MemoryFault, PhysRange, PhysicalMemory, SparseMemory};
pub use space::{AddressSpace, Translation, TranslationFault};
pub use stable::StableBytes;
pub use virtual_memory::{LinearRange, ReadFault, VirtualMemory};
pub use x86::{PagingLevels, X86PageTables};
