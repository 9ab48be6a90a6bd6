//! Disks of the whole monitor, with a hand-made driver that runs on any `/dev/kvm`. What it writes to registers, and
//! the rings with its requests, lie ready in its image; it waits for what comes of them and says it.

mod micro;

use ktstr_topology::Topology;
use ktstr_vmm::{Config, Disk, DiskCounts, Restore, Sink, Vm, VmEnd, VmError};
use micro::{LOAD, PATIENCE, POWER_OFF, kernel, no_kvm};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use vm_memory::{Bytes, GuestAddress};

std::arch::global_asm!(
    ".pushsection .rodata.ktstr_vmm_disk, \"a\"",
    ".code32",
    "ktstr_disk_driver:",
    // Registers and what is written there, up to -1. The last one is the kick of the first request.
    "mov esi, 0x1001000",
    "2: mov eax, dword ptr [esi]",
    "cmp eax, -1",
    "je 3f",
    "mov ebx, dword ptr [esi + 4]",
    "mov dword ptr [eax], ebx",
    "add esi, 8",
    "jmp 2b",
    "3: mov edi, dword ptr [esi - 8]",
    "4: cmp word ptr [0x1004002], 1",
    "jne 4b",
    // It changes what it has read, says so and waits until it may go on with the other two.
    "not dword ptr [0x1006000]",
    "inc dword ptr [0x1007000]",
    "5: cmp byte ptr [0x1007008], 0",
    "je 5b",
    "mov word ptr [0x1003002], 3",
    "mov dword ptr [edi], 0",
    "6: cmp word ptr [0x1004002], 3",
    "jne 6b",
    // Says the three outcomes, what waits at the first interrupt controller, and why the device has interrupted.
    "mov dx, 0x3f8",
    "mov al, byte ptr [0x1005100]",
    "out dx, al",
    "mov al, byte ptr [0x1005101]",
    "out dx, al",
    "mov al, byte ptr [0x1005102]",
    "out dx, al",
    "in al, 0x20",
    "out dx, al",
    "mov eax, dword ptr [edi + 0x10]",
    "out dx, al",
    "ktstr_disk_driver_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static ktstr_disk_driver: u8;
    static ktstr_disk_driver_end: u8;
}

// Where in the image things are.
const TABLE: usize = 0x1000;
const DESCRIPTORS: usize = 0x2000;
const AVAILABLE: usize = 0x3000;
const USED: usize = 0x4000;
const HEADERS: usize = 0x5000;
const OUTCOMES: usize = 0x5100;
const DATA: usize = 0x6000;
const COUNTER: u64 = LOAD + 0x7000;
const FLAG: u64 = LOAD + 0x7008;

const WRITE: u16 = 2;
const NEXT: u16 = 1;
const MIB: u64 = 64;
const SECTORS: usize = 16;

/// A driver for disk number `disk`: reads sector 2, writes sector 3, flushes.
fn driver(disk: u64) -> Vec<u8> {
    let (from, to) = (&raw const ktstr_disk_driver, &raw const ktstr_disk_driver_end);
    // SAFETY: the assembler put exactly these bytes between the two symbols.
    let code = unsafe { std::slice::from_raw_parts(from, to as usize - from as usize) };
    let mut image = [code, &POWER_OFF].concat();
    assert!(image.len() < TABLE);
    image.resize(0x8000, 0);
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    let address = |at: usize| LOAD as u32 + at as u32;
    let registers = 0xd000_1000 + disk as u32 * 0x1000;
    // Status, features (flushes; version 1), queue, ready, go, kick (virtio 1.2, 4.2.2).
    let writes: [(u32, u32); 15] = [
        (0x70, 1),
        (0x70, 3),
        (0x24, 0),
        (0x20, 1 << 9),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x30, 0),
        (0x38, 16),
        (0x80, address(DESCRIPTORS)),
        (0x90, address(AVAILABLE)),
        (0xa0, address(USED)),
        (0x44, 1),
        (0x70, 15),
        (0x50, 0),
    ];
    for (index, (register, value)) in writes.iter().enumerate() {
        put(TABLE + index * 8, &(registers + register).to_le_bytes());
        put(TABLE + index * 8 + 4, &value.to_le_bytes());
    }
    put(TABLE + writes.len() * 8, &u32::MAX.to_le_bytes());
    for (request, (kind, sector)) in [(0u32, 2u64), (1, 3), (4, 0)].into_iter().enumerate() {
        let header = HEADERS + request * 16;
        put(header, &kind.to_le_bytes());
        put(header + 8, &sector.to_le_bytes());
        put(OUTCOMES + request, &[0xee]);
        let data = match kind {
            0 => (DATA, 512, WRITE | NEXT),
            1 => (DATA, 512, NEXT),
            _ => (DATA, 0, NEXT),
        };
        let chain = [(header, 16, NEXT), data, (OUTCOMES + request, 1, WRITE)];
        for (slot, (at, bytes, flags)) in (request * 3..).zip(chain) {
            let entry = DESCRIPTORS + slot * 16;
            put(entry, &u64::from(address(at)).to_le_bytes());
            put(entry + 8, &u32::to_le_bytes(bytes));
            put(entry + 12, &flags.to_le_bytes());
            put(entry + 14, &(slot as u16 + 1).to_le_bytes());
        }
        put(AVAILABLE + 4 + request * 2, &(request as u16 * 3).to_le_bytes());
    }
    put(AVAILABLE + 2, &1u16.to_le_bytes());
    image
}

