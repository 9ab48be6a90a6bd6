//! A machine that was restored is, to the bit, what was saved.

#[path = "../../tests/micro/mod.rs"]
mod micro;

use super::read_state;
use crate::state_file::MachineState;
use crate::{Config, Restore, Vm};
use ktstr_topology::Topology;
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// Something in DR0, CR3, an MSR and the local APIC; then it says so in memory and spins.
const GUEST: [u8; 62] = [
    0xb8, 0x00, 0x00, 0x12, 0x01, 0x0f, 0x22, 0xd8, // mov eax, 0x1120000; mov cr3, eax
    0xb8, 0x78, 0x56, 0x34, 0x12, 0x0f, 0x23, 0xc0, // mov eax, 0x12345678; mov dr0, eax
    0xb9, 0x76, 0x01, 0x00, 0x00, 0x31, 0xd2, 0x0f, 0x30, // mov ecx, 0x176; xor edx, edx; wrmsr
    0xc7, 0x05, 0xf0, 0x00, 0xe0, 0xfe, 0xff, 0x01, 0x00, 0x00, // mov dword [0xfee000f0], 0x1ff
    0xc7, 0x05, 0x20, 0x03, 0xe0, 0xfe, 0x42, 0x00, 0x01, 0x00, // mov dword [0xfee00320], 0x10042
    0xc7, 0x05, 0x00, 0x00, 0x10, 0x01, 0x01, 0x00, 0x00, 0x00, // mov dword [0x1100000], 1
    0xf4, 0xeb, 0xfd, 0x90, 0x90, 0x90, 0x90, // again: hlt; jmp again
];
const READY: GuestAddress = GuestAddress(0x110_0000);

fn save(vm: &Vm) -> (tempfile::TempDir, MachineState) {
    let dir = tempfile::tempdir().unwrap();
    vm.pause().unwrap();
    vm.save(dir.path(), &mut |_, _| true).unwrap();
    let state = read_state(dir.path()).unwrap();
    (dir, state)
}

#[test]
fn what_is_saved_again_is_what_was_saved() {
    if micro::no_kvm("what_is_saved_again_is_what_was_saved") {
        return;
    }
    let shape = Topology::uniform(1, 1, 2, 1);
    let vm = Vm::boot(Config::new(micro::kernel(&GUEST), shape.clone(), 64)).unwrap();
    let begin = Instant::now();
    while vm.ram().memory().read_obj::<u32>(READY).unwrap() == 0 {
        assert!(begin.elapsed() < micro::PATIENCE, "{:?}", vm.wait(Duration::ZERO));
    }
    let (dir, before) = save(&vm);
    drop(vm);
    let vm = Vm::restore(Restore::new(dir.path(), shape, 64)).unwrap();
    let (_again, after) = save(&vm);
    let text = format!("{before:?}");
    for part in ["305419896, 0, 0, 0", "(374, 305419896)", "cr3: 17956864"] {
        assert!(text.contains(part), "the guest has not done its work: no {part} in {text}");
    }
    // Clocks as well: they stand still until the machine runs.
    let [before, after] = [before, after].map(|state| format!("{state:#?}"));
    for (before, after) in before.lines().zip(after.lines()) {
        assert_eq!(before, after);
    }
    assert_eq!(before.len(), after.len());
}
