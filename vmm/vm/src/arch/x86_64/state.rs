//! The state of a machine that KVM keeps beside the vCPUs: two 8259 interrupt controllers, the
//! IOAPIC, and clocks. There is no 8254 timer: this monitor makes none.

use crate::VmError;
use ktstr_vmm_vcpu::{Vcpu, VcpuClock};
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

/// What KVM keeps of the machine itself, clocks aside.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PlatformState {
    chips: [kvm_irqchip; 3],
}

/// What the clocks that a guest can read stood at: Linux takes either for its clock source, and the paravirtual one
/// for its scheduler (arch/x86/kernel/kvmclock.c).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Clocks {
    vcpus: Vec<VcpuClock>,
    /// Nanoseconds.
    paravirtual: u64,
}

/// Reads the clocks of a machine whose vCPUs stand still.
pub(crate) fn clocks(vm: &VmFd, vcpus: &[Vcpu]) -> Result<Clocks, VmError> {
    // In the order in which they are set, so that they stay in step.
    let vcpus = vcpus.iter().map(Vcpu::clock).collect::<Result<_, _>>()?;
    let paravirtual = vm.get_clock().map_err(VmError::kvm("reading the paravirtual clock"))?.clock;
    Ok(Clocks { vcpus, paravirtual })
}

/// Has the clocks go on from there.
///
/// KVM keeps the paravirtual one in step with the time stamp counters (`pvclock_update_vm_gtod_copy` in
/// arch/x86/kvm/x86.c), so it is set after them. The guest isn't told that it was stopped (`KVM_KVMCLOCK_CTRL`): it has
/// missed nothing, and its watchdogs, which that would rewind, are right.
pub(crate) fn set_clocks(vm: &VmFd, vcpus: &[Vcpu], clocks: &Clocks) -> Result<(), VmError> {
    vcpus.iter().zip(&clocks.vcpus).try_for_each(|(vcpu, clock)| vcpu.set_clock(clock))?;
    // No flags: time goes on from where it stood, whatever the host's clock says (api.rst,
    // KVM_SET_CLOCK).
    let clock = kvm_clock_data { clock: clocks.paravirtual, ..Default::default() };
    vm.set_clock(&clock).map_err(VmError::kvm("setting the paravirtual clock"))
}

/// Reads it, after the vCPUs.
pub(crate) fn save_platform(vm: &VmFd) -> Result<PlatformState, VmError> {
    let mut chips = [kvm_irqchip::default(); 3];
    for (chip, (id, name)) in chips.iter_mut().zip(CHIPS) {
        chip.chip_id = id;
        vm.get_irqchip(chip).map_err(VmError::kvm(format!("reading the state of {name}")))?;
    }
    Ok(PlatformState { chips })
}

/// Sets it, once the vCPUs have their state: what waits in the IOAPIC is delivered as soon as that has its
/// state (`kvm_ioapic_inject_all` in arch/x86/kvm/ioapic.c), to local APICs that keep it.
pub(crate) fn restore_platform(vm: &VmFd, state: &PlatformState) -> Result<(), VmError> {
    for (chip, (id, name)) in state.chips.iter().zip(CHIPS) {
        let chip = kvm_irqchip { chip_id: id, ..*chip };
        vm.set_irqchip(&chip).map_err(VmError::kvm(format!("setting the state of {name}")))?;
    }
    Ok(())
}
