//! Guest RAM as the host reads it.

use ktstr_machine::PhysicalMemory;
use ktstr_vmm::GuestRam;
use vm_memory::{Bytes, GuestAddress};

/// Reads through the monitor's own mapping, which lives as long as this does.
pub(crate) struct Ram(pub(crate) GuestRam);

impl PhysicalMemory for Ram {
    fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
        self.0.memory().read_slice(buffer, GuestAddress(address)).is_ok()
    }

    fn regions(&self) -> Vec<(u64, u64)> {
        let mut joined: Vec<(u64, u64)> = Vec::new();
        for region in self.0.regions() {
            match joined.last_mut() {
                Some((start, bytes)) if *start + *bytes == region.start => *bytes += region.bytes,
                _ => joined.push((region.start, region.bytes)),
            }
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_vmm::RamOptions;

    #[test]
    fn nodes_next_to_each_other_are_one_region_and_what_is_outside_is_refused() {
        let mib = 1 << 20;
        let ram = GuestRam::create(&[mib, mib], RamOptions::default()).unwrap();
        ram.memory().write_slice(b"abcd", GuestAddress(mib - 2)).unwrap();
        let ram = Ram(ram);
        assert_eq!(ram.regions(), [(0, 2 * mib)]);
        let mut seen = [0; 4];
        assert!(ram.read(mib - 2, &mut seen) && &seen == b"abcd");
        assert!(!ram.read(2 * mib - 2, &mut seen));
        assert!(!ram.read(u64::MAX - 1, &mut seen));
    }
}
