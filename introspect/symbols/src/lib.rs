//! Kernel symbols, and where the kernel lies in a machine's memory.
//!
//! Two sources: a [`Vmlinux`] ELF file, or, for a stripped distribution image, the kallsyms tables that the kernel
//! keeps for itself, found and decoded in guest memory ([`Kallsyms`]). [`Placement`] finds the KASLR offset and
//! the place in physical memory without help in either case, and [`Vmlinux::check_build_id`] tells whether the file is that kernel's.

mod kallsyms;
mod placement;
mod table;
mod vmlinux;

pub use kallsyms::{Kallsyms, KallsymsError, KallsymsLayout};
pub use placement::{Placement, PlacementError, START_KERNEL_MAP};
pub use table::{Symbol, SymbolKind, SymbolTable, SymbolTableBuilder};
pub use vmlinux::{BuildIdError, Vmlinux, VmlinuxError, gnu_build_id};
