//! The virtio console of the whole monitor, with a hand-made driver that runs on any `/dev/kvm`. What it writes to
//! registers, its messages and its rings lie ready in its image. It says a text, and from then on gives back what it is
//! sent, with a bit of each byte turned over, from the handler of the device's interrupt. The port may be the terminal.

mod micro;

use ktstr_topology::Topology;
use ktstr_vmm::{Config, Port, Sink, Vm, VmEnd};
use micro::{LOAD, PATIENCE, POWER_OFF, kernel, no_kvm, with_interrupt};
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress};

std::arch::global_asm!(
    ".pushsection .rodata.ktstr_vmm_console, \"a\"",
    ".code32",
    "ktstr_console_driver:",
    "mov esp, 0x1080000",
    "lidt [0x1002000]",
    // The device's line comes through the IOAPIC, as vector 0x25; the older controllers are masked.
    "mov al, 0xff",
    "out 0x21, al",
    "out 0xa1, al",
    "mov dword ptr [0xfee000f0], 0x1ff",
    "mov dword ptr [0xfec00000], 0x1b",
    "mov dword ptr [0xfec00010], 0",
    "mov dword ptr [0xfec00000], 0x1a",
    "mov dword ptr [0xfec00010], 0x25",
    // What is no console, or doesn't agree, has the machine reset.
    "cmp dword ptr [0xd0000000], 0x74726976",
    "jne 14f",
    "cmp dword ptr [0xd0000008], 3",
    "jne 14f",
    // Registers and what is written there, up to -1.
    "mov esi, 0x1003000",
    "2: mov eax, dword ptr [esi]",
    "cmp eax, -1",
    "je 3f",
    "mov ebx, dword ptr [esi + 4]",
    "mov dword ptr [eax], ebx",
    "add esi, 8",
    "jmp 2b",
    "3: cmp dword ptr [0xd0000070], 15",
    "jne 14f",
    // Room for messages; then its own ones, each once all is there that the one before leads to.
    "mov dword ptr [0xd0000050], 2",
    "mov word ptr [0x1005402], 1",
    "mov dword ptr [0xd0000050], 3",
    "mov ax, word ptr [0x100c018]",
    "4: cmp word ptr [0x1004802], ax",
    "jne 4b",
    "mov word ptr [0x1005402], 2",
    "mov dword ptr [0xd0000050], 3",
    "mov ax, word ptr [0x100c01c]",
    "5: cmp word ptr [0x1004802], ax",
    "jne 5b",
    "mov word ptr [0x1005402], 3",
    "mov dword ptr [0xd0000050], 3",
    "6: cmp word ptr [0x1005802], 3",
    "jne 6b",
    // The text, and room for input.
    "mov eax, dword ptr [0x100c014]",
    "mov word ptr [0x1007402], 1",
    "mov dword ptr [0xd0000050], eax",
    "7: cmp word ptr [0x1007802], 1",
    "jne 7b",
    "mov eax, dword ptr [0xd0000060]",
    "mov dword ptr [0xd0000064], eax",
    "xor ebp, ebp",
    "mov eax, dword ptr [0x100c010]",
    "mov word ptr [0x1006402], 2",
    "mov dword ptr [0xd0000050], eax",
    "8: sti",
    "hlt",
    "jmp 8b",
    // Leaves without `iret`, which KVM's emulator doesn't know. EBP counts the buffers that came back.
    "ktstr_console_handler:",
    "add esp, 12",
    "inc dword ptr [0x100c000]",
    "mov eax, dword ptr [0xd0000060]",
    "mov dword ptr [0xd0000064], eax",
    "mov dword ptr [0xfee000b0], 0",
    "9: cmp word ptr [0x1006802], bp",
    "je 8b",
    "mov ecx, ebp",
    "and ecx, 15",
    "mov ebx, dword ptr [ecx*8 + 0x1006804]",
    "mov edx, dword ptr [ecx*8 + 0x1006808]",
    "lea esi, [ebx*8 + 0x100a000]",
    "mov edi, 0x100b000",
    "mov ecx, edx",
    "10: mov al, byte ptr [esi]",
    "xor al, 0x20",
    "mov byte ptr [edi], al",
    "inc esi",
    "inc edi",
    "dec ecx",
    "jnz 10b",
    // Sends them by the fourth descriptor, and waits until they are taken.
    "mov dword ptr [0x1007038], edx",
    "movzx eax, word ptr [0x1007402]",
    "mov ecx, eax",
    "and ecx, 15",
    "mov word ptr [ecx*2 + 0x1007404], 3",
    "inc eax",
    "mov word ptr [0x1007402], ax",
    "mov ecx, dword ptr [0x100c014]",
    "mov dword ptr [0xd0000050], ecx",
    "11: cmp word ptr [0x1007802], ax",
    "jne 11b",
    // A dot at the end of a piece is the end of all; else the buffer goes back.
    "cmp byte ptr [edi - 1], 0x0e",
    "je 13f",
    "movzx eax, word ptr [0x1006402]",
    "mov ecx, eax",
    "and ecx, 15",
    "mov word ptr [ecx*2 + 0x1006404], bx",
    "inc eax",
    "mov word ptr [0x1006402], ax",
    "mov ecx, dword ptr [0x100c010]",
    "mov dword ptr [0xd0000050], ecx",
    "inc ebp",
    "jmp 9b",
    "14: mov dx, 0x600",
    "mov al, 1",
    "out dx, al",
    "hlt",
    "13:",
    "ktstr_console_driver_end:",
    ".code64",
    ".popsection",
);

