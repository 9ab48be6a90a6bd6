//! A driver that keeps the rules, and one that keeps none.

use super::*;
use crate::virtio::Mmio;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const RAM: u64 = 1 << 20;
const SIZE: u16 = 16;
/// Each queue's rings take a page; buffers start after them.
const RINGS: u64 = 0x1000;
const BUFFERS: u64 = 0x2_0000;
const NEXT: u16 = 1;
const WRITE: u16 = 2;

/// Stands for the driver: sets the device up and moves chains by hand.
struct Driver {
    mmio: Mmio<Console>,
    memory: GuestMemoryMmap,
    irq: EventFd,
    seen: Arc<Mutex<Vec<u8>>>,
    available: Vec<u16>,
}

impl Driver {
    /// The port without a name is the terminal.
    fn new(names: &[&str]) -> Self {
        let (is_terminal, names) = match names {
            ["", named @ ..] => (true, named),
            named => (false, named),
        };
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).unwrap();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = || {
            let into = Arc::clone(&seen);
            Box::new(move |bytes: &[u8]| into.lock().unwrap().extend_from_slice(bytes))
        };
        let mut console = Console::new(names.iter().map(|name| Port::new(*name, sink())).collect());
        if is_terminal {
            console = console.with_terminal(sink());
        }
        let mmio = Mmio::new(console, memory.clone(), irq.try_clone().unwrap()).unwrap();
        let queues = mmio.queue_count();
        Self { mmio, memory, irq, seen, available: vec![0; queues] }
    }

    fn register(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.mmio.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    fn set(&mut self, offset: u64, value: u32) {
        self.mmio.write(offset, &value.to_le_bytes()).unwrap();
    }

    fn start(mut self) -> Self {
        self.set(0x70, 1);
        self.set(0x70, 3);
        self.set(0x24, 0);
        self.set(0x20, 1 << VIRTIO_CONSOLE_F_MULTIPORT);
        self.set(0x24, 1);
        self.set(0x20, 1);
        self.set(0x70, 11);
        assert_eq!(self.register(0x70), 11);
        for queue in 0..self.mmio.queue_count() as u32 {
            self.set(0x30, queue);
            self.set(0x38, u32::from(SIZE));
            let base = ring(queue as usize) as u32;
            self.set(0x80, base);
            self.set(0x90, base + 0x400);
            self.set(0xa0, base + 0x800);
            self.set(0x44, 1);
        }
        self.set(0x70, 15);
        assert_eq!(self.register(0x70), 15);
        self
    }

    /// Writes descriptor `at` of `queue`.
    fn describe(&self, queue: usize, at: u16, (address, bytes, flags, next): (u64, u32, u16, u16)) {
        let slot = ring(queue) + u64::from(at) * 16;
        self.memory.write_obj(address, GuestAddress(slot)).unwrap();
        self.memory.write_obj(bytes, GuestAddress(slot + 8)).unwrap();
        self.memory.write_obj(flags, GuestAddress(slot + 12)).unwrap();
        self.memory.write_obj(next, GuestAddress(slot + 14)).unwrap();
    }

    /// Makes chain `head` available.
    fn offer(&mut self, queue: usize, head: u16) {
        let ring = ring(queue) + 0x400;
        let at = self.available[queue];
        self.memory.write_obj(head, GuestAddress(ring + 4 + u64::from(at % SIZE) * 2)).unwrap();
        self.available[queue] = at.wrapping_add(1);
        self.memory.write_obj(at.wrapping_add(1), GuestAddress(ring + 2)).unwrap();
    }

    fn send(&mut self, queue: usize, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(BUFFERS)).unwrap();
        self.describe(queue, 0, (BUFFERS, bytes.len() as u32, 0, 0));
        self.offer(queue, 0);
        self.set(0x50, queue as u32);
    }

    fn control(&mut self, port: u32, event: u32, value: u16) {
        let mut message = port.to_le_bytes().to_vec();
        message.extend((event as u16).to_le_bytes());
        message.extend(value.to_le_bytes());
        self.send(CONTROL_TRANSMIT, &message);
    }

    /// Gives the device buffers of 64 bytes on `queue`.
    fn give(&mut self, queue: usize, count: u16) {
        for at in 0..count {
            self.describe(queue, at, (buffer(queue, at), 64, WRITE, 0));
            self.offer(queue, at);
        }
        self.set(0x50, queue as u32);
    }

    /// What the device put into the buffers of `queue`.
    fn taken(&self, queue: usize) -> Vec<Vec<u8>> {
        let ring = ring(queue) + 0x800;
        let count: u16 = self.memory.read_obj(GuestAddress(ring + 2)).unwrap();
        let entry = |at: u16| {
            let slot = ring + 4 + u64::from(at) * 8;
            let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
            let length: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
            let mut bytes = vec![0; length as usize];
            self.memory.read_slice(&mut bytes, GuestAddress(buffer(queue, head as u16))).unwrap();
            bytes
        };
        (0..count).map(entry).collect()
    }
}

