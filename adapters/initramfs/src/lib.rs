//! Initial RAM disks: a cpio archive that holds a program, the shared libraries
//! it needs and whatever files a test adds.
//!
//! [`Archive`] writes the format, [`closure`] finds the libraries of an ELF file
//! the way the dynamic linker would, [`without_debug`] leaves out what is never
//! loaded. May touch: the files it is told to read. Starts nothing.

mod archive;
mod elf;
mod libraries;

pub use archive::Archive;
pub use elf::{LoadedPart, loaded_part, read_without_debug, with_symbols_only, without_debug};
pub use libraries::{Library, LibrarySearch, closure};

use std::path::PathBuf;

/// An archive that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum InitramfsError {
    /// A file can't be read.
    #[error("reading {path} for the initramfs: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file that should be an ELF executable or library is none, or is broken.
    #[error("reading {path} as ELF: {why}; expected a 64-bit ELF file for this machine")]
    Elf {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A library that a binary needs is nowhere.
    #[error("finding library {name} needed by {by}: not in {searched}; install it or set LD_LIBRARY_PATH")]
    Library {
        /// Its `DT_NEEDED` name.
        name: String,
        /// The file that needs it.
        by: PathBuf,
        /// Directories looked at.
        searched: String,
    },
    /// A path in the archive that makes no sense.
    #[error("adding {path:?} to the initramfs: {why}")]
    Path {
        /// As given.
        path: String,
        /// What is wrong.
        why: &'static str,
    },
    /// A file larger than the format's 32-bit length.
    #[error(
        "adding {path:?} to the initramfs: {bytes} bytes, but a cpio archive holds files of at most 4 GiB"
    )]
    TooBig {
        /// The path in the archive.
        path: String,
        /// Its size.
        bytes: usize,
    },
    /// Two different files for one path.
    #[error("adding {path:?} to the initramfs: something is there already; give one of the two another name")]
    Twice {
        /// The path in the archive.
        path: String,
    },
}

impl InitramfsError {
    /// A [`Read`](Self::Read) error, for `map_err`.
    pub(crate) fn read(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Read { path, source }
    }
}
