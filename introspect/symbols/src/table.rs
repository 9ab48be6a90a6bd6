//! Symbols by name and by address.

use std::fmt;

use ktstr_introspect_memory::{KernelOffset, StableBytes, VirtAddr};

const NONE: u32 = u32::MAX;

/// What a symbol names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SymbolKind {
    /// A label or a linker-script symbol.
    Label,
    /// A variable.
    Object,
    /// A function.
    Function,
}

/// A symbol at its runtime address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its runtime address; for a per-CPU variable on kernels that link those at zero, its offset in the CPU's area.
    pub address: VirtAddr,
    /// Its size in bytes; 0 when unknown, as in kallsyms.
    pub size: u64,
    /// What it names.
    pub kind: SymbolKind,
}

/// Bytes of an [`Entry`] as a table keeps it.
const ENTRY: usize = 24;

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    size: u64,
    name: u32,
    length: u16,
    kind: SymbolKind,
}

impl Entry {
    /// Three little-endian words: address, size, and the rest.
    fn to_words(self) -> [[u8; 8]; 3] {
        let kind = match self.kind {
            SymbolKind::Label => 0u64,
            SymbolKind::Object => 1,
            SymbolKind::Function => 2,
        };
        let rest = u64::from(self.name) | u64::from(self.length) << 32 | kind << 48;
        [self.address.to_le_bytes(), self.size.to_le_bytes(), rest.to_le_bytes()]
    }

    #[inline]
    fn from_words([address, size, rest]: &[[u8; 8]; 3]) -> Self {
        let rest = u64::from_le_bytes(*rest);
        Self {
            address: u64::from_le_bytes(*address),
            size: u64::from_le_bytes(*size),
            name: rest as u32,
            length: (rest >> 32) as u16,
            kind: match rest >> 48 {
                0 => SymbolKind::Label,
                1 => SymbolKind::Object,
                _ => SymbolKind::Function,
            },
        }
    }
}

/// Collects symbols for a [`SymbolTable`].
#[derive(Debug, Default)]
pub struct SymbolTableBuilder {
    names: Vec<u8>,
    entries: Vec<Entry>,
}

impl SymbolTableBuilder {
    /// An empty one with room for `symbols` symbols and `name_bytes` bytes of names.
    #[must_use]
    pub fn with_capacity(symbols: usize, name_bytes: usize) -> Self {
        Self { names: Vec::with_capacity(name_bytes), entries: Vec::with_capacity(symbols) }
    }

    /// Adds a symbol at the address it was linked at. Names that are empty, not UTF-8 or longer than 64 KiB are no
    /// use to anyone and are left out, as is anything past 4 GiB of names.
    pub fn push(&mut self, name: &[u8], address: VirtAddr, size: u64, kind: SymbolKind) {
        let (Ok(at), Ok(length)) = (u32::try_from(self.names.len()), u16::try_from(name.len())) else {
            return;
        };
        if name.is_empty() || std::str::from_utf8(name).is_err() {
            return;
        }
        self.names.extend_from_slice(name);
        self.entries.push(Entry { address: address.0, size, name: at, length, kind });
    }

    /// Bytes of names so far.
    #[must_use]
    pub fn name_bytes(&self) -> usize {
        self.names.len()
    }

    /// Sorts and indexes what was added.
    #[must_use]
    pub fn build(mut self) -> SymbolTable {
        self.entries.sort_unstable_by_key(|entry| (entry.address, entry.kind, entry.name));
        let buckets = self.entries.len().next_power_of_two().max(16);
        let (mut heads, mut next) = (vec![NONE; buckets], vec![NONE; self.entries.len()]);
        // From the last to the first, so that a chain lists symbols of one name by ascending address.
        for (index, entry) in self.entries.iter().enumerate().rev() {
            let start = entry.name as usize;
            let name = self.names.get(start..start + usize::from(entry.length)).unwrap_or(&[]);
            let bucket = hash(name) & (buckets - 1);
            next[index] = heads[bucket];
            heads[bucket] = index as u32;
        }
        let entries: Vec<_> = self.entries.iter().map(|entry| entry.to_words()).collect();
        SymbolTable {
            names: self.names.into(),
            entries: entries.into_flattened().into_flattened().into(),
            heads: StableBytes::of_words(&heads),
            next: StableBytes::of_words(&next),
            offset: KernelOffset(0),
        }
    }
}

/// All symbols of a kernel, moved by its KASLR offset.
#[derive(Clone)]
pub struct SymbolTable {
    names: StableBytes,
    entries: StableBytes,
    heads: StableBytes,
    next: StableBytes,
    offset: KernelOffset,
}

impl fmt::Debug for SymbolTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SymbolTable({} symbols, {:?})", self.len(), self.offset)
    }
}

