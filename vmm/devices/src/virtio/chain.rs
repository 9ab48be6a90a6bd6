//! What every device does with its queues: take chains, reach their memory, give them back.

use super::VirtioError;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::GuestMemoryMmap;

pub(super) type Chain<'m> = DescriptorChain<&'m GuestMemoryMmap>;

/// The chains that are there now: as many as the queue has entries at most, so that a
/// guest that keeps adding can't keep us; it kicks again for those.
pub(super) fn chains<'m>(
    queue: usize,
    queues: &mut [Queue],
    memory: &'m GuestMemoryMmap,
) -> Result<Vec<Chain<'m>>, VirtioError> {
    match queues.get_mut(queue) {
        Some(state) if state.ready() => {
            Ok(state.iter(memory).map_err(|source| VirtioError::Queue { queue, source })?.collect())
        }
        _ => Ok(Vec::new()),
    }
}

pub(super) fn next_chain<'m>(
    queue: usize,
    queues: &mut [Queue],
    memory: &'m GuestMemoryMmap,
) -> Result<Option<Chain<'m>>, VirtioError> {
    match queues.get_mut(queue) {
        Some(state) if state.ready() => {
            Ok(state.iter(memory).map_err(|source| VirtioError::Queue { queue, source })?.next())
        }
        _ => Ok(None),
    }
}

pub(super) fn reader<'m>(
    queue: usize,
    chain: Chain<'m>,
    memory: &'m GuestMemoryMmap,
    limit: usize,
) -> Result<virtio_queue::Reader<'m, ()>, VirtioError> {
    let reader = chain.reader(memory).map_err(|source| VirtioError::Queue { queue, source })?;
    let bytes = reader.available_bytes();
    if bytes > limit { Err(VirtioError::ChainTooLong { queue, bytes, limit }) } else { Ok(reader) }
}

pub(super) fn writer<'m>(
    queue: usize,
    chain: Chain<'m>,
    memory: &'m GuestMemoryMmap,
) -> Result<virtio_queue::Writer<'m, ()>, VirtioError> {
    chain.writer(memory).map_err(|source| VirtioError::Queue { queue, source })
}

pub(super) fn used(
    queue: usize,
    queues: &mut [Queue],
    memory: &GuestMemoryMmap,
    head: u16,
    bytes: usize,
) -> Result<(), VirtioError> {
    let Some(state) = queues.get_mut(queue) else { return Ok(()) };
    state.add_used(memory, head, bytes as u32).map_err(|source| VirtioError::Queue { queue, source })
}
