//! Small BPF programs, instruction by instruction.
//!
//! The few that are needed differ from kernel to kernel only in offsets, and those the kernel itself tells (BTF): so they
//! are put together here, and no compiler or loader of BPF has a part in it. Loading and running them is an adapter's.

mod assemble;
mod trace;
mod watchdog;

pub use assemble::{Code, Label, Reg};
pub use trace::{MOST_VALUES, at_entry, at_exit};
pub use watchdog::{OPS, Places, WatchdogRecord, effective_timeout, override_timeout};
