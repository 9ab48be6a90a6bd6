//! The scheduler port inside a guest.
//!
//! [`GuestSchedulers`] starts a scheduler's program, waits until the kernel has it, notices
//! when the kernel drops it or its program dies, and stops it in order. What it learns on the
//! way is a [`SchedulerReport`] for the host.
//!
//! May touch `/sys/kernel/sched_ext`, `/proc/sys`, tracefs, `/dev/kmsg`, bpf(2) for what the
//! kernel knows of BPF programs and maps and for small programs of its own, bpffs where a map is to be pinned,
//! the scx_stats socket of a scheduler, and the processes that it started. Runs as root inside a
//! machine of its own; nothing here is meant for a host.

mod bpf;
mod btf;
mod callbacks;
mod guest;
mod kernel;
mod maps;
mod probes;
mod process;
mod program;
mod stats;
mod switched;
mod watchdog;
mod watcher;

pub use guest::{GuestSchedulers, LogSink};
pub use ktstr_scheduler::SchedulerReport;
