//! The transport's registers and queues of a saved machine.

use super::{DRIVER_OK, Device, INTERRUPT_CONFIG, INTERRUPT_QUEUE, Mmio};
use crate::virtio::VirtioError;
use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueState, QueueT};

/// Registers and queues.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MmioState {
    interrupt_status: u32,
    status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
    queues: Vec<SavedQueue>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct SavedQueue {
    max_size: u16,
    next_avail: u16,
    next_used: u16,
    event_idx: bool,
    size: u16,
    ready: bool,
    /// Descriptor table, available ring and used ring.
    addresses: [u64; 3],
}

impl<D: Device> Mmio<D> {
    /// Its state, without the device's own.
    ///
    /// # Errors
    /// A device that a guest broke: what it did is not known to a machine that goes on.
    pub fn state(&self) -> Result<MmioState, VirtioError> {
        if let Some(why) = &self.broken {
            return Err(unfit(format!("its driver has broken it ({why}); reset it first")));
        }
        Ok(MmioState {
            interrupt_status: self.interrupt_status,
            status: self.status,
            device_features_select: self.device_features_select,
            driver_features_select: self.driver_features_select,
            driver_features: self.driver_features,
            queue_select: self.queue_select,
            queues: self.queues.iter().map(saved).collect(),
        })
    }

    /// Goes on from a state. An interrupt that the driver hasn't acknowledged is raised
    /// again: whether the guest had got it is not known, and one too many does no harm.
    ///
    /// # Errors
    /// The state of another device, one that no driver can have led to, or an interrupt that
    /// could not be raised.
    pub fn restore(&mut self, state: &MmioState) -> Result<(), VirtioError> {
        let (found, expected) = (state.queues.len(), self.queues.len());
        if found != expected {
            return Err(unfit(format!("it has {found} queues, expected {expected}")));
        }
        let features = self.features();
        if state.driver_features & !features != 0 {
            let wanted = state.driver_features;
            return Err(unfit(format!("its driver uses features {wanted:#x} of {features:#x}")));
        }
        let mut queues = Vec::with_capacity(expected);
        for (number, (saved, now)) in state.queues.iter().zip(&self.queues).enumerate() {
            let queue = queue(saved).map_err(|e| unfit(format!("queue {number}: {e}")))?;
            let valid = !queue.ready() || state.status & DRIVER_OK == 0 || queue.is_valid(&self.memory);
            if queue.max_size() != now.max_size() || !valid {
                return Err(unfit(format!("queue {number} has a size or rings that can't be: {saved:?}")));
            }
            queues.push(queue);
        }
        self.queues = queues;
        self.interrupt_status = state.interrupt_status & (INTERRUPT_QUEUE | INTERRUPT_CONFIG);
        self.status = state.status;
        self.device_features_select = state.device_features_select;
        self.driver_features_select = state.driver_features_select;
        self.driver_features = state.driver_features;
        self.queue_select = state.queue_select;
        if self.status & DRIVER_OK != 0 {
            self.device.begin(self.driver_features);
        }
        match self.interrupt_status {
            0 => Ok(()),
            _ => self.interrupt.write(1).map_err(VirtioError::Interrupt),
        }
    }
}

pub(in crate::virtio) fn unfit(why: String) -> VirtioError {
    VirtioError::Unfit { why }
}

fn saved(queue: &Queue) -> SavedQueue {
    let QueueState {
        max_size,
        next_avail,
        next_used,
        event_idx_enabled,
        size,
        ready,
        desc_table,
        avail_ring,
        used_ring,
    } = queue.state();
    let addresses = [desc_table, avail_ring, used_ring];
    SavedQueue { max_size, next_avail, next_used, event_idx: event_idx_enabled, size, ready, addresses }
}

fn queue(saved: &SavedQueue) -> Result<Queue, virtio_queue::Error> {
    let [desc_table, avail_ring, used_ring] = saved.addresses;
    QueueState {
        max_size: saved.max_size,
        next_avail: saved.next_avail,
        next_used: saved.next_used,
        event_idx_enabled: saved.event_idx,
        size: saved.size,
        ready: saved.ready,
        desc_table,
        avail_ring,
        used_ring,
    }
    .try_into()
}