impl SymbolTable {
    /// The same table for a kernel that KASLR moved by `offset`.
    #[must_use]
    pub fn with_offset(mut self, offset: KernelOffset) -> Self {
        self.offset = offset;
        self
    }

    /// The symbols of a table that was read at runtime addresses, at link addresses: each that KASLR moved by `offset`
    /// back. The result has no offset.
    #[must_use]
    pub fn at_link_addresses(&self, offset: KernelOffset) -> Self {
        let mut entries = Vec::with_capacity(self.entries.len());
        for mut entry in (0..self.len()).filter_map(|index| self.entry(index)) {
            if moves(entry.address) {
                entry.address = offset.undo(VirtAddr(entry.address)).0;
            }
            entries.push(entry.to_words());
        }
        Self {
            entries: entries.into_flattened().into_flattened().into(),
            offset: KernelOffset(0),
            ..self.clone()
        }
    }

    /// The offset that runtime addresses include.
    #[must_use]
    pub fn offset(&self) -> KernelOffset {
        self.offset
    }

    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len() / ENTRY
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The symbol of that name; the lowest one when static symbols share it.
    #[must_use]
    pub fn lookup(&self, name: &str) -> Option<Symbol<'_>> {
        self.lookup_all(name).next()
    }

    /// All symbols of that name, by ascending address.
    pub fn lookup_all<'a>(&'a self, name: &str) -> impl Iterator<Item = Symbol<'a>> {
        let buckets = self.heads.words();
        let bucket = hash(name.as_bytes()) & buckets.wrapping_sub(1);
        let mut index = self.heads.word(bucket).unwrap_or(NONE);
        let name = name.as_bytes().to_vec();
        std::iter::from_fn(move || {
            while let Some(entry) = self.entry(index as usize) {
                // A chain ascends; one that doesn't is out of a broken index, and may have no end.
                let next = self.next.word(index as usize).filter(|next| *next > index);
                index = next.unwrap_or(NONE);
                if self.name(&entry) == name {
                    return Some(self.symbol(&entry));
                }
            }
            None
        })
    }

    /// The symbol that `address` is in, and how far: the closest at or below. A function is preferred over a variable
    /// and that over a label at the same address.
    #[must_use]
    pub fn at(&self, address: VirtAddr) -> Option<(Symbol<'_>, u64)> {
        let link = self.offset.undo(address).0;
        // Moved symbols lie in the upper half only; an address below it is looked for as it is.
        let link = if moves(link) { link } else { address.0 };
        let after = self.first_above(link);
        let entry = self.entry(after.checked_sub(1)?)?;
        // A constant such as a per-CPU offset says nothing of an address in the kernel half.
        (moves(entry.address) == moves(link)).then(|| (self.symbol(&entry), link - entry.address))
    }

    /// All symbols by ascending link address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        (0..self.len()).filter_map(|index| self.entry(index)).map(|entry| self.symbol(&entry))
    }

    /// Names, entries, hash heads and chains as bytes, for [`SymbolTable::from_parts`]. The offset isn't among them.
    #[must_use]
    pub fn parts(&self) -> [&[u8]; 4] {
        [&self.names, &self.entries, &self.heads, &self.next]
    }

    /// A table at link addresses out of the [`SymbolTable::parts`] of another; nothing when they don't fit together.
    /// Parts that are broken otherwise give wrong answers or none, never a walk without end.
    #[must_use]
    pub fn from_parts([names, entries, heads, next]: [StableBytes; 4]) -> Option<Self> {
        let fits = entries.len() % ENTRY == 0
            && next.len() / 4 == entries.len() / ENTRY
            && heads.len() % 4 == 0
            && heads.words().is_power_of_two();
        fits.then_some(Self { names, entries, heads, next, offset: KernelOffset(0) })
    }

    #[inline]
    fn entry(&self, index: usize) -> Option<Entry> {
        let at = index.checked_mul(ENTRY)?;
        let (words, _) = self.entries.get(at..at.checked_add(ENTRY)?)?.as_chunks::<8>();
        words.first_chunk().map(Entry::from_words)
    }

    /// The first entry whose address is above `link`.
    fn first_above(&self, link: u64) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle) {
                Some(entry) if entry.address <= link => low = middle + 1,
                _ => high = middle,
            }
        }
        low
    }

    fn name(&self, entry: &Entry) -> &[u8] {
        let start = entry.name as usize;
        self.names.get(start..start + usize::from(entry.length)).unwrap_or(&[])
    }

    fn symbol(&self, entry: &Entry) -> Symbol<'_> {
        let link = VirtAddr(entry.address);
        Symbol {
            name: std::str::from_utf8(self.name(entry)).unwrap_or("?"),
            address: if moves(entry.address) { self.offset.apply(link) } else { link },
            size: entry.size,
            kind: entry.kind,
        }
    }
}

