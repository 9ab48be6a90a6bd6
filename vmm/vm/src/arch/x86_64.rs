//! x86-64: in-kernel interrupt controllers, vCPUs with their identity, ACPI tables.

pub(crate) mod confine;
pub(crate) mod probe;
mod state;

pub(crate) use state::{Clocks, PlatformState, clocks, restore_platform, save_platform, set_clocks};

use crate::VmError;
use crate::devices::place;
use ktstr_topology::Topology;
use ktstr_vmm_acpi::{Machine, NodeRam, Place, PowerPorts, SerialPort, VirtioMmio, arch::Interrupts};
use ktstr_vmm_boot::Entry;
use ktstr_vmm_cpu::Ids;
use ktstr_vmm_cpu::arch::x86_64::identity::{self, Options};
use ktstr_vmm_cpu::arch::x86_64::registers::{self, Start};
use ktstr_vmm_devices::Power;
use ktstr_vmm_memory::{GuestRam, layout};
use ktstr_vmm_vcpu::Identity;
use kvm_bindings::{
    CpuId, KVM_CAP_X86_DISABLE_EXITS, KVM_MAX_CPUID_ENTRIES, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
    KVM_X2APIC_API_USE_32BIT_IDS, KVM_X86_DISABLE_EXITS_HLT, KVM_X86_DISABLE_EXITS_PAUSE, Msrs,
    kvm_enable_cap,
};
use kvm_ioctls::{Cap, Kvm, VcpuFd, VmFd};
use std::ffi::c_ulong;
use vm_memory::{Bytes, GuestAddress};

/// First I/O port and interrupt line of each serial port.
pub(crate) const SERIAL: [(u16, u32); 2] =
    [(layout::SERIAL_1, layout::SERIAL_1_IRQ), (layout::SERIAL_2, layout::SERIAL_2_IRQ)];

/// The power registers.
pub(crate) const POWER_PORTS: ktstr_vmm_devices::PowerPorts = ktstr_vmm_devices::PowerPorts {
    reset: layout::RESET_PORT,
    sleep_control: layout::SLEEP_CONTROL_PORT,
    sleep_status: layout::SLEEP_STATUS_PORT,
    keyboard_command: layout::KEYBOARD_COMMAND_PORT,
};

/// What this monitor can't do without.
const NEEDED: [(Cap, &str); 7] = [
    (Cap::Irqchip, "in-kernel interrupt controllers"),
    (Cap::Irqfd, "irqfd"),
    (Cap::Ioeventfd, "ioeventfd"),
    (Cap::ImmediateExit, "immediate exit"),
    (Cap::SetTssAddr, "a movable task-state segment"),
    (Cap::ExtCpuid, "extended CPUID"),
    (Cap::X2ApicApi, "32-bit APIC ids"),
];

/// Refuses hosts and shapes that can't work.
pub(crate) fn check(kvm: &Kvm, topology: &Topology) -> Result<(), VmError> {
    if let Some((_, name)) = NEEDED.iter().find(|(cap, _)| !kvm.check_extension(*cap)) {
        let what = format!("this KVM has no {name}; use a host kernel of at least 4.12");
        return Err(VmError::Unsupported { what });
    }
    let ids = Ids::new(topology);
    let highest = ids.id(topology.total_cpus().saturating_sub(1));
    let limit = kvm.get_max_vcpu_id();
    if highest as usize >= limit {
        let what =
            format!("the shape needs APIC id {highest}, this KVM ends at {}; use fewer CPUs", limit - 1);
        return Err(VmError::Unsupported { what });
    }
    Ok(())
}

