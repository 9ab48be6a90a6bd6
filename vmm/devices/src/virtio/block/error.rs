//! Why a file can't be a disk.

use super::{ID_BYTES, SECTOR};

/// A disk that could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    /// The file is of another kind.
    #[error("making a disk: its file is a {kind}; use a regular file or a memfd")]
    NoFile {
        /// What it is.
        kind: &'static str,
    },
    /// The file's length is no disk's.
    #[error(
        "making a disk: its file has {bytes} bytes, expected a multiple of {SECTOR} and at least that; truncate(1) changes it"
    )]
    Size {
        /// Its length.
        bytes: u64,
    },
    /// The file was opened for something else.
    #[error(
        "making a disk: its file is open {how}; open it for reading and writing, or for reading and make the disk read-only"
    )]
    Opened {
        /// For what.
        how: &'static str,
    },
    /// An id that the guest can't be told.
    #[error("making a disk: the id {id:?} has {bytes} bytes, expected {ID_BYTES} of printable ASCII at most", bytes = id.len())]
    Id {
        /// The id.
        id: String,
    },
    /// The operating system refused.
    #[error("making a disk: {doing}: {source}")]
    Os {
        /// What was being done.
        doing: &'static str,
        /// Its answer.
        source: std::io::Error,
    },
}