unsafe extern "C" {
    static ktstr_console_driver: u8;
    static ktstr_console_handler: u8;
    static ktstr_console_driver_end: u8;
}

// Where in the image things are. Of each queue descriptors, what is offered, and what has been used.
const TABLE: usize = 0x3000;
const CONTROL_IN: usize = 0x4000;
const CONTROL_OUT: usize = 0x5000;
const INPUT: usize = 0x6000;
const OUTPUT: usize = 0x7000;
const OFFERED: usize = 0x400;
const USED: usize = 0x800;
const ANSWERS: usize = 0x8000;
const MESSAGES: usize = 0x8400;
const TEXT: usize = 0x9000;
const ROOM: usize = 0xa000;
const ECHO: usize = 0xb000;
const INTERRUPTS: u64 = LOAD + 0xc000;
const FACTS: usize = 0xc010;
const BYTES: usize = 0xd000;

const VECTOR: usize = 0x25;
/// Bytes of a buffer for a message, and of one for input.
const ANSWER: u32 = 64;
const PIECE: u32 = 8;
const WRITE: u16 = 2;
const NEXT: u16 = 1;
const HELLO: [&str; 3] = ["\0 a port ", "of 8-bit", " bytes: \u{ff}\n"];

/// An image that is filled in.
struct Image(Vec<u8>);

impl Image {
    fn put(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }

    fn describe(&mut self, queue: usize, index: usize, (at, bytes, flags): (usize, u32, u16)) {
        let slot = queue + 16 * index;
        self.put(slot, &address(at).to_le_bytes());
        self.put(slot + 8, &bytes.to_le_bytes());
        self.put(slot + 12, &flags.to_le_bytes());
        self.put(slot + 14, &(index as u16 + 1).to_le_bytes());
    }

    /// Heads of chains, in the order in which they are offered.
    fn offer(&mut self, queue: usize, heads: &[u16]) {
        let ring: Vec<u8> = heads.iter().flat_map(|head| head.to_le_bytes()).collect();
        self.put(queue + OFFERED + 4, &ring);
    }
}

fn address(at: usize) -> u64 {
    LOAD + at as u64
}

