//! Kernel images kept under the XDG cache, written atomically.
//!
//! ```text
//! {root}/{key}/bzImage vmlinux config modules/ metadata.json   one kernel
//! {root}/.tmp-{key}-{pid}-{n}/      being written or deleted
//! {root}/.locks/{key}.lock          one for each entry and lease
//! {root}/.logs/                     build logs
//! ```
//!
//! An entry appears, changes and disappears by a single rename, so a process
//! that is killed leaves either the old state or the new one. What it had
//! staged carries a lock that died with it and is swept by the next process.

mod entry;
mod lock;
mod root;
mod scratch;
mod store;

use std::io;
use std::path::PathBuf;

use ktstr_kernel::ports::StoreError;

pub use root::{CacheEnv, cache_root};
pub use store::KernelCache;

/// A failure of the kernel cache.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// There is nowhere to put a cache.
    #[error(
        "placing the kernel cache: none of KTSTR_CACHE_DIR, XDG_CACHE_HOME and HOME is set; set KTSTR_CACHE_DIR to a directory with 1 GB of room"
    )]
    NoRoot,
    /// The operating system refused.
    #[error(
        "{doing} {path}: {error}; check that KTSTR_CACHE_DIR is writable and its disk has room",
        path = path.display()
    )]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
    /// The name of an image is no plain file name.
    #[error("storing a kernel: the image name {0:?} is not a plain file name")]
    BadImageName(String),
    /// The record of an entry could not be written as JSON.
    #[error("writing the record of a kernel: {0}")]
    Encode(#[from] serde_json::Error),
}

impl CacheError {
    fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { doing, path, error }
    }
}

impl From<CacheError> for StoreError {
    fn from(error: CacheError) -> Self {
        Self::Other(Box::new(error))
    }
}
