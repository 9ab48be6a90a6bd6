//! From a window of memory with a token table in it to symbols. Pure, and sure of nothing it reads.

use ktstr_introspect_memory::VirtAddr;

use super::{DecodeError, KallsymsLayout};
use crate::{SymbolKind, SymbolTable, SymbolTableBuilder};

/// `KSYM_NAME_LEN` is 512 since 6.1; the type character comes on top.
const NAME_LIMIT: usize = 1024;
/// Names of a real kernel take some 10 MiB expanded; a hostile table must not take all memory.
const NAMES_LIMIT: usize = 256 << 20;
/// Compressed bytes that one group of 256 names can take: two length bytes and 512 of text each.
const GROUP_LIMIT: usize = 256 * 514;

pub(super) struct Decoded {
    pub(super) layout: KallsymsLayout,
    pub(super) tokens_at: usize,
    pub(super) symbols: SymbolTable,
}

/// Decodes the tables around `hit`, where the tokens `0` to `9` stand. `window` starts at an address that is a
/// multiple of 8, as every table does.
pub(super) fn decode(window: &[u8], hit: usize) -> Result<Decoded, DecodeError> {
    let tokens = Tokens::find(window, hit).ok_or(DecodeError::Tokens)?;
    let (names, count) = find_names(window, tokens.start)?;
    let after = addresses(window, tokens.end, count).map(|found| (KallsymsLayout::OffsetsLast, found));
    let (layout, addresses) = after
        .or_else(|| {
            offsets_before(names, count)
                .and_then(|at| addresses_at(window, at.0, at.1, count))
                .map(|found| (KallsymsLayout::OffsetsFirst, found))
        })
        .ok_or(DecodeError::Addresses { symbols: count })?;
    let symbols = expand(window, names, &tokens, &addresses)?;
    Ok(Decoded { layout, tokens_at: tokens.start, symbols })
}

struct Tokens<'a> {
    start: usize,
    end: usize,
    text: Vec<&'a [u8]>,
}

impl<'a> Tokens<'a> {
    /// Walks back over the 48 tokens before `0`, then checks all 256 against the index behind them.
    fn find(window: &'a [u8], hit: usize) -> Option<Self> {
        let mut nuls = window.get(..hit)?.iter().rposition_all(usize::from(b'0') + 1);
        let before_first = nuls.pop()?;
        let end_of_first = nuls.pop()?;
        // The table is aligned; what precedes it is usually, not always, a NUL of padding.
        (before_first + 1..=end_of_first)
            .filter(|start| start % 8 == 0)
            .find_map(|start| Self::parse(window, start))
    }

    fn parse(window: &'a [u8], start: usize) -> Option<Self> {
        let (mut at, mut text) = (start, Vec::with_capacity(256));
        for _ in 0..256 {
            let rest = window.get(at..)?;
            let length = rest.iter().take(NAME_LIMIT).position(|byte| *byte == 0)?;
            text.push(&rest[..length]);
            at += length + 1;
        }
        let index = at.next_multiple_of(8);
        let end = index + 512;
        let entries = window
            .get(index..end)?
            .chunks_exact(2)
            .map(|pair| usize::from(pair[0]) | usize::from(pair[1]) << 8);
        let mut expected = 0;
        for (entry, token) in entries.zip(&text) {
            if entry != expected {
                return None;
            }
            expected += token.len() + 1;
        }
        Some(Self { start, end, text })
    }
}

/// Positions of the last `count` NULs, last first.
trait LastNuls {
    fn rposition_all(self, count: usize) -> Vec<usize>;
}

impl LastNuls for std::slice::Iter<'_, u8> {
    fn rposition_all(self, count: usize) -> Vec<usize> {
        self.enumerate()
            .rev()
            .take(NAME_LIMIT * 49)
            .filter(|(_, byte)| **byte == 0)
            .map(|(at, _)| at)
            .take(count)
            .collect()
    }
}

/// The names before the token table: at once, or, from 6.2 to 6.3 and in stable 6.1 kernels that took "kallsyms: Improve
/// the performance of kallsyms_lookup_name()", with three bytes a symbol of `kallsyms_seqs_of_names` between.
fn find_names(window: &[u8], tokens: usize) -> Result<(usize, usize), DecodeError> {
    let mut failure = DecodeError::Markers;
    // Words that a search may look at in all: a table made to mislead must end, too.
    let mut budget = 1u32 << 26;
    for gap in (0..=tokens).step_by(8) {
        let most = if gap == 0 { usize::MAX } else { gap.div_ceil(768) };
        let Some(markers) = markers(window, tokens - gap, most, &mut budget) else { continue };
        let found = names(window, &markers);
        match found.filter(|(_, count)| gap == 0 || (count * 3).next_multiple_of(8) == gap) {
            Some(found) => return Ok(found),
            None => failure = DecodeError::Names { markers: markers.values.len() },
        }
    }
    Err(failure)
}

struct Markers {
    start: usize,
    values: Vec<usize>,
}

