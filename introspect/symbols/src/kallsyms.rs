//! The kernel's own symbol tables, found and decoded in guest memory (kernel/kallsyms.c reads them, scripts/kallsyms.c
//! writes them).
//!
//! The token table is the anchor: 256 NUL-terminated strings, among which the digits stand for themselves, followed
//! by an index that must agree with it. Everything else is found from there and must agree too: each 256th name with
//! a marker, the number of names with the number of markers, the addresses with ascending order.

mod decode;
mod search;

use ktstr_introspect_memory::{MemoryFault, PhysAddr, PhysicalMemory};

use crate::SymbolTable;

/// How the tables lie, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KallsymsLayout {
    /// Offsets and relative base come before the names: up to 6.3.
    OffsetsFirst,
    /// They come after the token index: from 6.4 on ("scripts/kallsyms: change the output order").
    OffsetsLast,
}

/// kallsyms couldn't be read.
#[derive(Debug, thiserror::Error)]
pub enum KallsymsError {
    /// Nothing looks like its tables.
    #[error(
        "no kallsyms token table in guest memory ({searched} bytes searched, {near} near misses{}): expected a booted kernel with CONFIG_KALLSYMS; give its vmlinux instead",
        last.as_ref().map(|(at, why)| format!(", the last at {at}: {why}")).unwrap_or_default()
    )]
    NotFound {
        /// Bytes searched.
        searched: u64,
        /// Places that had the digits but not the rest.
        near: u64,
        /// The last of those and what was wrong.
        last: Option<(PhysAddr, DecodeError)>,
    },
    /// Memory that should be there isn't.
    #[error("cannot search guest memory for kallsyms: {0}")]
    Memory(#[from] MemoryFault),
}

/// What is wrong with tables that started well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// No token table whose index agrees.
    #[error("no token index agrees with the tokens")]
    Tokens,
    /// No list of markers before it.
    #[error("no list of markers before the tokens")]
    Markers,
    /// No list of names that the markers agree with.
    #[error("no list of names agrees with the {markers} markers")]
    Names {
        /// How many markers there are.
        markers: usize,
    },
    /// Neither layout gives ascending kernel addresses.
    #[error("no address table for {symbols} symbols ascends in kernel space")]
    Addresses {
        /// How many symbols there are.
        symbols: usize,
    },
    /// A name expands to more than a kernel symbol can have.
    #[error("symbol {index} expands to more than {limit} bytes")]
    Name {
        /// Which.
        index: usize,
        /// The most accepted.
        limit: usize,
    },
}

/// A kernel's symbols as it knows them itself.
#[derive(Debug)]
pub struct Kallsyms {
    /// How the tables lay.
    pub layout: KallsymsLayout,
    /// Where the token table was.
    pub tokens_at: PhysAddr,
    /// The symbols, at runtime addresses.
    pub symbols: SymbolTable,
}

/// How much is read at a time, and how much of a hit's surroundings is decoded. The largest tables seen (a
/// distribution's allmodconfig) take some 5 MiB on each side.
const CHUNK: u64 = 4 << 20;
const REACH: u64 = 16 << 20;
/// A guest can fill its memory with near misses, each of which costs a decode: after these, stop.
const MAX_NEAR: u64 = 64;

impl Kallsyms {
    /// Searches `memory`, ascending, and decodes the first tables that agree with themselves.
    ///
    /// # Errors
    /// [`KallsymsError`] when there are none.
    pub fn find(memory: &dyn PhysicalMemory) -> Result<Self, KallsymsError> {
        let (mut searched, mut near, mut last) = (0, 0, None);
        let mut chunk = Vec::new();
        for range in memory.ranges() {
            let mut at = 0;
            while at < range.length {
                // Chunks overlap by the pattern's length, so that none hides a hit on its edge.
                let length = (range.length - at).min(CHUNK + search::LENGTH as u64);
                chunk.resize(length as usize, 0);
                let start = range.start.0.wrapping_add(at);
                memory.read(PhysAddr(start), &mut chunk)?;
                for hit in search::hits(&chunk) {
                    let low = (start + hit as u64).saturating_sub(REACH).max(range.start.0) & !7;
                    let low = if low < range.start.0 { low + 8 } else { low };
                    let end = range.start.0.saturating_add(range.length);
                    let high = (start + hit as u64).saturating_add(REACH).min(end);
                    let mut window = vec![0; high.saturating_sub(low) as usize];
                    memory.read(PhysAddr(low), &mut window)?;
                    let inside = (start + hit as u64).saturating_sub(low) as usize;
                    match decode::decode(&window, inside) {
                        Ok(found) => {
                            let tokens_at = PhysAddr(low + found.tokens_at as u64);
                            return Ok(Self { layout: found.layout, tokens_at, symbols: found.symbols });
                        }
                        Err(why) => {
                            near += 1;
                            last = Some((PhysAddr(start + hit as u64), why));
                        }
                    }
                    if near >= MAX_NEAR {
                        return Err(KallsymsError::NotFound { searched, near, last });
                    }
                }
                searched += length.min(CHUNK);
                at += CHUNK;
            }
        }
        Err(KallsymsError::NotFound { searched, near, last })
    }
}

#[cfg(test)]
mod tests;
