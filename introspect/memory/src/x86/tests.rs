//! Tables built by hand, and random ones.

use proptest::prelude::*;

use super::*;
use crate::SparseMemory;

/// A root at 0x1000 and as many tables below as the path needs, mapping one page at `virt` to `frame`.
fn tables(virt: u64, frame: u64, levels: PagingLevels, leaf_level: u8) -> (SparseMemory, X86PageTables) {
    let mut memory = SparseMemory::new();
    memory.insert(PhysAddr(0), vec![0; 0x10000]);
    let top = if levels == PagingLevels::Five { 5u8 } else { 4 };
    let mut table = 0x1000u64;
    for level in (leaf_level..=top).rev() {
        let index = (virt >> (12 + 9 * (u32::from(level) - 1))) & 0x1ff;
        let entry = if level == leaf_level {
            frame | PRESENT | (1 << 63) | if level > 1 { PAGE_SIZE } else { 0 }
        } else {
            (table + 0x1000) | PRESENT | 0x62
        };
        assert!(memory.write(PhysAddr(table + index * 8), &entry.to_le_bytes()));
        table += 0x1000;
    }
    (memory, X86PageTables::new(0x1000 | 0x18, levels))
}

#[test]
fn pages_of_every_size_translate_at_both_depths() {
    for levels in [PagingLevels::Four, PagingLevels::Five] {
        for (leaf, size) in [(1u8, 1u64 << 12), (2, 1 << 21), (3, 1 << 30)] {
            let virt = 0xffff_8881_4000_0000u64;
            let (memory, space) = tables(virt, 0x8000_0000, levels, leaf);
            let found = space.translate(&memory, VirtAddr(virt + 0x123)).unwrap();
            assert_eq!(found, Translation { physical: PhysAddr(0x8000_0123), remaining: size - 0x123 });
        }
    }
}

#[test]
fn a_hole_names_its_level_and_entry() {
    let (memory, space) = tables(0xffff_8881_4000_0000, 0x8000_0000, PagingLevels::Four, 1);
    let fault = space.translate(&memory, VirtAddr(0xffff_8881_4000_1000)).unwrap_err();
    assert!(
        matches!(fault, TranslationFault::Unmapped { level: 1, at: PhysAddr(0x4008), entry: 0, .. }),
        "{fault}"
    );
}

#[test]
fn an_address_of_the_other_depth_isnt_canonical() {
    let (memory, space) = tables(0xffff_8881_4000_0000, 0x8000_0000, PagingLevels::Four, 1);
    let five_level_only = VirtAddr(0xff11_0000_0000_0000);
    assert_eq!(
        space.translate(&memory, five_level_only),
        Err(TranslationFault::NonCanonical { address: five_level_only })
    );
}

#[test]
fn a_table_outside_memory_is_a_fault_of_that_table() {
    let space = X86PageTables::new(0xdead_0000, PagingLevels::Four);
    let fault = space.translate(&SparseMemory::new(), VirtAddr(0)).unwrap_err();
    assert!(matches!(fault, TranslationFault::Table { level: 4, .. }));
}

proptest! {
    /// Random tables, some pointing at themselves: always an answer, and a page end inside the address space.
    #[test]
    fn random_tables_never_loop_or_panic(
        words in proptest::collection::vec(any::<u64>(), 512),
        cr3: u64, address: u64, five: bool,
    ) {
        let mut memory = SparseMemory::new();
        let bytes = words.iter().flat_map(|word| (word & 0x8000_0000_0000_0fff).to_le_bytes()).collect();
        memory.insert(PhysAddr(0), bytes);
        let levels = if five { PagingLevels::Five } else { PagingLevels::Four };
        let space = X86PageTables::new(cr3 & 0xfff, levels);
        let spread = if five { 7 } else { 16 };
        let canonical = (((address << spread) as i64) >> spread) as u64;
        if let Ok(found) = space.translate(&memory, VirtAddr(canonical)) {
            prop_assert!(found.remaining > 0 && found.remaining <= 1 << 30);
        }
    }
}
