//! The file: a header, a table of parts, the parts. All numbers are little-endian, all parts start at multiples of 8.
//!
//! Offset 0: magic, 8 bytes; 8: version, 32 bits; 12: number of parts, 32 bits; 16: length of the file, 64 bits;
//! 24: checksum of all that follows; 32: for each part offset and length, 64 bits each.

use std::sync::Arc;

use ktstr_introspect_memory::{Mapping, StableBytes};
use ktstr_introspect_symbols::SymbolTable;
use ktstr_introspect_types::{Btf, VariableTypes};

use super::Index;

const HEADER: usize = 32;
const ALIGN: usize = 8;

/// What a file is, and how its parts are laid out.
pub(super) struct Kind {
    magic: &'static [u8; 8],
    /// Raised whenever any part, here or in the crates below, is laid out otherwise.
    version: u32,
    parts: usize,
}

/// Build id, banner, four of the symbols, four of the types.
const INDEX: Kind = Kind { magic: b"KTSTRIDX", version: 1, parts: 10 };
/// Build id, four of the types of variables.
const VARIABLES: Kind = Kind { magic: b"KTSTRVAR", version: 1, parts: 5 };

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It starts with something else.
    #[error("it doesn't start with {expected:?}")]
    Magic {
        /// What it should start with.
        expected: &'static str,
    },
    /// Another version wrote it.
    #[error("it has version {seen}, expected {expected}")]
    Version {
        /// The one that this library writes.
        expected: u32,
        /// Its version.
        seen: u32,
    },
    /// It isn't as long as it says.
    #[error("it is {seen} bytes long, but says {expected}")]
    Length {
        /// What it says.
        expected: u64,
        /// What it is.
        seen: u64,
    },
    /// Its bytes changed.
    #[error("its checksum doesn't agree: it is damaged")]
    Checksum,
    /// A part lies outside, or parts don't belong together.
    #[error("its part {part} can't be used")]
    Part {
        /// Which.
        part: usize,
    },
}

pub(super) fn read(mapping: &Arc<Mapping>) -> Result<Index, FormatError> {
    let parts = unpack(mapping, &INDEX)?;
    let four = |first: usize| [0, 1, 2, 3].map(|n| parts[first + n].clone());
    Ok(Index {
        build_id: text(&parts)?,
        banner: parts[1].to_vec(),
        symbols: SymbolTable::from_parts(four(2)).ok_or(FormatError::Part { part: 2 })?,
        types: Arc::new(Btf::from_parts(four(6)).ok_or(FormatError::Part { part: 6 })?),
    })
}

/// The file's bytes; nothing for types that stand on others.
pub(super) fn write(index: &Index) -> Option<Vec<u8>> {
    let (symbols, types) = (index.symbols.parts(), index.types.parts()?);
    let first: [&[u8]; 2] = [index.build_id.as_bytes(), &index.banner];
    let parts: Vec<&[u8]> = first.into_iter().chain(symbols).chain(types).collect();
    Some(pack(&parts, &INDEX))
}

/// The build id of a kernel, and the types of its variables on top of `base`.
pub(super) fn read_variables(
    mapping: &Arc<Mapping>,
    base: &Arc<Btf>,
) -> Result<(String, VariableTypes), FormatError> {
    let parts = unpack(mapping, &VARIABLES)?;
    let four = [0, 1, 2, 3].map(|n| parts[1 + n].clone());
    let variables = VariableTypes::from_parts(four, base).ok_or(FormatError::Part { part: 1 })?;
    Ok((text(&parts)?, variables))
}

pub(super) fn write_variables(build_id: &str, variables: &VariableTypes) -> Vec<u8> {
    let four = variables.parts();
    let parts: Vec<&[u8]> =
        std::iter::once(build_id.as_bytes()).chain(four.iter().map(|part| &**part)).collect();
    pack(&parts, &VARIABLES)
}

/// The first part, which is text.
fn text(parts: &[StableBytes]) -> Result<String, FormatError> {
    String::from_utf8(parts[0].to_vec()).map_err(|_| FormatError::Part { part: 0 })
}

