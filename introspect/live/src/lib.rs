//! The kernel that runs here, by what it tells of itself.
//!
//! The other introspection crates read a kernel out of the memory of a machine that somebody else holds. Here it is the
//! one below this process: [`RunningFiles`] finds its vmlinux, types and symbols, none of which is believed to be this
//! kernel's unless its build id says so; [`BpfObjects`] reads programs and maps by bpf(2); [`KernelCore`] is its memory,
//! where it shows that.
//!
//! May touch: files below the root it is given, and bpf(2), which wants `CAP_BPF` or root. Changes nothing. All that is
//! read is bounded.

mod bpf;
mod contents;
mod files;
mod kallsyms;
mod kcore;
mod sys;

pub use bpf::{BpfMapInfo, BpfObjects, BpfProgramInfo};
pub use contents::{LiveContents, LiveEntry, LiveValue};
pub use files::{Missing, RunningFiles, TypesFrom};
pub use kallsyms::{KallsymsError, parse_kallsyms};
pub use kcore::{KernelCore, KernelCoreError};
