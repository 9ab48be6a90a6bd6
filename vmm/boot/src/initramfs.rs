//! Putting an initramfs of several parts into guest memory.

use crate::BootError;
use std::fs::File;
use std::io::Seek;
use std::ops::Range;
use std::sync::Arc;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

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
            Self::File(file) => {
                let count = usize::try_from(bytes).map_err(|e| error(e.to_string()))?;
                let mut file: &File = file;
                file.rewind().map_err(|e| error(e.to_string()))?;
                let mut file = file.try_clone().map_err(|e| error(e.to_string()))?;
                memory
                    .read_exact_volatile_from(GuestAddress(at), &mut file, count)
                    .map_err(|e| error(e.to_string()))
            }
        }
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
    fn what_would_overwrite_the_kernel_is_refused() {
        let parts = [Part::Bytes(Arc::new(vec![0; 8192]))];
        let err = place(&memory(), &parts, (1 << 20) - 8191, 1 << 20).unwrap_err();
        assert!(err.to_string().contains("more memory"), "{err}");
        let parts = [Part::Bytes(Arc::new(vec![0; 2 << 20]))];
        assert!(place(&memory(), &parts, 0, 1 << 20).is_err());
    }
}
