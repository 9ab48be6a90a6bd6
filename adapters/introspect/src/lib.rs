//! The monitor's view of a running guest, read by the introspection crates out of its
//! memory.
//!
//! [`LiveKernel`] serves the ports of ktstr-monitor over the guest memory that a machine
//! shows. Nothing is added to the guest and nothing is written to it. Finding the kernel
//! (its place, symbols, types) takes from milliseconds to a second or two and happens in a
//! thread of its own; a sample then takes microseconds.
//!
//! Machines that run can be found by other processes of the same user, and read with the same
//! [`expressions`](show) as a core.
//!
//! [`BtfTypes`] tells a kernel's types to probes on its functions; a guest reads its own.
//!
//! The kernel that runs here has no machine around it: [`RunningBpf`] reads its BPF programs and maps by bpf(2),
//! [`RunningKernel`] its memory, where it shows that, into the same values.
//!
//! May touch: the vmlinux file or file of types it is given, one thread, the files about running machines and
//! the indexes of kernels in the directories that it is given, and of the kernel that runs here what
//! ktstr-introspect-live may and the names of threads in /proc. Writes nothing but indexes.

mod allocators;
mod around;
mod counters;
mod entries;
mod expression;
mod functions;
mod groups;
mod index;
mod live;
mod maps;
mod memory;
mod next;
mod open;
mod process_memory;
mod reasons;
mod running;
mod running_bpf;
mod running_kernel;
mod scheduler;
mod state;
mod tasks;
mod typed;
mod types;
mod variables;

pub use expression::{ExpressionError, expand, locate, show, value};
pub use functions::function_lines;
pub use index::IndexCache;
pub use live::{Finding, LiveKernel};
pub use running::{Announcement, LiveMemoryError, Running, RunningError, announce, running};
pub use running_bpf::{RunningBpf, SchedulerObjects};
pub use running_kernel::{RunningKernel, RunningKernelError};
pub use scheduler::{dispatch_queues, maps, programs};
pub use state::kernel_state;
pub use types::{BtfTypes, TypesError};
pub use variables::Variables;
