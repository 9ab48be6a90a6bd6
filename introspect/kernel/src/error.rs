//! What can go wrong when a kernel is read from outside.

use ktstr_introspect_memory::{ReadFault, VirtAddr};
use ktstr_introspect_symbols::{BuildIdError, KallsymsError, PlacementError, VmlinuxError};
use ktstr_introspect_types::{BtfError, PlanError, PlanFault};

/// The few answers that a caller tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// This kernel doesn't have it: another version or configuration. Not a failure.
    Absent,
    /// A pointer on the way is null, as it may be.
    Null,
    /// An address that should hold it can't be read.
    Unmapped,
    /// It changed while it was read, or it is corrupt. Worth another try on a running kernel.
    Torn,
    /// The reader, or what it was given (vmlinux, BTF), is at fault.
    Broken,
}

/// Reading a kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The kernel isn't in this memory.
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Its kallsyms can't be read.
    #[error(transparent)]
    Kallsyms(#[from] KallsymsError),
    /// The vmlinux can't be used.
    #[error(transparent)]
    Vmlinux(#[from] VmlinuxError),
    /// The vmlinux is another kernel's.
    #[error(transparent)]
    BuildId(#[from] BuildIdError),
    /// The index is of another kernel.
    #[error(
        "the index is of the kernel with build id {expected}, but the one in memory has {}",
        seen.as_deref().unwrap_or("none")
    )]
    OtherIndex {
        /// The index's.
        expected: String,
        /// The one in memory.
        seen: Option<String>,
    },
    /// The type information can't be used.
    #[error("cannot read the kernel's type information: {0}")]
    Btf(#[from] BtfError),
    /// A symbol that this kernel doesn't have.
    #[error("this kernel has no symbol {name}")]
    NoSymbol {
        /// Its name.
        name: String,
    },
    /// A name that stands for several things.
    #[error("several of {what} are called {name}: {}", found.join(", "))]
    Ambiguous {
        /// What was looked for.
        what: &'static str,
        /// The name.
        name: String,
        /// What it may stand for.
        found: Vec<String>,
    },
    /// A member path that can't be compiled; absent or broken.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A planned read failed.
    #[error(transparent)]
    Fault(#[from] PlanFault),
    /// A read of something by address failed.
    #[error("cannot read {what}: {fault}")]
    Read {
        /// What was being read.
        what: &'static str,
        /// The fault, with its address.
        fault: ReadFault,
    },
    /// A back link disagrees.
    #[error(
        "{what} at {at} is torn: expected {expected:#x} in its back link, saw {seen:#x}; it changed while being read, or is corrupt"
    )]
    Torn {
        /// What was being walked.
        what: &'static str,
        /// The node.
        at: VirtAddr,
        /// What the link should be.
        expected: u64,
        /// What it is.
        seen: u64,
    },
    /// More of something than there can be: a cycle, or garbage.
    #[error("{what} at {at} goes on after {limit} entries: it has a cycle, or is corrupt")]
    Endless {
        /// What was being walked.
        what: &'static str,
        /// Where it starts.
        at: VirtAddr,
        /// The limit.
        limit: usize,
    },
    /// Something that this reader has no reader for.
    #[error("there is no reader for {what}: expected {instead}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// What could be.
        instead: &'static str,
    },
    /// A number that can't be.
    #[error("{what} at {at} is {seen}, expected {expected}: corrupt, or not what it was taken for")]
    Implausible {
        /// What was read.
        what: &'static str,
        /// Where.
        at: VirtAddr,
        /// What it is.
        seen: u64,
        /// What it could be.
        expected: &'static str,
    },
}

impl KernelError {
    /// Which of the few answers this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoSymbol { .. } => ErrorKind::Absent,
            Self::Plan(error) if error.is_absent() => ErrorKind::Absent,
            Self::Fault(PlanFault::Null { .. }) => ErrorKind::Null,
            Self::Fault(PlanFault::Read { .. }) | Self::Read { .. } => ErrorKind::Unmapped,
            Self::Torn { .. } | Self::Endless { .. } | Self::Implausible { .. } => ErrorKind::Torn,
            _ => ErrorKind::Broken,
        }
    }

    pub(crate) fn read(what: &'static str) -> impl Fn(ReadFault) -> Self {
        move |fault| Self::Read { what, fault }
    }
}
