//! Tables built by hand for each granule, and random ones.

use proptest::prelude::*;

use super::*;
use crate::SparseMemory;

const ROOT: u64 = 0x10000;

fn mapped(
    granule: Granule,
    va_bits: u32,
    virt: u64,
    frame: u64,
    leaf: u8,
) -> (SparseMemory, Aarch64PageTables) {
    let space = Aarch64PageTables::new(ROOT | 1 << 48, granule, va_bits).unwrap();
    let mut memory = SparseMemory::new();
    memory.insert(PhysAddr(0), vec![0; 0x60000]);
    let (page, per) = (granule.shift(), granule.shift() - 3);
    let mut table = ROOT;
    for level in (leaf..=(va_bits - page).div_ceil(per) as u8).rev() {
        let index =
            ((virt & ((1 << va_bits) - 1)) >> (page + per * (u32::from(level) - 1))) & ((1 << per) - 1);
        let entry = match level {
            level if level > leaf => (table + 0x10000) | 3,
            1 => frame | 3,
            _ => frame | 1,
        };
        assert!(memory.write(PhysAddr(table + index * 8), &entry.to_le_bytes()));
        table += 0x10000;
    }
    (memory, space)
}

#[test]
fn pages_and_blocks_translate_for_each_granule() {
    let virt = 0xffff_ffff_8040_0000u64;
    for (granule, va_bits, leaf, size) in [
        (Granule::K4, 48, 1, 1u64 << 12),
        (Granule::K4, 39, 1, 1 << 12),
        (Granule::K4, 48, 2, 1 << 21),
        (Granule::K4, 39, 3, 1 << 30),
        (Granule::K16, 47, 1, 1 << 14),
        (Granule::K16, 48, 2, 1 << 25),
        (Granule::K64, 48, 1, 1 << 16),
        (Granule::K64, 52, 2, 1 << 29),
    ] {
        let virt = virt & !(size - 1);
        let (memory, space) = mapped(granule, va_bits, virt, 0x4000_0000, leaf);
        let found = space.translate(&memory, VirtAddr(virt + 0x123)).unwrap();
        let expected = Translation { physical: PhysAddr(0x4000_0123), remaining: size - 0x123 };
        assert_eq!(found, expected, "{granule:?} {va_bits} {leaf}");
    }
}

#[test]
fn high_output_bits_come_back_with_64k_pages() {
    let (memory, space) = mapped(Granule::K64, 48, 0xffff_ffff_8000_0000, 0x4000_0000 | 0xa << 12, 1);
    let found = space.translate(&memory, VirtAddr(0xffff_ffff_8000_0000)).unwrap();
    assert_eq!(found.physical, PhysAddr(0x000a_0000_4000_0000));
}

/// With LPA2, five levels of 4 KiB tables, and an output address whose highest bits come from bits 9 and 8.
#[test]
fn lpa2_tables_have_a_fifth_level_and_52_bit_outputs() {
    for (granule, leaf, size) in [
        (Granule::K4, 1, 1u64 << 12),
        (Granule::K4, 4, 1 << 39),
        (Granule::K16, 1, 1 << 14),
        (Granule::K16, 3, 1 << 36),
    ] {
        let virt = 0xfff8_0123_4567_8000u64 & !(size - 1);
        let frame = 0x000a_0000_0000_0000 & !(size - 1);
        let encoded = frame & 0x0003_ffff_ffff_f000 | (frame >> 50 & 3) << 8;
        let mut memory = SparseMemory::new();
        memory.insert(PhysAddr(0), vec![0; 0x80000]);
        let (page, per) = (granule.shift(), granule.shift() - 3);
        let mut table = ROOT;
        for level in (leaf..=(52 - page).div_ceil(per) as u8).rev() {
            let index =
                ((virt & ((1 << 52) - 1)) >> (page + per * (u32::from(level) - 1))) & ((1 << per) - 1);
            let entry = match level {
                level if level > leaf => (table + 0x10000) | 3,
                1 => encoded | 3,
                _ => encoded | 1,
            };
            assert!(memory.write(PhysAddr(table + index * 8), &entry.to_le_bytes()));
            table += 0x10000;
        }
        let space = Aarch64PageTables::with_lpa2(ROOT, granule, 52).unwrap();
        let found = space.translate(&memory, VirtAddr(virt + 0x123)).unwrap();
        let expected = Translation { physical: PhysAddr(frame + 0x123), remaining: size - 0x123 };
        assert_eq!(found, expected, "{granule:?} level {leaf}");
    }
    assert!(Aarch64PageTables::with_lpa2(0, Granule::K64, 52).is_err());
    assert!(Aarch64PageTables::with_lpa2(0, Granule::K4, 53).is_err());
    let high = Aarch64PageTables::with_lpa2(0x4000_0000 | 0xf << 2, Granule::K4, 52).unwrap();
    assert_eq!(high.root, PhysAddr(0x000f_0000_4000_0000));
}

