//! Guest RAM as the host reads it.

use ktstr_machine::{MachineError, PhysicalMemory, RamFile};
use ktstr_vmm::GuestRam;
use std::os::fd::AsRawFd;
use vm_memory::{Bytes, GuestAddress};

/// Reads through the monitor's own mapping, which lives as long as this does.
pub(crate) struct Ram(pub(crate) GuestRam);

impl Ram {
    /// Writes all of `bytes`, or nothing.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), MachineError> {
        let mut old = vec![0; bytes.len()];
        if !self.read(address, &mut old) {
            return Err(MachineError::Refused {
                doing: format!("writing {} bytes at guest-physical {address:#x}", bytes.len()),
                answer: "they lie outside RAM".to_string(),
            });
        }
        self.0.memory().write_slice(bytes, GuestAddress(address)).map_err(|e| MachineError::Refused {
            doing: format!("writing {} bytes at guest-physical {address:#x}", bytes.len()),
            answer: e.to_string(),
        })
    }

    /// The memfds of the nodes, as other processes can open them; of a resumed machine,
    /// whose memory is in no file, the part of this process where it is mapped.
    pub(crate) fn files(&self) -> Vec<RamFile> {
        let process = format!("/proc/{}", std::process::id());
        let regions = self.0.regions().iter();
        let files = regions.filter_map(|region| {
            let (start, length) = (region.start, region.bytes);
            let (path, offset) = match self.0.file(region.node) {
                Some(file) => (format!("{process}/fd/{}", file.as_raw_fd()), region.file_offset),
                None => (format!("{process}/mem"), self.0.host_address(region).ok()?),
            };
            Some(RamFile { path: path.into(), offset, start, length })
        });
        files.collect()
    }
}

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
        ram.write(mib - 1, b"BC").unwrap();
        assert!(ram.write(2 * mib - 1, b"xy").is_err());
        assert_eq!(
            ram.files().iter().map(|f| (f.start, f.offset, f.length)).collect::<Vec<_>>(),
            [(0, 0, mib), (mib, 0, mib)]
        );
        assert_eq!(ram.regions(), [(0, 2 * mib)]);
        let mut seen = [0; 4];
        assert!(ram.read(mib - 2, &mut seen) && &seen == b"aBCd");
        assert!(!ram.read(2 * mib - 2, &mut seen));
        assert!(!ram.read(u64::MAX - 1, &mut seen));
    }
}
