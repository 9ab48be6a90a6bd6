//! Guest RAM as mapped memfds.

use crate::{MemoryError, Region, regions};
use std::fs::File;
use std::os::fd::FromRawFd;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{FileOffset, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestRegionMmap};

/// Page size behind guest RAM.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pages {
    /// 4 KiB; the host may merge them into huge ones.
    #[default]
    Small,
    /// 2 MiB from the host's pool (`/proc/sys/vm/nr_hugepages`); an error when it is
    /// too small.
    Huge2M,
}

/// How guest RAM is backed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RamOptions {
    /// Page size.
    pub pages: Pages,
    /// True to allocate all of it now, so that the guest never waits for the host.
    pub prefault: bool,
}

/// RAM of a machine. Clones share it.
#[derive(Debug, Clone)]
pub struct GuestRam {
    memory: GuestMemoryMmap,
    regions: Arc<[Region]>,
    files: Arc<[Option<Arc<File>>]>,
}

impl GuestRam {
    /// Makes and maps RAM for nodes of these sizes in bytes.
    ///
    /// # Errors
    /// Sizes that make no sense, or a host without enough memory.
    pub fn create(node_bytes: &[u64], options: RamOptions) -> Result<Self, MemoryError> {
        let regions = regions(node_bytes)?;
        if regions.is_empty() {
            return Err(MemoryError::None);
        }
        let mut files = Vec::with_capacity(node_bytes.len());
        for (node, &bytes) in (0u32..).zip(node_bytes) {
            let file = if bytes == 0 { None } else { Some(Arc::new(memfd(node, bytes, options.pages)?)) };
            files.push(file);
        }
        let mut mapped = Vec::with_capacity(regions.len());
        for region in &regions {
            let file = files.get(region.node as usize).cloned().flatten().ok_or(MemoryError::None)?;
            mapped.push(map(region, file, options.prefault)?);
        }
        Self::of(mapped, regions, files)
    }

    /// RAM of mapped regions, and the memfds behind them.
    pub(crate) fn of(
        mapped: Vec<GuestRegionMmap>,
        regions: Vec<Region>,
        files: Vec<Option<Arc<File>>>,
    ) -> Result<Self, MemoryError> {
        let memory = GuestMemoryMmap::from_regions(mapped).map_err(|e| MemoryError::Map {
            start: regions.first().map_or(0, |r| r.start),
            bytes: regions.iter().map(|r| r.bytes).sum(),
            why: e.to_string(),
        })?;
        Ok(Self { memory, regions: regions.into(), files: files.into() })
    }

    /// The mappings, by guest-physical address.
    #[must_use]
    pub fn memory(&self) -> &GuestMemoryMmap {
        &self.memory
    }

    /// Regions in ascending order of address.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The memfd of node `node`; `None` when it has no memory, or when its RAM is a private
    /// mapping of a saved machine's, where no file shows what the guest writes.
    #[must_use]
    pub fn file(&self, node: u32) -> Option<Arc<File>> {
        self.files.get(node as usize).cloned().flatten()
    }

    /// Where `region` is mapped in this process.
    ///
    /// # Errors
    /// It is none of this RAM's.
    pub fn host_address(&self, region: &Region) -> Result<u64, vm_memory::GuestMemoryError> {
        let address = self.memory.get_host_address(GuestAddress(region.start))?;
        Ok(address as u64)
    }

    /// End of the RAM below the device hole.
    #[must_use]
    pub fn low_end(&self) -> u64 {
        let low = self.regions.iter().filter(|r| r.start < crate::layout::LOW_RAM_END);
        low.map(Region::end).max().unwrap_or(0)
    }
}

fn memfd(node: u32, bytes: u64, pages: Pages) -> Result<File, MemoryError> {
    let (flags, words, hint) = match pages {
        Pages::Small => (0, "4 KiB pages", ""),
        Pages::Huge2M => (
            libc::MFD_HUGETLB | libc::MFD_HUGE_2MB,
            "2 MiB pages",
            "; raise /proc/sys/vm/nr_hugepages or use small pages",
        ),
    };
    let error = |source| MemoryError::File { node, bytes, pages: words, source, hint };
    // SAFETY: the name is a terminated string; nothing else is passed by pointer.
    let fd = unsafe { libc::memfd_create(c"guest-ram".as_ptr(), libc::MFD_CLOEXEC | flags) };
    if fd < 0 {
        return Err(error(std::io::Error::last_os_error()));
    }
    // SAFETY: the descriptor was just made and belongs to no one else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(bytes).map_err(error)?;
    Ok(file)
}

fn map(region: &Region, file: Arc<File>, prefault: bool) -> Result<GuestRegionMmap, MemoryError> {
    let Region { start, bytes, file_offset, .. } = *region;
    let error = |why: String| MemoryError::Map { start, bytes, why };
    let length = usize::try_from(bytes).map_err(|e| error(e.to_string()))?;
    let populate = if prefault { libc::MAP_POPULATE } else { 0 };
    let mapping = MmapRegionBuilder::new(length)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | libc::MAP_NORESERVE | populate)
        .with_file_offset(FileOffset::from_arc(file, file_offset))
        .build()
        .map_err(|e| error(e.to_string()))?;
    GuestRegionMmap::new(mapping, GuestAddress(start))
        .ok_or_else(|| error("it would wrap around the address space".to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;
    use vm_memory::Bytes;

    #[test]
    fn what_the_guest_writes_is_seen_in_the_file_of_its_node() {
        let ram = GuestRam::create(&[1 << 20, 0, 1 << 20], RamOptions::default()).unwrap();
        ram.memory().write_slice(b"abcd", GuestAddress((1 << 20) - 2)).unwrap();
        let mut seen = [0; 2];
        ram.file(0).unwrap().read_exact_at(&mut seen, (1 << 20) - 2).unwrap();
        assert_eq!(&seen, b"ab");
        ram.file(2).unwrap().read_exact_at(&mut seen, 0).unwrap();
        assert_eq!(&seen, b"cd");
        assert!(ram.file(1).is_none());
        assert_eq!(ram.low_end(), 2 << 20);
    }

    #[test]
    fn ram_past_the_hole_is_mapped_there_and_costs_nothing_untouched() {
        let ram = GuestRam::create(&[5 << 30], RamOptions::default()).unwrap();
        ram.memory().write_slice(b"high", GuestAddress(1 << 32)).unwrap();
        let mut seen = [0; 4];
        ram.file(0).unwrap().read_exact_at(&mut seen, crate::layout::LOW_RAM_END).unwrap();
        assert_eq!(&seen, b"high");
        assert!(ram.memory().write_slice(b"x", GuestAddress(crate::layout::LOW_RAM_END)).is_err());
    }

    #[test]
    fn a_machine_without_memory_is_refused() {
        assert!(matches!(GuestRam::create(&[0, 0], RamOptions::default()), Err(MemoryError::None)));
    }
}