/// As many parts as the kind has.
fn unpack(mapping: &Arc<Mapping>, kind: &Kind) -> Result<Vec<StableBytes>, FormatError> {
    let bytes = mapping.stable_bytes();
    if bytes.get(..8) != Some(kind.magic) {
        let expected = std::str::from_utf8(kind.magic).unwrap_or_default();
        return Err(FormatError::Magic { expected });
    }
    let version = bytes.get(8..12).and_then(|word| word.first_chunk()).map(|word| u32::from_le_bytes(*word));
    if version != Some(kind.version) {
        return Err(FormatError::Version { expected: kind.version, seen: version.unwrap_or(0) });
    }
    let (expected, seen) = (word(bytes, 16).unwrap_or(0), bytes.len() as u64);
    if expected != seen {
        return Err(FormatError::Length { expected, seen });
    }
    if word(bytes, 24) != Some(checksum(bytes.get(HEADER..).unwrap_or(&[]))) {
        return Err(FormatError::Checksum);
    }
    let part = |part: usize| {
        let at = HEADER + part * 16;
        let range = word(bytes, at).zip(word(bytes, at + 8)).and_then(|(start, length)| {
            let start = usize::try_from(start).ok()?;
            Some(start..start.checked_add(usize::try_from(length).ok()?)?)
        });
        range.and_then(|range| StableBytes::of_file(mapping, range)).ok_or(FormatError::Part { part })
    };
    (0..kind.parts).map(part).collect()
}

fn pack(parts: &[&[u8]], kind: &Kind) -> Vec<u8> {
    let table = HEADER + parts.len() * 16;
    let mut out = Vec::with_capacity(table + parts.iter().map(|part| part.len() + ALIGN).sum::<usize>());
    out.extend_from_slice(kind.magic);
    out.extend_from_slice(&kind.version.to_le_bytes());
    out.extend_from_slice(&(parts.len() as u32).to_le_bytes());
    out.extend_from_slice(&[0; 16]);
    let mut at = table;
    for part in parts {
        out.extend_from_slice(&(at as u64).to_le_bytes());
        out.extend_from_slice(&(part.len() as u64).to_le_bytes());
        at = (at + part.len()).next_multiple_of(ALIGN);
    }
    for part in parts {
        out.extend_from_slice(part);
        out.resize(out.len().next_multiple_of(ALIGN), 0);
    }
    let (length, sum) = (out.len() as u64, checksum(&out[HEADER..]));
    out[16..24].copy_from_slice(&length.to_le_bytes());
    out[24..32].copy_from_slice(&sum.to_le_bytes());
    out
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|word| u64::from_le_bytes(*word))
}

/// Four independent lanes of multiply and rotate: against damage, not against malice, and fast enough that opening
/// isn't spent on it, also in a build without optimization. Each step is a bijection of its lane, so that no single
/// change cancels out.
fn checksum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let (blocks, words) = words.as_chunks::<4>();
    let (mut a, mut b, mut c, mut d) = (1, 2, 3, 4);
    for [first, second, third, fourth] in blocks {
        a = step(a, *first);
        b = step(b, *second);
        c = step(c, *third);
        d = step(d, *fourth);
    }
    let mut sum = bytes.len() as u64;
    for word in words {
        sum = step(sum, *word);
    }
    for byte in rest {
        sum = step(sum, u64::from(*byte).to_le_bytes());
    }
    [a, b, c, d].into_iter().fold(sum, |sum, lane| step(sum, lane.to_le_bytes()))
}

fn step(lane: u64, word: [u8; 8]) -> u64 {
    (lane ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_byte_changes_the_checksum() {
        let bytes: Vec<u8> = (0..200u8).collect();
        let sum = checksum(&bytes);
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x10;
            assert_ne!(checksum(&other), sum, "byte {at}");
        }
        assert_ne!(checksum(&bytes[..199]), sum);
        assert_ne!(checksum(&[0; 32]), checksum(&[0; 64]));
    }
}
