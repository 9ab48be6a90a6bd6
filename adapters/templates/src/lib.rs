//! Saved machines on disk.
//!
//! ```text
//! {root}/{key}/…  metadata.json     one saved machine, as its hypervisor wrote it
//! {root}/.tmp-{key}-{pid}           being made or thrown away
//! {root}/.sums/{key}.json            what a file elsewhere summed up to
//! {root}/.locks/{key}.lock          held shared by who reads, exclusively by who makes
//! ```
//!
//! One process makes a machine while the others that want it wait. It appears by a
//! single rename, so that a killed maker leaves nothing behind but scratch, which the
//! next one sweeps. What is not as recorded (another version, a missing or truncated
//! file, another checksum) is thrown away and made anew: a broken template costs time
//! and nothing else.
//!
//! May touch: the directory it is given. Knows nothing of hypervisors and tests.

mod files;
mod lock;
mod metadata;
mod stamp;
mod store;

pub use metadata::{KernelMark, Metadata};
pub use store::{Lease, Listed, Make, Need, Notice, Tell, TemplateStore, Unmade};

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A template that could not be had; its test boots instead.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// The operating system refused.
    #[error(
        "{doing} {path}: {error}; check that the cache directory is writable and its disk has room",
        path = path.display()
    )]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: std::io::Error,
    },
    /// Another process has been at it for too long.
    #[error("waiting for the template {key}: another process has been making it for {seconds} s")]
    Busy {
        /// Its key.
        key: String,
        /// How long we waited.
        seconds: u64,
    },
    /// Whoever tried it a short while ago could not.
    #[error("it was tried {seconds} s ago: {why}")]
    FailedBefore {
        /// How long ago.
        seconds: u64,
        /// What was said then.
        why: String,
    },
    /// Whoever makes it could not.
    #[error(transparent)]
    Make(Box<dyn std::error::Error + Send + Sync>),
}

impl TemplateError {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |error| Self::Io { doing, path, error }
    }
}

/// Tells what this process has under way at once apart.
pub(crate) fn serial() -> u32 {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    SERIAL.fetch_add(1, Ordering::Relaxed)
}
