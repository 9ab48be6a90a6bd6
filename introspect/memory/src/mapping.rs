//! A read-only mapping of a file, which another process may be writing.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::ptr::{self, NonNull};

/// A whole file mapped read-only and shared.
///
/// The bytes belong to someone else (a running guest, for RAM files), so they are only ever copied out, never lent as
/// a slice, except through [`Mapping::stable_bytes`] for files that nobody writes. A file that shrinks while mapped
/// raises `SIGBUS`, as for every memory map: guest RAM files and cores have a fixed size.
#[derive(Debug)]
pub struct Mapping {
    start: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping is read-only and lives until drop; a raw pointer to it may be used from any thread.
unsafe impl Send for Mapping {}
// SAFETY: as above; all methods only read.
unsafe impl Sync for Mapping {}

/// A file couldn't be mapped.
#[derive(Debug, thiserror::Error)]
pub enum MapError {
    /// Opening or measuring the file failed.
    #[error("cannot open {path} to read memory from it: {source}; check the path and its permissions")]
    Open {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// An empty file holds no memory.
    #[error("{path} is empty: expected the bytes of a memory image or an ELF file")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// `mmap(2)` failed.
    #[error("cannot map {length} bytes of {path}: {source}")]
    Map {
        /// The file.
        path: PathBuf,
        /// Its length.
        length: u64,
        /// The operating system's reason.
        source: io::Error,
    },
}

impl Mapping {
    /// Maps all of the file at `path`.
    ///
    /// # Errors
    /// [`MapError`] when it can't be opened, is empty, or can't be mapped.
    pub fn open(path: &Path) -> Result<Self, MapError> {
        let opened = File::open(path).and_then(|file| file.metadata().map(|meta| (file, meta.len())));
        let (file, length) = opened.map_err(|source| MapError::Open { path: path.into(), source })?;
        if length == 0 {
            return Err(MapError::Empty { path: path.into() });
        }
        let failed = |source| MapError::Map { path: path.into(), length, source };
        let bytes =
            usize::try_from(length).map_err(|_| failed(io::Error::from(io::ErrorKind::FileTooLarge)))?;
        // SAFETY: a fresh read-only mapping at an address of the kernel's choice touches no memory of ours.
        let start = unsafe {
            libc::mmap(ptr::null_mut(), bytes, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        if start == libc::MAP_FAILED {
            return Err(failed(io::Error::last_os_error()));
        }
        let start = NonNull::new(start.cast()).ok_or_else(|| failed(io::Error::other("mapped at null")))?;
        Ok(Self { start, length: bytes })
    }

    /// Length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is mapped; never true for an opened mapping.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The bytes of a file that nobody writes while it is mapped: an ELF image, a core.
    #[must_use]
    pub fn stable_bytes(&self) -> &[u8] {
        // SAFETY: `length` bytes from `start` are mapped readable for as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.length) }
    }

    /// Copies out the bytes from `offset` on; returns whether all of them are inside the mapping. An aligned word is
    /// read in one access.
    #[inline]
    #[must_use]
    pub fn copy(&self, offset: u64, into: &mut [u8]) -> bool {
        let Ok(offset) = usize::try_from(offset) else { return false };
        match offset.checked_add(into.len()) {
            Some(end) if end <= self.length => {}
            _ => return false,
        }
        // SAFETY: `offset + into.len()` was checked against the mapping's length.
        let from = unsafe { self.start.as_ptr().add(offset) };
        match into.len() {
            8 if from.addr() & 7 == 0 => {
                // SAFETY: eight mapped bytes, aligned to eight; volatile because the guest may write them.
                into.copy_from_slice(&unsafe { from.cast::<u64>().read_volatile() }.to_ne_bytes());
            }
            4 if from.addr() & 3 == 0 => {
                // SAFETY: four mapped bytes, aligned to four.
                into.copy_from_slice(&unsafe { from.cast::<u32>().read_volatile() }.to_ne_bytes());
            }
            // SAFETY: `into` is ours alone and can't overlap a mapping of the kernel's choice.
            length => unsafe { ptr::copy_nonoverlapping(from, into.as_mut_ptr(), length) },
        }
        true
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: this mapping was made in `open` and nothing borrowed from it outlives `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
    }
}
