//! Why the system could not be read.

use ktstr_topology::PartsError;
use std::io;

/// A file of `/proc` or `/sys` that is missing, unreadable or not understood.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SystemError {
    /// A file can't be read.
    #[error("{doing} from {path}: {source}; is its file system mounted?")]
    Read {
        /// Such as `reading the online CPUs`.
        doing: &'static str,
        /// The file.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file holds something else than it should.
    #[error("reading {path}: expected {expected}, got {seen:?}")]
    Content {
        /// The file.
        path: String,
        /// What should be there.
        expected: &'static str,
        /// What is there.
        seen: String,
    },
    /// The running kernel has no function of that name.
    #[error(
        "looking for the kernel function {name:?}: /proc/kallsyms has none of that name; it may be inlined, or of a module that is not loaded"
    )]
    NoFunction {
        /// The name.
        name: String,
    },
    /// The kernel does not say where its functions are.
    #[error(
        "looking for the kernel function {name:?}: /proc/kallsyms shows zeros instead of addresses; run as root with kernel.kptr_restrict at most 1"
    )]
    HiddenAddress {
        /// The name.
        name: String,
    },
    /// The files contradict each other.
    #[error("reading the CPU topology from {root}: {source}")]
    Contradiction {
        /// The sysfs that was read.
        root: String,
        /// What doesn't fit.
        source: PartsError,
    },
}
