//! What a virtual machine is to ktstr: its specification, what it says while it
//! runs, and the port that boots it.
//!
//! Adapters implement [`Hypervisor`] and [`Vm`]: `adapters/qemu` for the modes
//! `tcg` and `deterministic`, `adapters/kvm` for `kvm`. This crate knows nothing
//! of tests; it names no process and opens no file.

mod accel;
mod budget;
mod cmdline;
mod console;
mod error;
pub mod mailbox;
mod performance;
mod placement;
pub mod ports;
mod spec;

pub use accel::{Accel, AccelChoice, Pace, UnknownAccel};
pub use budget::{Budget, NoBudget, Share, choose};
pub use cmdline::{CommandLine, CommandLineError};
pub use console::{ConsoleTail, Digest};
pub use error::MachineError;
pub use mailbox::Wake;
pub use performance::{Host, Missing, Performance, Plan, plan};
pub use placement::{NoPlace, Placement, place};
pub use ports::{
    Hypervisor, MAX_RESTARTS, PhysicalMemory, RamFile, Template, VcpuRegisters, VcpuThreads, Vm, VmEvent,
    VmExit,
};
pub use spec::{Blob, KERNEL_HEADER_BYTES, MachineSpec, kernel_bytes, memory_floor_mib, memory_to_boot_mib};