fn ring(queue: usize) -> u64 {
    RINGS * (queue as u64 + 1)
}

fn buffer(queue: usize, at: u16) -> u64 {
    BUFFERS + 0x1_0000 + queue as u64 * 0x1000 + u64::from(at) * 64
}

fn message(port: u32, event: u32, tail: &[u8]) -> Vec<u8> {
    let mut bytes = port.to_le_bytes().to_vec();
    bytes.extend((event as u16).to_le_bytes());
    bytes.extend([1, 0]);
    bytes.extend(tail);
    bytes
}

#[test]
fn ports_are_added_named_and_opened() {
    let mut driver = Driver::new(&["one", "two"]).start();
    assert_eq!(driver.register(0x104), 3);
    driver.give(CONTROL_RECEIVE, 8);
    driver.control(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    let added = [message(1, VIRTIO_CONSOLE_PORT_ADD, b""), message(2, VIRTIO_CONSOLE_PORT_ADD, b"")];
    assert_eq!(driver.taken(CONTROL_RECEIVE), added);
    driver.control(2, VIRTIO_CONSOLE_PORT_READY, 1);
    let all = driver.taken(CONTROL_RECEIVE);
    assert_eq!(all[2], message(2, VIRTIO_CONSOLE_PORT_NAME, b"two"));
    assert_eq!(all[3], message(2, VIRTIO_CONSOLE_PORT_OPEN, b""));
    assert!(!driver.mmio.device().is_open(2));
    driver.control(2, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert!(driver.mmio.device().is_open(2) && !driver.mmio.device().is_open(1));
}

#[test]
fn a_terminal_is_port_0_and_is_typed_at() {
    let mut driver = Driver::new(&["", "one"]).start();
    assert_eq!(driver.register(0x104), 2);
    driver.give(CONTROL_RECEIVE, 8);
    driver.control(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    driver.control(0, VIRTIO_CONSOLE_PORT_READY, 1);
    let events = [
        (0, VIRTIO_CONSOLE_PORT_ADD),
        (1, VIRTIO_CONSOLE_PORT_ADD),
        (0, VIRTIO_CONSOLE_CONSOLE_PORT),
        (0, VIRTIO_CONSOLE_PORT_OPEN),
    ];
    assert_eq!(driver.taken(CONTROL_RECEIVE), events.map(|(port, event)| message(port, event, b"")));
    driver.send(1, b"login: ");
    assert_eq!(*driver.seen.lock().unwrap(), b"login: ");
    driver.give(0, 2);
    assert_eq!(driver.mmio.device().input(0, b"root"), 4);
    driver.mmio.serve(Console::receive_queue(0)).unwrap();
    assert!(driver.taken(0).is_empty(), "no one has it open yet");
    driver.control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_eq!(driver.taken(0), [b"root".to_vec()]);
    // Where there is none, its queues lead nowhere.
    let mut driver = Driver::new(&["one"]).start();
    assert_eq!(driver.mmio.device().input(0, b"root"), 0);
    driver.send(1, b"to nobody");
    assert!(driver.seen.lock().unwrap().is_empty() && driver.mmio.broken().is_none());
}

#[test]
fn bytes_go_both_ways_and_raise_interrupts() {
    let mut driver = Driver::new(&["one"]).start();
    assert!(driver.irq.read().is_err());
    driver.send(5, b"from the guest");
    assert_eq!(*driver.seen.lock().unwrap(), b"from the guest");
    assert!(driver.irq.read().is_ok());
    assert_eq!(driver.register(0x60), 1);
    driver.set(0x64, 1);
    assert_eq!(driver.register(0x60), 0);
    driver.give(4, 2);
    assert!(driver.irq.read().is_err(), "nothing was used, so nothing is to be told");
    let text = [b'x'; 100];
    assert_eq!(driver.mmio.device().input(1, &text), 100);
    driver.mmio.serve(Console::receive_queue(1)).unwrap();
    assert!(driver.taken(4).is_empty(), "no one has the port open yet");
    driver.control(1, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_eq!(driver.taken(4).concat(), text);
    assert_eq!(driver.mmio.device().input(2, b"no such port"), 0);
}

#[test]
fn an_interrupt_is_raised_however_often_the_ring_wraps() {
    let mut driver = Driver::new(&["one"]).start();
    for round in 0..70_000u32 {
        driver.send(5, b"x");
        assert!(driver.irq.read().is_ok(), "round {round}");
    }
}

#[test]
fn a_driver_that_skips_steps_gets_nowhere() {
    let mut driver = Driver::new(&["one"]);
    driver.set(0x70, 4);
    assert_eq!(driver.register(0x70), 0);
    driver.set(0x70, 3);
    driver.set(0x24, 0);
    driver.set(0x20, u32::MAX);
    driver.set(0x70, 11);
    assert_eq!(driver.register(0x70) & 8, 0, "features that don't exist were accepted");
    driver.send(5, b"lost");
    assert!(driver.seen.lock().unwrap().is_empty());
}

#[test]
fn rings_outside_ram_need_a_reset_which_helps() {
    let mut driver = Driver::new(&["one"]);
    for status in [1, 3] {
        driver.set(0x70, status);
    }
    driver.set(0x24, 1);
    driver.set(0x20, 1);
    driver.set(0x70, 11);
    driver.set(0x30, 5);
    driver.set(0x84, 0xffff);
    driver.set(0x44, 1);
    driver.set(0x70, 15);
    assert_ne!(driver.register(0x70) & NEEDS_RESET_BIT, 0);
    assert!(driver.mmio.broken().is_some());
    driver.set(0x70, 0);
    assert!(driver.mmio.broken().is_none());
    let mut driver = driver.start();
    driver.send(5, b"well");
    assert_eq!(*driver.seen.lock().unwrap(), b"well");
}

/// Linux resets its devices when it powers off, and no one may have served the kick yet.
#[test]
fn what_was_sent_before_a_reset_arrives() {
    let mut driver = Driver::new(&["one"]).start();
    driver.memory.write_slice(b"last words", GuestAddress(BUFFERS)).unwrap();
    driver.describe(5, 0, (BUFFERS, 10, 0, 0));
    driver.offer(5, 0);
    driver.set(0x70, 0);
    assert_eq!(*driver.seen.lock().unwrap(), b"last words");
}

const NEEDS_RESET_BIT: u32 = 64;

#[test]
fn a_chain_longer_than_any_driver_makes_is_refused() {
    let mut driver = Driver::new(&["one"]).start();
    for at in 0..8 {
        driver.describe(5, at, (0, RAM as u32, if at < 7 { NEXT } else { 0 }, at + 1));
    }
    driver.offer(5, 0);
    driver.set(0x50, 5);
    assert!(matches!(driver.mmio.broken(), Some(VirtioError::ChainTooLong { bytes: 0x80_0000, .. })));
    assert!(driver.seen.lock().unwrap().is_empty());
}

#[test]
fn a_driver_that_asks_and_never_listens_is_refused() {
    let mut driver = Driver::new(&["one"]).start();
    for _ in 0..100 {
        driver.control(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    }
    assert!(matches!(driver.mmio.broken(), Some(VirtioError::Owed { .. })));
}

#[derive(Debug, Clone)]
enum Act {
    Describe { queue: usize, at: u16, address: u64, bytes: u32, flags: u16, next: u16 },
    Offer { queue: usize, head: u16 },
    Index { queue: usize, value: u16 },
    Register { offset: u64, value: u32 },
    Odd { offset: u64, data: Vec<u8> },
    Read { offset: u64, bytes: usize },
    Kick { queue: u32 },
    Input { port: usize, bytes: usize },
}

fn address() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..RAM,
        1 => RAM - 16..RAM + 16,
        1 => any::<u64>(),
        1 => Just(u64::MAX - 7),
        2 => (0u64..8).prop_map(ring_of),
    ]
}

fn ring_of(queue: u64) -> u64 {
    RINGS * (queue + 1)
}

fn act() -> impl Strategy<Value = Act> {
    let queue = 0usize..6;
    let length = prop_oneof![Just(0u32), 1u32..4096, Just(u32::MAX), Just(1 << 20), any::<u32>()];
    prop_oneof![
        4 => (queue.clone(), 0u16..SIZE, address(), length, 0u16..8, 0u16..SIZE + 2).prop_map(
            |(queue, at, address, bytes, flags, next)| Act::Describe { queue, at, address, bytes, flags, next }
        ),
        4 => (queue.clone(), 0u16..SIZE + 4).prop_map(|(queue, head)| Act::Offer { queue, head }),
        1 => (queue, any::<u16>()).prop_map(|(queue, value)| Act::Index { queue, value }),
        2 => (0u64..0x44, any::<u32>()).prop_map(|(word, value)| Act::Register { offset: word * 4, value }),
        1 => (0u64..0x2000, prop::collection::vec(any::<u8>(), 0..9)).prop_map(|(offset, data)| Act::Odd { offset, data }),
        1 => (any::<u64>(), 0usize..9).prop_map(|(offset, bytes)| Act::Read { offset, bytes }),
        4 => (0u32..8).prop_map(|queue| Act::Kick { queue }),
        1 => (0usize..4, 0usize..5000).prop_map(|(port, bytes)| Act::Input { port, bytes }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever the guest does, the device answers: no panic, no endless loop, no
    /// more bytes out than chains of the permitted length hold.
    #[test]
    fn a_hostile_driver_harms_no_one_but_itself(acts in prop::collection::vec(act(), 1..60)) {
        let mut driver = Driver::new(&["one"]).start();
        let mut kicks = 0;
        for act in acts {
            match act {
                Act::Describe { queue, at, address, bytes, flags, next } => {
                    driver.describe(queue, at, (address, bytes, flags, next));
                }
                Act::Offer { queue, head } => driver.offer(queue, head),
                Act::Index { queue, value } => {
                    driver.memory.write_obj(value, GuestAddress(ring(queue) + 0x402)).unwrap();
                }
                Act::Register { offset, value } => driver.set(offset, value),
                Act::Odd { offset, data } => driver.mmio.write(offset, &data).unwrap(),
                Act::Read { offset, bytes } => driver.mmio.read(offset, &mut vec![0; bytes]),
                Act::Kick { queue } => {
                    kicks += 1;
                    driver.set(0x50, queue);
                }
                Act::Input { port, bytes } => {
                    driver.mmio.device().input(port, &vec![0; bytes]);
                    driver.mmio.serve(Console::receive_queue(port)).unwrap();
                }
            }
        }
        prop_assert!(driver.seen.lock().unwrap().len() <= (kicks + 60) * usize::from(SIZE) * MAX_CHAIN);
        driver.set(0x70, 0);
        driver.available.fill(0);
        driver.memory.write_slice(&[0; 0x1_0000], GuestAddress(RINGS)).unwrap();
        driver.seen.lock().unwrap().clear();
        let mut driver = driver.start();
        driver.send(5, b"still works");
        prop_assert_eq!(&*driver.seen.lock().unwrap(), b"still works");
    }
}

impl Driver {
    /// The same driver, in front of a device that goes on from what this one's was.
    fn after_a_save(self) -> Self {
        let transport = self.mmio.state().unwrap();
        let Self { mut mmio, memory, seen, available, .. } = self;
        let console = mmio.device().state();
        let names: Vec<_> = mmio.device().ports.named.iter().map(|port| port.name.clone()).collect();
        let is_terminal = mmio.device().ports.terminal.is_some();
        let into = Arc::clone(&seen);
        let sink = move || {
            let into = Arc::clone(&into);
            Box::new(move |bytes: &[u8]| into.lock().unwrap().extend_from_slice(bytes))
        };
        let ports = names.iter().map(|name| Port::new(name, sink())).collect();
        let irq = EventFd::new(EFD_NONBLOCK).unwrap();
        let mut console_again = Console::new(ports);
        if is_terminal {
            console_again = console_again.with_terminal(sink());
        }
        let mut mmio = Mmio::new(console_again, memory.clone(), irq.try_clone().unwrap()).unwrap();
        mmio.device().restore(console.clone()).unwrap();
        mmio.restore(&transport).unwrap();
        assert_eq!((mmio.state().unwrap(), mmio.device().state()), (transport, console));
        Self { mmio, memory, irq, seen, available }
    }
}

#[test]
fn a_saved_console_goes_on_where_it_was() {
    let mut driver = Driver::new(&["data", "stdio"]).start();
    driver.control(2, VIRTIO_CONSOLE_PORT_OPEN, 1);
    driver.send(5, b"before ");
    assert_eq!(driver.mmio.device().input(2, b"waiting"), 7);
    driver.control(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
    driver.irq.read().unwrap();
    let mut driver = driver.after_a_save();
    assert!(driver.irq.read().is_ok(), "an interrupt that nobody had acknowledged is lost");
    driver.send(5, b"and after");
    assert_eq!(*driver.seen.lock().unwrap(), b"before and after");
    let input = Console::receive_queue(2);
    driver.give(input, 1);
    assert_eq!(driver.taken(input), [b"waiting".to_vec()]);
    driver.give(CONTROL_RECEIVE, 2);
    assert_eq!(driver.taken(CONTROL_RECEIVE).len(), 2, "the answers to a driver that is ready are lost");
    // What the driver acknowledges isn't raised once more.
    driver.set(0x64, 3);
    let driver = driver.after_a_save();
    assert!(driver.irq.read().is_err());
}

#[test]
fn what_was_typed_waits_in_a_saved_terminal() {
    let mut driver = Driver::new(&["", "data"]).start();
    driver.control(0, VIRTIO_CONSOLE_PORT_OPEN, 1);
    assert_eq!(driver.mmio.device().input(0, b"ls"), 2);
    let mut driver = driver.after_a_save();
    driver.give(0, 1);
    assert_eq!(driver.taken(0), [b"ls".to_vec()]);
}

#[test]
fn states_that_are_not_this_devices_are_refused() {
    let mut driver = Driver::new(&["data", "stdio"]).start();
    let (transport, console) = (driver.mmio.state().unwrap(), driver.mmio.device().state());
    let mut other = Driver::new(&["data", "stop"]);
    assert!(other.mmio.device().restore(console.clone()).unwrap_err().to_string().contains("data, stop"));
    let mut terminal = Driver::new(&["", "data", "stdio"]);
    let text = terminal.mmio.device().restore(console.clone()).unwrap_err().to_string();
    assert!(text.contains("saved with no terminal, here is a terminal"), "{text}");
    let mut fewer = Driver::new(&["data"]);
    assert!(fewer.mmio.device().restore(console).is_err());
    assert!(fewer.mmio.restore(&transport).unwrap_err().to_string().contains("8 queues, expected 6"));
    // Rings outside of RAM: a machine with less of it.
    let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
    let ports = ["data", "stdio"].map(|name| Port::new(name, Box::new(|_: &[u8]| {})));
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let error = Mmio::new(Console::new(ports.into()), memory, irq).unwrap().restore(&transport).unwrap_err();
    assert!(error.to_string().contains("queue"), "{error}");
    // A broken device has nothing to go on with.
    driver.describe(5, 0, (RAM, 8, 0, 0));
    driver.offer(5, 0);
    driver.set(0x50, 5);
    assert!(driver.mmio.broken().is_some() && driver.mmio.state().is_err());
}
