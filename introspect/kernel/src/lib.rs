//! A kernel's scheduler state out of its memory: tasks, runqueues, domains, cgroups, sched_ext, BPF programs and maps.
//!
//! [`Kernel::open`] takes any [`ktstr_introspect_memory::PhysicalMemory`] and, if there is one, a vmlinux; it finds
//! the kernel, its symbols, its page tables and its types. One module a subsystem then knows how the kernel's objects
//! hang together, in the kernel's own names; the layout of each is always taken from BTF members, never from a version.
//!
//! What opening works out can be kept in an [`Index`], so that the next machine with the same kernel opens in less than
//! a millisecond ([`IndexFolder`]).
//!
//! The kernel may be running: a walk has a limit, checks the back link of every node and tells [`KernelError::Torn`]
//! when they disagree. A member that this kernel lacks, memory that isn't there and type information that can't be
//! read are different errors ([`ErrorKind`]), for each field apart.

mod address_space;
mod bpf;
mod cgroup;
mod cpu_time;
mod error;
mod index;
mod kernel;
mod lock;
mod module;
mod numa;
mod percpu;
mod psi;
mod record;
mod rq;
mod sample;
mod sched_domain;
mod sched_ext;
mod schedstat;
mod task;
mod walk;

#[cfg(test)]
mod tests;

pub use bpf::{
    ArenaPage, ArenaPages, BpfMap, BpfMapKind, BpfProgram, BpfProgramStats, BpfTypeInfo, BpfVariable,
    ExitRecord, MapContents, MapEntry, MapValue, RingPositions, StructOps,
};
pub use cgroup::{Cgroup, CgroupNode, CpuGroup, Cpuset, Pids};
pub use cpu_time::{CpuSoftirqs, CpuTimes};
pub use error::{ErrorKind, KernelError};
pub use index::{FormatError, Index, IndexError, IndexFolder, IndexMiss, IndexUse};
pub use kernel::Kernel;
pub use numa::NodeCounters;
pub use psi::{Pressure, Stall};
pub use record::{Cpus, Field, NamedField, ReadField, Value};
pub use rq::Runqueue;
pub use sample::{ProgramSample, ProgramSampler, RunqueueSample, RunqueueSampler};
pub use sched_domain::{DomainShared, SchedDomain, SchedGroup};
pub use sched_ext::{CpuEvents, DispatchQueue, ExitInfo, ExitReport, SchedExt, SchedExtOps, ScxWait};
pub use schedstat::{DomainSchedstat, RunqueueSchedstat};
pub use task::Task;
pub use walk::{Links, Walker};
