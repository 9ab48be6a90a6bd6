//! virtio console with several named ports (virtio 1.2, 5.3).
//!
//! Ports from 1 on are named byte streams, `/dev/vport<device>p<port>` in the guest, with
//! their names in `/sys/class/virtio-ports/*/name`. Port 0, where there is one, is a
//! terminal: `/dev/hvc0`.

mod state;

pub use state::ConsoleState;

use super::chain::{chains, next_chain, reader, used, writer};
use super::{Device, VirtioError, read_from};
use crate::Sink;
use std::collections::VecDeque;
use std::io::{Read, Write};
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

// include/uapi/linux/virtio_console.h
const VIRTIO_CONSOLE_F_MULTIPORT: u32 = 1;
const VIRTIO_CONSOLE_DEVICE_READY: u32 = 0;
const VIRTIO_CONSOLE_PORT_ADD: u32 = 1;
const VIRTIO_CONSOLE_PORT_READY: u32 = 3;
const VIRTIO_CONSOLE_CONSOLE_PORT: u32 = 4;
const VIRTIO_CONSOLE_PORT_OPEN: u32 = 6;
const VIRTIO_CONSOLE_PORT_NAME: u32 = 7;

/// `VIRTIO_ID_CONSOLE` (include/uapi/linux/virtio_ids.h).
const ID: u32 = 3;
const QUEUE_SIZE: u16 = 128;
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
/// Longest chain that is served: Linux sends 32 KiB at most.
pub const MAX_CHAIN: usize = 1 << 20;
/// Bytes that may wait for the guest to read them, by port.
pub const MAX_INPUT: usize = 1 << 20;
const CHUNK: usize = 32 << 10;
/// Size of `struct virtio_console_control`: port, event, value.
const CONTROL_BYTES: usize = 8;

/// One stream.
pub struct Port {
    name: String,
    sink: Box<dyn Sink>,
    input: VecDeque<u8>,
    open: bool,
}

impl Port {
    /// A port of this name; what the guest writes there goes to `sink`.
    #[must_use]
    pub fn new(name: impl Into<String>, sink: Box<dyn Sink>) -> Self {
        Self { name: name.into(), sink, input: VecDeque::new(), open: false }
    }
}

/// The ports by their numbers.
struct Ports {
    /// Port 0.
    terminal: Option<Port>,
    /// From port 1 on.
    named: Vec<Port>,
}

impl Ports {
    fn get(&self, id: usize) -> Option<&Port> {
        id.checked_sub(1).map_or(self.terminal.as_ref(), |index| self.named.get(index))
    }

