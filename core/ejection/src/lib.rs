//! Why the kernel ended a sched_ext scheduler.
//!
//! [`Ejection`] is what the kernel's log says of it: which scheduler, what kind of end,
//! which task and CPU, the stack. [`Dump`] is the debug dump that the kernel makes of all
//! CPUs at that moment, as `ops.exit` got it, the trace event `sched_ext_dump` shows it, or
//! the scheduler's user half printed it.
//!
//! Pure. The texts come from a machine that has just failed: anything may be missing or
//! cut, and nothing here panics.

mod dump;
mod kmsg;
mod task;

pub use dump::{Dump, DumpCpu, DumpTask};
pub use kmsg::{Ejection, ExitKind};
pub use task::TaskName;