#[test]
fn user_addresses_and_unknown_geometry_are_refused() {
    let (memory, space) = mapped(Granule::K4, 48, 0xffff_ffff_8000_0000, 0x4000_0000, 1);
    assert!(matches!(space.translate(&memory, VirtAddr(0x1000)), Err(TranslationFault::NonCanonical { .. })));
    assert!(Aarch64PageTables::new(0, Granule::K4, 52).is_err());
    assert!(Aarch64PageTables::new(0, Granule::K4, 64).is_err());
}

/// A geometry, the levels at which a page or block may stand in it, and what that is in bytes.
fn geometries() -> impl Strategy<Value = (Granule, u32, u8, u64)> {
    prop_oneof![
        (36u32..=48, 1u8..=3).prop_map(|(bits, leaf)| (Granule::K4, bits, leaf)),
        (36u32..=48, 1u8..=2).prop_map(|(bits, leaf)| (Granule::K16, bits, leaf)),
        ((36u32..=49).prop_map(|bits| if bits == 49 { 52 } else { bits }), 1u8..=2)
            .prop_map(|(bits, leaf)| (Granule::K64, bits, leaf)),
    ]
    .prop_filter("a table above the block", |(granule, bits, leaf)| {
        let (page, per) = (granule.shift(), granule.shift() - 3);
        u32::from(*leaf) <= (bits - page).div_ceil(per)
    })
    .prop_map(|(granule, bits, leaf)| {
        (granule, bits, leaf, 1 << (granule.shift() + (granule.shift() - 3) * (u32::from(leaf) - 1)))
    })
}

proptest! {
    /// What is mapped anywhere comes back, with what is left of its page or block; its neighbours aren't mapped.
    #[test]
    fn every_mapping_comes_back((granule, bits, leaf, size) in geometries(), at: u64, frame in 0u64..1 << 47) {
        let virt = at | u64::MAX << bits;
        let frame = frame & !(size - 1);
        let (memory, space) = mapped(granule, bits, virt, frame, leaf);
        let inside = virt & (size - 1);
        let expected = Translation { physical: PhysAddr(frame + inside), remaining: size - inside };
        prop_assert_eq!(space.translate(&memory, VirtAddr(virt)).unwrap(), expected);
        let neighbour = virt ^ size;
        if neighbour >> bits == u64::MAX >> bits {
            let fault = space.translate(&memory, VirtAddr(neighbour)).unwrap_err();
            prop_assert!(matches!(fault, TranslationFault::Unmapped { .. }), "{fault}");
        }
    }

    #[test]
    fn random_tables_never_loop_or_panic(
        words in proptest::collection::vec(any::<u64>(), 512), address: u64, which in 0usize..6,
    ) {
        let mut memory = SparseMemory::new();
        memory.insert(PhysAddr(0), words.iter().flat_map(|word| (word & 0xf003).to_le_bytes()).collect());
        let (granule, bits) =
            [(Granule::K4, 48), (Granule::K4, 39), (Granule::K16, 47), (Granule::K64, 52), (Granule::K4, 52), (Granule::K16, 52)][which];
        let make = if which < 4 { Aarch64PageTables::new } else { Aarch64PageTables::with_lpa2 };
        let space = make(0, granule, bits).unwrap();
        if let Ok(found) = space.translate(&memory, VirtAddr(address | u64::MAX << bits)) {
            prop_assert!(found.remaining > 0 && found.remaining <= 1 << 39);
        }
    }
}
