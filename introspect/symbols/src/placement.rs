//! Where a kernel lies: the KASLR offset of its virtual addresses, and the place of its image in physical memory.
//!
//! Nothing outside guest memory is asked. A candidate place is one where the kernel's banner is found at the distance
//! from `_text` that the symbols say, and it is believed only when a variable of the kernel, read there, agrees with
//! it: `phys_base` on x86-64 (arch/x86/kernel/head64.c sets it to the difference between load and link address),
//! `kimage_voffset` on aarch64 (arch/arm64/kernel/pi/map_kernel.c: that between virtual and physical addresses).

use ktstr_introspect_memory::{
    Architecture, KernelOffset, LinearRange, PhysAddr, PhysRange, PhysicalMemory, VirtAddr,
};

use crate::{SymbolTable, Vmlinux};

/// `__START_KERNEL_map` (arch/x86/include/asm/page_64_types.h): where the kernel image's mapping starts on x86-64.
pub const START_KERNEL_MAP: u64 = 0xffff_ffff_8000_0000;

/// The most that an image takes: `KERNEL_IMAGE_SIZE` of x86-64 at most; an aarch64 image has as much room.
const IMAGE_SPAN: u64 = 1 << 30;

/// What `_text` is aligned to at least where only `_stext` is known: `CONFIG_PHYSICAL_ALIGN` of x86-64 at its least,
/// `MIN_KIMG_ALIGN` of aarch64.
const TEXT_ALIGN: u64 = 2 << 20;

/// Where the kernel lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// Whose kernel it is.
    pub architecture: Architecture,
    /// What KASLR added to virtual addresses.
    pub kaslr: KernelOffset,
    /// What is added to a *runtime* address in the image for its physical one, wrapping: `phys_base -
    /// __START_KERNEL_map` on x86-64, `-kimage_voffset` on aarch64.
    pub image_offset: u64,
}

/// What differs from one architecture to the other.
struct Rules {
    architecture: Architecture,
    /// The variable that tells where the image lies.
    anchor: &'static str,
    /// From its value to [`Placement::image_offset`].
    image_offset: fn(u64) -> u64,
    /// Both offsets are a multiple of this.
    align: u64,
    /// KASLR's offsets are less.
    span: u64,
    /// Where `_text` is linked, as far as that can be known without the file.
    link_text: u64,
}

const RULES: [Rules; 2] = [
    Rules {
        architecture: Architecture::X86_64,
        anchor: "phys_base",
        image_offset: |phys_base| phys_base.wrapping_sub(START_KERNEL_MAP),
        align: TEXT_ALIGN,
        span: IMAGE_SPAN,
        // `CONFIG_PHYSICAL_START`'s default, at which every distribution links.
        link_text: START_KERNEL_MAP + 0x100_0000,
    },
    Rules {
        architecture: Architecture::Aarch64,
        anchor: "kimage_voffset",
        image_offset: |voffset| voffset.wrapping_neg(),
        // `EFI_KIMG_ALIGN` at its least.
        align: 64 << 10,
        // Half of the vmalloc area, of which there are 47 bits at most with 48-bit addresses, and 51 with 52.
        span: 1 << 51,
        // `KIMAGE_VADDR` of 48-bit addresses since 6.5 (arch/arm64/include/asm/memory.h).
        link_text: 0xffff_8000_8000_0000,
    },
];

