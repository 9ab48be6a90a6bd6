//! The kernel's address space: direct map and image by arithmetic, the rest by its page tables.
//!
//! What x86-64 and aarch64 do in ways of their own is here, in [`ktstr_introspect_symbols::Placement`] and in
//! introspect/memory.

use std::sync::Arc;

use ktstr_introspect_memory::{
    Aarch64PageTables, AddressSpace, Architecture, Granule, LinearRange, PagingLevels, PhysAddr,
    PhysicalMemory, VirtAddr, VirtualMemory, X86PageTables,
};
use ktstr_introspect_symbols::{Placement, SymbolTable};

use crate::KernelError;

/// `PAGE_OFFSET` of x86-64 without `CONFIG_DYNAMIC_MEMORY_LAYOUT` (arch/x86/include/asm/page_64_types.h).
const PAGE_OFFSET_L4: u64 = 0xffff_8880_0000_0000;
const PAGE_OFFSET_L5: u64 = 0xff11_0000_0000_0000;

/// Sizes of pages and kernel addresses that aarch64 kernels are built with (`CONFIG_ARM64_VA_BITS`), and whether by LPA2.
const GEOMETRIES: [(Granule, u32, bool); 10] = [
    (Granule::K4, 48, false),
    (Granule::K4, 39, false),
    (Granule::K4, 52, true),
    (Granule::K64, 48, false),
    (Granule::K64, 52, false),
    (Granule::K64, 42, false),
    (Granule::K16, 48, false),
    (Granule::K16, 47, false),
    (Granule::K16, 36, false),
    (Granule::K16, 52, true),
];

/// A kernel whose page tables are yet to be found.
struct Found<'a> {
    physical: &'a Arc<dyn PhysicalMemory>,
    symbols: &'a SymbolTable,
    placement: Placement,
    image: LinearRange,
    /// Nothing but the image.
    early: VirtualMemory,
}

/// The kernel's mappings of `physical`.
///
/// # Errors
/// [`KernelError`] when a symbol is missing or no page tables agree with the image's place.
pub(crate) fn map(
    physical: Arc<dyn PhysicalMemory>,
    symbols: &SymbolTable,
    placement: Placement,
) -> Result<VirtualMemory, KernelError> {
    let (text, end) =
        (address(symbols, "_text").or_else(|_| address(symbols, "_stext"))?, address(symbols, "_end")?);
    let image = placement.image_range(text, end);
    let early = VirtualMemory::new(physical.clone()).with_linear(image);
    let found = Found { physical: &physical, symbols, placement, image, early };
    let (tables, direct) = match placement.architecture {
        Architecture::Aarch64 => found.aarch64()?,
        _ => found.x86_64()?,
    };
    let mut memory = VirtualMemory::new(physical.clone());
    // The page tables have the last word: if they place the image's alias elsewhere, there is no fast path.
    let alias = direct.start.wrapping_add(image.physical.0.wrapping_sub(direct.physical.0));
    if tables.translate(&*physical, alias).is_ok_and(|found| found.physical == image.physical) {
        memory = memory.with_linear(direct);
    }
    for part in still_mapped(&*tables, &physical, symbols, image) {
        memory = memory.with_linear(part);
    }
    Ok(memory.with_tables(tables))
}

/// The image without its initial part, which aarch64 unmaps when it is freed after the boot: what lies there is
/// somebody else's by then.
fn still_mapped(
    tables: &dyn AddressSpace,
    physical: &Arc<dyn PhysicalMemory>,
    symbols: &SymbolTable,
    image: LinearRange,
) -> Vec<LinearRange> {
    let (Ok(begin), Ok(end)) = (address(symbols, "__init_begin"), address(symbols, "__init_end")) else {
        return vec![image];
    };
    let (before, until) = (begin.0.wrapping_sub(image.start.0), end.0.wrapping_sub(image.start.0));
    let is_inside = before < until && until < image.length;
    if !is_inside || tables.translate(&**physical, begin).is_ok() {
        return vec![image];
    }
    let after = LinearRange {
        start: end,
        length: image.length - until,
        physical: PhysAddr(image.physical.0.wrapping_add(until)),
    };
    vec![LinearRange { length: before, ..image }, after]
}

