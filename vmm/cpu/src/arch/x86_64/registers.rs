//! Registers, MSRs, descriptor and page tables of the first vCPU. The others wait
//! for the kernel's INIT and SIPI, with the state that KVM gives them.

use ktstr_vmm_memory::layout::{BOOT_STACK, GDT, PAGE_TABLES};
use kvm_bindings::{kvm_lapic_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError, GuestMemoryMmap};

/// How the first vCPU starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// In 64-bit mode, the first 4 GiB mapped to themselves
    /// (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
    Long {
        /// First instruction.
        ip: u64,
        /// Goes to RSI.
        rsi: u64,
    },
    /// In 32-bit protected mode without paging (PVH: docs/misc/pvh.pandoc of Xen).
    Protected {
        /// First instruction.
        ip: u64,
        /// Goes to RBX.
        rbx: u64,
    },
}

const CR0_PE: u64 = 1;
const CR0_ET: u64 = 1 << 4;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
/// The bit that is always set.
const RFLAGS: u64 = 2;

/// `__BOOT_CS`, `__BOOT_DS` (arch/x86/include/asm/segment.h) and a task-state segment.
const CODE: u16 = 0x10;
const DATA: u16 = 0x18;
const TASK: u16 = 0x20;

const MSR_MTRR_DEFAULT: u32 = 0x2ff;
/// MTRRs on, write-back where none matches.
const MTRR_WRITE_BACK: u64 = 1 << 11 | 6;
const MSR_MISC_ENABLE: u32 = 0x1a0;
const MISC_FAST_STRING: u64 = 1;

/// Offsets in the local APIC's registers, and delivery modes (Intel SDM vol. 3, 11.5.1).
const LVT_LINT0: usize = 0x350;
const LVT_LINT1: usize = 0x360;
const EXTERNAL: u32 = 7 << 8;
const NMI: u32 = 4 << 8;
const LVT_MODE: u32 = 7 << 8;
const LVT_MASKED: u32 = 1 << 16;

/// General registers.
#[must_use]
pub fn general(start: Start) -> kvm_regs {
    let (rip, rsi, rbx) = match start {
        Start::Long { ip, rsi } => (ip, rsi, 0),
        Start::Protected { ip, rbx } => (ip, 0, rbx),
    };
    kvm_regs { rip, rsi, rbx, rsp: BOOT_STACK, rbp: BOOT_STACK, rflags: RFLAGS, ..Default::default() }
}

/// Segments and control registers, made of what KVM set (`base`): the APIC base and
/// whatever a later KVM adds are kept.
#[must_use]
pub fn special(base: kvm_sregs, start: Start) -> kvm_sregs {
    let mut sregs = base;
    let long = matches!(start, Start::Long { .. });
    sregs.cs = segment(CODE, 0xb);
    sregs.cs.l = u8::from(long);
    sregs.cs.db = u8::from(!long);
    let data = segment(DATA, 0x3);
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.tr =
        kvm_segment { selector: TASK, type_: 0xb, s: 0, g: 0, db: 0, limit: 0x67, ..segment(TASK, 0xb) };
    sregs.gdt.base = GDT;
    sregs.gdt.limit = (gdt(long).len() * 8 - 1) as u16;
    sregs.idt.base = 0;
    sregs.idt.limit = 0;
    (sregs.cr0, sregs.cr3, sregs.cr4, sregs.efer) = match start {
        Start::Long { .. } => (CR0_PE | CR0_ET | CR0_PG, PAGE_TABLES, CR4_PAE, EFER_LME | EFER_LMA),
        Start::Protected { .. } => (CR0_PE | CR0_ET, 0, 0, 0),
    };
    sregs
}

/// MSRs that firmware would have set, of every vCPU.
#[must_use]
pub fn msrs() -> Vec<kvm_msr_entry> {
    let entry = |index, data| kvm_msr_entry { index, data, ..Default::default() };
    vec![entry(MSR_MTRR_DEFAULT, MTRR_WRITE_BACK), entry(MSR_MISC_ENABLE, MISC_FAST_STRING)]
}

/// The local interrupt lines as firmware leaves them: LINT0 external, LINT1 NMI.
pub fn local_interrupts(state: &mut kvm_lapic_state) {
    for (offset, mode) in [(LVT_LINT0, EXTERNAL), (LVT_LINT1, NMI)] {
        let bytes: Vec<u8> = state.regs[offset..offset + 4].iter().map(|b| *b as u8).collect();
        let old = bytes.iter().rev().fold(0u32, |word, b| word << 8 | u32::from(*b));
        let new = old & !(LVT_MODE | LVT_MASKED) | mode;
        for (slot, byte) in state.regs[offset..offset + 4].iter_mut().zip(new.to_le_bytes()) {
            *slot = byte as std::ffi::c_char;
        }
    }
}

