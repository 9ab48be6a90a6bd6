//! x86-64: a PC with a 16550 serial port, an ACPI reset and an invariant time stamp counter.

use ktstr_vmm::Registers;

/// `e_machine` of an ELF file: EM_X86_64.
pub(crate) const EM_MACHINE: u16 = 62;

/// Kernel arguments: the serial port is the console, a reset is a triple fault, and the time stamp counter is the clock:
/// KVM's is the host's, so there is nothing to check it against, and no PC timer here.
pub(crate) const PLATFORM: [&str; 4] = ["console=ttyS0", "reboot=t", "tsc=reliable", "no_timer_check"];

const NT_PRSTATUS: u32 = 1;
/// `sizeof(struct elf_prstatus)`, and where `pr_pid` and `pr_reg` are (include/linux/elfcore.h).
pub(crate) const PRSTATUS: usize = 336;
const PR_PID: usize = 32;
pub(crate) const PR_REG: usize = 112;

/// The note of one vCPU; `pid` counts from 1, as 0 means the idle task to readers.
pub(crate) fn prstatus(pid: u32, registers: &Registers) -> Vec<u8> {
    let mut note = Vec::new();
    for word in [5u32, PRSTATUS as u32, NT_PRSTATUS] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"CORE\0\0\0\0");
    let mut status = vec![0u8; PRSTATUS];
    status[PR_PID..PR_PID + 4].copy_from_slice(&pid.to_le_bytes());
    let [ax, bx, cx, dx, si, di, bp, r8, r9, r10, r11, r12, r13, r14, r15] = registers.general;
    let Registers { ip, sp, flags, per_cpu, .. } = *registers;
    // struct user_regs_struct (arch/x86/include/asm/user_64.h).
    let user = [
        r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, ax, ip, 0x10, flags, sp, 0x18, 0,
        per_cpu,
    ];
    for (at, register) in (PR_REG..).step_by(8).zip(user) {
        status[at..at + 8].copy_from_slice(&register.to_le_bytes());
    }
    note.extend(status);
    note
}