impl Rules {
    /// By the variable that the kernel of `symbols` has.
    fn of(symbols: &SymbolTable) -> Result<&'static Self, PlacementError> {
        let found = RULES.iter().find(|rules| symbols.lookup(rules.anchor).is_some());
        found.ok_or(PlacementError::NoSymbol { name: "phys_base (x86-64) or kimage_voffset (aarch64)" })
    }
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
        /// Places that had the banner but not a variable that agrees.
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
        let rules = Rules::of(symbols)?;
        let link = |name| address(symbols, name).map(|runtime| symbols.offset().undo(runtime));
        let text = link("_text").or_else(|_| link("_stext").map(start_of_text))?;
        let (anchor, banner) = (link(rules.anchor)?, link("linux_banner")?);
        if banner_bytes.is_empty() {
            return Err(PlacementError::NoBanner { address: banner });
        }
        let mut probe = Probe { memory, banner: banner_bytes, probed: 0, near: 0 };
        // `delta` is KASLR offset plus image offset: all that a physical address shows.
        probe.search(text, banner, rules.align, |delta| {
            let value = memory.read_u64(PhysAddr(anchor.0.wrapping_add(delta))).ok()?;
            let image_offset = (rules.image_offset)(value);
            let kaslr = delta.wrapping_sub(image_offset);
            let believable = kaslr < rules.span && kaslr % rules.align == 0;
            believable.then_some(Self {
                architecture: rules.architecture,
                kaslr: KernelOffset(kaslr),
                image_offset,
            })
        })
    }

    /// Finds the kernel whose *runtime* symbols are known, as those out of [`crate::Kallsyms`] are. The KASLR offset
    /// then assumes the default link address; nothing but its display depends on it.
    ///
    /// # Errors
    /// [`PlacementError`] when a symbol is missing or no place agrees.
    pub fn find_runtime(symbols: &SymbolTable, memory: &dyn PhysicalMemory) -> Result<Self, PlacementError> {
        let rules = Rules::of(symbols)?;
        let text = address(symbols, "_text").or_else(|_| address(symbols, "_stext").map(start_of_text))?;
        let (anchor, banner) = (address(symbols, rules.anchor)?, address(symbols, "linux_banner")?);
        let kaslr = KernelOffset(text.0.wrapping_sub(rules.link_text));
        let mut probe = Probe { memory, banner: b"Linux version ", probed: 0, near: 0 };
        probe.search(text, banner, rules.align, |delta| {
            let value = memory.read_u64(PhysAddr(anchor.0.wrapping_add(delta))).ok()?;
            let image_offset = (rules.image_offset)(value);
            (image_offset == delta).then_some(Self { architecture: rules.architecture, kaslr, image_offset })
        })
    }

    /// An x86-64 kernel's, by its variable `phys_base`.
    #[must_use]
    pub fn x86_64(kaslr: KernelOffset, phys_base: u64) -> Self {
        let image_offset = phys_base.wrapping_sub(START_KERNEL_MAP);
        Self { architecture: Architecture::X86_64, kaslr, image_offset }
    }

    /// The physical address of a *runtime* address in the kernel image.
    #[must_use]
    pub fn image_physical(&self, runtime: VirtAddr) -> PhysAddr {
        PhysAddr(runtime.0.wrapping_add(self.image_offset))
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

fn start_of_text(text: VirtAddr) -> VirtAddr {
    VirtAddr(text.0 & !(TEXT_ALIGN - 1))
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
        align: u64,
        accept: impl Fn(u64) -> Option<Placement>,
    ) -> Result<Placement, PlacementError> {
        let mut seen = vec![0; self.banner.len()];
        for PhysRange { start, length } in self.memory.ranges() {
            let end = start.0.saturating_add(*length);
            let mut load = start.0.checked_next_multiple_of(align).unwrap_or(end);
            while load < end {
                self.probed += 1;
                let delta = load.wrapping_sub(text.0);
                let at = PhysAddr(banner.0.wrapping_add(delta));
                if self.memory.read(at, &mut seen).is_ok() && seen == self.banner {
                    self.near += 1;
                    if let Some(found) = accept(delta) {
                        return Ok(found);
                    }
                }
                load = load.saturating_add(align);
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

    /// A kernel linked at `text`, at runtime addresses.
    fn symbols(text: u64, anchor: &str, kaslr: u64) -> SymbolTable {
        let mut builder = SymbolTableBuilder::default();
        for (name, at) in [("_text", 0), (anchor, 0x100), ("linux_banner", 0x200)] {
            builder.push(name.as_bytes(), VirtAddr(text + at + kaslr), 8, SymbolKind::Object);
        }
        builder.build()
    }

    fn x86(kaslr: u64) -> SymbolTable {
        symbols(START_KERNEL_MAP + 0x100_0000, "phys_base", kaslr)
    }

    fn aarch64(kaslr: u64) -> SymbolTable {
        symbols(0xffff_8000_8000_0000, "kimage_voffset", kaslr)
    }

    const BANNER: &[u8] = b"Linux version 6.12.0-test\n";

    /// A kernel loaded at `load`, and a stale copy below it whose variable is wrong.
    fn memory(load: u64, anchor: u64) -> SparseMemory {
        let mut memory = SparseMemory::new();
        for (at, value) in [(load - TEXT_ALIGN, 1u64), (load, anchor)] {
            let mut image = vec![0; 0x1000];
            image[0x100..0x108].copy_from_slice(&value.to_le_bytes());
            image[0x200..0x200 + BANNER.len()].copy_from_slice(BANNER);
            memory.insert(PhysAddr(at), image);
        }
        memory
    }

    #[test]
    fn the_place_whose_phys_base_agrees_is_found() {
        let (kaslr, load) = (0x1e00_0000u64, 0x340_0000u64);
        let phys_base = load.wrapping_sub(0x100_0000 + kaslr);
        let memory = memory(load, phys_base);
        let found = Placement::find_runtime(&x86(kaslr), &memory).unwrap();
        assert_eq!(found, Placement::x86_64(KernelOffset(kaslr), phys_base));
        assert_eq!(Placement::find_linked(&x86(0), BANNER, &memory).unwrap(), found);
        assert_eq!(
            found.image_physical(VirtAddr(START_KERNEL_MAP + 0x100_0100 + kaslr)),
            PhysAddr(load + 0x100)
        );
    }

    #[test]
    fn the_place_whose_kimage_voffset_agrees_is_found() {
        // Not at a multiple of 2 MiB, as firmware may load it.
        let (kaslr, load) = (0x2a_4321_0000u64, 0x4021_0000u64);
        let runtime = 0xffff_8000_8000_0000 + kaslr;
        let memory = memory(load, runtime - load);
        let found = Placement::find_runtime(&aarch64(kaslr), &memory).unwrap();
        assert_eq!((found.architecture, found.kaslr), (Architecture::Aarch64, KernelOffset(kaslr)));
        assert_eq!(found.image_physical(VirtAddr(runtime + 0x100)), PhysAddr(load + 0x100));
        assert_eq!(Placement::find_linked(&aarch64(0), BANNER, &memory).unwrap(), found);
    }

    #[test]
    fn a_kernel_that_never_booted_is_not_found_with_the_counts() {
        for symbols in [x86(0), aarch64(0)] {
            let refused = Placement::find_runtime(&symbols, &memory(0x340_0000, 0x99)).unwrap_err();
            assert!(matches!(refused, PlacementError::NotFound { near: 2, .. }), "{refused}");
        }
        let empty = Placement::find_runtime(&SymbolTableBuilder::default().build(), &SparseMemory::new());
        assert!(matches!(empty, Err(PlacementError::NoSymbol { .. })));
    }
}
