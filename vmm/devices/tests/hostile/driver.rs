//! A driver of any device behind the MMIO transport, that keeps the rules when asked to.

use super::cursor::{Cursor, RAM};
use ktstr_vmm_devices::virtio::mmio::QUEUE_NOTIFY;
use ktstr_vmm_devices::virtio::{Device, Mmio};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Entries of each queue when the driver keeps the rules.
pub(crate) const SIZE: u16 = 16;
/// Each queue's rings take a page.
const RINGS: u64 = 0x1000;
/// Acts of one input: what a few more could do, a few less could.
const ACTS: usize = 96;
/// `VIRTQ_DESC_F_WRITE` (virtio 1.2, 2.7.5).
pub(crate) const WRITE: u16 = 2;
/// `VIRTQ_DESC_F_NEXT`.
pub(crate) const NEXT: u16 = 1;
const STATUS: u64 = 0x70;

/// A device, its driver and their memory.
pub(crate) struct Driver<D> {
    pub(crate) mmio: Mmio<D>,
    pub(crate) memory: GuestMemoryMmap,
    pub(crate) irq: EventFd,
    available: Vec<u16>,
    /// Features of the low half that it agrees to.
    pub(crate) features: u32,
}

impl<D: Device> Driver<D> {
    pub(crate) fn new(device: D) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), RAM as usize)]).expect("RAM");
        let irq = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
        let features = device.features() as u32;
        let mmio =
            Mmio::new(device, memory.clone(), irq.try_clone().expect("a copy")).expect("sizes are powers");
        let available = vec![0; mmio.queue_count()];
        Self { mmio, memory, irq, available, features }
    }

    pub(crate) fn register(&mut self, offset: u64) -> u32 {
        let mut bytes = [0; 4];
        self.mmio.read(offset, &mut bytes);
        u32::from_le_bytes(bytes)
    }

    /// Writes a register. Only an interrupt that could not be raised is an error, and none can fail here.
    pub(crate) fn set(&mut self, offset: u64, value: u32) {
        self.write(offset, &value.to_le_bytes());
    }

    fn write(&mut self, offset: u64, data: &[u8]) {
        self.mmio.write(offset, data).expect("what a guest does is no error of ours");
        // Nobody else empties it.
        let _ = self.irq.read();
    }

    /// Resets the device and brings it up by the rules.
    pub(crate) fn start(&mut self) {
        self.set(STATUS, 0);
        assert_eq!(self.register(STATUS), 0);
        self.memory.write_slice(&[0; 0x1_0000], GuestAddress(RINGS)).expect("rings are in RAM");
        self.available.fill(0);
        for status in [1, 3] {
            self.set(STATUS, status);
        }
        for (select, value) in [(0, self.features), (1, 1)] {
            self.set(0x24, select);
            self.set(0x20, value);
        }
        self.set(STATUS, 11);
        for queue in 0..self.available.len() {
            self.set(0x30, queue as u32);
            self.set(0x38, u32::from(SIZE));
            for (register, offset) in [(0x80, 0), (0x90, 0x400), (0xa0, 0x800)] {
                self.set(register, ring(queue as u64) as u32 + offset);
            }
            self.set(0x44, 1);
        }
        self.set(STATUS, 15);
        assert_eq!(self.register(STATUS), 15, "a driver that keeps the rules was refused");
        assert!(self.mmio.broken().is_none());
    }

    pub(crate) fn describe(
        &self,
        queue: usize,
        at: u16,
        (address, bytes, flags, next): (u64, u32, u16, u16),
    ) {
        let slot = ring(queue as u64) + u64::from(at) * 16;
        let mut entry = address.to_le_bytes().to_vec();
        entry.extend(bytes.to_le_bytes());
        entry.extend(flags.to_le_bytes());
        entry.extend(next.to_le_bytes());
        self.memory.write_slice(&entry, GuestAddress(slot)).expect("rings are in RAM");
    }

    /// Makes chain `head` available.
    pub(crate) fn offer(&mut self, queue: usize, head: u16) {
        let ring = ring(queue as u64) + 0x400;
        let at = self.available[queue];
        self.memory.write_obj(head, GuestAddress(ring + 4 + u64::from(at % SIZE) * 2)).expect("in RAM");
        self.available[queue] = at.wrapping_add(1);
        self.memory.write_obj(at.wrapping_add(1), GuestAddress(ring + 2)).expect("in RAM");
    }

    pub(crate) fn kick(&mut self, queue: u32) {
        self.set(QUEUE_NOTIFY, queue);
    }

    /// `(head, bytes)` of the last chain that the device used on `queue`, and how many it has used so far.
    pub(crate) fn used(&self, queue: usize) -> (u32, u32, u16) {
        let ring = ring(queue as u64) + 0x800;
        let count: u16 = self.memory.read_obj(GuestAddress(ring + 2)).expect("in RAM");
        let slot = ring + 4 + u64::from(count.wrapping_sub(1) % SIZE) * 8;
        let entry: [u32; 2] = self.memory.read_obj(GuestAddress(slot)).expect("in RAM");
        (entry[0], entry[1], count)
    }

    /// Does what the bytes say. Bytes that stand for nothing of every driver are given to `other`, for what this
    /// one does, or the host meanwhile. `check` looks after each act.
    pub(crate) fn play(
        &mut self,
        input: &[u8],
        mut other: impl FnMut(&mut Self, &mut Cursor<'_>) -> Option<()>,
        mut check: impl FnMut(&mut Self),
    ) {
        let mut cursor = Cursor(input);
        // Most inputs begin with a device that runs: few bytes would ever bring it there.
        if cursor.byte().is_some_and(|byte| byte % 8 != 0) {
            self.start();
        }
        for _ in 0..ACTS {
            if self.act(&mut cursor, &mut other).is_none() {
                break;
            }
            check(self);
        }
    }

    fn act(
        &mut self,
        cursor: &mut Cursor<'_>,
        other: &mut impl FnMut(&mut Self, &mut Cursor<'_>) -> Option<()>,
    ) -> Option<()> {
        let queues = self.available.len();
        let [kind, queue] = cursor.take()?;
        let queue = usize::from(queue) % queues;
        match kind % 16 {
            0..=3 => {
                let at = u16::from(cursor.byte()?) % SIZE;
                let (address, bytes) = (cursor.address(ring)?, cursor.length()?);
                let [flags, next] = cursor.take()?;
                self.describe(
                    queue,
                    at,
                    (address, bytes, u16::from(flags % 8), u16::from(next) % (SIZE + 2)),
                );
            }
            4..=6 => {
                let head = u16::from(cursor.byte()?) % (SIZE + 4);
                self.offer(queue, head);
            }
            7 | 8 => self.kick(queue as u32),
            9 => {
                let value = cursor.short()?;
                self.memory.write_obj(value, GuestAddress(ring(queue as u64) + 0x402)).expect("in RAM");
            }
            10 => {
                let (register, value) = (u64::from(cursor.byte()? % 0x44) * 4, cursor.word()?);
                self.set(register, value);
            }
            11 => {
                let (offset, bytes) = (u64::from(cursor.short()?), cursor.byte()? % 9);
                let data = cursor.some(usize::from(bytes));
                self.write(offset, &data);
            }
            12 => {
                let (offset, bytes) = (u64::from(cursor.short()?), cursor.byte()? % 9);
                self.mmio.read(offset, &mut vec![0; usize::from(bytes)]);
                self.mmio.read(u64::MAX - offset, &mut vec![0; usize::from(bytes)]);
            }
            13 => {
                let at = u64::from(cursor.word()?) % (RAM - 64);
                let data = cursor.some(usize::from(queue as u8 % 8) * 8);
                self.memory.write_slice(&data, GuestAddress(at)).expect("in RAM");
            }
            14 if queue == 0 => self.start(),
            _ => other(self, cursor)?,
        }
        Some(())
    }
}

/// Where the rings of `queue` are.
pub(crate) fn ring(queue: u64) -> u64 {
    RINGS * (queue + 1)
}
