//! The MMIO transport (virtio 1.2, 4.2), version 2.

mod state;

pub use state::MmioState;
pub(super) use state::unfit;

use super::{Device, VirtioError};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_ACKNOWLEDGE, VIRTIO_CONFIG_S_DRIVER, VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FAILED,
    VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_queue::{Queue, QueueT};
use vm_memory::GuestMemoryMmap;
use vmm_sys_util::eventfd::EventFd;

/// Offset of the register that the driver writes a queue's number to when it has
/// put something there.
pub const QUEUE_NOTIFY: u64 = 0x50;
/// Bytes of registers and configuration space.
pub const REGION_BYTES: u64 = 0x1000;

/// `virt`.
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"ktst");
const CONFIG: u64 = 0x100;
const INTERRUPT_QUEUE: u32 = 1;
const INTERRUPT_CONFIG: u32 = 2;

const ACKNOWLEDGE: u32 = VIRTIO_CONFIG_S_ACKNOWLEDGE;
const DRIVER: u32 = VIRTIO_CONFIG_S_DRIVER;
const FEATURES_OK: u32 = VIRTIO_CONFIG_S_FEATURES_OK;
const DRIVER_OK: u32 = VIRTIO_CONFIG_S_DRIVER_OK;
const NEEDS_RESET: u32 = VIRTIO_CONFIG_S_NEEDS_RESET;
const FAILED: u32 = VIRTIO_CONFIG_S_FAILED;

/// A device with its registers and queues.
pub struct Mmio<D> {
    device: D,
    memory: GuestMemoryMmap,
    queues: Vec<Queue>,
    interrupt: EventFd,
    interrupt_status: u32,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    broken: Option<VirtioError>,
}

