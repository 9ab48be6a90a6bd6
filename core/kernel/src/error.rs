//! Why no kernel could be chosen.

use std::path::PathBuf;

use crate::discover::KTSTR_KERNEL_HINT;
use crate::key::CacheKey;
use crate::ports::{BuildError, SourceError, StoreError};
use crate::spec::SpecError;

/// A failure of [`crate::discover`] or [`crate::resolve`].
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// `KTSTR_TEST_KERNEL` names nothing that can be booted.
    #[error(
        "KTSTR_TEST_KERNEL not found: {path:?} is {seen}; set it to a readable kernel image (bzImage, Image or vmlinuz), or unset it"
    )]
    TestKernel {
        /// Its value, possibly empty.
        path: PathBuf,
        /// What is there instead of a file.
        seen: String,
    },
    /// `KTSTR_KERNEL` names a directory without an image.
    #[error(
        "KTSTR_KERNEL={path}: expected a built kernel at {expected}, which is {seen}; build it with `cargo ktstr kernel build --source {path}`, or unset KTSTR_KERNEL",
        path = path.display(),
        expected = expected.display()
    )]
    NoImageInTree {
        /// The directory.
        path: PathBuf,
        /// Where the image would be.
        expected: PathBuf,
        /// What is there instead.
        seen: String,
    },
    /// `KTSTR_KERNEL` names a file.
    #[error(
        "KTSTR_KERNEL={path}: expected the directory of a kernel tree, found a file; set KTSTR_TEST_KERNEL to boot an image as it is",
        path = .0.display()
    )]
    KernelIsFile(PathBuf),
    /// A range where one kernel is needed.
    #[error("resolving the kernels {0}: a range stands for several kernels; expand it into versions first")]
    Range(String),
    /// A cache key was given and there is no such entry.
    #[error(
        "looking up the kernel {0}: the cache has no such entry; `cargo ktstr kernel list` shows what it has, and a directory of that name is written ./{0}"
    )]
    NotCached(CacheKey),
    /// The spec makes no sense.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The cache failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Nothing of that name, or it could not be fetched.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The build failed.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// Discovery came to its end with nothing.
    #[error("looking for a kernel to boot: found none; {hint}{seen}", hint = KTSTR_KERNEL_HINT)]
    NothingFound {
        /// What was passed over, each on a line that starts with a line break.
        seen: String,
    },
}