/// FNV-1a: short keys, no need for a seed, since a chain of any length is still walked once.
fn hash(name: &[u8]) -> usize {
    let hash = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    (hash ^ (hash >> 32)) as usize
}

/// Whether a link address moves with KASLR: the kernel half does, constants (zero-based per-CPU symbols among them,
/// linked so until 6.15) don't.
fn moves(link: u64) -> bool {
    link >> 63 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table() -> SymbolTable {
        let mut builder = SymbolTableBuilder::default();
        builder.push(b"_text", VirtAddr(0xffff_ffff_8100_0000), 0, SymbolKind::Label);
        builder.push(b"startup_64", VirtAddr(0xffff_ffff_8100_0000), 64, SymbolKind::Function);
        builder.push(b"show", VirtAddr(0xffff_ffff_8100_2000), 16, SymbolKind::Function);
        builder.push(b"show", VirtAddr(0xffff_ffff_8100_1000), 16, SymbolKind::Function);
        builder.push(b"runqueues", VirtAddr(0x21000), 3000, SymbolKind::Object);
        builder.build()
    }

    #[test]
    fn names_addresses_and_duplicates_are_found() {
        let table = table();
        assert_eq!(table.lookup("show").unwrap().address, VirtAddr(0xffff_ffff_8100_1000));
        assert_eq!(table.lookup_all("show").count(), 2);
        let (symbol, offset) = table.at(VirtAddr(0xffff_ffff_8100_0010)).unwrap();
        assert_eq!((symbol.name, offset), ("startup_64", 16));
        assert!(table.at(VirtAddr(0xffff_ffff_80ff_ffff)).is_none());
        assert!(table.lookup("absent").is_none());
    }

    #[test]
    fn kaslr_moves_the_kernel_half_and_leaves_constants() {
        let table = table().with_offset(KernelOffset(0x1260_0000));
        assert_eq!(table.lookup("runqueues").unwrap().address, VirtAddr(0x21000));
        assert_eq!(table.lookup("_text").unwrap().address, VirtAddr(0xffff_ffff_9360_0000));
        let (symbol, offset) = table.at(VirtAddr(0xffff_ffff_9360_1004)).unwrap();
        assert_eq!((symbol.name, offset), ("show", 4));
    }

    #[test]
    fn runtime_addresses_go_back_to_link_addresses() {
        let runtime = table().at_link_addresses(KernelOffset(0u64.wrapping_sub(0x1260_0000)));
        let again =
            runtime.at_link_addresses(KernelOffset(0x1260_0000)).with_offset(KernelOffset(0x1260_0000));
        assert_eq!(runtime.lookup("_text").unwrap().address, VirtAddr(0xffff_ffff_9360_0000));
        assert_eq!(again.lookup("_text"), runtime.lookup("_text"));
        assert_eq!(again.lookup("runqueues").unwrap().address, VirtAddr(0x21000));
    }

    #[test]
    fn an_empty_table_answers_nothing() {
        let table = SymbolTableBuilder::default().build();
        assert!(table.lookup("x").is_none() && table.at(VirtAddr(u64::MAX)).is_none());
    }

    proptest! {
        #[test]
        fn every_symbol_is_found_again(names in proptest::collection::vec("[a-d]{1,3}", 1..200)) {
            let mut builder = SymbolTableBuilder::default();
            for (at, name) in names.iter().enumerate() {
                builder.push(name.as_bytes(), VirtAddr((1 << 63) + at as u64 * 8), 8, SymbolKind::Object);
            }
            let table = builder.build();
            for (at, name) in names.iter().enumerate() {
                let address = VirtAddr((1 << 63) + at as u64 * 8);
                prop_assert!(table.lookup_all(name).any(|symbol| symbol.address == address));
                prop_assert_eq!(table.at(VirtAddr(address.0 + 3)).map(|(s, o)| (s.name, o)), Some((name.as_str(), 3)));
            }
            let again = SymbolTable::from_parts(table.parts().map(StableBytes::from)).unwrap();
            for name in &names {
                let found = |table: &SymbolTable| table.lookup_all(name).map(|symbol| symbol.address).collect::<Vec<_>>();
                prop_assert_eq!(found(&again), found(&table));
            }
        }

        #[test]
        fn broken_parts_end(words in proptest::collection::vec(0u32..12, 60), name in "[a-c]{1,2}", address: u64) {
            let part = |range: std::ops::Range<usize>| StableBytes::of_words(&words[range]);
            let table = SymbolTable::from_parts([part(0..10), part(10..28), part(28..32), part(32..35)]).unwrap();
            prop_assert!(table.lookup_all(&name).count() <= 3);
            let _ = table.at(VirtAddr(address));
            prop_assert!(SymbolTable::from_parts([part(0..10), part(10..27), part(28..32), part(32..35)]).is_none());
        }
    }
}
