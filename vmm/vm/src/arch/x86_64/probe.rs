//! The guest that [`probe`](crate::probe()) runs: what a Linux kernel does first, a
//! number on an I/O port after each step.

use crate::VmError;
use ktstr_vmm_cpu::arch::x86_64::registers::{self, Start};
use ktstr_vmm_memory::{GuestRam, RamOptions};
use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::arch::x86_64::__cpuid;
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// Port that the steps are told on.
pub(crate) const PORT: u16 = 0x80;
/// What each step does; step n is told as the number n + 1 once it is done.
pub(crate) const STEPS: [&str; 6] =
    ["entering 64-bit mode", "cpuid", "xsave and xrstor", "cmpxchg16b", "int3", "a timer interrupt"];

const RAM: u64 = 1 << 20;
const CODE: u64 = 0x1_0000;
const IDT: u64 = 0x2_0000;
const IDT_ENTRIES: usize = 0x21;
const IDT_REGISTER: u64 = 0x3_2000;
const CODE_SELECTOR: u64 = 0x10;
const BREAKPOINT: u64 = 3;
const TIMER: u64 = 0x20;

// Position-independent; the addresses are those above. RDI is scratch, R8 and EBX
// count the interrupts that arrived.
std::arch::global_asm!(
    ".pushsection .rodata.ktstr_vmm_probe, \"a\"",
    "ktstr_vmm_probe_start:",
    "mov al, 1",
    "out 0x80, al",
    "xor eax, eax",
    "cpuid",
    "mov al, 2",
    "out 0x80, al",
    // CR4: OSFXSR, OSXMMEXCPT, OSXSAVE. XCR0: x87 and SSE.
    "mov rax, cr4",
    "or eax, 0x40600",
    "mov cr4, rax",
    "xor ecx, ecx",
    "xor edx, edx",
    "mov eax, 3",
    "xsetbv",
    "mov edi, 0x30000",
    "xsave [rdi]",
    "xrstor [rdi]",
    "mov al, 3",
    "out 0x80, al",
    "mov edi, 0x31000",
    "lock cmpxchg16b [rdi]",
    "mov al, 4",
    "out 0x80, al",
    "mov edi, 0x32000",
    "lidt [rdi]",
    "xor ebx, ebx",
    "int3",
    "cmp ebx, 1",
    "jne 3f",
    "mov al, 5",
    "out 0x80, al",
    // Local APIC: on with spurious vector 0xff, divide by 1, one shot, vector 0x20.
    "mov edi, 0xfee00000",
    "mov dword ptr [rdi + 0xf0], 0x1ff",
    "mov dword ptr [rdi + 0x3e0], 0xb",
    "mov dword ptr [rdi + 0x320], 0x20",
    "mov dword ptr [rdi + 0x380], 0x10000",
    "xor r8d, r8d",
    "sti",
    "2:",
    "cmp r8d, 1",
    "jne 2b",
    "mov al, 6",
    "out 0x80, al",
    "3:",
    "cli",
    "hlt",
    "jmp 3b",
    "ktstr_vmm_probe_breakpoint:",
    "inc ebx",
    "iretq",
    "ktstr_vmm_probe_timer:",
    "mov dword ptr [rdi + 0xb0], 0",
    "mov r8d, 1",
    "iretq",
    "ktstr_vmm_probe_end:",
    ".popsection",
);

unsafe extern "C" {
    static ktstr_vmm_probe_start: u8;
    static ktstr_vmm_probe_breakpoint: u8;
    static ktstr_vmm_probe_timer: u8;
    static ktstr_vmm_probe_end: u8;
}

/// Watched by [`honours_watches`](crate::honours_watches), whose guest writes there.
pub(crate) const WATCHED: u64 = 0x3_0000;

/// What puts a guest into RAM.
type Write = fn(&GuestRam) -> Result<(), vm_memory::GuestMemoryError>;

