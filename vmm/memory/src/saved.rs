//! RAM in files: written when a machine is saved, and mapped privately by the machines
//! that go on from there.
//!
//! A private mapping costs nothing that the guest doesn't touch, and what it writes stays
//! with it: the file is never changed. What it does cost is that no file shows the guest's
//! memory any more; other processes find it at [`GuestRam::host_address`] of this one.

use crate::{GuestRam, MemoryError, PAGE, Region, regions};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use vm_memory::mmap::MmapRegionBuilder;
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestRegionMmap};

/// Bytes that are looked at together.
const CHUNK: u64 = 1 << 20;
/// A hole of this size in a file becomes memory without a file behind it: else each of its
/// pages would be in the page cache first, as zeroes, and then once more in the guest. What
/// is smaller isn't worth a mapping of its own; a process may have 65530.
const WORTH_A_MAPPING: u64 = 256 << 10;

impl GuestRam {
    /// Writes the RAM of node `node` to the empty file `to`, as long as the node and without
    /// pages of zeroes. `keep` sees the guest-physical address and bytes of every other page;
    /// those that it turns down are left out, too, and are zeroes in whatever goes on from here.
    ///
    /// # Errors
    /// A file that can't be written, such as one on a full disk.
    pub fn save_node(
        &self,
        node: u32,
        to: &File,
        keep: &mut dyn FnMut(u64, &[u8]) -> bool,
    ) -> Result<(), MemoryError> {
        let error = |source| MemoryError::Saved { doing: "writing", node, source };
        let mine: Vec<Region> = self.regions().iter().filter(|r| r.node == node).copied().collect();
        to.set_len(mine.iter().map(|r| r.bytes).sum()).map_err(error)?;
        for region in mine {
            for (start, end) in self.parts(&region) {
                self.save_part(&region, start..end, to, keep).map_err(error)?;
            }
        }
        to.sync_all().map_err(error)
    }

    /// Parts of a region that may hold something, as offsets in its node's file: those that
    /// the memfd has pages for, or all of it.
    fn parts(&self, region: &Region) -> Vec<(u64, u64)> {
        let whole = (region.file_offset, region.file_offset + region.bytes);
        match self.file(region.node) {
            Some(file) => data(&file, whole.0, whole.1).unwrap_or_else(|_| vec![whole]),
            None => vec![whole],
        }
    }

    fn save_part(
        &self,
        region: &Region,
        part: std::ops::Range<u64>,
        to: &File,
        keep: &mut dyn FnMut(u64, &[u8]) -> bool,
    ) -> std::io::Result<()> {
        let mut buffer = vec![0; CHUNK as usize];
        let mut at = part.start;
        while at < part.end {
            let chunk = &mut buffer[..CHUNK.min(part.end - at) as usize];
            let guest = region.start + (at - region.file_offset);
            self.memory().read_slice(chunk, GuestAddress(guest)).map_err(std::io::Error::other)?;
            let mut run = 0..0;
            for begin in (0..chunk.len()).step_by(PAGE as usize) {
                let end = begin + PAGE as usize;
                let page = &chunk[begin..end];
                let kept = page.iter().any(|byte| *byte != 0) && keep(guest + begin as u64, page);
                if !kept || run.end != begin {
                    write_run(to, chunk, at, &run)?;
                    run = begin..begin;
                }
                run = if kept { run.start..end } else { end..end };
            }
            write_run(to, chunk, at, &run)?;
            at += chunk.len() as u64;
        }
        Ok(())
    }

    /// Maps saved RAM privately: nodes of these sizes in bytes, with a file for each that has
    /// any. The files must not change from then on; being deleted does them no harm.
    ///
    /// # Errors
    /// Files that aren't what these nodes were saved to.
    pub fn map_saved(node_bytes: &[u64], files: &[Option<Arc<File>>]) -> Result<Self, MemoryError> {
        let regions = regions(node_bytes)?;
        if regions.is_empty() {
            return Err(MemoryError::None);
        }
        let mut mapped = Vec::with_capacity(regions.len());
        for region in &regions {
            let expected = node_bytes.get(region.node as usize).copied().unwrap_or(0);
            let file = files.get(region.node as usize).and_then(Option::as_ref).ok_or(MemoryError::None)?;
            mapped.push(map(region, file, expected)?);
        }
        let none = node_bytes.iter().map(|_| None).collect();
        Self::of(mapped, regions, none)
    }
}

