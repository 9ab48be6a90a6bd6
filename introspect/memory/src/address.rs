//! The kinds of address, so that one can't be taken for another.

use std::fmt;

/// A guest-physical address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PhysAddr(pub u64);

/// A kernel virtual address, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct VirtAddr(pub u64);

/// How far KASLR moved the kernel's virtual addresses from those it was linked at, in bytes. It is added with
/// wrap-around: `runtime = link + offset`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct KernelOffset(pub u64);

impl PhysAddr {
    /// This address plus `bytes`, or nothing when that passes the end of the address space.
    #[must_use]
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }
}

impl VirtAddr {
    /// This address plus `bytes`, or nothing when that passes the end of the address space.
    #[must_use]
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// This address plus `bytes`, wrapping: what pointer arithmetic in the kernel does (`container_of`, per-CPU
    /// offsets, which are "negative").
    #[must_use]
    pub fn wrapping_add(self, bytes: u64) -> Self {
        Self(self.0.wrapping_add(bytes))
    }

    /// This address minus `bytes`, wrapping.
    #[must_use]
    pub fn wrapping_sub(self, bytes: u64) -> Self {
        Self(self.0.wrapping_sub(bytes))
    }

    /// Whether this is the null pointer.
    #[must_use]
    pub fn is_null(self) -> bool {
        self.0 == 0
    }
}

impl KernelOffset {
    /// The runtime address of what was linked at `link`.
    #[must_use]
    pub fn apply(self, link: VirtAddr) -> VirtAddr {
        link.wrapping_add(self.0)
    }

    /// The link address of what is at `runtime` now.
    #[must_use]
    pub fn undo(self, runtime: VirtAddr) -> VirtAddr {
        runtime.wrapping_sub(self.0)
    }
}

macro_rules! hexadecimal {
    ($($kind:ident $prefix:literal),*) => {$(
        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
        impl fmt::Debug for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, ":{:#x}"), self.0)
            }
        }
    )*};
}
hexadecimal!(PhysAddr "phys", VirtAddr "virt", KernelOffset "kaslr");
