//! Guest RAM as the host reads it.

use crate::fds::NodeRam;
use ktstr_machine::{MachineError, PhysicalMemory, RamFile};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;

/// Start of RAM above the PCI hole.
const ABOVE_4G: u64 = 1 << 32;

/// Read-only mappings of the RAM of all nodes, one after the other, at the
/// guest-physical addresses where the q35 machine puts them.
pub(crate) struct GuestRam {
    maps: Vec<Mapping>,
    regions: Vec<(u64, u64)>,
    below_4g: u64,
}

struct Mapping {
    address: NonNull<c_void>,
    bytes: usize,
    /// Offset of this node's first byte within all RAM.
    start: u64,
}

// SAFETY: the mapping is never written through and lives as long as the value;
// the guest changes the bytes under us, which `read` copes with by copying.
unsafe impl Send for Mapping {}
// SAFETY: as above; shared readers don't affect each other.
unsafe impl Sync for Mapping {}

impl GuestRam {
    pub(crate) fn map(nodes: &[NodeRam]) -> Result<Self, MachineError> {
        let mut maps = Vec::new();
        let mut total = 0u64;
        for node in nodes {
            maps.push(Mapping::new(&node.file, node.bytes, total)?);
            total += node.bytes;
        }
        let below_4g = low_memory(total).min(total);
        let mut regions = vec![(0, below_4g)];
        if total > below_4g {
            regions.push((ABOVE_4G, total - below_4g));
        }
        Ok(Self { maps, regions, below_4g })
    }

    /// Writes through the nodes' files: all of it, or nothing.
    pub(crate) fn write(&self, nodes: &[NodeRam], address: u64, bytes: &[u8]) -> Result<(), MachineError> {
        let doing = || format!("writing {} bytes at guest-physical {address:#x}", bytes.len());
        let outside = || MachineError::Refused { doing: doing(), answer: "they lie outside RAM".to_string() };
        let (offset, room) = self.offset(address).ok_or_else(outside)?;
        if room < bytes.len() as u64 {
            return Err(outside());
        }
        let mut done = 0;
        for (map, node) in self.maps.iter().zip(nodes) {
            let at = offset + done as u64;
            if done == bytes.len() || !(map.start..map.start + node.bytes).contains(&at) {
                continue;
            }
            let count = (bytes.len() - done).min((map.start + node.bytes - at) as usize);
            let part = &bytes[done..done + count];
            node.file.write_all_at(part, at - map.start).map_err(MachineError::os(doing()))?;
            done += count;
        }
        Ok(())
    }

    /// The nodes' files, stretch by stretch of guest-physical memory.
    pub(crate) fn files(&self, nodes: &[NodeRam]) -> Vec<RamFile> {
        let mut found = Vec::new();
        let mut before = 0;
        for &(start, length) in &self.regions {
            for (map, node) in self.maps.iter().zip(nodes) {
                // The part of this node within this region, in offsets of all RAM.
                let from = map.start.max(before);
                let to = (map.start + node.bytes).min(before + length);
                if from < to {
                    found.push(RamFile {
                        path: format!("/proc/{}/fd/{}", std::process::id(), node.file.as_raw_fd()).into(),
                        offset: from - map.start,
                        start: start + (from - before),
                        length: to - from,
                    });
                }
            }
            before += length;
        }
        found
    }

    /// Where guest-physical `address` lies within all RAM, and how many bytes
    /// follow it before the next hole.
    fn offset(&self, address: u64) -> Option<(u64, u64)> {
        let (start, length) = *self.regions.iter().find(|(s, l)| (*s..s + l).contains(&address))?;
        let inside = address - start;
        let base = if start == 0 { 0 } else { self.below_4g };
        Some((base + inside, length - inside))
    }
}

/// How much RAM q35 puts below 4 GiB (QEMU hw/i386/pc_q35.c, `pc_q35_init`): 2 GiB
/// once there are 2.75 GiB or more, everything up to 2.75 GiB otherwise.
fn low_memory(total: u64) -> u64 {
    if total >= 0xb000_0000 { 0x8000_0000 } else { 0xb000_0000 }
}

impl Mapping {
    fn new(file: &File, bytes: u64, start: u64) -> Result<Self, MachineError> {
        let doing = || format!("mapping {} MiB of guest RAM", bytes >> 20);
        let too_big = || std::io::Error::from(std::io::ErrorKind::InvalidInput);
        let length = usize::try_from(bytes)
            .ok()
            .and_then(NonZeroUsize::new)
            .ok_or_else(|| MachineError::os(doing())(too_big()))?;
        // SAFETY: a fresh mapping at an address of the kernel's choice; the file is
        // a memfd of ours of that size that nobody truncates.
        let address = unsafe { mmap(None, length, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, file, 0) }
            .map_err(|e| MachineError::os(doing())(e.into()))?;
        Ok(Self { address, bytes: length.get(), start })
    }

