//! What a set of page tables has to answer.

use crate::{MemoryFault, PhysAddr, PhysicalMemory, VirtAddr};

/// Page tables of one address space.
pub trait AddressSpace: Send + Sync {
    /// Finds where `at` lies in physical memory, by at most one table read a level.
    ///
    /// # Errors
    /// [`TranslationFault`] when nothing is mapped there or a table can't be read.
    fn translate(&self, memory: &dyn PhysicalMemory, at: VirtAddr) -> Result<Translation, TranslationFault>;
}

/// Where a virtual address lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Translation {
    /// The physical address.
    pub physical: PhysAddr,
    /// Bytes from there to the end of the page, at least 1.
    pub remaining: u64,
}

/// A virtual address has no physical one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TranslationFault {
    /// The address isn't one that this kind of page table can map.
    #[error("address {address} isn't canonical for these page tables")]
    NonCanonical {
        /// The address.
        address: VirtAddr,
    },
    /// An entry on the way isn't present.
    #[error(
        "address {address} isn't mapped: its level-{level} page-table entry at physical {at} is {entry:#x}"
    )]
    Unmapped {
        /// The address.
        address: VirtAddr,
        /// Level of the entry: 1 is the last table.
        level: u8,
        /// Where the entry is.
        at: PhysAddr,
        /// The entry.
        entry: u64,
    },
    /// A table lies where there is no memory.
    #[error("cannot follow the level-{level} page table for address {address}: {fault}")]
    Table {
        /// The address.
        address: VirtAddr,
        /// Level of the table: 1 is the last.
        level: u8,
        /// The fault on reading its entry.
        fault: MemoryFault,
    },
}
