//! AArch64 stage-1 tables of the kernel half (TTBR1): Arm ARM D8.3 "Translation table descriptor formats".
//!
//! Tested with cores of a real kernel of 4 KiB pages and 48-bit addresses (introspect/kernel/oracle), and from synthetic
//! tables for the other geometries. 52-bit output addresses have two encodings: with 64 KiB pages that of FEAT_LPA,
//! with smaller ones that of FEAT_LPA2 (`TCR_EL1.DS`), which [`Aarch64PageTables::with_lpa2`] reads.

use crate::{AddressSpace, PhysAddr, PhysicalMemory, Translation, TranslationFault, VirtAddr};

/// Size of the smallest page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granule {
    /// 4 KiB pages, 512 entries a table.
    K4,
    /// 16 KiB pages, 2048 entries a table.
    K16,
    /// 64 KiB pages, 8192 entries a table.
    K64,
}

impl Granule {
    fn shift(self) -> u32 {
        match self {
            Self::K4 => 12,
            Self::K16 => 14,
            Self::K64 => 16,
        }
    }

    /// The highest level number (1 is the last table) at which a block may stand: 1 GiB and 2 MiB for 4 KiB pages,
    /// 32 MiB for 16 KiB, 512 MiB for 64 KiB; with FEAT_LPA2 also 512 GiB and 64 GiB.
    fn block_level(self, lpa2: bool) -> u8 {
        match (self, lpa2) {
            (Self::K4, true) => 4,
            (Self::K4, false) | (Self::K16, true) => 3,
            _ => 2,
        }
    }
}

/// A geometry that these tables can't have, or that this reader doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{va_bits}-bit kernel addresses with the {granule:?} granule aren't supported: expected 36 to 48 bits, up to 52 with K64, or with K4 and K16 under LPA2"
)]
pub struct UnsupportedGeometry {
    /// The granule asked for.
    pub granule: Granule,
    /// The address width asked for.
    pub va_bits: u32,
}

/// The kernel's tables under TTBR1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aarch64PageTables {
    root: PhysAddr,
    granule: Granule,
    va_bits: u32,
    lpa2: bool,
}

impl Aarch64PageTables {
    /// The tables whose root is in `ttbr1` (bits 1 to 47; ASID and CnP are ignored), for kernel addresses of
    /// `va_bits` (`CONFIG_ARM64_VA_BITS`).
    ///
    /// # Errors
    /// [`UnsupportedGeometry`] outside 36 to 48 bits, and 52 bits with 64 KiB pages.
    pub fn new(ttbr1: u64, granule: Granule, va_bits: u32) -> Result<Self, UnsupportedGeometry> {
        let known = (36..=48).contains(&va_bits) || (va_bits == 52 && granule == Granule::K64);
        if !known {
            return Err(UnsupportedGeometry { granule, va_bits });
        }
        let base = ttbr1 & 0x0000_ffff_ffff_fffe;
        let root = if granule == Granule::K64 { wide_base(ttbr1) } else { base };
        Ok(Self { root: PhysAddr(root), granule, va_bits, lpa2: false })
    }

    /// The same for 4 and 16 KiB pages with `TCR_EL1.DS` set: 52-bit output addresses, and up to 52 bits of kernel
    /// addresses (`CONFIG_ARM64_LPA2`, 6.9).
    ///
    /// # Errors
    /// [`UnsupportedGeometry`] outside 36 to 52 bits, and for 64 KiB pages.
    pub fn with_lpa2(ttbr1: u64, granule: Granule, va_bits: u32) -> Result<Self, UnsupportedGeometry> {
        if !(36..=52).contains(&va_bits) || granule == Granule::K64 {
            return Err(UnsupportedGeometry { granule, va_bits });
        }
        Ok(Self { root: PhysAddr(wide_base(ttbr1)), granule, va_bits, lpa2: true })
    }

    /// Output address of a descriptor: bits 47 to the granule's, and with 64 KiB pages bits 15 to 12 as 51 to 48. With
    /// FEAT_LPA2 bits 49 to the granule's, and bits 9 and 8 as 51 and 50.
    fn output(&self, descriptor: u64) -> u64 {
        let above_page = !((1 << self.granule.shift()) - 1);
        if self.lpa2 {
            return descriptor & 0x0003_ffff_ffff_ffff & above_page | (descriptor >> 8 & 3) << 50;
        }
        let low = descriptor & 0x0000_ffff_ffff_ffff & above_page;
        if self.granule == Granule::K64 { low | ((descriptor >> 12) & 0xf) << 48 } else { low }
    }
}

/// The table base where it may have 52 bits: bits 5 to 2 of the register are 51 to 48, and it is 64-byte aligned.
fn wide_base(ttbr1: u64) -> u64 {
    ttbr1 & 0x0000_ffff_ffff_ffc0 | (ttbr1 >> 2 & 0xf) << 48
}

impl AddressSpace for Aarch64PageTables {
    fn translate(&self, memory: &dyn PhysicalMemory, at: VirtAddr) -> Result<Translation, TranslationFault> {
        if at.0 >> self.va_bits != u64::MAX >> self.va_bits {
            return Err(TranslationFault::NonCanonical { address: at });
        }
        let page = self.granule.shift();
        let per_level = page - 3;
        let top = (self.va_bits - page).div_ceil(per_level) as u8;
        let (mut table, mut level) = (self.root.0, top);
        let inside_space = at.0 & ((1 << self.va_bits) - 1);
        loop {
            let shift = page + per_level * (u32::from(level) - 1);
            let index = (inside_space >> shift) & ((1 << per_level) - 1);
            let slot = PhysAddr(table + index * 8);
            let entry = memory.read_u64(slot).map_err(|fault| TranslationFault::Table {
                address: at,
                level,
                fault,
            })?;
            let is_page = level == 1 && entry & 3 == 3;
            let is_block = level > 1 && level <= self.granule.block_level(self.lpa2) && entry & 3 == 1;
            if is_page || is_block {
                let inside = at.0 & ((1 << shift) - 1);
                let frame = self.output(entry) & !((1 << shift) - 1);
                return Ok(Translation {
                    physical: PhysAddr(frame + inside),
                    remaining: (1 << shift) - inside,
                });
            }
            if level == 1 || entry & 3 != 3 {
                return Err(TranslationFault::Unmapped { address: at, level, at: slot, entry });
            }
            table = self.output(entry);
            level -= 1;
        }
    }
}

#[cfg(test)]
mod tests;
