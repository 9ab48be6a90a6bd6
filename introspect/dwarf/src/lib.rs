//! What only a vmlinux's DWARF tells of a kernel: the source lines of addresses, and the types of variables.
//!
//! A kernel's BTF says what its data looks like, but it names no lines, and of its variables only those per CPU.
//! [`DebugSections`] takes the debug information out of the file; [`SourceLines`] answers addresses; [`variable_types`]
//! goes over all variables once and puts their types on top of the kernel's own.

mod lines;
mod sections;
mod variables;

pub use lines::{SourceFrame, SourceLines};
pub use sections::{DebugSections, DwarfError};
pub use variables::variable_types;