/// A machine of one vCPU that is ready to run the guest that `write` puts there. The RAM must outlive the VM.
pub(crate) fn prepare(kvm: &Kvm, write: Write) -> Result<(VcpuFd, VmFd, GuestRam), VmError> {
    let vm = kvm.create_vm().map_err(VmError::kvm("making a VM"))?;
    super::prepare(&vm)?;
    let ram = GuestRam::create(&[RAM], RamOptions::default())?;
    for (slot, region) in (0u32..).zip(ram.memory().iter()) {
        let entry = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is a mapping of `ram`, which the caller drops last.
        unsafe { vm.set_user_memory_region(entry) }.map_err(VmError::kvm("mapping RAM"))?;
    }
    let start = Start::Long { ip: CODE, rsi: 0 };
    let written = registers::write_tables(ram.memory(), start).and_then(|()| write(&ram));
    written.map_err(|source| VmError::Write { what: "the probe", source })?;
    let fd = vm.create_vcpu(0).map_err(VmError::kvm("making a vCPU"))?;
    let leaves: CpuId = kvm
        .get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)
        .map_err(VmError::kvm("asking for the supported CPUID"))?;
    fd.set_cpuid2(&leaves).map_err(VmError::kvm("setting CPUID"))?;
    let sregs = fd.get_sregs().map_err(VmError::kvm("reading the special registers"))?;
    fd.set_sregs(&registers::special(sregs, start)).map_err(VmError::kvm("setting the special registers"))?;
    fd.set_regs(&registers::general(start)).map_err(VmError::kvm("setting the general registers"))?;
    Ok((fd, vm, ram))
}

/// mov dword ptr [0x30000], 1; mov al, 1; out 0x80, al; hlt; jmp back to it.
pub(crate) fn write_watched(ram: &GuestRam) -> Result<(), vm_memory::GuestMemoryError> {
    let code = [0xc7, 0x04, 0x25, 0, 0, 3, 0, 1, 0, 0, 0, 0xb0, 1, 0xe6, 0x80, 0xf4, 0xeb, 0xfd];
    ram.memory().write_slice(&code, GuestAddress(CODE))
}

/// The leaf that tells a hypervisor's name in EBX, ECX and EDX
/// (Documentation/virt/kvm/x86/cpuid.rst).
const HYPERVISOR_LEAF: u32 = 0x4000_0000;
/// Leaf 1, ECX: there is a hypervisor, and its leaf.
const HYPERVISOR_BIT: u32 = 1 << 31;

/// What emulates this processor, where it gives its name.
pub(crate) fn emulator() -> Option<&'static str> {
    let under_hypervisor = __cpuid(1).ecx & HYPERVISOR_BIT != 0;
    under_hypervisor.then(|| __cpuid(HYPERVISOR_LEAF)).and_then(|leaf| named([leaf.ebx, leaf.ecx, leaf.edx]))
}

/// Hypervisors that run code on a real processor have names of their own. QEMU's is set in
/// `cpu_x86_cpuid()` (target/i386/cpu.c) where TCG runs the guest.
fn named(leaf: [u32; 3]) -> Option<&'static str> {
    let name: Vec<u8> = leaf.iter().flat_map(|part| part.to_le_bytes()).collect();
    (name == *b"TCGTCGTCGTCG").then_some("QEMU's TCG")
}

/// The guest of many steps.
pub(crate) fn write_guest(ram: &GuestRam) -> Result<(), vm_memory::GuestMemoryError> {
    let begin = &raw const ktstr_vmm_probe_start;
    let offset = |symbol: *const u8| symbol as u64 - begin as u64;
    let length = offset(&raw const ktstr_vmm_probe_end) as usize;
    // SAFETY: the assembler put exactly these bytes between the two symbols, in a
    // section that is never written.
    let code = unsafe { std::slice::from_raw_parts(begin, length) };
    let memory = ram.memory();
    memory.write_slice(code, GuestAddress(CODE))?;
    for (vector, handler) in
        [(BREAKPOINT, &raw const ktstr_vmm_probe_breakpoint), (TIMER, &raw const ktstr_vmm_probe_timer)]
    {
        memory.write_obj(gate(CODE + offset(handler)), GuestAddress(IDT + 16 * vector))?;
    }
    let limit = (16 * IDT_ENTRIES - 1) as u16;
    memory.write_obj(limit, GuestAddress(IDT_REGISTER))?;
    memory.write_obj(IDT, GuestAddress(IDT_REGISTER + 2))
}

/// The low half of a present 64-bit interrupt gate; handlers are below 4 GiB, so the
/// high half is zero.
fn gate(handler: u64) -> u64 {
    let present_interrupt_gate = 0x8e00u64 << 32;
    (handler & 0xffff) | CODE_SELECTOR << 16 | present_interrupt_gate | ((handler >> 16 & 0xffff) << 48)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_emulator_is_one() {
        let leaf = |name: &[u8; 12]| -> [u32; 3] {
            std::array::from_fn(|at| u32::from_le_bytes(std::array::from_fn(|byte| name[4 * at + byte])))
        };
        assert_eq!(named(leaf(b"TCGTCGTCGTCG")), Some("QEMU's TCG"));
        for other in [b"KVMKVMKVM\0\0\0", b"Microsoft Hv", b"VMwareVMware", b"XenVMMXenVMM", &[0; 12]] {
            assert_eq!(named(leaf(other)), None);
        }
    }
}
