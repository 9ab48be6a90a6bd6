//! A guest's time over pauses, with a hand-made kernel that runs on any `/dev/kvm`.

mod micro;

use ktstr_topology::Topology;
use ktstr_vmm::{Config, Vm};
use kvm_bindings::{Msrs, kvm_msr_entry};
use micro::skip::skip;
use micro::{LOAD, PATIENCE, kernel, no_kvm};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

/// Where the guest writes its counter, over and over.
const NOW: u64 = LOAD + 0x10_0000;
/// Where it is told how far away its timer's deadline shall be; then it sets that.
const DISTANCE: u64 = NOW + 0x10;
/// The deadline, once it is set.
const DEADLINE: u64 = NOW + 0x18;
/// The counter when the timer's interrupt came.
const FIRED: u64 = NOW + 0x20;
const TIMER: usize = 0x20;

std::arch::global_asm!(
    ".pushsection .rodata.ktstr_vmm_time, \"a\"",
    ".code32",
    "ktstr_time_guest:",
    "mov esp, 0x1080000",
    "lidt [0x1002000]",
    "mov dword ptr [0xfee000f0], 0x1ff",
    // The timer in deadline mode.
    "mov dword ptr [0xfee00320], 0x40020",
    "mov esi, 0x1100000",
    "2: rdtsc",
    "mov dword ptr [esi], eax",
    "mov dword ptr [esi + 4], edx",
    "mov ecx, dword ptr [esi + 0x10]",
    "test ecx, ecx",
    "jz 2b",
    "add eax, ecx",
    "adc edx, dword ptr [esi + 0x14]",
    "mov ecx, 0x6e0",
    "wrmsr",
    "mov dword ptr [esi + 0x1c], edx",
    "mov dword ptr [esi + 0x18], eax",
    "3: sti",
    "4: rdtsc",
    "mov dword ptr [esi], eax",
    "mov dword ptr [esi + 4], edx",
    "jmp 4b",
    // Leaves without `iret`, which KVM's emulator doesn't know.
    "ktstr_time_handler:",
    "rdtsc",
    "mov dword ptr [esi + 0x24], edx",
    "mov dword ptr [esi + 0x20], eax",
    "mov dword ptr [0xfee000b0], 0",
    "add esp, 12",
    "jmp 3b",
    "ktstr_time_guest_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static ktstr_time_guest: u8;
    static ktstr_time_handler: u8;
    static ktstr_time_guest_end: u8;
}

fn boot() -> Vm {
    let begin = &raw const ktstr_time_guest;
    let offset = |symbol: *const u8| symbol as usize - begin as usize;
    // SAFETY: the assembler put exactly these bytes between the two symbols.
    let code = unsafe { std::slice::from_raw_parts(begin, offset(&raw const ktstr_time_guest_end)) };
    let code = micro::with_interrupt(code, TIMER, offset(&raw const ktstr_time_handler));
    let mut config = Config::new(kernel(&code), Topology::uniform(1, 1, 2, 1), 64);
    config.confine = true;
    let vm = Vm::boot(config).unwrap();
    wait(&vm, NOW, 0);
    vm
}

fn read(vm: &Vm, at: u64) -> u64 {
    vm.ram().memory().read_obj(GuestAddress(at)).unwrap()
}

/// Waits until the guest has written something else there than `before`.
fn wait(vm: &Vm, at: u64, before: u64) {
    wait_until(vm, at, |now| now != before);
}

fn wait_until(vm: &Vm, at: u64, reached: impl Fn(u64) -> bool) {
    let begin = Instant::now();
    while !reached(read(vm, at)) {
        assert!(begin.elapsed() < PATIENCE, "the guest writes nothing; {:?}", vm.wait(Duration::ZERO));
        std::thread::yield_now();
    }
}

fn khz(vm: &Vm) -> u64 {
    let khz = vm.vcpus()[0].with_still("asking for the rate", |fd| Ok(fd.get_tsc_khz().unwrap()));
    u64::from(khz.unwrap())
}

