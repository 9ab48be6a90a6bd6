//! Where an x86-64 kernel lies: the KASLR offset of its virtual addresses, and `phys_base`.
//!
//! Nothing outside guest memory is asked. A candidate place is one where the kernel's banner is found at the distance
//! from `_text` that the symbols say, and it is believed only when the variable `phys_base`, read there, agrees with
//! it (arch/x86/kernel/head64.c sets it to the difference between load and link address).

use ktstr_introspect_memory::{KernelOffset, LinearRange, PhysAddr, PhysRange, PhysicalMemory, VirtAddr};

use crate::{SymbolTable, Vmlinux};

/// `__START_KERNEL_map` (arch/x86/include/asm/page_64_types.h): where the kernel image's mapping starts.
pub const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// `KERNEL_IMAGE_SIZE`, with and without KASLR at most 1 GiB.
const IMAGE_SPAN: u64 = 1 << 30;

/// The smallest `CONFIG_PHYSICAL_ALIGN` of x86-64, which both offsets are a multiple of.
const ALIGN: u64 = 2 << 20;

/// `CONFIG_PHYSICAL_START`'s default, at which every distribution links.
const DEFAULT_LINK_TEXT: u64 = START_KERNEL_MAP + 0x100_0000;

/// Where the kernel lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// What KASLR added to virtual addresses.
    pub kaslr: KernelOffset,
    /// The kernel's variable of that name: `physical = virtual - __START_KERNEL_map + phys_base`, wrapping.
    pub phys_base: u64,
}

/// The kernel wasn't found in memory.
#[derive(Debug, thiserror::Error)]
pub enum PlacementError {
    /// A symbol that is needed to look for it isn't known.
    #[error("cannot look for the kernel in memory: symbol {name} isn't known")]
    NoSymbol {
        /// Its name.
        name: &'static str,
    },
    /// The file doesn't hold the kernel's banner.
    #[error("cannot look for the kernel in memory: its file has no bytes for linux_banner at {address}")]
    NoBanner {
        /// Where it should be.
        address: VirtAddr,
    },
    /// No place holds it.
    #[error(
        "the kernel {banner:?} is nowhere in guest memory ({probed} places tried, {near} with its banner): it hasn't booted yet, or it is another kernel"
    )]
    NotFound {
        /// What was looked for.
        banner: String,
        /// Places tried.
        probed: u64,
        /// Places that had the banner but not a matching `phys_base`.
        near: u64,
    },
}

impl Placement {
    /// Finds the kernel of `vmlinux` in `memory`. `symbols` are its symbols at link addresses.
    ///
    /// # Errors
    /// [`PlacementError`] when the file lacks what is needed or the kernel isn't in memory.
    pub fn find(
        vmlinux: &Vmlinux,
        symbols: &SymbolTable,
        memory: &dyn PhysicalMemory,
    ) -> Result<Self, PlacementError> {
        let banner = symbols.offset().undo(address(symbols, "linux_banner")?);
        let bytes = vmlinux.loaded_at(banner).ok_or(PlacementError::NoBanner { address: banner })?;
        let bytes = &bytes[..bytes.iter().take(512).take_while(|byte| **byte != 0).count()];
        Self::find_linked(symbols, bytes, memory)
    }

    /// Finds the kernel whose symbols at link addresses and whose whole `banner` are known.
    ///
    /// # Errors
    /// [`PlacementError`] when a symbol is missing, the banner is empty or no place agrees.
    pub fn find_linked(
        symbols: &SymbolTable,
        banner_bytes: &[u8],
        memory: &dyn PhysicalMemory,
    ) -> Result<Self, PlacementError> {
        let link = |name| address(symbols, name).map(|runtime| symbols.offset().undo(runtime));
        let text = link("_text").or_else(|_| link("_stext").map(|text| VirtAddr(text.0 & !(ALIGN - 1))))?;
        let (base, banner) = (link("phys_base")?, link("linux_banner")?);
        if banner_bytes.is_empty() {
            return Err(PlacementError::NoBanner { address: banner });
        }
        let mut probe = Probe { memory, banner: banner_bytes, probed: 0, near: 0 };
        // `delta` is KASLR offset plus phys_base: all that a physical address shows.
        probe.search(text, banner, |delta| {
            let phys_base = memory.read_u64(image_address(base, delta)).ok()?;
            let kaslr = delta.wrapping_sub(phys_base);
            let believable = kaslr < IMAGE_SPAN && kaslr % ALIGN == 0;
            believable.then_some(Self { kaslr: KernelOffset(kaslr), phys_base })
        })
    }