type Mappings = (Arc<dyn AddressSpace>, LinearRange);

impl Found<'_> {
    fn x86_64(&self) -> Result<Mappings, KernelError> {
        let address = |name| address(self.symbols, name);
        let word =
            |name| self.early.read_u32(address(name)?).map_err(KernelError::read("__pgtable_l5_enabled"));
        // The variable is there with CONFIG_X86_5LEVEL only; without, there are four levels.
        let levels = match word("__pgtable_l5_enabled") {
            Ok(0) | Err(KernelError::NoSymbol { .. }) => PagingLevels::Four,
            Ok(_) => PagingLevels::Five,
            Err(other) => return Err(other),
        };
        let root =
            self.placement.image_physical(address("init_top_pgt").or_else(|_| address("swapper_pg_dir"))?);
        // Likewise `page_offset_base`, with CONFIG_DYNAMIC_MEMORY_LAYOUT.
        let start = match address("page_offset_base") {
            Ok(at) => self.early.read_pointer(at).map_err(KernelError::read("page_offset_base"))?,
            Err(_) if levels == PagingLevels::Five => VirtAddr(PAGE_OFFSET_L5),
            Err(_) => VirtAddr(PAGE_OFFSET_L4),
        };
        let direct = LinearRange { start, length: self.end_of_memory(), physical: PhysAddr(0) };
        Ok((Arc::new(X86PageTables::new(root.0, levels)), direct))
    }

    /// The one geometry under which the kernel's tables place both ends of its image where they are, as nothing in
    /// memory tells it. The direct map is `(physical - memstart_addr) | PAGE_OFFSET` (arch/arm64/include/asm/memory.h).
    fn aarch64(&self) -> Result<Mappings, KernelError> {
        let root = self.placement.image_physical(address(self.symbols, "swapper_pg_dir")?);
        let banner = address(self.symbols, "linux_banner")?;
        let agrees = |tables: &Aarch64PageTables, at: VirtAddr| {
            let found = tables.translate(&**self.physical, at);
            found.is_ok_and(|found| found.physical == self.placement.image_physical(at))
        };
        let tables = GEOMETRIES.into_iter().find_map(|(granule, va_bits, lpa2)| {
            let make = if lpa2 { Aarch64PageTables::with_lpa2 } else { Aarch64PageTables::new };
            let tables = make(root.0, granule, va_bits).ok()?;
            (agrees(&tables, banner) && agrees(&tables, self.image.start)).then_some((tables, va_bits))
        });
        let (tables, va_bits) = tables.ok_or(KernelError::Implausible {
            what: "the kernel's page tables, swapper_pg_dir",
            at: VirtAddr(root.0),
            seen: 0,
            expected: "tables of a known geometry that place the kernel's image where it is",
        })?;
        let start = self.physical.ranges().iter().map(|range| range.start.0).min().unwrap_or(0);
        let memstart = self
            .early
            .read_u64(address(self.symbols, "memstart_addr")?)
            .map_err(KernelError::read("memstart_addr"))?;
        let direct = LinearRange {
            start: VirtAddr(start.wrapping_sub(memstart).wrapping_add(u64::MAX << va_bits)),
            length: self.end_of_memory().saturating_sub(start),
            physical: PhysAddr(start),
        };
        Ok((Arc::new(tables), direct))
    }

    fn end_of_memory(&self) -> u64 {
        let ends = self.physical.ranges().iter().map(|range| range.start.0.saturating_add(range.length));
        ends.max().unwrap_or(0)
    }
}

