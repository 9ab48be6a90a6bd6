//! Putting an initramfs of several parts into guest memory.

use crate::BootError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Parts start at a multiple of this.
const ALIGN: u64 = 4;
/// The whole starts at a multiple of this.
const PAGE: u64 = 4096;

/// One part of an initramfs: a cpio archive, compressed or not.
#[derive(Debug, Clone)]
pub enum Part {
    /// In memory.
    Bytes(Arc<Vec<u8>>),
    /// In a file, all of it.
    File(Arc<File>),
}

impl Part {
    fn bytes(&self, index: usize) -> Result<u64, BootError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(file) => file.metadata().map(|m| m.len()).map_err(|e| BootError::Initramfs {
                index,
                bytes: 0,
                why: e.to_string(),
            }),
        }
    }

    /// Copies the part to guest memory, straight from the file where it is one.
    fn copy(&self, memory: &GuestMemoryMmap, at: u64, bytes: u64, index: usize) -> Result<(), BootError> {
        let error = |why: String| BootError::Initramfs { index, bytes, why };
        match self {
            Self::Bytes(source) => {
                memory.write_slice(source, GuestAddress(at)).map_err(|e| error(e.to_string()))
            }
            Self::File(file) => copy_file(file, memory, at, bytes).map_err(|e| error(e.to_string())),
        }
    }
}

/// Copies all of a file, `bytes` of it, to guest memory. Where that is a file as well, the
/// kernel copies from one to the other: through a mapping, each new page costs a fault and
/// is zeroed first, and the copy takes twice as long.
fn copy_file(file: &File, memory: &GuestMemoryMmap, at: u64, bytes: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes {
        let here = GuestAddress(at + done);
        let (region, offset) = memory
            .to_region_addr(here)
            .ok_or_else(|| io::Error::other(format!("{:#x} is outside RAM", here.0)))?;
        let part = (region.len() - offset.0).min(bytes - done);
        let to = region.file_offset().map(|to| (to.file(), to.start() + offset.0));
        let written = to.is_some_and(|(to, start)| send(file, done, to, start, part).is_ok());
        if !written {
            // Memory without a file, or of huge pages, whose files can't be written.
            let mut file = file;
            file.seek(SeekFrom::Start(done))?;
            let count = usize::try_from(part).map_err(io::Error::other)?;
            let mut file = file.try_clone()?;
            memory.read_exact_volatile_from(here, &mut file, count).map_err(io::Error::other)?;
        }
        done += part;
    }
    Ok(())
}

/// Copies `bytes` of a file at `from` to another file at `start`.
fn send(mut file: &File, from: u64, mut to: &File, start: u64, bytes: u64) -> io::Result<()> {
    file.seek(SeekFrom::Start(from))?;
    to.seek(SeekFrom::Start(start))?;
    match io::copy(&mut file.take(bytes), &mut to)? {
        sent if sent == bytes => Ok(()),
        sent => Err(io::Error::other(format!("{sent} bytes instead of {bytes}"))),
    }
}

/// Puts the parts as high as they fit below `low_end`, above `kernel_end`; empty
/// range when there are none.
pub(crate) fn place(
    memory: &GuestMemoryMmap,
    parts: &[Part],
    kernel_end: u64,
    low_end: u64,
) -> Result<Range<u64>, BootError> {
    let sizes: Vec<u64> = parts.iter().enumerate().map(|(i, p)| p.bytes(i)).collect::<Result<_, _>>()?;
    let total = sizes.iter().try_fold(0u64, |sum, n| sum.checked_add(n.checked_next_multiple_of(ALIGN)?));
    let no_room = |bytes| BootError::NoRoom { what: "the initramfs", bytes, low_end, kernel_end };
    let total = total.ok_or_else(|| no_room(u64::MAX))?;
    if total == 0 {
        return Ok(0..0);
    }
    let start = low_end.checked_sub(total).ok_or_else(|| no_room(total))? / PAGE * PAGE;
    if start < kernel_end {
        return Err(no_room(total));
    }
    let mut at = start;
    for (index, (part, bytes)) in parts.iter().zip(sizes).enumerate() {
        part.copy(memory, at, bytes, index)?;
        at += bytes.next_multiple_of(ALIGN);
    }
    Ok(start..at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use vm_memory::FileOffset;

    fn memory() -> GuestMemoryMmap {
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap()
    }

    #[test]
    fn parts_follow_each_other_padded_to_four_bytes() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"file").unwrap();
        let parts = [Part::Bytes(Arc::new(b"hello".to_vec())), Part::File(Arc::new(file))];
        let memory = memory();
        let range = place(&memory, &parts, 0x1000, 1 << 20).unwrap();
        assert_eq!(range, 0xff000..0xff00c);
        let mut seen = [0xff; 12];
        memory.read_slice(&mut seen, GuestAddress(range.start)).unwrap();
        assert_eq!(&seen, b"hello\0\0\0file");
    }

    #[test]
    fn a_file_reaches_all_the_files_of_memory_and_memory_without_one() {
        let mut source = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..0x3000u32).map(|n| (n % 251) as u8 + 1).collect();
        source.write_all(&content).unwrap();
        let file = || tempfile::tempfile().map(|f| f.set_len(0x4000).map(|()| f)).unwrap().unwrap();
        let backing = |file, start| Some(FileOffset::new(file, start));
        let memory = GuestMemoryMmap::<()>::from_ranges_with_files([
            (GuestAddress(0), 0x1000, backing(file(), 0x2000)),
            (GuestAddress(0x1000), 0x1000, None),
            (GuestAddress(0x2000), 0x2000, backing(file(), 0)),
        ])
        .unwrap();
        let parts = [Part::File(Arc::new(source))];
        for low_end in [0x3000, 0x4000] {
            let range = place(&memory, &parts, 0, low_end).unwrap();
            let mut seen = vec![0; 0x3000];
            memory.read_slice(&mut seen, GuestAddress(range.start)).unwrap();
            assert!(range.end == low_end && seen == content);
        }
        let error = place(&memory, &parts, 0, 0x5000).unwrap_err();
        assert!(error.to_string().contains("outside RAM"), "{error}");
    }

    #[test]
    fn what_would_overwrite_the_kernel_is_refused() {
        let parts = [Part::Bytes(Arc::new(vec![0; 8192]))];
        let err = place(&memory(), &parts, (1 << 20) - 8191, 1 << 20).unwrap_err();
        assert!(err.to_string().contains("more memory"), "{err}");
        let parts = [Part::Bytes(Arc::new(vec![0; 2 << 20]))];
        assert!(place(&memory(), &parts, 0, 1 << 20).is_err());
    }
}
