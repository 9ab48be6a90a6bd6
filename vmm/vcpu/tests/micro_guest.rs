//! Hand-made guests on the machine's own `/dev/kvm`: a few instructions each, so that
//! they run on hosts that emulate guest kernel code, too.

mod skip;

use ktstr_vmm_memory::{GuestRam, RamOptions};
use ktstr_vmm_vcpu::arch::{Access, Trap, Watch};
use ktstr_vmm_vcpu::{Address, End, Machine, State, Vcpu, VcpuError, pause_all, resume_all, stop_all};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::{Kvm, VmFd};
use skip::skip;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryRegion};

/// A device whose model is broken.
const BROKEN: Address = Address::Port(0x66);
const CODE: u64 = 0x1000;
const PATIENCE: Duration = Duration::from_secs(10);

/// What a guest did, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Event {
    Write(Address, Vec<u8>),
    Ended(u32, End),
    Trapped(u32, Trap),
}

struct Recorder(Mutex<Sender<Event>>);

impl Recorder {
    fn send(&self, event: Event) {
        // The test may have seen enough and gone.
        let _ = self.0.lock().unwrap().send(event);
    }
}

impl Machine for Recorder {
    fn read(&self, address: Address, data: &mut [u8]) {
        assert_ne!(address, BROKEN, "a device that panics, for a test");
        let value = match address {
            Address::Port(port) => u64::from(port) + 1,
            Address::Memory(at) => at + 2,
        };
        let bytes = value.to_le_bytes();
        data.copy_from_slice(&bytes[..data.len()]);
    }

    fn write(&self, address: Address, data: &[u8]) {
        self.send(Event::Write(address, data.to_vec()));
    }

    fn ended(&self, index: u32, end: End) {
        self.send(Event::Ended(index, end));
    }

    fn trapped(&self, index: u32, trap: Trap) {
        self.send(Event::Trapped(index, trap));
    }
}

struct Guest {
    vcpus: Vec<Vcpu>,
    events: Receiver<Event>,
    ram: GuestRam,
    _vm: VmFd,
}

/// `None`, with the reason printed, where there is no KVM.
fn kvm(test: &str) -> Option<Kvm> {
    match Kvm::new() {
        Ok(kvm) => Some(kvm),
        Err(e) => {
            skip(test, &format!("opening /dev/kvm: {e}"));
            None
        }
    }
}

/// vCPUs in real mode that all start at `code`, their number in AX.
fn guest(kvm: &Kvm, code: &[u8], vcpus: u32) -> Guest {
    let vm = kvm.create_vm().unwrap();
    let ram = GuestRam::create(&[1 << 20], RamOptions::default()).unwrap();
    for (slot, region) in (0u32..).zip(ram.memory().iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the mapping outlives the VM: `Guest` drops vCPUs first, RAM last.
        unsafe { vm.set_user_memory_region(region) }.unwrap();
    }
    ram.memory().write_slice(code, GuestAddress(CODE)).unwrap();
    let (sender, events) = channel();
    let machine: Arc<dyn Machine> = Arc::new(Recorder(Mutex::new(sender)));
    let start = |index: u32| {
        let fd = vm.create_vcpu(u64::from(index)).unwrap();
        let mut sregs = fd.get_sregs().unwrap();
        (sregs.cs.base, sregs.cs.selector) = (0, 0);
        fd.set_sregs(&sregs).unwrap();
        let mut regs = fd.get_regs().unwrap();
        (regs.rip, regs.rax, regs.rflags) = (CODE, u64::from(index), 2);
        fd.set_regs(&regs).unwrap();
        Vcpu::start(index, fd, Arc::clone(&machine)).unwrap()
    };
    let vcpus = (0..vcpus).map(start).collect();
    Guest { vcpus, events, ram, _vm: vm }
}

impl Guest {
    fn next(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("the guest did nothing for 10 s")
    }

    fn run(&self) {
        resume_all(&self.vcpus);
    }
}

#[test]
fn port_io_reaches_the_machine_and_back() {
    let Some(kvm) = kvm("port_io_reaches_the_machine_and_back") else { return };
    // in al,0x10; out 0x20,al; mov dx,0x300; in ax,dx; out dx,ax; hlt
    let code = [0xe4, 0x10, 0xe6, 0x20, 0xba, 0x00, 0x03, 0xed, 0xef, 0xf4];
    let guest = guest(&kvm, &code, 1);
    guest.run();
    assert_eq!(guest.next(), Event::Write(Address::Port(0x20), vec![0x11]));
    assert_eq!(guest.next(), Event::Write(Address::Port(0x300), vec![0x01, 0x03]));
    assert_eq!(guest.next(), Event::Ended(0, End::Halted));
    assert_eq!(guest.vcpus[0].state(), State::Ended);
}

