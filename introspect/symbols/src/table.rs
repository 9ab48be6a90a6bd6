//! Symbols by name and by address.

use std::fmt;

use ktstr_introspect_memory::{KernelOffset, VirtAddr};

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

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: u64,
    size: u64,
    name: u32,
    length: u16,
    kind: SymbolKind,
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
        let mut table = SymbolTable {
            names: self.names,
            entries: self.entries,
            heads: vec![NONE; buckets],
            next: Vec::new(),
            offset: KernelOffset(0),
        };
        table.next = vec![NONE; table.entries.len()];
        // From the last to the first, so that a chain lists symbols of one name by ascending address.
        for index in (0..table.entries.len()).rev() {
            let bucket = table.bucket(table.name(&table.entries[index]));
            table.next[index] = table.heads[bucket];
            table.heads[bucket] = index as u32;
        }
        table
    }
}

/// All symbols of a kernel, moved by its KASLR offset.
#[derive(Clone)]
pub struct SymbolTable {
    names: Vec<u8>,
    entries: Vec<Entry>,
    heads: Vec<u32>,
    next: Vec<u32>,
    offset: KernelOffset,
}

impl fmt::Debug for SymbolTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SymbolTable({} symbols, {:?})", self.entries.len(), self.offset)
    }
}

impl SymbolTable {
    /// The same table for a kernel that KASLR moved by `offset`.
    #[must_use]
    pub fn with_offset(mut self, offset: KernelOffset) -> Self {
        self.offset = offset;
        self
    }

    /// The offset that runtime addresses include.
    #[must_use]
    pub fn offset(&self) -> KernelOffset {
        self.offset
    }

    /// Number of symbols.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
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
        let mut index = self.heads.get(self.bucket(name.as_bytes())).copied().unwrap_or(NONE);
        let name = name.as_bytes().to_vec();
        std::iter::from_fn(move || {
            while let Some(entry) = self.entries.get(index as usize) {
                index = self.next[index as usize];
                if self.name(entry) == name {
                    return Some(self.symbol(entry));
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
        let after = self.entries.partition_point(|entry| entry.address <= link);
        let entry = self.entries.get(after.checked_sub(1)?)?;
        // A constant such as a per-CPU offset says nothing of an address in the kernel half.
        (moves(entry.address) == moves(link)).then(|| (self.symbol(entry), link - entry.address))
    }

    /// All symbols by ascending link address.
    pub fn iter(&self) -> impl Iterator<Item = Symbol<'_>> {
        self.entries.iter().map(|entry| self.symbol(entry))
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

    fn bucket(&self, name: &[u8]) -> usize {
        // FNV-1a: short keys, no need for a seed, since a chain of any length is still walked once.
        let hash = name.iter().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
        });
        (hash ^ (hash >> 32)) as usize & (self.heads.len() - 1)
    }
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
        }
    }
}
