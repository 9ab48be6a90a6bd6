//! More CPUs than 8-bit APIC ids can name, with a hand-made kernel that runs on any `/dev/kvm`: the boot CPU turns its
//! x2APIC on and starts all others by INIT and SIPI; each says which one it is.

mod micro;

use ktstr_topology::Topology;
use ktstr_vmm::{Config, Vm, VmEnd, VmError};
use ktstr_vmm_cpu::Ids;
use micro::skip::skip;
use micro::{PATIENCE, kernel, no_kvm};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// Each CPU has written a byte here, at its own id.
const HERE: u64 = 0x3_0000;

std::arch::global_asm!(
    ".pushsection .rodata.ktstr_vmm_many_cpus, \"a\"",
    ".code32",
    "ktstr_many_first:",
    // IA32_APIC_BASE: enabled, x2APIC; the spurious vector's register enables it, too.
    "mov ecx, 0x1b",
    "rdmsr",
    "or eax, 0xc00",
    "wrmsr",
    "mov ecx, 0x80f",
    "mov eax, 0x1ff",
    "xor edx, edx",
    "wrmsr",
    // What the others begin with, where 16-bit code can be.
    "mov esi, 0x1002000",
    "mov edi, 0x10000",
    "2: mov al, byte ptr [esi]",
    "mov byte ptr [edi], al",
    "inc esi",
    "inc edi",
    "cmp edi, 0x10100",
    "jne 2b",
    // Ids, up to -1: INIT, then SIPI with the page of that code.
    "mov esi, 0x1003000",
    "mov ecx, 0x830",
    "3: mov edx, dword ptr [esi]",
    "cmp edx, -1",
    "je 4f",
    "mov eax, 0x4500",
    "wrmsr",
    "mov eax, 0x4610",
    "wrmsr",
    "add esi, 4",
    "jmp 3b",
    "4: hlt",
    "jmp 4b",
    "ktstr_many_first_end:",
    ".code16",
    // In real mode. The id of 32 bits is in the x2APIC's own register.
    "ktstr_many_other:",
    "mov ecx, 0x1b",
    "rdmsr",
    "or eax, 0xc00",
    "wrmsr",
    "mov ecx, 0x802",
    "rdmsr",
    "mov bx, 0x3000",
    "mov ds, bx",
    "mov byte ptr [eax], 1",
    "5: hlt",
    "jmp 5b",
    "ktstr_many_other_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static ktstr_many_first: u8;
    static ktstr_many_first_end: u8;
    static ktstr_many_other: u8;
    static ktstr_many_other_end: u8;
}

fn code(begin: *const u8, end: *const u8) -> &'static [u8] {
    // SAFETY: the assembler put exactly these bytes between the two symbols.
    unsafe { std::slice::from_raw_parts(begin, end as usize - begin as usize) }
}

/// A kernel that starts the CPUs of these ids.
fn starting(ids: &[u32]) -> Vec<u8> {
    let mut image = code(&raw const ktstr_many_first, &raw const ktstr_many_first_end).to_vec();
    assert!(image.len() < 0x1000);
    image.resize(0x2000, 0);
    image.extend(code(&raw const ktstr_many_other, &raw const ktstr_many_other_end));
    image.resize(0x3000, 0);
    image.extend(ids.iter().chain([&u32::MAX]).flat_map(|id| id.to_le_bytes()));
    image
}

/// All CPUs but the first are started, and each that is there has said so.
fn all_answer(test: &str, topology: Topology) {
    if no_kvm(test) {
        return;
    }
    let ids = Ids::new(&topology);
    let others: Vec<u32> = (1..topology.total_cpus()).map(|cpu| ids.id(cpu)).collect();
    assert!(others.last().is_some_and(|id| *id > 255));
    let mut config = Config::new(kernel(&starting(&others)), topology, 64);
    config.confine = true;
    let vm = match Vm::boot(config) {
        Err(VmError::Unsupported { what }) => {
            skip(test, &format!("this KVM has no room for it: {what}"));
            return;
        }
        other => other.unwrap(),
    };
    let here = || {
        let mut bytes = vec![0; 4096];
        vm.ram().memory().read_slice(&mut bytes, GuestAddress(HERE)).unwrap();
        (0..4096).filter(|id| bytes[*id as usize] == 1).collect::<Vec<u32>>()
    };
    let begin = Instant::now();
    let mut seen = here();
    while seen != others {
        let end = vm.wait(Duration::from_millis(5));
        assert!(end.is_none() && begin.elapsed() < PATIENCE, "{end:?}, answers of {seen:?} only");
        seen = here();
    }
    vm.pause().unwrap();
    assert_eq!(vm.registers().unwrap().len(), others.len() + 1);
    vm.kill();
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::Stopped));
}

#[test]
fn more_than_255_cpus_are_started() {
    all_answer("more_than_255_cpus_are_started", Topology::uniform(1, 2, 130, 1));
}

/// Counts that are no powers of two leave gaps, so that fewer CPUs come that far.
#[test]
fn ids_with_gaps_reach_past_255() {
    all_answer("ids_with_gaps_reach_past_255", Topology::uniform(2, 6, 5, 5));
}