/// Sector n is full of `first` + n.
fn file(first: u8) -> File {
    let content: Vec<u8> = (0..SECTORS * 512).map(|at| first + (at / 512) as u8).collect();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&content, 0).unwrap();
    file
}

fn disk(file: &File, read_only: bool, id: &str) -> Disk {
    Disk { file: file.try_clone().unwrap(), read_only, id: id.to_string() }
}

/// What the driver writes to sector 3 when sector 2 is full of `byte`.
fn changed(byte: u8) -> Vec<u8> {
    [vec![!byte; 4], vec![byte; 508]].concat()
}

fn sector(file: &File, number: u64) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    file.read_exact_at(&mut bytes, number * 512).unwrap();
    bytes
}

type Text = Arc<Mutex<Vec<u8>>>;

fn sink(into: &Text) -> Box<dyn Sink> {
    let into = Arc::clone(into);
    Box::new(move |bytes: &[u8]| into.lock().unwrap().extend_from_slice(bytes))
}

/// Boots the driver of disk number `driven`, and lets it come to its second request.
fn boot(disks: Vec<Disk>, driven: u64) -> (Vm, Text) {
    let text = Text::default();
    let mut config = Config::new(kernel(&driver(driven)), Topology::DEFAULT, MIB);
    config.confine = true;
    config.console = sink(&text);
    config.disks = disks;
    let vm = Vm::boot(config).unwrap();
    let begin = Instant::now();
    while vm.ram().memory().read_obj::<u32>(GuestAddress(COUNTER)).unwrap() == 0 {
        assert!(begin.elapsed() < PATIENCE, "no answer to the first request: {:?}", vm.wait(Duration::ZERO));
        std::thread::yield_now();
    }
    (vm, text)
}

/// Lets the driver go on to its end; what it says.
fn finish(vm: &Vm, text: &Text) -> Vec<u8> {
    vm.ram().memory().write_obj(1u8, GuestAddress(FLAG)).unwrap();
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::PowerOff), "{:?}", vm.disk_broken(0));
    text.lock().unwrap().clone()
}

#[test]
fn a_guest_reads_writes_and_flushes_and_is_interrupted() {
    if no_kvm("a_guest_reads_writes_and_flushes_and_is_interrupted") {
        return;
    }
    for driven in [0, 1] {
        let files = [file(1), file(0x80)];
        let disks = vec![disk(&files[0], false, "first"), disk(&files[1], false, "second")];
        let (vm, text) = boot(disks, driven);
        // Three times well; line 6 is the first disk's, 7 the second's; "a buffer was used".
        assert_eq!(finish(&vm, &text), [0, 0, 0, 0x40 << driven, 1]);
        for (index, (file, first)) in files.iter().zip([1u8, 0x80]).enumerate() {
            let done = index as u64 == driven;
            assert!(sector(file, 3) == if done { changed(first + 2) } else { vec![first + 3; 512] });
            assert!(sector(file, 2) == [first + 2; 512] && sector(file, 4) == [first + 4; 512]);
            let (reads, writes, flushes) = if done { (1, 1, 1) } else { (0, 0, 0) };
            let (bytes_read, bytes_written) = (reads * 512, writes * 512);
            let counts =
                DiskCounts { reads, bytes_read, writes, bytes_written, flushes, ..DiskCounts::default() };
            assert_eq!((vm.disk_counts(index), vm.disk_broken(index)), (Some(counts), None));
        }
        assert_eq!((vm.disk_counts(2), vm.disk_broken(2)), (None, None));
    }
}

