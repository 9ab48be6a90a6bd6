//! The whole monitor with hand-made kernels, entered by PVH: a few instructions that
//! run on any `/dev/kvm`, those that emulate guest kernel code included.

mod micro;

use ktstr_topology::Topology;
use ktstr_vmm::{Access, Config, Hit, Probe, Trap, Vm, VmEnd, VmError, Watch, honours_watches, probe};
use micro::skip::skip;
use micro::{LOAD, PATIENCE, POWER_OFF, kernel, no_kvm};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use vm_memory::{Bytes as _, GuestAddress};

type Bytes = Arc<Mutex<Vec<u8>>>;

fn boot(code: &[u8]) -> (Vm, Bytes, Bytes) {
    let (first, second) = (Bytes::default(), Bytes::default());
    let mut config = Config::new(kernel(code), Topology::uniform(2, 2, 2, 1), 64);
    let sink = |into: &Bytes| {
        let into = Arc::clone(into);
        Box::new(move |bytes: &[u8]| into.lock().unwrap().extend_from_slice(bytes))
    };
    config.confine = true;
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

/// The second vCPU waits to be started for ever, as one that halts would.
#[test]
fn the_time_of_a_vcpu_that_spins_grows_and_that_of_one_that_waits_does_not() {
    if no_kvm("the_time_of_a_vcpu_that_spins_grows_and_that_of_one_that_waits_does_not") {
        return;
    }
    // again: jmp again
    let mut config = Config::new(kernel(&[0xeb, 0xfe]), Topology::uniform(1, 1, 2, 1), 64);
    config.confine = true;
    let vm = Vm::boot(config).unwrap();
    let begin = std::time::Instant::now();
    let first = vm.vcpu_times().unwrap();
    // Each has a thread of its own, of this process.
    let threads = vm.vcpu_threads().unwrap();
    assert!(threads.len() == 2 && threads[0] != threads[1], "{threads:?}");
    assert!(threads.iter().all(|id| std::path::Path::new(&format!("/proc/self/task/{id}")).exists()));
    let last = loop {
        let now = vm.vcpu_times().unwrap();
        assert!(now.iter().zip(&first).all(|(now, first)| now >= first), "{first:?} and then {now:?}");
        if now[0] - first[0] >= Duration::from_millis(200) {
            break now;
        }
        assert!(begin.elapsed() < PATIENCE, "{first:?} and then {now:?}");
        std::thread::sleep(Duration::from_millis(5));
    };
    assert!(last[1] - first[1] < Duration::from_millis(50), "{first:?} and then {last:?}");
    // Nor does one that is paused get on.
    vm.pause().unwrap();
    let paused = vm.vcpu_times().unwrap();
    std::thread::sleep(Duration::from_millis(20));
    let later = vm.vcpu_times().unwrap();
    assert!(later[0] - paused[0] < Duration::from_millis(10), "{paused:?} and then {later:?}");
    vm.kill();
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::Stopped));
}

