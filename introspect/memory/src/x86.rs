//! x86-64 page tables: Intel SDM volume 3, 4.5 "4-level paging and 5-level paging".

use crate::{AddressSpace, PhysAddr, PhysicalMemory, Translation, TranslationFault, VirtAddr};

const PRESENT: u64 = 1;
const PAGE_SIZE: u64 = 1 << 7;
/// Bits 12 to 51 of an entry: the next table or the page.
const FRAME: u64 = 0x000f_ffff_ffff_f000;

/// How many levels the tables have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PagingLevels {
    /// 48-bit addresses.
    Four,
    /// 57-bit addresses (CR4.LA57).
    Five,
}

/// The tables under one CR3.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct X86PageTables {
    root: PhysAddr,
    levels: PagingLevels,
}

impl X86PageTables {
    /// The tables whose root is in `cr3`; its low 12 bits (PCID, cache bits) are ignored.
    #[must_use]
    pub fn new(cr3: u64, levels: PagingLevels) -> Self {
        Self { root: PhysAddr(cr3 & FRAME), levels }
    }

    /// The physical address of the root table.
    #[must_use]
    pub fn root(&self) -> PhysAddr {
        self.root
    }
}

impl AddressSpace for X86PageTables {
    fn translate(&self, memory: &dyn PhysicalMemory, at: VirtAddr) -> Result<Translation, TranslationFault> {
        let (top, bits) = match self.levels {
            PagingLevels::Four => (4u8, 48),
            PagingLevels::Five => (5, 57),
        };
        let unused = 64 - bits;
        if (((at.0 << unused) as i64) >> unused) as u64 != at.0 {
            return Err(TranslationFault::NonCanonical { address: at });
        }
        let (mut table, mut level) = (self.root.0, top);
        loop {
            let shift = 12 + 9 * (u32::from(level) - 1);
            let slot = PhysAddr(table + ((at.0 >> shift) & 0x1ff) * 8);
            let entry = memory.read_u64(slot).map_err(|fault| TranslationFault::Table {
                address: at,
                level,
                fault,
            })?;
            if entry & PRESENT == 0 {
                return Err(TranslationFault::Unmapped { address: at, level, at: slot, entry });
            }
            // Levels 2 and 3 map 2 MiB and 1 GiB pages; the bit is reserved above and means PAT below.
            if level == 1 || (level <= 3 && entry & PAGE_SIZE != 0) {
                let inside = at.0 & ((1 << shift) - 1);
                let frame = entry & FRAME & !((1 << shift) - 1);
                return Ok(Translation {
                    physical: PhysAddr(frame + inside),
                    remaining: (1 << shift) - inside,
                });
            }
            table = entry & FRAME;
            level -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
