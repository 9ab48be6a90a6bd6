//! Guest RAM: one memfd a NUMA node, mapped shared, and where everything lies in
//! guest-physical memory. RAM that was saved is mapped privately from its files.
//!
//! Other processes and crates read a running guest through the same memfds (of a
//! private mapping, through `/proc/…/mem`), so nothing has to be asked of the guest. What differs from one architecture to the
//! next (holes, device addresses) is in [`arch`], and only there.

pub mod arch;
mod error;
mod ram;
mod saved;

pub use arch::layout;
pub use error::MemoryError;
pub use ram::{GuestRam, Pages, RamOptions};

/// A run of guest-physical memory that is RAM of one NUMA node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// NUMA node, as the machine's shape numbers it.
    pub node: u32,
    /// Guest-physical address of the first byte.
    pub start: u64,
    /// Length in bytes, at least one page.
    pub bytes: u64,
    /// Offset of the first byte in the node's memfd.
    pub file_offset: u64,
}

impl Region {
    /// Address after the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.bytes
    }
}

/// Where the RAM of the nodes lies, given how many bytes each has: one node after
/// the other from address 0, past the hole that the architecture leaves for devices.
///
/// A node that meets the hole has two regions; nodes without memory have none.
///
/// # Errors
/// A size that is no multiple of [`PAGE`], or a sum that the address space can't hold.
pub fn regions(node_bytes: &[u64]) -> Result<Vec<Region>, MemoryError> {
    let mut regions = Vec::new();
    let mut at = 0u64;
    for (node, &bytes) in (0u32..).zip(node_bytes) {
        if !bytes.is_multiple_of(PAGE) {
            return Err(MemoryError::Unaligned { node, bytes });
        }
        let mut file_offset = 0;
        while file_offset < bytes {
            if at == layout::LOW_RAM_END {
                at = layout::HIGH_RAM_START;
            }
            let room = if at < layout::LOW_RAM_END { layout::LOW_RAM_END } else { layout::RAM_END } - at;
            let length = room.min(bytes - file_offset);
            if length == 0 {
                let total = node_bytes.iter().fold(0u64, |sum, n| sum.saturating_add(*n));
                return Err(MemoryError::TooMuch { total });
            }
            regions.push(Region { node, start: at, bytes: length, file_offset });
            at += length;
            file_offset += length;
        }
    }
    Ok(regions)
}

/// Bytes in the smallest unit of guest RAM.
pub const PAGE: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_node_that_meets_the_hole_is_split_around_it() {
        let low = layout::LOW_RAM_END;
        let regions = regions(&[low - PAGE, 3 * PAGE, 0, PAGE]).unwrap();
        let seen: Vec<_> = regions.iter().map(|r| (r.node, r.start, r.bytes, r.file_offset)).collect();
        assert_eq!(
            seen,
            [
                (0, 0, low - PAGE, 0),
                (1, low - PAGE, PAGE, 0),
                (1, layout::HIGH_RAM_START, 2 * PAGE, PAGE),
                (3, layout::HIGH_RAM_START + 2 * PAGE, PAGE, 0),
            ]
        );
    }

    #[test]
    fn sizes_that_make_no_sense_are_refused() {
        assert!(matches!(regions(&[PAGE + 1]), Err(MemoryError::Unaligned { node: 0, .. })));
        assert!(matches!(regions(&[layout::RAM_END]), Err(MemoryError::TooMuch { .. })));
        assert!(matches!(regions(&[u64::MAX - 4095, PAGE]), Err(MemoryError::TooMuch { .. })));
    }

    proptest! {
        #[test]
        fn regions_cover_each_node_once_and_never_the_hole(pages in prop::collection::vec(0u64..2_000_000, 1..8)) {
            let bytes: Vec<u64> = pages.iter().map(|p| p * PAGE).collect();
            let regions = regions(&bytes).unwrap();
            for (node, &want) in (0u32..).zip(&bytes) {
                let mine: Vec<_> = regions.iter().filter(|r| r.node == node).collect();
                prop_assert_eq!(mine.iter().map(|r| r.bytes).sum::<u64>(), want);
                let mut next = 0;
                for region in mine {
                    prop_assert_eq!(region.file_offset, next);
                    next += region.bytes;
                }
            }
            for region in &regions {
                prop_assert!(region.end() <= layout::LOW_RAM_END || region.start >= layout::HIGH_RAM_START);
            }
            prop_assert!(regions.windows(2).all(|pair| pair[0].end() <= pair[1].start));
        }
    }
}