/// Interrupt controllers and KVM's own pages, before there are vCPUs.
pub(crate) fn prepare(vm: &VmFd) -> Result<(), VmError> {
    vm.set_identity_map_address(layout::KVM_IDENTITY_MAP)
        .map_err(VmError::kvm("placing the identity map"))?;
    vm.set_tss_address(layout::KVM_TSS as usize).map_err(VmError::kvm("placing the task-state segment"))?;
    vm.create_irq_chip().map_err(VmError::kvm("making interrupt controllers"))?;
    let mut cap = kvm_enable_cap { cap: kvm_bindings::KVM_CAP_X2APIC_API, ..Default::default() };
    cap.args[0] = u64::from(KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
    vm.enable_cap(&cap).map_err(VmError::kvm("asking for 32-bit APIC ids"))
}

/// Of `HLT` and `PAUSE`, those that KVM can leave to the guest.
fn left_to_guest(kvm: &Kvm) -> u32 {
    let known = kvm.check_extension_raw(c_ulong::from(KVM_CAP_X86_DISABLE_EXITS));
    let known = u32::try_from(known).unwrap_or(0);
    known & (KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE)
}

/// Whether KVM can leave both to the guest.
pub(crate) fn rests_in_guest(kvm: &Kvm) -> bool {
    left_to_guest(kvm) == KVM_X86_DISABLE_EXITS_HLT | KVM_X86_DISABLE_EXITS_PAUSE
}

/// Has a vCPU that halts or spins stay in the guest, as far as KVM can, before there are vCPUs.
pub(crate) fn rest_in_guest(kvm: &Kvm, vm: &VmFd) -> Result<(), VmError> {
    let mut cap = kvm_enable_cap { cap: KVM_CAP_X86_DISABLE_EXITS, ..Default::default() };
    cap.args[0] = u64::from(left_to_guest(kvm));
    if cap.args[0] == 0 {
        return Ok(());
    }
    vm.enable_cap(&cap).map_err(VmError::kvm("leaving HLT and PAUSE to the guest"))
}

/// Builds the ACPI tables and writes them, with `virtio` virtio devices; the address of the RSDP.
pub(crate) fn write_acpi(topology: &Topology, ram: &GuestRam, virtio: usize) -> Result<u64, VmError> {
    let ids = Ids::new(topology);
    let cpu_ids: Vec<u32> = (0..topology.total_cpus()).map(|cpu| ids.id(cpu)).collect();
    let node_ram: Vec<NodeRam> =
        ram.regions().iter().map(|r| NodeRam { node: r.node, start: r.start, bytes: r.bytes }).collect();
    let virtio: Vec<VirtioMmio> = (0..virtio)
        .map(place)
        .map(|(address, irq)| VirtioMmio {
            address: address as u32,
            bytes: layout::VIRTIO_MMIO_STRIDE as u32,
            irq,
        })
        .collect();
    let machine = Machine {
        topology,
        cpu_ids: &cpu_ids,
        ram: &node_ram,
        interrupts: Interrupts { local_apic: layout::LOCAL_APIC, ioapic: layout::IOAPIC },
        serial: &SERIAL.map(|(port, irq)| SerialPort { port, irq }),
        virtio: &virtio,
        power: PowerPorts {
            reset: layout::RESET_PORT,
            reset_value: Power::RESET_VALUE,
            sleep_control: layout::SLEEP_CONTROL_PORT,
            sleep_status: layout::SLEEP_STATUS_PORT,
            off_type: Power::OFF_TYPE,
        },
    };
    let place = Place { rsdp: layout::RSDP, tables: layout::ACPI, end: layout::ACPI_END };
    let tables = ktstr_vmm_acpi::build(&machine, place)?;
    for table in &tables.placed {
        ram.memory()
            .write_slice(&table.bytes, GuestAddress(table.address))
            .map_err(|source| VmError::Write { what: table.signature, source })?;
    }
    Ok(tables.rsdp)
}

/// What each vCPU of such a machine is made with on this host.
pub(crate) fn identities(kvm: &Kvm, topology: &Topology, realtime: bool) -> Result<Vec<Identity>, VmError> {
    let ids = Ids::new(topology);
    let supported = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(VmError::kvm("asking for the supported CPUID"))?;
    let options = Options { realtime, tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer) };
    let identity = |cpu| Identity {
        id: u64::from(ids.id(cpu)),
        cpuid: identity::for_cpu(supported.as_slice(), ids, cpu, options),
    };
    Ok((0..topology.total_cpus()).map(identity).collect())
}

/// Makes a vCPU, without any state.
pub(crate) fn new_vcpu(vm: &VmFd, identity: &Identity) -> Result<VcpuFd, VmError> {
    let id = identity.id;
    vm.create_vcpu(id).map_err(VmError::kvm(format!("making the file of the vCPU with APIC id {id}")))
}

/// Makes the vCPUs, the first one ready to enter the kernel.
pub(crate) fn vcpus(
    vm: &VmFd,
    ram: &GuestRam,
    identities: &[Identity],
    entry: Entry,
) -> Result<Vec<VcpuFd>, VmError> {
    let start = match entry {
        Entry::Long { ip, boot_params } => Start::Long { ip, rsi: boot_params },
        Entry::Protected { ip, start_info } => Start::Protected { ip, rbx: start_info },
    };
    registers::write_tables(ram.memory(), start)
        .map_err(|source| VmError::Write { what: "descriptor and page tables", source })?;
    let mut vcpus = Vec::with_capacity(identities.len());
    for (cpu, identity) in (0..).zip(identities) {
        let doing = |what: &str| VmError::kvm(format!("{what} of vCPU {cpu}"));
        let fd = new_vcpu(vm, identity)?;
        let leaves = &identity.cpuid;
        let leaves = CpuId::from_entries(leaves).map_err(|e| VmError::Unsupported {
            what: format!("{} CPUID leaves are more than KVM takes: {e:?}", leaves.len()),
        })?;
        fd.set_cpuid2(&leaves).map_err(doing("setting CPUID"))?;
        set_msrs(&fd, cpu)?;
        let mut lapic = fd.get_lapic().map_err(doing("reading the local APIC"))?;
        registers::local_interrupts(&mut lapic);
        fd.set_lapic(&lapic).map_err(doing("setting the local APIC"))?;
        if cpu == 0 {
            let sregs = fd.get_sregs().map_err(doing("reading the special registers"))?;
            fd.set_sregs(&registers::special(sregs, start))
                .map_err(doing("setting the special registers"))?;
            fd.set_regs(&registers::general(start)).map_err(doing("setting the general registers"))?;
        }
        vcpus.push(fd);
    }
    Ok(vcpus)
}

fn set_msrs(fd: &VcpuFd, cpu: u32) -> Result<(), VmError> {
    let entries = registers::msrs();
    let refused = |what: String| VmError::Unsupported { what };
    let msrs = Msrs::from_entries(&entries).map_err(|e| refused(format!("listing MSRs: {e:?}")))?;
    let set = fd.set_msrs(&msrs).map_err(VmError::kvm(format!("setting MSRs of vCPU {cpu}")))?;
    match entries.get(set) {
        None => Ok(()),
        Some(first) => {
            let index = first.index;
            Err(refused(format!(
                "setting MSR {index:#x} of vCPU {cpu}: KVM doesn't know it; use a newer host kernel"
            )))
        }
    }
}