/// A driver for port `port` of a console that has `adds` ports.
fn driver(port: u32, adds: u32) -> Vec<u8> {
    let begin = &raw const ktstr_console_driver;
    let offset = |symbol: *const u8| symbol as usize - begin as usize;
    // SAFETY: the assembler put exactly these bytes between the two symbols.
    let code = unsafe { std::slice::from_raw_parts(begin, offset(&raw const ktstr_console_driver_end)) };
    let code = [code, &POWER_OFF].concat();
    assert!(code.len() < 0x1000);
    let mut image = Image(with_interrupt(&code, VECTOR, offset(&raw const ktstr_console_handler)));
    image.0.resize(BYTES, 0);
    // Queues of a port: 0 and 1 are the first one's, from 4 on those of the others (virtio 1.2, 5.3.2).
    let input = if port == 0 { 0 } else { 2 * port + 2 };
    registers(&mut image, [(2, CONTROL_IN), (3, CONTROL_OUT), (input, INPUT), (input + 1, OUTPUT)]);
    for index in 0..8 {
        image.describe(CONTROL_IN, index, (ANSWERS + ANSWER as usize * index, ANSWER, WRITE));
    }
    image.offer(CONTROL_IN, &[0, 1, 2, 3, 4, 5, 6, 7]);
    image.put(CONTROL_IN + OFFERED + 2, &[8, 0]);
    // Ready as a device, ready as a port, and open (include/uapi/linux/virtio_console.h).
    for (index, (id, event)) in [(u32::MAX, 0u16), (port, 3), (port, 6)].into_iter().enumerate() {
        image.put(MESSAGES + 8 * index, &message(id, event, 1));
        image.describe(CONTROL_OUT, index, (MESSAGES + 8 * index, 8, 0));
    }
    image.offer(CONTROL_OUT, &[0, 1, 2]);
    let mut at = TEXT;
    for (index, part) in HELLO.iter().enumerate() {
        image.put(at, part.as_bytes());
        let flags = if index + 1 < HELLO.len() { NEXT } else { 0 };
        image.describe(OUTPUT, index, (at, part.len() as u32, flags));
        at += part.len() + 7;
    }
    image.describe(OUTPUT, 3, (ECHO, 0, 0));
    image.offer(OUTPUT, &[0]);
    for index in 0..2 {
        image.describe(INPUT, index, (ROOM + PIECE as usize * index, PIECE, WRITE));
    }
    image.offer(INPUT, &[0, 1]);
    for (index, fact) in [input, input + 1, adds, adds + 2].into_iter().enumerate() {
        image.put(FACTS + 4 * index, &fact.to_le_bytes());
    }
    image.0
}

/// Status, features (several ports; version 1), queues, go (virtio 1.2, 4.2.2).
fn registers(image: &mut Image, queues: [(u32, usize); 4]) {
    let begin = [(0x70, 1), (0x70, 3), (0x24, 0), (0x20, 1 << 1), (0x24, 1), (0x20, 1), (0x70, 11)];
    let mut writes: Vec<(u32, u32)> = begin.to_vec();
    for (number, at) in queues {
        let at = address(at) as u32;
        let rings = [(0x80, at), (0x90, at + OFFERED as u32), (0xa0, at + USED as u32)];
        writes.extend([(0x30, number), (0x38, 16)]);
        writes.extend(rings);
        writes.push((0x44, 1));
    }
    writes.push((0x70, 15));
    for (index, (register, value)) in writes.iter().enumerate() {
        image.put(TABLE + index * 8, &(0xd000_0000 + register).to_le_bytes());
        image.put(TABLE + index * 8 + 4, &value.to_le_bytes());
    }
    image.put(TABLE + writes.len() * 8, &u32::MAX.to_le_bytes());
}

/// `struct virtio_console_control`.
fn message(port: u32, event: u16, value: u16) -> Vec<u8> {
    [&port.to_le_bytes()[..], &event.to_le_bytes(), &value.to_le_bytes()].concat()
}

/// What came over a port, and the names of the threads that brought it.
type Seen = Arc<Mutex<(Vec<u8>, BTreeSet<String>)>>;

fn sink(seen: &Seen) -> Box<dyn Sink> {
    let seen = Arc::clone(seen);
    Box::new(move |bytes: &[u8]| {
        let mut seen = seen.lock().unwrap();
        seen.0.extend_from_slice(bytes);
        seen.1.insert(std::thread::current().name().unwrap_or("?").to_string());
    })
}

