//! Machines that are saved and go on, with hand-made kernels that run on any `/dev/kvm`.

mod micro;

use ktstr_topology::Topology;
use ktstr_vmm::{Config, Restore, Sink, Vm, VmEnd, VmError};
use micro::{LOAD, PATIENCE, POWER_OFF, kernel, no_kvm};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 64;
/// What the guests count in, and look at.
const COUNTER: u64 = LOAD + 0x10_0000;
const FLAG: u64 = COUNTER + 8;
const TIMER: usize = 0x20;

std::arch::global_asm!(
    ".pushsection .rodata.ktstr_vmm_saved, \"a\"",
    ".code32",
    // Counts, with something in every other register.
    "ktstr_saved_counter:",
    "mov ebx, 0x11111111",
    "mov ecx, 0x22222222",
    "mov edx, 0x33333333",
    "mov esi, 0x44444444",
    "mov ebp, 0x55555555",
    "mov esp, 0x1080000",
    "mov edi, 0x1100000",
    "2: inc dword ptr [edi]",
    "jmp 2b",
    "ktstr_saved_counter_end:",
    // Counts interrupts of its local APIC's timer, one each millisecond, halted in
    // between. The handler leaves without `iret`, which KVM's emulator doesn't know.
    "ktstr_saved_timer:",
    "mov esp, 0x1080000",
    "lidt [0x1002000]",
    "mov dword ptr [0xfee000f0], 0x1ff",
    "mov dword ptr [0xfee003e0], 0xb",
    "mov dword ptr [0xfee00320], 0x20020",
    "mov dword ptr [0xfee00380], 1000000",
    "3: sti",
    "hlt",
    "jmp 3b",
    "ktstr_saved_handler:",
    "inc dword ptr [0x1100000]",
    "mov dword ptr [0xfee000b0], 0",
    "add esp, 12",
    "jmp 3b",
    "ktstr_saved_timer_end:",
    // Says "one", waits for a byte in memory and says that.
    "ktstr_saved_waiter:",
    "mov dx, 0x3f8",
    "mov al, 0x6f",
    "out dx, al",
    "mov al, 0x6e",
    "out dx, al",
    "mov al, 0x65",
    "out dx, al",
    "inc dword ptr [0x1100000]",
    "4: mov al, byte ptr [0x1100008]",
    "test al, al",
    "jz 4b",
    "out dx, al",
    "ktstr_saved_waiter_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static ktstr_saved_counter: u8;
    static ktstr_saved_counter_end: u8;
    static ktstr_saved_timer: u8;
    static ktstr_saved_handler: u8;
    static ktstr_saved_timer_end: u8;
    static ktstr_saved_waiter: u8;
    static ktstr_saved_waiter_end: u8;
}

fn code(from: *const u8, to: *const u8) -> Vec<u8> {
    let length = to as usize - from as usize;
    // SAFETY: the assembler put exactly these bytes between the two symbols.
    unsafe { std::slice::from_raw_parts(from, length) }.to_vec()
}

fn counter() -> Vec<u8> {
    code(&raw const ktstr_saved_counter, &raw const ktstr_saved_counter_end)
}

fn waiter() -> Vec<u8> {
    [code(&raw const ktstr_saved_waiter, &raw const ktstr_saved_waiter_end), POWER_OFF.to_vec()].concat()
}

/// With its interrupt table behind it.
fn timer() -> Vec<u8> {
    let begin = &raw const ktstr_saved_timer;
    let handler = &raw const ktstr_saved_handler as usize - begin as usize;
    micro::with_interrupt(&code(begin, &raw const ktstr_saved_timer_end), TIMER, handler)
}

fn shape() -> Topology {
    Topology::uniform(2, 2, 2, 1)
}

type Text = Arc<Mutex<Vec<u8>>>;

fn sink(into: &Text) -> Box<dyn Sink> {
    let into = Arc::clone(into);
    Box::new(move |bytes: &[u8]| into.lock().unwrap().extend_from_slice(bytes))
}

fn boot(code: &[u8]) -> (Vm, Text) {
    let text = Text::default();
    let mut config = Config::new(kernel(code), shape(), MIB);
    config.console = sink(&text);
    (Vm::boot(config).unwrap(), text)
}

fn restore(dir: &Path) -> (Vm, Text) {
    let text = Text::default();
    let mut config = Restore::new(dir, shape(), MIB);
    config.confine = true;
    config.console = sink(&text);
    (Vm::restore(config).unwrap(), text)
}

fn count(vm: &Vm) -> u32 {
    vm.ram().memory().read_obj(GuestAddress(COUNTER)).unwrap()
}

fn wait_past(vm: &Vm, than: u32) {
    let begin = Instant::now();
    while count(vm) <= than {
        assert!(begin.elapsed() < PATIENCE, "the guest still counts {than}; {:?}", vm.wait(PATIENCE / 20));
        std::thread::yield_now();
    }
}

/// A paused machine in `dir`; what it was, is as it was.
fn saved(code: &[u8], dir: &Path) -> Vm {
    let (vm, _) = boot(code);
    wait_past(&vm, 0);
    vm.pause().unwrap();
    vm.save(dir, &mut |_, _| true).unwrap();
    vm
}