impl<D: Device> Mmio<D> {
    /// A device before its driver has found it.
    ///
    /// # Errors
    /// A queue size that is no power of two.
    pub fn new(device: D, memory: GuestMemoryMmap, interrupt: EventFd) -> Result<Self, VirtioError> {
        let queues = device
            .queue_sizes()
            .iter()
            .enumerate()
            .map(|(queue, size)| Queue::new(*size).map_err(|source| VirtioError::Queue { queue, source }))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            device,
            memory,
            queues,
            interrupt,
            interrupt_status: 0,
            status: 0,
            device_features_select: 0,
            driver_features_select: 0,
            driver_features: 0,
            queue_select: 0,
            broken: None,
        })
    }

    /// The device behind the registers.
    pub fn device(&mut self) -> &mut D {
        &mut self.device
    }

    /// Number of queues.
    pub fn queue_count(&self) -> usize {
        self.queues.len()
    }

    /// Why the device needs a reset, when it does.
    pub fn broken(&self) -> Option<&VirtioError> {
        self.broken.as_ref()
    }

    /// The guest reads `data.len()` bytes at `offset`.
    pub fn read(&mut self, offset: u64, data: &mut [u8]) {
        if offset >= CONFIG {
            data.fill(0);
            self.device.read_config(offset - CONFIG, data);
        } else if data.len() == 4 && offset.is_multiple_of(4) {
            data.copy_from_slice(&self.register(offset).to_le_bytes());
        } else {
            data.fill(0);
        }
    }

    /// The guest writes `data` at `offset`.
    ///
    /// # Errors
    /// Only an interrupt that could not be raised: what the guest does wrong is kept
    /// in [`broken`](Self::broken).
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), VirtioError> {
        if offset >= CONFIG {
            if self.status & DRIVER != 0 {
                self.device.write_config(offset - CONFIG, data);
            }
            return Ok(());
        }
        match <[u8; 4]>::try_from(data) {
            Ok(bytes) if offset.is_multiple_of(4) => self.set_register(offset, u32::from_le_bytes(bytes)),
            _ => Ok(()),
        }
    }

    /// Serves a queue that was kicked, or for which the host has something new.
    ///
    /// # Errors
    /// Only an interrupt that could not be raised.
    pub fn serve(&mut self, queue: usize) -> Result<(), VirtioError> {
        let running = DRIVER_OK | FEATURES_OK;
        if self.status & running != running
            || self.status & (NEEDS_RESET | FAILED) != 0
            || queue >= self.queues.len()
        {
            return Ok(());
        }
        let before: Vec<u16> = self.queues.iter().map(QueueT::next_used).collect();
        let served = self.device.serve(queue, &mut self.queues, &self.memory);
        match served.and_then(|()| self.wants_interrupt(&before)) {
            Ok(true) => self.raise(INTERRUPT_QUEUE),
            Ok(false) => Ok(()),
            Err(broken) => self.give_up(broken),
        }
    }

    /// Whether the driver wants to hear of what was used since `before`.
    fn wants_interrupt(&mut self, before: &[u16]) -> Result<bool, VirtioError> {
        let mut wanted = false;
        for (queue, (state, before)) in self.queues.iter_mut().zip(before).enumerate() {
            if state.next_used() != *before {
                let needs = state.needs_notification(&self.memory);
                wanted |= needs.map_err(|source| VirtioError::Queue { queue, source })?;
            }
        }
        Ok(wanted)
    }

    fn give_up(&mut self, broken: VirtioError) -> Result<(), VirtioError> {
        self.status |= NEEDS_RESET;
        self.broken = Some(broken);
        self.raise(INTERRUPT_CONFIG)
    }

    fn raise(&mut self, kind: u32) -> Result<(), VirtioError> {
        self.interrupt_status |= kind;
        self.interrupt.write(1).map_err(VirtioError::Interrupt)
    }

    fn features(&self) -> u64 {
        self.device.features() | 1 << VIRTIO_F_VERSION_1
    }

    fn queue(&self) -> Option<&Queue> {
        self.queues.get(self.queue_select as usize)
    }

    fn register(&self, offset: u64) -> u32 {
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.device.id(),
            0x0c => VENDOR,
            0x10 => half(self.features(), self.device_features_select),
            0x34 => self.queue().map_or(0, |q| u32::from(q.max_size())),
            0x44 => self.queue().map_or(0, |q| u32::from(q.ready())),
            0x60 => self.interrupt_status,
            0x70 => self.status,
            // No shared memory regions: length and base are all ones.
            0xb0 | 0xb4 | 0xb8 | 0xbc => u32::MAX,
            _ => 0,
        }
    }

    fn set_register(&mut self, offset: u64, value: u32) -> Result<(), VirtioError> {
        match offset {
            0x14 => self.device_features_select = value,
            0x20 => self.set_features(value),
            0x24 => self.driver_features_select = value,
            0x30 => self.queue_select = value,
            0x38 | 0x44 | 0x80..0xa8 => self.configure_queue(offset, value),
            QUEUE_NOTIFY => return self.serve(value as usize),
            0x64 => self.interrupt_status &= !value,
            0x70 => return self.set_status(value),
            _ => {}
        }
        Ok(())
    }

    fn set_features(&mut self, value: u32) {
        if self.status & DRIVER == 0 || self.status & FEATURES_OK != 0 {
            return;
        }
        let value = u64::from(value);
        match self.driver_features_select {
            0 => self.driver_features = self.driver_features & !0xffff_ffff | value,
            1 => self.driver_features = self.driver_features & 0xffff_ffff | value << 32,
            // Bits past 63 don't exist; asking for them is refused with the rest.
            _ if value != 0 => self.driver_features |= !self.features(),
            _ => {}
        }
    }

    /// Queue registers count between FEATURES_OK and DRIVER_OK only.
    fn configure_queue(&mut self, offset: u64, value: u32) {
        if self.status & (FEATURES_OK | DRIVER_OK | NEEDS_RESET) != FEATURES_OK {
            return;
        }
        let Some(queue) = self.queues.get_mut(self.queue_select as usize) else { return };
        match offset {
            0x38 => queue.set_size(u16::try_from(value).unwrap_or(0)),
            0x44 => queue.set_ready(value == 1),
            0x80 => queue.set_desc_table_address(Some(value), None),
            0x84 => queue.set_desc_table_address(None, Some(value)),
            0x90 => queue.set_avail_ring_address(Some(value), None),
            0x94 => queue.set_avail_ring_address(None, Some(value)),
            0xa0 => queue.set_used_ring_address(Some(value), None),
            0xa4 => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    /// The driver goes up one step at a time (virtio 1.2, 3.1.1), or back to nothing.
    fn set_status(&mut self, value: u32) -> Result<(), VirtioError> {
        if value == 0 {
            // A driver may reset right after its last kick, as Linux does when it powers
            // off; what it sent before must not depend on who is quicker.
            let last = if self.device.finishes_before_reset() { self.queues.len() } else { 0 };
            let served = (0..last).try_for_each(|queue| self.serve(queue));
            self.reset();
            return served;
        }
        // Bits are only ever added, and NEEDS_RESET is ours.
        let added = value & !self.status & !NEEDS_RESET;
        if added & FAILED != 0 {
            self.status |= FAILED;
        }
        if added & ACKNOWLEDGE != 0 {
            self.status |= ACKNOWLEDGE;
        }
        if added & DRIVER != 0 && self.status & ACKNOWLEDGE != 0 {
            self.status |= DRIVER;
        }
        if added & FEATURES_OK != 0 && self.status & DRIVER != 0 && self.features_agree() {
            self.status |= FEATURES_OK;
        }
        if added & DRIVER_OK != 0 && self.status & FEATURES_OK != 0 {
            return self.go();
        }
        Ok(())
    }

    fn features_agree(&self) -> bool {
        let version_1 = 1 << VIRTIO_F_VERSION_1;
        self.driver_features & !self.features() == 0 && self.driver_features & version_1 != 0
    }

    fn go(&mut self) -> Result<(), VirtioError> {
        self.status |= DRIVER_OK;
        self.device.begin(self.driver_features);
        let bad = self.queues.iter().position(|q| q.ready() && !q.is_valid(&self.memory));
        match bad {
            Some(queue) => {
                let source = virtio_queue::Error::QueueNotReady;
                self.give_up(VirtioError::Queue { queue, source })
            }
            None => Ok(()),
        }
    }

    fn reset(&mut self) {
        self.device.reset();
        self.queues.iter_mut().for_each(QueueT::reset);
        self.interrupt_status = 0;
        self.status = 0;
        self.device_features_select = 0;
        self.driver_features_select = 0;
        self.driver_features = 0;
        self.queue_select = 0;
        self.broken = None;
    }
}

fn half(features: u64, select: u32) -> u32 {
    match select {
        0 => features as u32,
        1 => (features >> 32) as u32,
        _ => 0,
    }
}