    /// Copies what of `[offset, offset + buffer.len())` lies here; returns how many
    /// bytes from the buffer's start that was.
    fn copy(&self, offset: u64, buffer: &mut [u8]) -> usize {
        let Some(inside) = offset.checked_sub(self.start).and_then(|o| usize::try_from(o).ok()) else {
            return 0;
        };
        if inside >= self.bytes {
            return 0;
        }
        let count = buffer.len().min(self.bytes - inside);
        // SAFETY: `inside + count <= bytes`, so the source lies within the mapping;
        // the guest may write it meanwhile: the copy may be torn, never unsound,
        // as no reference to the mapped bytes is formed.
        unsafe {
            std::ptr::copy_nonoverlapping(
                self.address.as_ptr().cast::<u8>().add(inside),
                buffer.as_mut_ptr(),
                count,
            );
        }
        count
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped, once.
        let result = unsafe { munmap(self.address, self.bytes) };
        debug_assert!(result.is_ok(), "unmapping guest RAM: {result:?}");
    }
}

impl PhysicalMemory for GuestRam {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        let Some((mut offset, room)) = self.offset(address) else {
            return buffer.is_empty();
        };
        if room < buffer.len() as u64 {
            return false;
        }
        let mut done = 0;
        while done < buffer.len() {
            let copied = self.maps.iter().map(|m| m.copy(offset, &mut buffer[done..])).find(|n| *n > 0);
            let Some(n) = copied else { return false };
            done += n;
            offset += n as u64;
        }
        true
    }

    fn regions(&self) -> Vec<(u64, u64)> {
        self.regions.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn node(bytes: u64) -> NodeRam {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        NodeRam { file: Arc::new(file), bytes }
    }

    #[test]
    fn a_read_crosses_from_one_node_to_the_next() {
        let nodes = [node(1 << 20), node(1 << 20)];
        nodes[0].file.write_all_at(b"ab", (1 << 20) - 2).unwrap();
        nodes[1].file.write_all_at(b"cd", 0).unwrap();
        let ram = GuestRam::map(&nodes).unwrap();
        let mut seen = [0; 4];
        assert!(ram.read((1 << 20) - 2, &mut seen));
        assert_eq!(&seen, b"abcd");
    }

    #[test]
    fn a_write_crosses_nodes_and_stays_inside() {
        let nodes = [node(1 << 20), node(1 << 20)];
        let ram = GuestRam::map(&nodes).unwrap();
        ram.write(&nodes, (1 << 20) - 2, b"abcd").unwrap();
        let mut seen = [0; 4];
        assert!(ram.read((1 << 20) - 2, &mut seen) && &seen == b"abcd");
        assert!(ram.write(&nodes, (2 << 20) - 2, b"abcd").is_err());
        assert!(ram.read((2 << 20) - 4, &mut seen) && seen == [0; 4], "all or nothing");
    }

    #[test]
    fn files_are_told_by_guest_physical_stretch() {
        let nodes = [node(1 << 30), node(3 << 30)];
        let ram = GuestRam::map(&nodes).unwrap();
        let parts: Vec<_> = ram.files(&nodes).into_iter().map(|f| (f.offset, f.start, f.length)).collect();
        let gib = 1u64 << 30;
        assert_eq!(parts, [(0, 0, gib), (0, gib, gib), (gib, ABOVE_4G, 2 * gib)]);
    }

    #[test]
    fn what_lies_outside_is_refused() {
        let ram = GuestRam::map(&[node(1 << 20)]).unwrap();
        let mut buffer = [0; 8];
        assert!(!ram.read((1 << 20) - 4, &mut buffer));
        assert!(!ram.read(1 << 20, &mut buffer));
        assert!(!ram.read(u64::MAX - 3, &mut buffer));
        assert!(ram.read((1 << 20) - 8, &mut buffer));
    }

    #[test]
    fn ram_past_the_hole_starts_at_4_gib() {
        let gib3 = 3u64 << 30;
        let nodes = [node(gib3)];
        nodes[0].file.write_all_at(b"high", 0x8000_0000).unwrap();
        let ram = GuestRam::map(&nodes).unwrap();
        assert_eq!(ram.regions(), [(0, 0x8000_0000), (ABOVE_4G, 1 << 30)]);
        let mut seen = [0; 4];
        assert!(ram.read(ABOVE_4G, &mut seen));
        assert_eq!(&seen, b"high");
        assert!(!ram.read(0x8000_0000, &mut seen));
    }
}
