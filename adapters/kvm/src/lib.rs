//! The hypervisor port over our own virtual machine monitor: the mode `kvm`.
//!
//! The machine runs in this process, on threads of its own; when the process ends,
//! however it does, nothing is left of it. The guest has the same channels as under
//! QEMU: the console on `ttyS0`, and virtio console ports named `ktstr.data` and
//! `ktstr.stdio`.
//!
//! May touch: `/dev/kvm`, threads, memfds, the kernel and initramfs files. Knows
//! nothing of tests.

mod command_line;
mod core_file;
mod errors;
mod memory;
mod queue;
mod vm;

use ktstr_machine::{Accel, Hypervisor, MachineError, MachineSpec, Vm};

/// Boots machines under KVM.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kvm;

impl Kvm {
    /// A hypervisor that opens `/dev/kvm` for each machine.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }
}

impl Hypervisor for Kvm {
    fn describe(&self) -> Result<String, MachineError> {
        Ok(format!("ktstr-vmm {} on KVM", env!("CARGO_PKG_VERSION")))
    }

    fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Vm>, MachineError> {
        if spec.accel != Accel::Kvm {
            let what =
                "this hypervisor runs guest code on the processor itself; use QEMU for this mode".to_string();
            return Err(MachineError::Unsupported { accel: spec.accel, what });
        }
        Ok(Box::new(vm::KvmVm::start(spec)?))
    }
}