/// Where guests read the host's counter as it is (the module `kvm_pvm`, and confidential guests), KVM takes what the
/// counter is set to, and it is of no account.
fn counter_can_be_set(test: &str) -> bool {
    const TSC: u32 = 0x10;
    let vm = boot();
    vm.pause().unwrap();
    let far = 1000 * 1000 * khz(&vm);
    let set = vm.vcpus()[0].with_still("setting the counter", |fd| {
        let entry = |data| kvm_msr_entry { index: TSC, data, ..Default::default() };
        let mut msrs = Msrs::from_entries(&[entry(0)]).unwrap();
        assert_eq!(fd.get_msrs(&mut msrs).unwrap(), 1);
        let wanted = msrs.as_slice()[0].data + far;
        assert_eq!(fd.set_msrs(&Msrs::from_entries(&[entry(wanted)]).unwrap()).unwrap(), 1);
        assert_eq!(fd.get_msrs(&mut msrs).unwrap(), 1);
        Ok(msrs.as_slice()[0].data >= wanted)
    });
    let set = set.unwrap();
    if !set {
        skip(test, "guests of this KVM read the host's counter, which can't be set");
    }
    set
}

/// Pauses for that long; the guest's counter before, and how long ago it was written at most when the guest stood still.
fn pause(vm: &Vm, length: Duration) -> (u64, Duration) {
    let (begin, seen) = (Instant::now(), read(vm, NOW));
    // Where CPUs are few, the guest may not have run for a while.
    wait(vm, NOW, seen);
    vm.pause().unwrap();
    let took = begin.elapsed();
    let counter = read(vm, NOW);
    std::thread::sleep(length);
    assert_eq!(read(vm, NOW), counter, "it ran on");
    (counter, took)
}

/// One long pause, and many so short that KVM takes what the counter is set to for an attempt to have it as it was.
#[test]
fn pauses_are_no_time_to_a_guest_and_all_else_is() {
    if no_kvm("pauses_are_no_time_to_a_guest_and_all_else_is") {
        return;
    }
    let can_be_set = counter_can_be_set("pauses_are_no_time_to_a_guest_and_all_else_is");
    let vm = boot();
    vm.pause().unwrap();
    let khz = khz(&vm);
    vm.resume();
    for (times, length) in [(1, Duration::from_secs(2)), (100, Duration::from_millis(20))] {
        let (mut counted, mut ran) = (0, Duration::ZERO);
        for _ in 0..times {
            let (before, took) = pause(&vm, length);
            let begin = Instant::now();
            vm.resume();
            wait_until(&vm, NOW, |now| now >= before + 2 * khz);
            vm.pause().unwrap();
            ran += took + begin.elapsed();
            let now = read(&vm, NOW);
            assert!(now > before, "time went back from {before} to {now}");
            counted += now - before;
            vm.resume();
        }
        let counted = Duration::from_micros(counted * 1000 / khz);
        // Both clocks are the host's, so that it can't have counted more than it ran.
        assert!(
            !can_be_set || counted <= ran + ran / 100,
            "{counted:?} counted in {ran:?}, {times} pauses of {length:?}"
        );
        assert!(counted >= 2 * times * Duration::from_millis(1), "{counted:?} counted in {ran:?}");
        println!("{times} pauses of {length:?}: {counted:?} counted, {ran:?} run");
    }
}

#[test]
fn a_timer_waits_for_its_deadline_however_long_the_pause() {
    if no_kvm("a_timer_waits_for_its_deadline_however_long_the_pause") {
        return;
    }
    let vm = boot();
    vm.pause().unwrap();
    let distance = 2000 * khz(&vm);
    vm.ram().memory().write_obj(distance, GuestAddress(DISTANCE)).unwrap();
    vm.resume();
    wait(&vm, DEADLINE, 0);
    let (before, _) = pause(&vm, Duration::from_secs(3));
    let deadline = read(&vm, DEADLINE);
    assert!(before < deadline && read(&vm, FIRED) == 0, "too late to be paused: {before} of {deadline}");
    vm.resume();
    wait(&vm, FIRED, 0);
    vm.pause().unwrap();
    let fired = read(&vm, FIRED);
    assert!(fired >= deadline, "fired at {fired}, {} ms early", (deadline - fired) / khz(&vm));
}