#[test]
fn a_string_instruction_is_one_access_an_element() {
    let Some(kvm) = kvm("a_string_instruction_is_one_access_an_element") else { return };
    // mov si,0x2000; mov cx,3; mov dx,0x40; cld; rep outsb; hlt
    let code = [0xbe, 0x00, 0x20, 0xb9, 0x03, 0x00, 0xba, 0x40, 0x00, 0xfc, 0xf3, 0x6e, 0xf4];
    let guest = guest(&kvm, &code, 1);
    guest.ram.memory().write_slice(b"abc", GuestAddress(0x2000)).unwrap();
    guest.run();
    for byte in b"abc" {
        assert_eq!(guest.next(), Event::Write(Address::Port(0x40), vec![*byte]));
    }
    assert_eq!(guest.next(), Event::Ended(0, End::Halted));
}

#[test]
fn memory_that_is_none_traps() {
    let Some(kvm) = kvm("memory_that_is_none_traps") else { return };
    // mov bx,0xffff; mov ds,bx; mov bx,[0x10]; mov [0x20],bx; hlt   (0xffff0 + 0x10 = 1 MiB)
    let code = [0xbb, 0xff, 0xff, 0x8e, 0xdb, 0x8b, 0x1e, 0x10, 0x00, 0x89, 0x1e, 0x20, 0x00, 0xf4];
    let guest = guest(&kvm, &code, 1);
    guest.run();
    assert_eq!(guest.next(), Event::Write(Address::Memory(0x10_0010), vec![0x02, 0x00]));
    assert_eq!(guest.next(), Event::Ended(0, End::Halted));
}

#[test]
fn vcpus_that_never_exit_are_paused_in_bounded_time_and_run_on() {
    let Some(kvm) = kvm("vcpus_that_never_exit_are_paused_in_bounded_time_and_run_on") else { return };
    // mov bx,ax; shl bx,1; again: inc word [bx+0x2000]; jmp again
    let code = [0x89, 0xc3, 0xd1, 0xe3, 0xff, 0x87, 0x00, 0x20, 0xeb, 0xfa];
    let guest = guest(&kvm, &code, 4);
    let counts = || -> Vec<u16> {
        (0..4).map(|n| guest.ram.memory().read_obj(GuestAddress(0x2000 + 2 * n)).unwrap()).collect()
    };
    guest.run();
    for round in 0..20 {
        let before = counts();
        let begin = Instant::now();
        while counts().iter().zip(&before).any(|(now, then)| now == then) {
            assert!(begin.elapsed() < PATIENCE, "round {round}: a vCPU stands still: {before:?}");
            std::thread::yield_now();
        }
        let begin = Instant::now();
        pause_all(&guest.vcpus, PATIENCE).unwrap();
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(2), "pausing took {took:?}");
        let still = counts();
        for vcpu in &guest.vcpus {
            let registers = vcpu.registers().unwrap();
            assert!((CODE + 4..=CODE + 8).contains(&registers.ip), "{registers}");
        }
        assert_eq!(counts(), still, "a paused vCPU ran");
        resume_all(&guest.vcpus);
    }
    assert!(matches!(guest.vcpus[0].registers(), Err(VcpuError::Runs { .. })));
    stop_all(&guest.vcpus, PATIENCE).unwrap();
    let mut ended: Vec<_> = (0..4).map(|_| guest.next()).collect();
    ended.sort_by_key(|e| format!("{e:?}"));
    assert_eq!(ended, (0..4).map(|n| Event::Ended(n, End::Stopped)).collect::<Vec<_>>());
}