    /// Finds the kernel whose *runtime* symbols are known, as those out of [`crate::Kallsyms`] are. The KASLR offset
    /// then assumes the default link address; nothing but its display depends on it.
    ///
    /// # Errors
    /// [`PlacementError`] when a symbol is missing or no place agrees.
    pub fn find_runtime(symbols: &SymbolTable, memory: &dyn PhysicalMemory) -> Result<Self, PlacementError> {
        let text = address(symbols, "_text").or_else(|_| address(symbols, "_stext"))?;
        let (base, banner) = (address(symbols, "phys_base")?, address(symbols, "linux_banner")?);
        let kaslr = KernelOffset((text.0 & !(ALIGN - 1)).wrapping_sub(DEFAULT_LINK_TEXT));
        let mut probe = Probe { memory, banner: b"Linux version ", probed: 0, near: 0 };
        probe.search(VirtAddr(text.0 & !(ALIGN - 1)), banner, |delta| {
            let phys_base = memory.read_u64(image_address(base, delta)).ok()?;
            (phys_base == delta).then_some(Self { kaslr, phys_base })
        })
    }

    /// The physical address of a *runtime* address in the kernel image.
    #[must_use]
    pub fn image_physical(&self, runtime: VirtAddr) -> PhysAddr {
        image_address(runtime, self.phys_base)
    }

    /// The kernel image as a linear range from `start` to `end`, runtime addresses.
    #[must_use]
    pub fn image_range(&self, start: VirtAddr, end: VirtAddr) -> LinearRange {
        let length = end.0.saturating_sub(start.0).min(IMAGE_SPAN);
        LinearRange { start, length, physical: self.image_physical(start) }
    }
}

fn address(symbols: &SymbolTable, name: &'static str) -> Result<VirtAddr, PlacementError> {
    symbols.lookup(name).map(|symbol| symbol.address).ok_or(PlacementError::NoSymbol { name })
}

fn image_address(at: VirtAddr, delta: u64) -> PhysAddr {
    PhysAddr(at.0.wrapping_sub(START_KERNEL_MAP).wrapping_add(delta))
}

struct Probe<'a> {
    memory: &'a dyn PhysicalMemory,
    banner: &'a [u8],
    probed: u64,
    near: u64,
}

impl Probe<'_> {
    /// Tries every aligned place of `text` in memory, ascending.
    fn search(
        &mut self,
        text: VirtAddr,
        banner: VirtAddr,
        accept: impl Fn(u64) -> Option<Placement>,
    ) -> Result<Placement, PlacementError> {
        let mut seen = vec![0; self.banner.len()];
        for PhysRange { start, length } in self.memory.ranges() {
            let end = start.0.saturating_add(*length);
            let mut load = start.0.checked_next_multiple_of(ALIGN).unwrap_or(end);
            while load < end {
                self.probed += 1;
                let delta = load.wrapping_sub(text.0.wrapping_sub(START_KERNEL_MAP));
                if self.memory.read(image_address(banner, delta), &mut seen).is_ok() && seen == self.banner {
                    self.near += 1;
                    if let Some(found) = accept(delta) {
                        return Ok(found);
                    }
                }
                load = load.saturating_add(ALIGN);
            }
        }
        let banner = String::from_utf8_lossy(self.banner).trim_end().to_owned();
        Err(PlacementError::NotFound { banner, probed: self.probed, near: self.near })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{SymbolKind, SymbolTableBuilder};
    use ktstr_introspect_memory::SparseMemory;

    fn symbols(kaslr: u64) -> SymbolTable {
        let mut builder = SymbolTableBuilder::default();
        for (name, link) in
            [("_text", 0x100_0000u64), ("phys_base", 0x100_0100), ("linux_banner", 0x100_0200)]
        {
            builder.push(name.as_bytes(), VirtAddr(START_KERNEL_MAP + link + kaslr), 8, SymbolKind::Object);
        }
        builder.build()
    }

    /// A kernel loaded at `load`, and a stale copy below it whose phys_base is wrong.
    fn memory(load: u64, phys_base: u64) -> SparseMemory {
        let mut memory = SparseMemory::new();
        for (at, base) in [(load - ALIGN, 1u64), (load, phys_base)] {
            let mut image = vec![0; 0x1000];
            image[0x100..0x108].copy_from_slice(&base.to_le_bytes());
            image[0x200..0x21a].copy_from_slice(b"Linux version 6.12.0-test\n");
            memory.insert(PhysAddr(at), image);
        }
        memory
    }

    #[test]
    fn the_place_whose_phys_base_agrees_is_found() {
        let (kaslr, load) = (0x1e00_0000u64, 0x340_0000u64);
        let phys_base = load.wrapping_sub(0x100_0000 + kaslr);
        let found = Placement::find_runtime(&symbols(kaslr), &memory(load, phys_base)).unwrap();
        assert_eq!(found, Placement { kaslr: KernelOffset(kaslr), phys_base });
        assert_eq!(
            found.image_physical(VirtAddr(START_KERNEL_MAP + 0x100_0100 + kaslr)),
            PhysAddr(load + 0x100)
        );
    }

    #[test]
    fn a_kernel_that_never_booted_is_not_found_with_the_counts() {
        let refused = Placement::find_runtime(&symbols(0), &memory(0x340_0000, 0x99)).unwrap_err();
        assert!(matches!(refused, PlacementError::NotFound { near: 2, .. }), "{refused}");
        let empty = Placement::find_runtime(&SymbolTableBuilder::default().build(), &SparseMemory::new());
        assert!(matches!(empty, Err(PlacementError::NoSymbol { .. })));
    }
}
