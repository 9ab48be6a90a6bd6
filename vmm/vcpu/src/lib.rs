//! vCPU threads: running guest code, pausing within bounded time, reading registers,
//! ending.
//!
//! [`Vcpu::start`] takes a vCPU that is ready to run and gives it a thread. Whoever
//! traps the guest's accesses implements [`Machine`]; this crate knows no device.

pub mod arch;
mod control;
mod error;
mod kick;
mod run;
mod thread;

pub use arch::{Identity, Registers, StateKinds, VcpuClock, VcpuState};
pub use control::State;
pub use error::VcpuError;
pub use thread::{Vcpu, pause_all, resume_all, stop_all};

/// Where an access of the guest goes that no memory answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// An I/O port, on architectures that have them.
    Port(u16),
    /// A guest-physical address.
    Memory(u64),
}

/// What vCPUs need of the machine around them. Called on their threads.
pub trait Machine: Send + Sync {
    /// The thread of vCPU `index` has started and has run nothing yet.
    ///
    /// # Errors
    /// Why it must not, in words.
    fn starting(&self, index: u32) -> Result<(), String> {
        let _ = index;
        Ok(())
    }

    /// The guest reads `data.len()` bytes: 1, 2, 4 or 8.
    fn read(&self, address: Address, data: &mut [u8]);

    /// The guest writes `data`: 1, 2, 4 or 8 bytes.
    fn write(&self, address: Address, data: &[u8]);

    /// vCPU `index` won't run any more.
    fn ended(&self, index: u32, end: End);

    /// vCPU `index` hit a breakpoint or watchpoint and is paused.
    fn trapped(&self, index: u32, trap: arch::Trap) {
        let _ = (index, trap);
    }
}

/// Why a vCPU ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// We stopped it.
    Stopped,
    /// It halted, in a machine without an interrupt controller to wake it.
    Halted,
    /// It asked for a shutdown; on x86 a triple fault.
    Shutdown,
    /// KVM could not go on.
    Failed {
        /// What KVM said, with the registers that help to find out why.
        why: String,
    },
}
