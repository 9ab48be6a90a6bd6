//! The whole monitor with hand-made kernels, entered by PVH: a few instructions that
//! run on any `/dev/kvm`, those that emulate guest kernel code included.

mod micro;

use ktstr_topology::Topology;
use ktstr_vmm::{Config, Probe, Vm, VmEnd, VmError, probe};
use micro::{LOAD, PATIENCE, POWER_OFF, kernel, no_kvm};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Bytes = Arc<Mutex<Vec<u8>>>;

fn boot(code: &[u8]) -> (Vm, Bytes, Bytes) {
    let (first, second) = (Bytes::default(), Bytes::default());
    let mut config = Config::new(kernel(code), Topology::uniform(2, 2, 2, 1), 64);
    let sink = |into: &Bytes| {
        let into = Arc::clone(into);
        Box::new(move |bytes: &[u8]| into.lock().unwrap().extend_from_slice(bytes))
    };
    config.console = sink(&first);
    config.second_serial = sink(&second);
    (Vm::boot(config).unwrap(), first, second)
}

#[test]
fn serial_ports_virtio_registers_and_power_answer() {
    if no_kvm("serial_ports_virtio_registers_and_power_answer") {
        return;
    }
    // "hi" without an end of line to COM1; the first byte of virtio's magic to COM2.
    let mut code = vec![0x66, 0xba, 0xf8, 0x03, 0xb0, b'h', 0xee, 0xb0, b'i', 0xee];
    code.extend([0xa1, 0x00, 0x00, 0x00, 0xd0, 0x66, 0xba, 0xf8, 0x02, 0xee]);
    code.extend(POWER_OFF);
    let (vm, first, second) = boot(&code);
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::PowerOff));
    assert_eq!((&**first.lock().unwrap(), &**second.lock().unwrap()), (&b"hi"[..], &b"v"[..]));
    let steps: Vec<_> = vm.setup().iter().map(|s| s.what).collect();
    assert!(steps.contains(&"loading kernel and initramfs"), "{steps:?}");
}

#[test]
fn a_loop_is_paused_looked_at_and_killed() {
    if no_kvm("a_loop_is_paused_looked_at_and_killed") {
        return;
    }
    // again: jmp again
    let (vm, ..) = boot(&[0xeb, 0xfe]);
    for _ in 0..5 {
        vm.pause().unwrap();
        let registers = vm.registers().unwrap();
        assert_eq!((registers.len(), registers[0].ip), (4, LOAD));
        vm.resume();
    }
    assert!(matches!(vm.registers(), Err(VmError::Vcpu(_))));
    assert_eq!(vm.wait(Duration::from_millis(10)), None);
    vm.kill();
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::Stopped));
}

#[test]
fn resets_of_every_kind_end_the_machine() {
    if no_kvm("resets_of_every_kind_end_the_machine") {
        return;
    }
    // mov dx, port; mov al, value; out dx, al; hlt
    let out = |port: u16, value: u8| {
        let [low, high] = port.to_le_bytes();
        vec![0x66, 0xba, low, high, 0xb0, value, 0xee, 0xf4, 0xeb, 0xfd]
    };
    for (port, value) in [(0x600, 1), (0x64, 0xfe)] {
        assert_eq!(boot(&out(port, value)).0.wait(PATIENCE), Some(VmEnd::Reset), "port {port:#x}");
    }
    // ud2, without an interrupt table: a triple fault.
    assert_eq!(boot(&[0x0f, 0x0b]).0.wait(PATIENCE), Some(VmEnd::Reset));
}

#[test]
fn a_dropped_machine_is_gone() {
    if no_kvm("a_dropped_machine_is_gone") {
        return;
    }
    let (vm, first, _) = boot(&[0xeb, 0xfe]);
    let ram = vm.ram().clone();
    drop(vm);
    // The sinks are gone with the threads that used them; RAM lives while it is held.
    assert_eq!(Arc::strong_count(&first), 1);
    assert_eq!(ram.regions().len(), 2);
}

#[test]
fn the_probe_has_an_answer() {
    if no_kvm("the_probe_has_an_answer") {
        return;
    }
    match probe(PATIENCE).unwrap() {
        Probe::Usable { took } => assert!(took < PATIENCE),
        Probe::Unusable { failed_at, why } => {
            assert!(!why.is_empty());
            eprintln!("this KVM is of no use: {why} at {failed_at}");
        }
    }
}