/// Writes the descriptor table, and the page tables where paging is on.
///
/// # Errors
/// Guest memory that doesn't reach as far as these tables.
pub fn write_tables(memory: &GuestMemoryMmap, start: Start) -> Result<(), GuestMemoryError> {
    let long = matches!(start, Start::Long { .. });
    for (address, entry) in (GDT..).step_by(8).zip(gdt(long)) {
        memory.write_obj(entry, GuestAddress(address))?;
    }
    if long { write_page_tables(memory) } else { Ok(()) }
}

/// One PML4 entry, four PDPT entries, 4 GiB in pages of 2 MiB.
fn write_page_tables(memory: &GuestMemoryMmap) -> Result<(), GuestMemoryError> {
    const PRESENT_WRITABLE: u64 = 3;
    const LARGE: u64 = 1 << 7;
    const PAGE: u64 = 4096;
    let directories = PAGE_TABLES + 2 * PAGE;
    memory.write_obj((PAGE_TABLES + PAGE) | PRESENT_WRITABLE, GuestAddress(PAGE_TABLES))?;
    for gib in 0..4u64 {
        let directory = directories + gib * PAGE;
        memory.write_obj(directory | PRESENT_WRITABLE, GuestAddress(PAGE_TABLES + PAGE + gib * 8))?;
    }
    let entries: Vec<u8> =
        (0..4 * 512u64).flat_map(|page| (page << 21 | LARGE | PRESENT_WRITABLE).to_le_bytes()).collect();
    memory.write_slice(&entries, GuestAddress(directories))
}

/// A flat segment; `kind` is the descriptor's type field.
fn segment(selector: u16, kind: u8) -> kvm_segment {
    kvm_segment {
        base: 0,
        limit: 0xffff_ffff,
        selector,
        type_: kind,
        present: 1,
        dpl: 0,
        db: 1,
        s: 1,
        l: 0,
        g: 1,
        ..Default::default()
    }
}

/// Null, unused, code, data, task: the descriptors that the segments were loaded from.
fn gdt(long: bool) -> [u64; 5] {
    let code = if long { 0x00af_9b00_0000_ffff } else { 0x00cf_9b00_0000_ffff };
    [0, 0, code, 0x00cf_9300_0000_ffff, 0x0000_8b00_0000_0067]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_tables_map_the_first_4_gib_to_themselves() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        write_tables(&memory, Start::Long { ip: 0, rsi: 0 }).unwrap();
        let read = |at: u64| memory.read_obj::<u64>(GuestAddress(at)).unwrap();
        for address in [0u64, 0x12_3456, 0x4000_0000, 0xffff_ffff] {
            let pml4 = read(PAGE_TABLES + (address >> 39) * 8);
            let pdpt = read((pml4 & !0xfff) + (address >> 30 & 511) * 8);
            let leaf = read((pdpt & !0xfff) + (address >> 21 & 511) * 8);
            assert_eq!(leaf & 0x83, 0x83);
            assert_eq!((leaf & !0x1f_ffff) + (address & 0x1f_ffff), address);
        }
    }

    #[test]
    fn segments_agree_with_their_descriptors() {
        for start in [Start::Long { ip: 1, rsi: 2 }, Start::Protected { ip: 1, rbx: 2 }] {
            let sregs = special(kvm_sregs::default(), start);
            let table = gdt(matches!(start, Start::Long { .. }));
            for segment in [sregs.cs, sregs.ds, sregs.tr] {
                let entry = table[usize::from(segment.selector / 8)];
                assert_eq!((entry >> 40 & 0xf) as u8, segment.type_);
                assert_eq!((entry >> 53 & 1) as u8, segment.l);
                assert_eq!((entry >> 54 & 1) as u8, segment.db);
                assert_eq!((entry >> 44 & 1) as u8, segment.s);
            }
        }
    }

    #[test]
    fn local_interrupt_lines_are_unmasked() {
        let mut state = kvm_lapic_state::default();
        state.regs[LVT_LINT0 + 2] = 1;
        local_interrupts(&mut state);
        let seen = |at: usize| state.regs[at..at + 4].iter().map(|b| *b as u8).collect::<Vec<_>>();
        assert_eq!(seen(LVT_LINT0), [0, 7, 0, 0]);
        assert_eq!(seen(LVT_LINT1), [0, 4, 0, 0]);
    }
}