fn write_run(to: &File, chunk: &[u8], at: u64, run: &std::ops::Range<usize>) -> std::io::Result<()> {
    if run.is_empty() { Ok(()) } else { to.write_all_at(&chunk[run.clone()], at + run.start as u64) }
}

fn map(region: &Region, file: &Arc<File>, expected: u64) -> Result<GuestRegionMmap, MemoryError> {
    let Region { node, start, bytes, file_offset } = *region;
    let saved = |source| MemoryError::Saved { doing: "looking at", node, source };
    let found = file.metadata().map_err(saved)?.len();
    if found != expected {
        return Err(MemoryError::SavedSize { node, found, expected });
    }
    let error = |why: String| MemoryError::Map { start, bytes, why };
    let length = usize::try_from(bytes).map_err(|e| error(e.to_string()))?;
    let mapping = MmapRegionBuilder::new(length)
        .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
        .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_NORESERVE)
        .with_file_offset(FileOffset::from_arc(Arc::clone(file), file_offset))
        .build()
        .map_err(|e| error(e.to_string()))?;
    let parts = data(file, file_offset, file_offset + bytes).map_err(saved)?;
    for (from, to) in holes(&parts, file_offset, file_offset + bytes) {
        let (inside, length) = ((from - file_offset) as usize, (to - from) as usize);
        // SAFETY: `from..to` lies within the mapping just made, which nobody uses yet and
        // which is unmapped as a whole.
        let put = unsafe {
            libc::mmap(
                mapping.as_ptr().add(inside).cast(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE | libc::MAP_FIXED,
                -1,
                0,
            )
        };
        if put == libc::MAP_FAILED {
            return Err(error(std::io::Error::last_os_error().to_string()));
        }
    }
    GuestRegionMmap::new(mapping, GuestAddress(start))
        .ok_or_else(|| error("it would wrap around the address space".to_string()))
}

/// The parts of `[start, end)` between these that are worth a mapping, in whole pages.
fn holes(parts: &[(u64, u64)], start: u64, end: u64) -> Vec<(u64, u64)> {
    let befores = std::iter::once(start).chain(parts.iter().map(|part| part.1));
    let afters = parts.iter().map(|part| part.0).chain([end]);
    befores
        .zip(afters)
        .map(|(from, to)| (from.next_multiple_of(PAGE), to - to % PAGE))
        .filter(|(from, to)| to.saturating_sub(*from) >= WORTH_A_MAPPING)
        .collect()
}

/// The parts of `[start, end)` of a sparse file that hold data.
fn data(file: &File, start: u64, end: u64) -> std::io::Result<Vec<(u64, u64)>> {
    let mut parts = Vec::new();
    let mut at = start;
    while at < end {
        let Some(from) = seek(file, at, libc::SEEK_DATA)?.filter(|from| *from < end) else { break };
        let to = seek(file, from, libc::SEEK_HOLE)?.unwrap_or(end).min(end);
        parts.push((from, to));
        at = to;
    }
    Ok(parts)
}

