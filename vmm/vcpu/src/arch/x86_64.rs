//! x86-64: registers, and hardware breakpoints and watchpoints by debug registers
//! (Intel SDM vol. 3, 18.2).

mod clock;
mod msrs;
mod state;

pub use clock::VcpuClock;
pub(crate) use clock::{clock, set_clock};
pub(crate) use state::save;
pub use state::{Identity, StateKinds, VcpuState, restore};

use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP, KVM_MP_STATE_HALTED, kvm_debug_exit_arch, kvm_guest_debug,
};
use kvm_ioctls::{Error, VcpuFd};
use std::fmt;

/// Registers of one vCPU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Flags.
    pub flags: u64,
    /// Page-table root: CR3.
    pub page_table: u64,
    /// Base of the per-CPU area of a Linux kernel: GS base.
    pub per_cpu: u64,
    /// True when it waits for an interrupt.
    pub halted: bool,
    /// The other general registers: rax, rbx, rcx, rdx, rsi, rdi, rbp, r8 to r15.
    pub general: [u64; 15],
}

impl fmt::Display for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ip, sp, flags, page_table, .. } = self;
        write!(f, "ip {ip:#x}, sp {sp:#x}, flags {flags:#x}, page table {page_table:#x}")
    }
}

pub(crate) fn registers(fd: &VcpuFd) -> Result<Registers, Error> {
    let general = fd.get_regs()?;
    let special = fd.get_sregs()?;
    // Without an in-kernel interrupt controller there is no such state.
    let halted = fd.get_mp_state().is_ok_and(|s| s.mp_state == KVM_MP_STATE_HALTED);
    let r = general;
    Ok(Registers {
        ip: r.rip,
        sp: r.rsp,
        flags: r.rflags,
        page_table: special.cr3,
        per_cpu: special.gs.base,
        halted,
        general: [
            r.rax, r.rbx, r.rcx, r.rdx, r.rsi, r.rdi, r.rbp, r.r8, r.r9, r.r10, r.r11, r.r12, r.r13, r.r14,
            r.r15,
        ],
    })
}

/// What a watchpoint waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// The instruction at the address is about to run.
    Execute,
    /// The bytes were written.
    Write,
    /// The bytes were read or written.
    ReadWrite,
}

/// How many places to stop at a vCPU has: its debug registers for addresses.
pub const WATCHES: usize = 4;

/// A place to stop at; at most [`WATCHES`] a vCPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watch {
    /// Linear address, a multiple of `bytes`.
    pub address: u64,
    /// 1, 2, 4 or 8; 1 for [`Access::Execute`].
    pub bytes: u8,
    /// What to wait for.
    pub access: Access,
}

/// A place that was hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trap {
    /// Instruction pointer, after the access or before the instruction.
    pub ip: u64,
    /// Which of those that the vCPU ran with were hit. All of them, where the host doesn't say which.
    pub hit: [Option<Watch>; WATCHES],
}

/// `points` is what [`watch`] was told last.
pub(crate) fn trap(debug: &kvm_debug_exit_arch, points: &[Watch]) -> Trap {
    let set =
        |bits: u64| std::array::from_fn(|slot| points.get(slot).copied().filter(|_| bits >> slot & 1 == 1));
    let hit: [Option<Watch>; WATCHES] = set(debug.dr6);
    Trap { ip: debug.pc, hit: if hit.iter().any(Option::is_some) { hit } else { set(u64::MAX) } }
}

pub(crate) fn watch(fd: &VcpuFd, points: &[Watch]) -> Result<(), Error> {
    let mut debug = kvm_guest_debug::default();
    if points.len() > WATCHES {
        return Err(Error::new(libc::ENOSPC));
    }
    if !points.is_empty() {
        debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP;
        // Bit 10 is always set; bit 9 asks for exact data breakpoints.
        debug.arch.debugreg[7] = 0x600;
    }
    for (slot, point) in points.iter().enumerate() {
        debug.arch.debugreg[slot] = point.address;
        let length = match point.bytes {
            1 => 0u64,
            2 => 1,
            8 => 2,
            4 => 3,
            _ => return Err(Error::new(libc::EINVAL)),
        };
        let access = match point.access {
            Access::Execute => 0u64,
            Access::Write => 1,
            Access::ReadWrite => 3,
        };
        debug.arch.debugreg[7] |= 2 << (2 * slot) | (access | length << 2) << (16 + 4 * slot);
    }
    fd.set_guest_debug(&debug)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hit_is_of_what_was_set() {
        let [first, second] =
            [0x1000, 0x2000].map(|address| Watch { address, bytes: 4, access: Access::Write });
        let hit =
            |dr6, points: &[Watch]| trap(&kvm_debug_exit_arch { dr6, ..Default::default() }, points).hit;
        // Bits above the fourth, and those of registers that aren't set, mean nothing.
        assert_eq!(hit(0xffff_0ffa, &[first, second]), [None, Some(second), None, None]);
        assert_eq!(hit(1, &[first, second]), [Some(first), None, None, None]);
        assert_eq!(hit(0, &[first, second]), [Some(first), Some(second), None, None]);
        assert_eq!(hit(0b100, &[first]), [Some(first), None, None, None]);
        assert_eq!(hit(1, &[]), [None; WATCHES]);
    }
}
