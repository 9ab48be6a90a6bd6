//! Any bytes as guest memory that is searched for kallsyms; and tables made of the input's names, then damaged.

use ktstr_introspect_memory::{PhysAddr, SparseMemory, VirtAddr};
use ktstr_introspect_symbols::{Kallsyms, Placement};

const BASE: u64 = 0xffff_ffff_8100_0000;

pub(crate) fn kallsyms(input: &[u8]) {
    find(input.to_vec());
    let [shape, damage, rest @ ..] = input else { return };
    let wounds = (usize::from(*damage) % 8 * 4).min(rest.len());
    let (wounds, names) = rest.split_at(wounds);
    let mut tables = tables(names, shape & 1 == 1, shape & 2 == 2, shape & 4 == 4);
    for wound in wounds.as_chunks::<4>().0 {
        let at = usize::from(u16::from_le_bytes([wound[0], wound[1]])) % tables.len();
        tables[at] = if wound[2] & 1 == 1 { wound[3] } else { tables[at] ^ 1 << (wound[3] & 7) };
    }
    find(tables);
}

fn find(bytes: Vec<u8>) {
    let mut memory = SparseMemory::new();
    memory.insert(PhysAddr(0x10_0000), bytes);
    let Ok(found) = Kallsyms::find(&memory) else { return };
    let mut last = VirtAddr(0);
    for symbol in found.symbols.iter() {
        assert!(symbol.address >= last);
        last = symbol.address;
        assert!(found.symbols.lookup_all(symbol.name).any(|other| other == symbol));
    }
    let _ = Placement::find_runtime(&found.symbols, &memory);
}

fn align(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(8), 0);
}

/// Tables of at least 257 names as scripts/kallsyms.c writes them: names are 1 to 16 tokens of the input's bytes.
fn tables(input: &[u8], offsets_first: bool, absolute: bool, sequence: bool) -> Vec<u8> {
    let mut names: Vec<&[u8]> =
        input.chunk_by(|before, _| *before & 0xf != 0).map(|name| &name[..name.len().min(300)]).collect();
    while names.len() < 300 {
        names.push(b"Tab");
    }
    let mut offsets = Vec::new();
    for at in 0..names.len() as i32 {
        offsets.extend(if absolute && at > 2 { -1 - at * 16 } else { at * 16 }.to_le_bytes());
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
        text.extend(*name);
    }
    let mut out = vec![0xee; 64];
    if offsets_first {
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
    for token in 0..=255u8 {
        index.extend(length.to_le_bytes());
        let text = if token.is_ascii_graphic() { vec![token] } else { format!("<{token}>").into_bytes() };
        length += text.len() as u16 + 1;
        out.extend(text);
        out.push(0);
    }
    align(&mut out);
    out.extend(index);
    if !offsets_first {
        out.extend(&offsets);
    }
    out.resize(out.len() + 64, 0xee);
    out
}
