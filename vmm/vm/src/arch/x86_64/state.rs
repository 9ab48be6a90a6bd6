//! The state of a saved machine that KVM keeps beside the vCPUs: two 8259 interrupt
//! controllers, the IOAPIC, and the paravirtual clock. There is no 8254 timer: this
//! monitor makes none.

use crate::VmError;
use kvm_bindings::{
    KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE, kvm_clock_data, kvm_irqchip,
};
use kvm_ioctls::VmFd;
use serde::{Deserialize, Serialize};

const CHIPS: [(u32, &str); 3] = [
    (KVM_IRQCHIP_PIC_MASTER, "the first 8259"),
    (KVM_IRQCHIP_PIC_SLAVE, "the second 8259"),
    (KVM_IRQCHIP_IOAPIC, "the IOAPIC"),
];

/// What KVM keeps of the machine itself.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlatformState {
    chips: [kvm_irqchip; 3],
    /// Nanoseconds of the paravirtual clock.
    clock: u64,
}

/// Reads it, after the vCPUs.
pub(crate) fn save_platform(vm: &VmFd) -> Result<PlatformState, VmError> {
    let mut chips = [kvm_irqchip::default(); 3];
    for (chip, (id, name)) in chips.iter_mut().zip(CHIPS) {
        chip.chip_id = id;
        vm.get_irqchip(chip).map_err(VmError::kvm(format!("reading the state of {name}")))?;
    }
    let clock = vm.get_clock().map_err(VmError::kvm("reading the paravirtual clock"))?.clock;
    Ok(PlatformState { chips, clock })
}

/// Sets it, once the vCPUs have their state.
///
/// What waits in the IOAPIC is delivered as soon as that has its state
/// (`kvm_ioapic_inject_all` in arch/x86/kvm/ioapic.c): to local APICs that keep it. And the
/// clock is kept in step with the time stamp counters (`pvclock_update_vm_gtod_copy` in
/// arch/x86/kvm/x86.c), so it is set after them.
pub(crate) fn restore_platform(vm: &VmFd, state: &PlatformState) -> Result<(), VmError> {
    for (chip, (id, name)) in state.chips.iter().zip(CHIPS) {
        let chip = kvm_irqchip { chip_id: id, ..*chip };
        vm.set_irqchip(&chip).map_err(VmError::kvm(format!("setting the state of {name}")))?;
    }
    // No flags: time goes on from where it stood, whatever the host's clock says (api.rst,
    // KVM_SET_CLOCK).
    let clock = kvm_clock_data { clock: state.clock, ..Default::default() };
    vm.set_clock(&clock).map_err(VmError::kvm("setting the paravirtual clock"))
}
