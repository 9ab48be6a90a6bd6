//! The physical-memory trait, and an implementation over bytes held here.

use std::collections::BTreeMap;

use crate::PhysAddr;

/// A source of guest-physical memory. The guest may be running: two reads of one address may differ.
pub trait PhysicalMemory: Send + Sync {
    /// Fills `into` with the bytes at `at`. A naturally aligned read of 1, 2, 4 or 8 bytes should be done in one
    /// access, so that a counter changing under the reader is never seen half written.
    ///
    /// # Errors
    /// [`MemoryFault`] with the first address that couldn't be read; `into` is then unspecified.
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault>;

    /// The ranges that hold memory, ascending and not overlapping. What a search goes over.
    fn ranges(&self) -> &[PhysRange];

    /// The little-endian word at `at`.
    ///
    /// # Errors
    /// As [`PhysicalMemory::read`].
    fn read_u64(&self, at: PhysAddr) -> Result<u64, MemoryFault> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }
}

/// A stretch of physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PhysRange {
    /// First address.
    pub start: PhysAddr,
    /// Length in bytes.
    pub length: u64,
}

impl PhysRange {
    /// Bytes from `at` to the end of this range: 0 when `at` is outside.
    #[must_use]
    pub fn remaining(&self, at: PhysAddr) -> u64 {
        match at.0.checked_sub(self.start.0) {
            Some(inside) => self.length.saturating_sub(inside),
            None => 0,
        }
    }
}

/// No memory at a physical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no memory at physical address {address} ({length} bytes were wanted from there)")]
pub struct MemoryFault {
    /// The first address that couldn't be read.
    pub address: PhysAddr,
    /// Bytes that were still wanted from that address on.
    pub length: usize,
}

/// Physical memory made of separate pieces held in this process: for tests, and for memory that came over a wire.
#[derive(Debug, Default, Clone)]
pub struct SparseMemory {
    pieces: BTreeMap<u64, Vec<u8>>,
    ranges: Vec<PhysRange>,
}

impl SparseMemory {
    /// No memory at all.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds memory at `at`. A later piece hides an earlier one only when it starts at the same address; pieces that
    /// overlap otherwise read as the one that starts closest below. Bytes past the end of the address space are
    /// dropped.
    pub fn insert(&mut self, at: PhysAddr, mut bytes: Vec<u8>) {
        bytes.truncate(usize::try_from(u64::MAX - at.0).unwrap_or(usize::MAX).saturating_add(1));
        self.pieces.insert(at.0, bytes);
        self.ranges = self
            .pieces
            .iter()
            .map(|(start, bytes)| PhysRange { start: PhysAddr(*start), length: bytes.len() as u64 })
            .collect();
    }

    /// Writes `bytes` at `at` inside a piece that is there already; returns whether it was.
    pub fn write(&mut self, at: PhysAddr, bytes: &[u8]) -> bool {
        let Some((start, piece)) = self.pieces.range_mut(..=at.0).next_back() else { return false };
        let from = (at.0 - start) as usize;
        match from.checked_add(bytes.len()).and_then(|to| piece.get_mut(from..to)) {
            Some(slot) => {
                slot.copy_from_slice(bytes);
                true
            }
            None => false,
        }
    }
}

impl PhysicalMemory for SparseMemory {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let mut done = 0;
        while done < into.len() {
            let length = into.len() - done;
            let fault = MemoryFault { address: PhysAddr(at.0.wrapping_add(done as u64)), length };
            let address = at.checked_add(done as u64).ok_or(fault)?;
            let (start, piece) = self.pieces.range(..=address.0).next_back().ok_or(fault)?;
            let from =
                usize::try_from(address.0 - start).ok().and_then(|from| piece.get(from..)).unwrap_or(&[]);
            if from.is_empty() {
                return Err(fault);
            }
            let part = from.len().min(length);
            into[done..done + part].copy_from_slice(&from[..part]);
            done += part;
        }
        Ok(())
    }

    fn ranges(&self) -> &[PhysRange] {
        &self.ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_crosses_adjoining_pieces_and_names_the_first_hole() {
        let mut memory = SparseMemory::new();
        memory.insert(PhysAddr(0x1000), vec![1; 16]);
        memory.insert(PhysAddr(0x1010), vec![2; 16]);
        let mut bytes = [0; 4];
        memory.read(PhysAddr(0x100e), &mut bytes).unwrap();
        assert_eq!(bytes, [1, 1, 2, 2]);
        let fault = memory.read(PhysAddr(0x101e), &mut bytes).unwrap_err();
        assert_eq!(fault, MemoryFault { address: PhysAddr(0x1020), length: 2 });
    }

    #[test]
    fn the_end_of_the_address_space_is_a_fault() {
        let mut memory = SparseMemory::new();
        memory.insert(PhysAddr(u64::MAX - 1), vec![7; 16]);
        let mut bytes = [0; 4];
        assert!(memory.read(PhysAddr(u64::MAX), &mut bytes).is_err());
        assert!(memory.read(PhysAddr(0), &mut bytes).is_err());
    }
}