fn address(symbols: &SymbolTable, name: &str) -> Result<VirtAddr, KernelError> {
    let found = symbols.lookup(name).map(|symbol| symbol.address);
    found.ok_or_else(|| KernelError::NoSymbol { name: name.into() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_introspect_memory::{KernelOffset, SparseMemory};
    use ktstr_introspect_symbols::{SymbolKind, SymbolTableBuilder};

    const RUNTIME: u64 = 0xffff_8000_8000_0000;
    const LOAD: u64 = 0x4020_0000;
    const BLOCK: u64 = 2 << 20;
    /// Tables of three levels behind the root, in the image.
    const ROOT: u64 = 0x3000;

    /// An aarch64 kernel of three blocks of 2 MiB, the middle one of which is unmapped; its symbols. 4 KiB pages and
    /// 48-bit addresses; memory starts at 1 GiB.
    fn kernel(memstart: u64) -> (Arc<dyn PhysicalMemory>, SymbolTable) {
        let mut image = vec![0; 3 * BLOCK as usize];
        let mut put = |at: u64, value: u64| {
            image[at as usize..at as usize + 8].copy_from_slice(&value.to_le_bytes());
        };
        let table = |at: u64| (LOAD + at) | 3;
        // The image: entry 256 of the root, 2 of the next, 0 and 2 of the last.
        put(ROOT + 256 * 8, table(0x4000));
        put(0x4000 + 2 * 8, table(0x5000));
        put(0x5000, LOAD | 1);
        put(0x5000 + 2 * 8, (LOAD + 2 * BLOCK) | 1);
        // The direct map of its first block, 2 MiB behind the start of memory.
        put(ROOT, table(0x6000));
        put(0x6000, table(0x7000));
        put(0x7000 + 8, LOAD | 1);
        put(0x100, memstart);
        let mut memory = SparseMemory::new();
        memory.insert(PhysAddr(0x4000_0000), vec![0; BLOCK as usize]);
        memory.insert(PhysAddr(LOAD), image);
        let mut builder = SymbolTableBuilder::default();
        for (name, at) in [
            ("_text", 0),
            ("memstart_addr", 0x100),
            ("linux_banner", 0x200),
            ("swapper_pg_dir", ROOT),
            ("__init_begin", BLOCK),
            ("__init_end", 2 * BLOCK),
            ("_end", 3 * BLOCK),
        ] {
            builder.push(name.as_bytes(), VirtAddr(RUNTIME + at), 8, SymbolKind::Object);
        }
        (Arc::new(memory), builder.build())
    }

    fn placement() -> Placement {
        let image_offset = LOAD.wrapping_sub(RUNTIME);
        Placement { architecture: Architecture::Aarch64, kaslr: KernelOffset(0), image_offset }
    }

    #[test]
    fn an_aarch64_kernel_has_the_geometry_that_its_tables_agree_with() {
        let (physical, symbols) = kernel(0x4000_0000);
        let memory = map(physical, &symbols, placement()).unwrap();
        let lies = |at: u64| memory.translate(VirtAddr(at)).map(|(physical, _)| physical.0);
        assert_eq!(lies(RUNTIME + 0x1234), Ok(LOAD + 0x1234));
        assert_eq!(lies(RUNTIME + 2 * BLOCK + 8), Ok(LOAD + 2 * BLOCK + 8));
        assert_eq!(lies(0xffff_0000_0020_0010), Ok(LOAD + 0x10), "the direct map");
        assert_eq!(lies(0xffff_0000_0000_0000), Ok(0x4000_0000), "by arithmetic, as the tables agree");
        assert!(lies(RUNTIME + BLOCK).is_err(), "what was freed after the boot");
    }

    #[test]
    fn a_direct_map_that_the_tables_deny_is_not_believed() {
        let (physical, symbols) = kernel(0x1000_0000);
        let memory = map(physical, &symbols, placement()).unwrap();
        let lies = |at: u64| memory.translate(VirtAddr(at)).map(|(physical, _)| physical.0);
        assert!(lies(0xffff_0000_3020_0000).is_err());
        assert_eq!(lies(0xffff_0000_0020_0010), Ok(LOAD + 0x10));
    }

    #[test]
    fn tables_of_no_known_geometry_are_told() {
        let (physical, symbols) = kernel(0x4000_0000);
        let elsewhere =
            Placement { image_offset: placement().image_offset.wrapping_add(BLOCK), ..placement() };
        let error = map(physical, &symbols, elsewhere).unwrap_err();
        assert!(error.to_string().contains("swapper_pg_dir"), "{error}");
    }
}