#[test]
fn a_read_only_disk_is_read_and_not_written() {
    if no_kvm("a_read_only_disk_is_read_and_not_written") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [7; 512 * SECTORS]).unwrap();
    let only = File::open(&path).unwrap();
    // It has no flushes, so the driver asks for more than there is: the device isn't started, and nothing comes.
    let mut config = Config::new(kernel(&driver(0)), Topology::DEFAULT, MIB);
    config.confine = true;
    config.disks = vec![disk(&only, true, "only")];
    let vm = Vm::boot(config).unwrap();
    assert_eq!(vm.wait(Duration::from_millis(300)), None);
    assert_eq!(vm.disk_counts(0), Some(DiskCounts::default()));
    drop(vm);
    // One that knows.
    let mut image = driver(0);
    image[TABLE + 3 * 8 + 4..][..4].fill(0);
    let text = Text::default();
    let mut config = Config::new(kernel(&image), Topology::DEFAULT, MIB);
    config.confine = true;
    config.console = sink(&text);
    config.disks = vec![disk(&only, true, "only")];
    let vm = Vm::boot(config).unwrap();
    // Read; an I/O error; unsupported.
    assert_eq!(finish(&vm, &text), [0, 1, 2, 0x40, 1]);
    assert_eq!(vm.disk_counts(0).unwrap().errors, 2);
    assert!(std::fs::read(&path).unwrap() == [7; 512 * SECTORS]);
}

#[test]
fn a_saved_machine_goes_on_with_another_file() {
    if no_kvm("a_saved_machine_goes_on_with_another_file") {
        return;
    }
    let [first, second] = [file(1), file(0x80)];
    let dir = tempfile::tempdir().unwrap();
    let (vm, _) = boot(vec![disk(&first, false, "root")], 0);
    vm.pause().unwrap();
    vm.save(dir.path(), &mut |_, _| true).unwrap();
    drop(vm);
    let restore = |disks| {
        let text = Text::default();
        let mut config = Restore::new(dir.path(), Topology::DEFAULT, MIB);
        config.confine = true;
        config.console = sink(&text);
        config.disks = disks;
        Vm::restore(config).map(|vm| (vm, text))
    };
    for _ in 0..2 {
        let (vm, text) = restore(vec![disk(&second, false, "root")]).unwrap();
        vm.resume();
        assert_eq!(finish(&vm, &text)[..3], [0; 3]);
        assert_eq!(vm.disk_counts(0).unwrap().writes, 1);
        // What it had read is in its memory, from the first file.
        assert!(sector(&second, 3) == changed(3) && sector(&first, 3) == [4; 512]);
        second.write_all_at(&[0x83; 512], 3 * 512).unwrap();
    }
    let larger = file(1);
    larger.set_len(1 << 20).unwrap();
    let both = || vec![disk(&second, false, "root"), disk(&second, false, "more")];
    for (disks, part) in [
        (Vec::new(), "saved with 1 of them, here are 0"),
        (both(), "saved with 1 of them, here are 2"),
        (vec![disk(&larger, false, "root")], "16 sectors, writable, here is id \"root\", 2048 sectors"),
        (vec![disk(&second, true, "root")], "read-only"),
        (vec![disk(&second, false, "boot")], "\"boot\""),
    ] {
        let why = restore(disks).err().expect("another machine was restored").to_string();
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn disks_that_cannot_be_are_refused() {
    if no_kvm("disks_that_cannot_be_are_refused") {
        return;
    }
    let refused = |disks: Vec<Disk>| {
        let mut config = Config::new(kernel(&POWER_OFF), Topology::DEFAULT, MIB);
        config.disks = disks;
        Vm::boot(config).err().expect("it was booted")
    };
    let odd = tempfile::tempfile().unwrap();
    odd.set_len(700).unwrap();
    let error = refused(vec![disk(&file(0), false, "fine"), disk(&odd, false, "odd")]);
    assert!(matches!(error, VmError::Disk { index: 1, .. }));
    assert!(error.to_string().contains("disk 1: making a disk: its file has 700 bytes"), "{error}");
    let many = file(0);
    let error = refused((0..18).map(|_| disk(&many, true, "")).collect());
    assert!(error.to_string().contains("18 of them asked for, at most 17"), "{error}");
    // As many as there can be.
    let mut config = Config::new(kernel(&driver(16)), Topology::DEFAULT, MIB);
    config.disks = (0..17).map(|_| disk(&many, false, "")).collect();
    let vm = Vm::boot(config).unwrap();
    vm.ram().memory().write_obj(1u8, GuestAddress(FLAG)).unwrap();
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::PowerOff));
    assert_eq!(vm.disk_counts(16).unwrap().flushes, 1);
}
