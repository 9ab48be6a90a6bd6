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
#[derive(Debug, Clone, Default)]
pub struct RamOptions {
    /// Page size.
    pub pages: Pages,
    /// True to allocate all of it now, so that the guest never waits for the host.
    pub prefault: bool,
    /// The host's NUMA nodes that the RAM of each node of the machine comes from; any where none are named.
    pub host_nodes: Vec<Vec<u32>>,
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
            mapped.push(map(region, file, &options)?);
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

fn map(region: &Region, file: Arc<File>, options: &RamOptions) -> Result<GuestRegionMmap, MemoryError> {
    let Region { node, start, bytes, file_offset } = *region;
    let error = |why: String| MemoryError::Map { start, bytes, why };
    let length = usize::try_from(bytes).map_err(|e| error(e.to_string()))?;
    let (reserve, hint) = match options.pages {
        Pages::Small => (libc::MAP_NORESERVE, ""),
        // Reserved now, so that a pool that is too small is an error here, not a SIGBUS when the guest comes to it.
        Pages::Huge2M => (0, "; raise /proc/sys/vm/nr_hugepages or use small pages"),
    };
    let mapping = MmapRegionBuilder::new(length)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_SHARED | reserve)
        .with_file_offset(FileOffset::from_arc(file, file_offset))
        .build()
        .map_err(|e| error(format!("{e}{hint}")))?;
    let host_nodes = options.host_nodes.get(node as usize).map(Vec::as_slice).unwrap_or_default();
    if !host_nodes.is_empty() {
        bind(mapping.as_ptr(), length, host_nodes)
            .map_err(|e| error(format!("binding it to the host's NUMA nodes {host_nodes:?}: {e}")))?;
    }
    if options.prefault {
        // SAFETY: the range is the mapping's, which nobody else knows yet.
        let answer = unsafe { libc::madvise(mapping.as_ptr().cast(), length, libc::MADV_POPULATE_WRITE) };
        if answer != 0 {
            let e = std::io::Error::last_os_error();
            return Err(error(format!("allocating it beforehand: {e}{hint}")));
        }
    }
    GuestRegionMmap::new(mapping, GuestAddress(start))
        .ok_or_else(|| error("it would wrap around the address space".to_string()))
}

/// `MPOL_BIND` of include/uapi/linux/mempolicy.h: memory of these nodes and no others. Of a memfd, this is a policy of
/// the file, whoever touches it first (Documentation/admin-guide/mm/numa_memory_policy.rst).
fn bind(start: *mut u8, length: usize, nodes: &[u32]) -> std::io::Result<()> {
    const MPOL_BIND: libc::c_long = 2;
    let bits = libc::c_ulong::BITS;
    let words = nodes.iter().max().map_or(1, |last| last / bits + 1);
    let mut mask = vec![0 as libc::c_ulong; words as usize];
    for node in nodes {
        mask[(node / bits) as usize] |= 1 << (node % bits);
    }
    // The kernel looks at one bit fewer than it is told (`get_nodes` in mm/mempolicy.c).
    let most = libc::c_ulong::from(words * bits + 1);
    // SAFETY: the range is the caller's mapping; the mask holds as many bits as the call is told, less one.
    let answer = unsafe { libc::syscall(libc::SYS_mbind, start, length, MPOL_BIND, mask.as_ptr(), most, 0) };
    if answer < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
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

    fn maps(file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        text.lines().filter(|line| line.contains("guest-ram")).map(ToString::to_string).collect()
    }

    #[test]
    fn memory_is_bound_and_allocated_beforehand() {
        let options =
            RamOptions { prefault: true, host_nodes: vec![vec![], vec![0]], ..RamOptions::default() };
        match GuestRam::create(&[1 << 20, 2 << 20], options) {
            Ok(_ram) => {
                let maps = maps("/proc/self/numa_maps");
                let bound: Vec<_> = maps.iter().filter(|line| line.contains("bind:0")).collect();
                assert!(
                    bound.len() == 1 && bound[0].contains("=512"),
                    "512 pages of node 0 expected: {maps:?}"
                );
                assert!(
                    maps.iter().any(|line| line.contains("default") && line.contains("=256")),
                    "{maps:?}"
                );
            }
            // A kernel without NUMA.
            Err(e) => assert!(e.to_string().contains("NUMA nodes [0]: Function not implemented"), "{e}"),
        }
        let options = RamOptions { host_nodes: vec![vec![1000]], ..RamOptions::default() };
        let refused = GuestRam::create(&[1 << 20], options).unwrap_err().to_string();
        assert!(refused.contains("NUMA nodes [1000]"), "{refused}");
    }

    #[test]
    fn huge_pages_that_are_not_there_are_refused_with_the_place_to_ask_for_them() {
        let free = std::fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
        let free: u64 = free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        let options = |prefault| RamOptions { pages: Pages::Huge2M, prefault, ..RamOptions::default() };
        for prefault in [false, true] {
            let refused = GuestRam::create(&[(free + 1) << 21], options(prefault)).unwrap_err().to_string();
            assert!(refused.contains("/proc/sys/vm/nr_hugepages"), "{refused}");
        }
        if free > 0 {
            let ram = GuestRam::create(&[1 << 21], options(true)).unwrap();
            ram.memory().write_slice(b"x", GuestAddress((1 << 21) - 1)).unwrap();
        }
    }

    #[test]
    fn a_machine_without_memory_is_refused() {
        assert!(matches!(GuestRam::create(&[0, 0], RamOptions::default()), Err(MemoryError::None)));
    }
}