/// A sink stands for a device that a guest has got hold of.
#[test]
fn a_thread_that_does_what_it_may_not_is_refused_and_ends_the_machine() {
    if no_kvm("a_thread_that_does_what_it_may_not_is_refused_and_ends_the_machine") {
        return;
    }
    // A line to COM1, then a loop.
    let code = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'\n', 0xee, 0xeb, 0xfe];
    let mut config = Config::new(kernel(&code), Topology::DEFAULT, 64);
    config.confine = true;
    let opened = Arc::new(Mutex::new(None));
    let into = Arc::clone(&opened);
    config.console = Box::new(move |_: &[u8]| {
        let kind = std::fs::File::open("/proc/self/status").map(drop).map_err(|e| e.kind());
        into.lock().unwrap().get_or_insert(kind);
    });
    let vm = Vm::boot(config).unwrap();
    match vm.wait(PATIENCE) {
        Some(VmEnd::Failed { why }) if why.contains("thread vcpu0") && why.contains("openat") => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(*opened.lock().unwrap(), Some(Err(std::io::ErrorKind::PermissionDenied)));
    // The process itself is as free as before.
    assert!(std::fs::File::open("/proc/self/status").is_ok());
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

/// Debug registers for instructions are honoured by every KVM but nested ones under emulation.
#[test]
fn a_hit_stops_the_whole_machine_until_it_is_let_go() {
    if no_kvm("a_hit_stops_the_whole_machine_until_it_is_let_go") {
        return;
    }
    // again: nop; inc dword [0x1008000]; jmp again
    let code = [0x90, 0xff, 0x05, 0x00, 0x80, 0x00, 0x01, 0xeb, 0xf7];
    let mut config = Config::new(kernel(&code), Topology::uniform(1, 1, 2, 1), 64);
    config.confine = true;
    let (sender, hits) = channel();
    config.on_trap = Box::new(move |hits: &[Hit]| sender.send(hits.to_vec()).unwrap());
    let vm = Vm::boot(config).unwrap();
    let count = || -> u32 { vm.ram().memory().read_obj(GuestAddress(0x100_8000)).unwrap() };
    let begin = std::time::Instant::now();
    while count() == 0 {
        assert!(begin.elapsed() < PATIENCE, "the guest doesn't run");
        std::thread::yield_now();
    }
    let watch = Watch { address: LOAD, bytes: 1, access: Access::Execute };
    let other = Watch { address: LOAD + 0x1000, ..watch };
    assert!(vm.watch(&[watch]).is_err(), "a running machine was given a breakpoint");
    for _ in 0..5 {
        vm.pause().unwrap();
        vm.watch(&[other, watch]).unwrap();
        vm.resume();
        let Ok(seen) = hits.recv_timeout(Duration::from_secs(2)) else {
            assert!(!honours_watches(PATIENCE).unwrap(), "no hit where watchpoints are honoured");
            skip(
                "a_hit_stops_the_whole_machine_until_it_is_let_go",
                "this KVM doesn't honour debug registers",
            );
            return;
        };
        assert_eq!(seen, [Hit { vcpu: 0, trap: Trap { ip: LOAD, hit: [None, Some(watch), None, None] } }]);
        let registers = vm.registers().unwrap();
        assert_eq!((registers[0].ip, registers.len()), (LOAD, 2), "every vCPU stands still");
        let before = count();
        vm.watch(&[]).unwrap();
        vm.resume();
        let begin = std::time::Instant::now();
        while count() == before {
            assert!(begin.elapsed() < PATIENCE, "the guest doesn't run on");
            std::thread::yield_now();
        }
    }
    assert!(hits.try_recv().is_err());
}

#[test]
fn a_write_to_watched_memory_stops_the_machine_after_it() {
    if no_kvm("a_write_to_watched_memory_stops_the_machine_after_it") {
        return;
    }
    if !honours_watches(PATIENCE).unwrap() {
        skip("a_write_to_watched_memory_stops_the_machine_after_it", "this KVM doesn't honour watchpoints");
        return;
    }
    // again: inc dword [0x1008000]; jmp again
    let code = [0xff, 0x05, 0x00, 0x80, 0x00, 0x01, 0xeb, 0xf8];
    let mut config = Config::new(kernel(&code), Topology::DEFAULT, 64);
    config.confine = true;
    let (sender, hits) = channel();
    config.on_trap = Box::new(move |hits: &[Hit]| sender.send(hits.to_vec()).unwrap());
    let vm = Vm::boot(config).unwrap();
    vm.pause().unwrap();
    let watch = Watch { address: 0x100_8000, bytes: 4, access: Access::Write };
    vm.watch(&[watch]).unwrap();
    let mut last = None;
    for _ in 0..10 {
        vm.resume();
        let seen = hits.recv_timeout(PATIENCE).unwrap();
        assert_eq!(
            seen,
            [Hit { vcpu: 0, trap: Trap { ip: LOAD + 6, hit: [Some(watch), None, None, None] } }]
        );
        let now: u32 = vm.ram().memory().read_obj(GuestAddress(0x100_8000)).unwrap();
        assert!(last.is_none_or(|last| now == last + 1), "{last:?} and then {now}");
        last = Some(now);
    }
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