/// Waits for so many bytes, and takes them.
fn take(vm: &Vm, seen: &Seen, count: usize) -> Vec<u8> {
    let begin = Instant::now();
    while seen.lock().unwrap().0.len() < count {
        let end = vm.wait(std::time::Duration::from_millis(1));
        let broken = vm.console_broken();
        let late = begin.elapsed() > PATIENCE;
        assert!(end.is_none() && !late, "{end:?}, {broken:?}, {:?}", seen.lock().unwrap());
    }
    std::mem::take(&mut seen.lock().unwrap().0)
}

fn answers(vm: &Vm, count: usize, longest: usize) -> Vec<Vec<u8>> {
    let read = |index: usize| {
        let mut bytes = vec![0; longest];
        let at = LOAD + (ANSWERS + ANSWER as usize * index) as u64;
        vm.ram().memory().read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    };
    (0..count).map(read).collect()
}

/// Sends pieces of many lengths and compares what comes back, byte by byte.
fn talk(vm: &Vm, port: usize, seen: &Seen) {
    assert_eq!(take(vm, seen, HELLO.concat().len()), HELLO.concat().as_bytes());
    for length in [1, 7, 8, 9, 16, 40, 1000] {
        let line: Vec<u8> = (0..length).map(|n: usize| (n * 37 % 251) as u8).filter(|b| *b != b'.').collect();
        assert_eq!(vm.send(port, &line), line.len());
        let expected: Vec<u8> = line.iter().map(|byte| byte ^ 0x20).collect();
        assert_eq!(take(vm, seen, line.len()), expected);
    }
    assert_eq!(vm.send(port, b"."), 1);
    assert_eq!(vm.wait(PATIENCE), Some(VmEnd::PowerOff));
    assert_eq!(seen.lock().unwrap().0, [b'.' ^ 0x20]);
    // Input is looked at in the handler alone, so there was an interrupt for it.
    let interrupts: u32 = vm.ram().memory().read_obj(GuestAddress(INTERRUPTS)).unwrap();
    assert!(interrupts > 0);
}

#[test]
fn a_port_brings_exact_bytes_both_ways() {
    if no_kvm("a_port_brings_exact_bytes_both_ways") {
        return;
    }
    let seen = Seen::default();
    let mut config = Config::new(kernel(&driver(1, 1)), Topology::DEFAULT, 64);
    config.confine = true;
    config.ports = vec![Port::new("echo", sink(&seen))];
    let vm = Vm::boot(config).unwrap();
    talk(&vm, 1, &seen);
    // Added, named, open.
    let named = [message(1, 7, 1), b"echo".to_vec()].concat();
    let padded = |message: Vec<u8>| [message, vec![0; 4]].concat();
    assert_eq!(answers(&vm, 3, 12), [padded(message(1, 1, 1)), named, padded(message(1, 6, 1))]);
    // Kicks reached the thread that serves devices by their eventfds: what traps is served by the vCPU's own thread.
    assert_eq!(seen.lock().unwrap().1, BTreeSet::from(["vm-events".to_string()]));
}

#[test]
fn a_terminal_is_typed_at_and_answers() {
    if no_kvm("a_terminal_is_typed_at_and_answers") {
        return;
    }
    let (seen, other) = (Seen::default(), Seen::default());
    let mut config = Config::new(kernel(&driver(0, 2)), Topology::DEFAULT, 64);
    config.confine = true;
    config.terminal = Some(sink(&seen));
    config.ports = vec![Port::new("other", sink(&other))];
    let vm = Vm::boot(config).unwrap();
    talk(&vm, 0, &seen);
    // Both added; the one that is ready is a terminal, and open.
    let expected = [message(0, 1, 1), message(1, 1, 1), message(0, 4, 1), message(0, 6, 1)];
    assert_eq!(answers(&vm, 4, 8), expected);
    assert!(other.lock().unwrap().0.is_empty());
}