/// Every file of a directory.
fn content(dir: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn two_machines_count_on_from_where_one_was_saved() {
    if no_kvm("two_machines_count_on_from_where_one_was_saved") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let vm = saved(&counter(), dir.path());
    let (then, registers) = (count(&vm), vm.registers().unwrap());
    assert_eq!(registers[0].general[1..6], [0x1111_1111, 0x2222_2222, 0x3333_3333, 0x4444_4444, 0x110_0000]);
    let template = content(dir.path());
    assert_eq!(template.iter().map(|f| f.0.as_str()).collect::<Vec<_>>(), ["ram0", "ram1", "state"]);
    // The one that was saved can run on.
    vm.resume();
    wait_past(&vm, then);
    let machines = [(); 2].map(|()| restore(dir.path()).0);
    for vm in &machines {
        assert_eq!((count(vm), vm.registers().unwrap()), (then, registers.clone()));
    }
    machines[0].resume();
    wait_past(&machines[0], then + 1000);
    assert_eq!(count(&machines[1]), then, "one machine sees what another writes");
    machines[1].resume();
    wait_past(&machines[1], then);
    machines[1].pause().unwrap();
    assert_eq!(machines[1].registers().unwrap()[0].general[1..], registers[0].general[1..]);
    drop((vm, machines));
    assert!(content(dir.path()) == template, "a machine wrote to what it was resumed from");
}

#[test]
fn timer_interrupts_go_on() {
    if no_kvm("timer_interrupts_go_on") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let vm = saved(&timer(), dir.path());
    let then = count(&vm);
    drop(vm);
    // The files of a machine may go while it runs.
    let (vm, _) = restore(dir.path());
    dir.close().unwrap();
    assert_eq!(count(&vm), then);
    vm.resume();
    wait_past(&vm, then + 20);
    assert_eq!(vm.wait(std::time::Duration::ZERO), None);
}

#[test]
fn a_machine_says_what_it_is_woken_with_and_nothing_of_before() {
    if no_kvm("a_machine_says_what_it_is_woken_with_and_nothing_of_before") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(saved(&waiter(), dir.path()));
    for said in [b"x", b"y"] {
        let (vm, text) = restore(dir.path());
        vm.ram().memory().write_slice(said, GuestAddress(FLAG)).unwrap();
        vm.resume();
        assert_eq!(vm.wait(PATIENCE), Some(VmEnd::PowerOff));
        assert_eq!(**text.lock().unwrap(), *said);
    }
}

#[test]
fn a_machine_that_was_resumed_can_be_saved_again() {
    if no_kvm("a_machine_that_was_resumed_can_be_saved_again") {
        return;
    }
    let [first, second] = [(); 2].map(|()| tempfile::tempdir().unwrap());
    drop(saved(&counter(), first.path()));
    let (vm, _) = restore(first.path());
    let then = count(&vm);
    vm.resume();
    wait_past(&vm, then);
    vm.pause().unwrap();
    vm.save(second.path(), &mut |_, _| true).unwrap();
    let then = count(&vm);
    drop(vm);
    assert_eq!(count(&restore(second.path()).0), then);
}

#[test]
fn a_running_or_ended_machine_is_not_saved() {
    if no_kvm("a_running_or_ended_machine_is_not_saved") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let (vm, _) = boot(&counter());
    assert!(matches!(vm.save(dir.path(), &mut |_, _| true), Err(VmError::Runs)));
    vm.kill();
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::Stopped));
    assert!(matches!(vm.save(dir.path(), &mut |_, _| true), Err(VmError::Ended)));
    assert!(content(dir.path()).is_empty());
}

/// Why `dir` can't be gone on from.
fn refused(dir: &Path) -> String {
    match Vm::restore(Restore::new(dir, shape(), MIB)) {
        Ok(_) => panic!("a broken machine was restored"),
        Err(e) => e.to_string(),
    }
}

#[test]
fn what_is_broken_or_another_machine_is_refused() {
    if no_kvm("what_is_broken_or_another_machine_is_refused") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(saved(&counter(), dir.path()));
    let state = dir.path().join("state");
    let good = std::fs::read(&state).unwrap();
    for step in 0..200 {
        let bit = step * (good.len() * 8 - 1) / 199;
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&state, &bad).unwrap();
        let why = refused(dir.path());
        assert!(why.contains("restoring the machine saved in"), "bit {bit}: {why}");
        std::fs::write(&state, &good[..bit / 8]).unwrap();
        refused(dir.path());
    }
    std::fs::write(&state, &good).unwrap();
    for (shape, mib, part) in
        [(shape(), 128, "nodes"), (Topology::uniform(2, 4, 2, 1), 64, "4 vCPUs, expected 8")]
    {
        let error = Vm::restore(Restore::new(dir.path(), shape, mib)).err().unwrap();
        assert!(error.to_string().contains(part), "{error}");
    }
    // As many vCPUs, elsewhere: they would find other neighbours.
    let error = Vm::restore(Restore::new(dir.path(), Topology::uniform(2, 2, 1, 2), MIB)).err().unwrap();
    assert!(error.to_string().contains("CPUID leaf"), "{error}");
    let ram = dir.path().join("ram1");
    let file = std::fs::OpenOptions::new().write(true).open(&ram).unwrap();
    file.set_len(4096).unwrap();
    assert!(refused(dir.path()).contains("4096 bytes, expected"));
    std::fs::remove_file(&ram).unwrap();
    assert!(refused(dir.path()).contains("ram1"));
}