/// `None` past the last data.
fn seek(file: &File, at: u64, whence: i32) -> std::io::Result<Option<u64>> {
    let offset = libc::off_t::try_from(at).map_err(std::io::Error::other)?;
    // SAFETY: no pointers. Nothing here reads at the file's position.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    match u64::try_from(found) {
        Ok(found) => Ok(Some(found)),
        Err(_) => match std::io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
            e => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RamOptions;
    use proptest::prelude::*;

    const MIB: u64 = 1 << 20;

    fn keep_all(_: u64, _: &[u8]) -> bool {
        true
    }

    fn save(ram: &GuestRam, node: u32, keep: &mut dyn FnMut(u64, &[u8]) -> bool) -> Arc<File> {
        let file = tempfile::tempfile().unwrap();
        ram.save_node(node, &file, keep).unwrap();
        Arc::new(file)
    }

    #[test]
    fn two_machines_go_on_from_one_file_and_leave_it_alone() {
        let ram = GuestRam::create(&[4 * MIB, 0, MIB], RamOptions::default()).unwrap();
        let at = [0, PAGE * 3 + 5, 2 * MIB - 1, 4 * MIB - 1, 5 * MIB - 8].map(GuestAddress);
        for (byte, at) in (1u8..).zip(at) {
            ram.memory().write_obj(byte, at).unwrap();
        }
        let files = [Some(save(&ram, 0, &mut keep_all)), None, Some(save(&ram, 2, &mut keep_all))];
        let content = || {
            files.iter().flatten().map(|f| {
                let mut bytes = vec![0; f.metadata().unwrap().len() as usize];
                f.read_exact_at(&mut bytes, 0).unwrap();
                bytes
            })
        };
        let before: Vec<_> = content().collect();
        let sizes = [4 * MIB, 0, MIB];
        let [one, two] = [(); 2].map(|()| GuestRam::map_saved(&sizes, &files).unwrap());
        for (byte, at) in (1u8..).zip(at) {
            assert_eq!(one.memory().read_obj::<u8>(at).unwrap(), byte);
            one.memory().write_obj(0x55u8, at).unwrap();
            assert_eq!(two.memory().read_obj::<u8>(at).unwrap(), byte);
        }
        assert!(content().eq(before), "a machine wrote to what it was resumed from");
        assert!(one.file(0).is_none(), "no file shows what it writes");
        // SAFETY: the region's first byte, which is mapped.
        let seen = unsafe { *(one.host_address(&one.regions()[0]).unwrap() as *const u8) };
        assert_eq!(seen, 0x55);
    }

    #[test]
    fn pages_that_are_turned_down_are_zeroes_later_and_take_no_room() {
        let ram = GuestRam::create(&[8 * MIB], RamOptions::default()).unwrap();
        ram.memory().write_slice(&vec![7; 6 << 20], GuestAddress(MIB)).unwrap();
        let mut seen = Vec::new();
        let file = save(&ram, 0, &mut |at, page| {
            seen.push(at);
            assert!(page.len() as u64 == PAGE && page[0] == 7);
            !(2 * MIB..6 * MIB).contains(&at)
        });
        assert_eq!((seen.len(), seen[0]), (1536, MIB));
        assert_eq!(data(&file, 0, 8 * MIB).unwrap(), [(MIB, 2 * MIB), (6 * MIB, 7 * MIB)]);
        let again = GuestRam::map_saved(&[8 * MIB], &[Some(file)]).unwrap();
        let byte = |at| again.memory().read_obj::<u8>(GuestAddress(at)).unwrap();
        assert_eq!([MIB, 2 * MIB, 6 * MIB - 1, 6 * MIB].map(byte), [7, 0, 0, 7]);
        // What was resumed can be saved as well.
        let twice = save(&again, 0, &mut keep_all);
        assert_eq!(data(&twice, 0, 8 * MIB).unwrap(), [(MIB, 2 * MIB), (6 * MIB, 7 * MIB)]);
    }

    #[test]
    fn a_file_of_another_size_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(MIB - 1).unwrap();
        let error = GuestRam::map_saved(&[MIB], &[Some(Arc::new(file))]).unwrap_err();
        assert!(error.to_string().contains("1048575 bytes, expected 1048576"), "{error}");
        assert!(matches!(GuestRam::map_saved(&[MIB], &[None]), Err(MemoryError::None)));
    }

    proptest! {
        #[test]
        fn holes_and_data_never_overlap(lengths in prop::collection::vec((1u64..1 << 20, 1u64..1 << 20), 0..20)) {
            let mut parts = Vec::new();
            let mut at = 0;
            for (gap, length) in lengths {
                parts.push((at + gap, at + gap + length));
                at += gap + length;
            }
            let end = (at + MIB).next_multiple_of(PAGE);
            for (from, to) in holes(&parts, 0, end) {
                prop_assert!(from % PAGE == 0 && to % PAGE == 0 && to - from >= WORTH_A_MAPPING && to <= end);
                prop_assert!(parts.iter().all(|part| part.1 <= from || to <= part.0));
            }
        }
    }
}