/// The ascending list of at most `most` 32-bit words that starts with 0 and ends just before `end`, but for 4 bytes of
/// padding.
fn markers(window: &[u8], end: usize, most: usize, budget: &mut u32) -> Option<Markers> {
    let mut at = end.checked_sub(4)?;
    if word(window, at)? == 0 {
        at = at.checked_sub(4)?;
    }
    let mut values = vec![word(window, at)? as usize];
    while *values.last()? != 0 {
        *budget = budget.checked_sub(1)?;
        at = at.checked_sub(4)?;
        let value = word(window, at)? as usize;
        let step = values.last()?.checked_sub(value)?;
        if !(512..=GROUP_LIMIT).contains(&step) || values.len() >= most {
            return None;
        }
        values.push(value);
    }
    values.reverse();
    // One marker of 0 is any zero word: too little to go by, and no kernel has so few symbols.
    (at % 8 == 0 && values.len() > 1).then_some(Markers { start: at, values })
}

/// Where the names start, and how many there are: the one place before the markers where the word in front says a
/// number that fits and every marker agrees.
fn names(window: &[u8], markers: &Markers) -> Option<(usize, usize)> {
    let last = *markers.values.last()?;
    let highest = markers.start.checked_sub(last)?.checked_sub(2)? & !7;
    let lowest = highest.saturating_sub(GROUP_LIMIT + 8);
    (lowest.max(8)..=highest).rev().filter(|start| start % 8 == 0).find_map(|start| {
        let count = word(window, start - 8)? as usize;
        let fits = count.div_ceil(256) == markers.values.len() && word(window, start - 4)? == 0;
        (fits && names_agree(window, start, count, markers)).then_some((start, count))
    })
}

fn names_agree(window: &[u8], start: usize, count: usize, markers: &Markers) -> bool {
    let mut at = start;
    for index in 0..count {
        if index % 256 == 0 && markers.values.get(index / 256) != Some(&(at - start)) {
            return false;
        }
        let Some((text, length)) = name_at(window, at) else { return false };
        at = text + length;
        if at > markers.start {
            return false;
        }
    }
    at.next_multiple_of(8) == markers.start
}

/// Where the compressed text of the name at `at` starts, and its length: one byte, or two since 6.1 ("kallsyms:
/// support "big" kernel symbols") when the top bit is set.
fn name_at(window: &[u8], at: usize) -> Option<(usize, usize)> {
    let first = usize::from(*window.get(at)?);
    let (text, length) = match first & 0x80 {
        0 => (at + 1, first),
        _ => (at + 2, first & 0x7f | usize::from(*window.get(at + 1)?) << 7),
    };
    (length > 0 && text + length <= window.len()).then_some((text, length))
}

/// The address table that starts at `at` with its base behind it.
fn addresses(window: &[u8], at: usize, count: usize) -> Option<Vec<u64>> {
    addresses_at(window, at, (at + count.checked_mul(4)?).next_multiple_of(8), count)
}

/// Offsets and base in front of the names: the base is the 8 bytes before the number of symbols.
fn offsets_before(names: usize, count: usize) -> Option<(usize, usize)> {
    let base = names.checked_sub(16)?;
    Some((base.checked_sub(count.checked_mul(4)?.next_multiple_of(8))?, base))
}

/// `kallsyms_sym_address`: with `CONFIG_KALLSYMS_ABSOLUTE_PERCPU` offsets from 0 up are absolute and negative ones
/// count down from the base; without it (gone for good in 6.15) all are unsigned and relative.
fn addresses_at(window: &[u8], offsets: usize, base: usize, count: usize) -> Option<Vec<u64>> {
    let base = u64::from_le_bytes(window.get(base..base.checked_add(8)?)?.try_into().ok()?);
    let bytes = window.get(offsets..offsets.checked_add(count.checked_mul(4)?)?)?;
    let raw = || bytes.chunks_exact(4).map(|word| i32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    let absolute_percpu = raw().any(|offset| offset < 0);
    let decode = |offset: i32| match (absolute_percpu, offset) {
        (true, 0..) => offset as u64,
        (true, _) => base.wrapping_sub(1).wrapping_sub(i64::from(offset) as u64),
        (false, _) => base.wrapping_add(u64::from(offset as u32)),
    };
    let found: Vec<u64> = raw().map(decode).collect();
    let in_kernel = base >> 63 == 1 && found.last()? >> 63 == 1;
    (in_kernel && found.is_sorted()).then_some(found)
}

fn expand(
    window: &[u8],
    names: usize,
    tokens: &Tokens<'_>,
    addresses: &[u64],
) -> Result<SymbolTable, DecodeError> {
    let mut builder = SymbolTableBuilder::with_capacity(addresses.len(), addresses.len() * 24);
    let (mut at, mut name) = (names, Vec::new());
    for (index, address) in addresses.iter().enumerate() {
        let too_long = DecodeError::Name { index, limit: NAME_LIMIT };
        let (text, length) = name_at(window, at).ok_or(too_long)?;
        name.clear();
        for token in window.get(text..text + length).ok_or(too_long)? {
            name.extend_from_slice(tokens.text[usize::from(*token)]);
            if name.len() > NAME_LIMIT {
                return Err(too_long);
            }
        }
        at = text + length;
        let Some((kind, name)) = name.split_first() else { continue };
        let kind = match kind {
            b't' | b'T' | b'w' | b'W' => SymbolKind::Function,
            b'a' | b'A' => SymbolKind::Label,
            _ => SymbolKind::Object,
        };
        builder.push(name, VirtAddr(*address), 0, kind);
        if builder.name_bytes() > NAMES_LIMIT {
            return Err(too_long);
        }
    }
    Ok(builder.build())
}

fn word(window: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(window.get(at..at.checked_add(4)?)?.try_into().ok()?))
}
