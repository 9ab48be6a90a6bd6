//! Tables written here in both orders, with long names and absolute symbols, and damaged ones.

use ktstr_introspect_memory::{SparseMemory, VirtAddr};
use proptest::prelude::*;

use super::*;
use crate::SymbolKind;

const BASE: u64 = 0xffff_ffff_8100_0000;

/// Tokens: every printable character stands for itself; 1 is `sched_`, 2 is `Tdo_`.
fn token(index: u8) -> Vec<u8> {
    match index {
        1 => b"sched_".to_vec(),
        2 => b"Tdo_".to_vec(),
        33..=126 => vec![index],
        _ => format!("<{index}>").into_bytes(),
    }
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

/// The tables of `names` (type character first), each 16 bytes after the last; the first `absolute` are absolute.
fn tables(names: &[Vec<u8>], absolute: usize, layout: KallsymsLayout) -> Vec<u8> {
    tables_with(names, absolute, layout, false)
}

/// The same, perhaps with `kallsyms_seqs_of_names` before the tokens.
fn tables_with(names: &[Vec<u8>], absolute: usize, layout: KallsymsLayout, sequence: bool) -> Vec<u8> {
    let mut offsets = Vec::new();
    for at in 0..names.len() {
        let offset = if at < absolute { at as i32 * 16 } else { -1 - at as i32 * 16 };
        offsets.extend(if absolute > 0 { offset } else { at as i32 * 16 }.to_le_bytes());
    }
    align(&mut offsets);
    offsets.extend(BASE.to_le_bytes());
    let (mut text, mut markers) = (Vec::new(), Vec::new());
    for (at, name) in names.iter().enumerate() {
        if at % 256 == 0 {
            markers.extend((text.len() as u32).to_le_bytes());
        }
        match name.len() {
            length @ 0..0x80 => text.push(length as u8),
            length => text.extend([(length & 0x7f | 0x80) as u8, (length >> 7) as u8]),
        }
        text.extend(name);
    }
    let mut out = vec![0xee; 64];
    if layout == KallsymsLayout::OffsetsFirst {
        out.extend(&offsets);
    }
    out.extend((names.len() as u32).to_le_bytes());
    align(&mut out);
    out.extend(text);
    align(&mut out);
    out.extend(markers);
    align(&mut out);
    if sequence {
        out.extend((0..names.len()).flat_map(|at| [0, (at >> 8) as u8, at as u8]));
        align(&mut out);
    }
    let (mut index, mut length) = (Vec::new(), 0u16);
    for at in 0..=255 {
        index.extend(length.to_le_bytes());
        let text = token(at);
        length += text.len() as u16 + 1;
        out.extend(text);
        out.push(0);
    }
    align(&mut out);
    out.extend(index);
    if layout == KallsymsLayout::OffsetsLast {
        out.extend(&offsets);
    }
    out.resize(out.len() + 64, 0xee);
    out
}

fn names() -> Vec<Vec<u8>> {
    let mut names: Vec<_> = (0..700).map(|at| format!("\u{2}{at}").into_bytes()).collect();
    names[300] = [b"D\x01".to_vec(), vec![b'x'; 300]].concat();
    names
}

fn find(bytes: Vec<u8>) -> Result<Kallsyms, KallsymsError> {
    let mut memory = SparseMemory::new();
    memory.insert(PhysAddr(0x20_0000), bytes);
    Kallsyms::find(&memory)
}

#[test]
fn both_orders_decode_with_and_without_absolute_symbols() {
    for layout in [KallsymsLayout::OffsetsFirst, KallsymsLayout::OffsetsLast] {
        for absolute in [0, 3] {
            let found = find(tables(&names(), absolute, layout)).unwrap();
            assert_eq!((found.layout, found.symbols.len()), (layout, 700));
            let symbol = found.symbols.lookup("do_699").unwrap();
            assert_eq!((symbol.address, symbol.kind), (VirtAddr(BASE + 699 * 16), SymbolKind::Function));
            let first = if absolute > 0 { VirtAddr(16) } else { VirtAddr(BASE + 16) };
            assert_eq!(found.symbols.lookup("do_1").unwrap().address, first);
            let long = format!("sched_{}", "x".repeat(300));
            assert_eq!(found.symbols.lookup(&long).unwrap().kind, SymbolKind::Object);
        }
    }
}

#[test]
fn sequence_numbers_before_the_tokens_are_stepped_over() {
    let found = find(tables_with(&names(), 3, KallsymsLayout::OffsetsFirst, true)).unwrap();
    assert_eq!((found.layout, found.symbols.len()), (KallsymsLayout::OffsetsFirst, 700));
    assert_eq!(found.symbols.lookup("do_699").unwrap().address, VirtAddr(BASE + 699 * 16));
}

#[test]
fn a_table_that_disagrees_with_itself_is_a_near_miss() {
    let mut bytes = tables(&names(), 0, KallsymsLayout::OffsetsLast);
    // One symbol more than there are names.
    bytes[64] += 1;
    let refused = find(bytes).unwrap_err();
    let KallsymsError::NotFound { near: 1, last: Some((_, why)), .. } = refused else { panic!("{refused}") };
    assert_eq!(why, DecodeError::Names { markers: 3 });
}

#[test]
fn memory_without_a_kernel_says_how_much_was_searched() {
    let refused = find(vec![0; 10 << 20]).unwrap_err();
    assert!(matches!(refused, KallsymsError::NotFound { searched, near: 0, .. } if searched == 10 << 20));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn damage_is_refused_or_harmless(
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8), last: bool,
    ) {
        let layout = if last { KallsymsLayout::OffsetsLast } else { KallsymsLayout::OffsetsFirst };
        let mut bytes = tables(&names(), 3, layout);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(found) = find(bytes) {
            prop_assert!(found.symbols.len() <= 700);
        }
    }

    #[test]
    fn random_windows_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 64..4096), at in 0usize..4096) {
        let digits: Vec<u8> = (b'0'..=b'9').flat_map(|digit| [digit, 0]).collect();
        let at = at % (bytes.len() - digits.len());
        bytes[at..at + digits.len()].copy_from_slice(&digits);
        let _ = decode::decode(&bytes, at);
    }
}