#[test]
fn a_vcpu_paused_in_an_access_shows_it_done() {
    let Some(kvm) = kvm("a_vcpu_paused_in_an_access_shows_it_done") else { return };
    // again: in al,0x10; out 0x20,al; jmp again
    let code = [0xe4, 0x10, 0xe6, 0x20, 0xeb, 0xfa];
    let guest = guest(&kvm, &code, 1);
    guest.run();
    for _ in 0..50 {
        assert_eq!(guest.next(), Event::Write(Address::Port(0x20), vec![0x11]));
        guest.vcpus[0].pause(PATIENCE).unwrap();
        let registers = guest.vcpus[0].registers().unwrap();
        if registers.ip == CODE + 2 {
            assert_eq!(registers.general[0] & 0xff, 0x11, "IP is past the read, AL is not what was read");
        }
        guest.vcpus[0].resume();
    }
}

/// Hosts that are virtual machines may not honour debug registers in their guests: KVM's
/// instruction emulator looks at those for instructions only, QEMU's SVM at none. On
/// hardware there is no excuse.
fn missed_by_an_emulated_host(test: &str, event: &Event) -> bool {
    let virtual_host =
        std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|text| text.contains(" hypervisor"));
    let missed = virtual_host && *event == Event::Ended(0, End::Halted);
    if missed {
        skip(test, "this host is a virtual machine whose KVM doesn't honour debug registers");
    }
    missed
}

#[test]
fn a_watchpoint_stops_after_the_write() {
    let Some(kvm) = kvm("a_watchpoint_stops_after_the_write") else { return };
    // mov byte [0x2000],1; mov byte [0x2001],2; mov byte [0x2000],3; hlt
    let code = [0xc6, 0x06, 0, 0x20, 1, 0xc6, 0x06, 1, 0x20, 2, 0xc6, 0x06, 0, 0x20, 3, 0xf4];
    let guest = guest(&kvm, &code, 1);
    guest.vcpus[0].pause(PATIENCE).unwrap();
    let watch = Watch { address: 0x2001, bytes: 1, access: Access::Write };
    guest.vcpus[0].watch(&[watch]).unwrap();
    guest.run();
    let trap = guest.next();
    if missed_by_an_emulated_host("a_watchpoint_stops_after_the_write", &trap) {
        return;
    }
    assert_eq!(trap, Event::Trapped(0, Trap { ip: CODE + 10, hit: [Some(watch), None, None, None] }));
    let bytes: [u8; 2] = guest.ram.memory().read_obj(GuestAddress(0x2000)).unwrap();
    assert_eq!(bytes, [1, 2]);
    guest.vcpus[0].watch(&[]).unwrap();
    guest.run();
    assert_eq!(guest.next(), Event::Ended(0, End::Halted));
}

#[test]
fn a_breakpoint_stops_before_the_instruction() {
    let Some(kvm) = kvm("a_breakpoint_stops_before_the_instruction") else { return };
    // inc ax; inc ax; inc ax; hlt
    let guest = guest(&kvm, &[0x40, 0x40, 0x40, 0xf4], 1);
    guest.vcpus[0].pause(PATIENCE).unwrap();
    let watch = Watch { address: CODE + 2, bytes: 1, access: Access::Execute };
    guest.vcpus[0].watch(&[watch]).unwrap();
    guest.run();
    let trap = guest.next();
    if missed_by_an_emulated_host("a_breakpoint_stops_before_the_instruction", &trap) {
        return;
    }
    assert_eq!(trap, Event::Trapped(0, Trap { ip: CODE + 2, hit: [Some(watch), None, None, None] }));
    assert_eq!(guest.vcpus[0].registers().unwrap().general[0], 2);
}

#[test]
fn a_triple_fault_is_a_shutdown() {
    let Some(kvm) = kvm("a_triple_fault_is_a_shutdown") else { return };
    // lidt [0x2000] with a limit of 0; protected mode on; ud2
    let code = [0x0f, 0x01, 0x1e, 0, 0x20, 0x0f, 0x20, 0xc0, 0x0c, 1, 0x0f, 0x22, 0xc0, 0x0f, 0x0b];
    let guest = guest(&kvm, &code, 1);
    guest.run();
    assert_eq!(guest.next(), Event::Ended(0, End::Shutdown));
}

#[test]
fn a_device_that_panics_ends_the_vcpu() {
    let Some(kvm) = kvm("a_device_that_panics_ends_the_vcpu") else { return };
    // in al,0x66; hlt
    let guest = guest(&kvm, &[0xe4, 0x66, 0xf4], 1);
    guest.run();
    assert!(matches!(guest.next(), Event::Ended(0, End::Failed { .. })));
    assert_eq!(guest.vcpus[0].state(), State::Ended);
    assert!(guest.vcpus[0].registers().is_ok());
}
