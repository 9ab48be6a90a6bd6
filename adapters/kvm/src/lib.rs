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
mod watches;

use ktstr_machine::{Accel, Hypervisor, MachineError, MachineSpec, Vm};
use ktstr_vmm::Probe;
use std::time::Duration;

/// How long the probing guest may take; milliseconds on an idle host.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Boots machines under KVM.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kvm;

impl Kvm {
    /// A hypervisor that opens `/dev/kvm` for each machine.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Whether machines can run here, found out by running a tiny guest.
    ///
    /// # Errors
    /// What is missing, in words for whoever asked for this mode.
    pub fn probe() -> Result<(), MachineError> {
        let unusable = |what: String| Err(MachineError::Unsupported { accel: Accel::Kvm, what });
        match ktstr_vmm::probe(PROBE_PATIENCE) {
            Ok(Probe::Usable { .. }) => Ok(()),
            Ok(Probe::Unusable { failed_at, why }) => unusable(format!(
                "/dev/kvm is there, but a guest got no further than {failed_at} ({why}): this host emulates guest \
                 kernel code, on which Linux can't boot; use --accel tcg, or a host with hardware virtualization"
            )),
            Err(e) => unusable(format!("{e}; or use --accel tcg")),
        }
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