    fn get_mut(&mut self, id: usize) -> Option<&mut Port> {
        match id.checked_sub(1) {
            None => self.terminal.as_mut(),
            Some(index) => self.named.get_mut(index),
        }
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut Port> {
        self.terminal.iter_mut().chain(&mut self.named)
    }

    fn ids(&self) -> std::ops::RangeInclusive<usize> {
        usize::from(self.terminal.is_none())..=self.named.len()
    }
}

/// The device.
pub struct Console {
    ports: Ports,
    queue_sizes: Vec<u16>,
    answers: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Console {
    /// A console of these ports, numbered from 1.
    #[must_use]
    pub fn new(ports: Vec<Port>) -> Self {
        let queues = 2 * (ports.len() + 2);
        Self {
            ports: Ports { terminal: None, named: ports },
            queue_sizes: vec![QUEUE_SIZE; queues],
            answers: VecDeque::new(),
            buffer: vec![0; CHUNK],
        }
    }

    /// The same with a terminal as port 0; what the guest prints there goes to `sink`.
    #[must_use]
    pub fn with_terminal(mut self, sink: Box<dyn Sink>) -> Self {
        self.ports.terminal = Some(Port::new("", sink));
        self
    }

    /// Gives the guest bytes to read from port `port`; returns how many were taken.
    /// The caller then serves [`receive_queue`](Self::receive_queue).
    pub fn input(&mut self, port: usize, bytes: &[u8]) -> usize {
        let Some(port) = self.ports.get_mut(port) else { return 0 };
        let room = MAX_INPUT.saturating_sub(port.input.len()).min(bytes.len());
        port.input.extend(&bytes[..room]);
        room
    }

    /// True while the guest has port `port` open.
    #[must_use]
    pub fn is_open(&self, port: usize) -> bool {
        self.ports.get(port).is_some_and(|port| port.open)
    }

    /// The queue that brings input of port `port` to the guest.
    #[must_use]
    pub const fn receive_queue(port: usize) -> usize {
        if port == 0 { 0 } else { 2 * port + 2 }
    }

    /// Owes the driver a message.
    fn answer(&mut self, port: usize, event: u32, value: u16, tail: &[u8]) {
        let mut message = Vec::with_capacity(CONTROL_BYTES + tail.len());
        message.extend((port as u32).to_le_bytes());
        message.extend((event as u16).to_le_bytes());
        message.extend(value.to_le_bytes());
        message.extend(tail);
        self.answers.push_back(message);
    }

    fn control(&mut self, message: [u8; CONTROL_BYTES]) {
        let [p0, p1, p2, p3, e0, e1, v0, v1] = message;
        let id = u32::from_le_bytes([p0, p1, p2, p3]) as usize;
        let (event, value) = (u32::from(u16::from_le_bytes([e0, e1])), u16::from_le_bytes([v0, v1]));
        match event {
            VIRTIO_CONSOLE_DEVICE_READY if value == 1 => {
                for port in self.ports.ids() {
                    self.answer(port, VIRTIO_CONSOLE_PORT_ADD, 1, &[]);
                }
            }
            VIRTIO_CONSOLE_PORT_READY if value == 1 => {
                let Some(name) = self.ports.get(id).map(|port| port.name.clone()) else { return };
                match id {
                    0 => self.answer(id, VIRTIO_CONSOLE_CONSOLE_PORT, 1, &[]),
                    _ => self.answer(id, VIRTIO_CONSOLE_PORT_NAME, 1, name.as_bytes()),
                }
                self.answer(id, VIRTIO_CONSOLE_PORT_OPEN, 1, &[]);
            }
            VIRTIO_CONSOLE_PORT_OPEN => {
                if let Some(port) = self.ports.get_mut(id) {
                    port.open = value == 1;
                }
            }
            _ => {}
        }
    }

    fn control_from_guest(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError> {
        let queue = CONTROL_TRANSMIT;
        for chain in chains(queue, queues, memory)? {
            let head = chain.head_index();
            let mut reader = reader(queue, chain, memory, MAX_CHAIN)?;
            let mut message = [0; CONTROL_BYTES];
            // A shorter message is no message.
            if reader.available_bytes() >= CONTROL_BYTES {
                reader.read_exact(&mut message).map_err(|source| VirtioError::Copy { queue, source })?;
                self.control(message);
            }
            used(queue, queues, memory, head, 0)?;
            self.control_to_guest(queues, memory)?;
            for port in self.ports.ids() {
                self.give_input(port, queues, memory)?;
            }
        }
        let owed = self.answers.len();
        if owed > self.most_owed() { Err(VirtioError::Owed { owed }) } else { Ok(()) }
    }

    /// A driver asks each port twice at most before it gives room for the answers.
    fn most_owed(&self) -> usize {
        4 * (self.ports.named.len() + 2)
    }

    fn control_to_guest(
        &mut self,
        queues: &mut [Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError> {
        let queue = CONTROL_RECEIVE;
        for _ in 0..QUEUE_SIZE {
            if self.answers.is_empty() {
                break;
            }
            let Some(chain) = next_chain(queue, queues, memory)? else { break };
            let head = chain.head_index();
            let mut writer = writer(queue, chain, memory)?;
            let mut written = 0;
            if let Some(answer) = self.answers.pop_front() {
                // What doesn't fit is cut, as the specification has it for names.
                written = answer.len().min(writer.available_bytes());
                writer.write_all(&answer[..written]).map_err(|source| VirtioError::Copy { queue, source })?;
            }
            used(queue, queues, memory, head, written)?;
        }
        Ok(())
    }

    fn take_output(
        &mut self,
        id: usize,
        queue: usize,
        queues: &mut [Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError> {
        for chain in chains(queue, queues, memory)? {
            let head = chain.head_index();
            let mut reader = reader(queue, chain, memory, MAX_CHAIN)?;
            loop {
                let count =
                    reader.read(&mut self.buffer).map_err(|source| VirtioError::Copy { queue, source })?;
                if count == 0 {
                    break;
                }
                if let Some(port) = self.ports.get_mut(id) {
                    port.sink.take(&self.buffer[..count]);
                }
            }
            used(queue, queues, memory, head, 0)?;
        }
        Ok(())
    }

    fn give_input(
        &mut self,
        id: usize,
        queues: &mut [Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError> {
        let queue = Self::receive_queue(id);
        let Some(port) = self.ports.get_mut(id) else { return Ok(()) };
        for _ in 0..QUEUE_SIZE {
            // Linux throws away what comes in while no one has the port open
            // (`in_intr()` in drivers/char/virtio_console.c), so it waits here.
            if port.input.is_empty() || !port.open {
                break;
            }
            let Some(chain) = next_chain(queue, queues, memory)? else { break };
            let head = chain.head_index();
            let mut writer = writer(queue, chain, memory)?;
            let count = port.input.len().min(writer.available_bytes()).min(MAX_CHAIN);
            let bytes: Vec<u8> = port.input.drain(..count).collect();
            writer.write_all(&bytes).map_err(|source| VirtioError::Copy { queue, source })?;
            used(queue, queues, memory, head, count)?;
        }
        Ok(())
    }
}

impl Device for Console {
    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        1 << VIRTIO_CONSOLE_F_MULTIPORT
    }

    fn queue_sizes(&self) -> &[u16] {
        &self.queue_sizes
    }

    /// `struct virtio_console_config`: columns, rows, max_nr_ports, emergency write.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0u8; 12];
        config[4..8].copy_from_slice(&(self.ports.named.len() as u32 + 1).to_le_bytes());
        read_from(&config, offset, data);
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError> {
        let id = match queue {
            CONTROL_RECEIVE => return self.control_to_guest(queues, memory),
            CONTROL_TRANSMIT => return self.control_from_guest(queues, memory),
            0 | 1 => 0,
            queue => (queue - 2) / 2,
        };
        match self.ports.get(id) {
            None => Ok(()),
            Some(_) if queue.is_multiple_of(2) => self.give_input(id, queues, memory),
            Some(_) => self.take_output(id, queue, queues, memory),
        }
    }

    fn reset(&mut self) {
        self.answers.clear();
        for port in self.ports.iter_mut() {
            port.input.clear();
            port.open = false;
        }
    }
}

#[cfg(test)]
mod tests;
