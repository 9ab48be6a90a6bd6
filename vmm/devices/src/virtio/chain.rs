//! What every device does with its queues: take chains, reach their memory, give them back.

use super::VirtioError;
use virtio_queue::{DescriptorChain, Queue, QueueOwnedT, QueueT};
use vm_memory::{GuestMemory, GuestMemoryMmap, Permissions, VolatileSlice};

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

/// Guest memory, in the order in which a driver gives it.
#[derive(Default)]
pub(super) struct Pieces<'m> {
    slices: Vec<VolatileSlice<'m>>,
    bytes: usize,
}

impl<'m> Pieces<'m> {
    pub(super) fn slices(&self) -> &[VolatileSlice<'m>] {
        &self.slices
    }

    /// Length of all of it.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    fn push(&mut self, slice: VolatileSlice<'m>) {
        self.bytes += slice.len();
        self.slices.push(slice);
    }

    /// The first `count` bytes and what follows them; `None` when there are fewer.
    pub(super) fn split(self, count: usize) -> Option<(Self, Self)> {
        let mut left = (count <= self.bytes).then_some(count)?;
        let (mut first, mut rest) = (Self::default(), Self::default());
        for slice in self.slices {
            let (before, after) = slice.split_at(left.min(slice.len())).ok()?;
            left -= before.len();
            [(&mut first, before), (&mut rest, after)]
                .into_iter()
                .filter(|(_, slice)| !slice.is_empty())
                .for_each(|(to, slice)| to.push(slice));
        }
        Some((first, rest))
    }

    /// Copies to the beginning of `to`; returns how much.
    pub(super) fn copy_to(&self, to: &mut [u8]) -> usize {
        let copy = |done: usize, slice: &VolatileSlice<'m>| done + slice.copy_to(&mut to[done..]);
        self.slices.iter().fold(0, copy)
    }

    /// Copies the beginning of `from`; returns how much.
    pub(super) fn copy_from(&self, from: &[u8]) -> usize {
        let copy = |done: usize, slice: &VolatileSlice<'m>| {
            let count = slice.len().min(from.len() - done);
            slice.copy_from(&from[done..done + count]);
            done + count
        };
        self.slices.iter().fold(0, copy)
    }
}

/// What a chain gives the device to read, and to write.
///
/// # Errors
/// A chain with memory that isn't RAM, of more than `most` descriptors, without an end, or with something to read
/// behind something to write (virtio 1.2, 2.7.4.2): there is no telling what the driver means.
pub(super) fn pieces<'m>(
    queue: usize,
    chain: Chain<'m>,
    memory: &'m GuestMemoryMmap,
    most: usize,
) -> Result<(Pieces<'m>, Pieces<'m>), VirtioError> {
    let broken = |why: String| VirtioError::Chain { queue, why };
    let (mut readable, mut writable) = (Pieces::default(), Pieces::default());
    let (mut count, mut ended, mut writes) = (0, false, false);
    for descriptor in chain {
        count += 1;
        if count > most {
            return Err(broken(format!("more than {most} descriptors")));
        }
        let (address, bytes) = (descriptor.addr(), descriptor.len());
        let (to, access) = match descriptor.is_write_only() {
            true => (&mut writable, Permissions::Write),
            false if writes => return Err(broken("something to read behind something to write".to_string())),
            false => (&mut readable, Permissions::Read),
        };
        writes = descriptor.is_write_only();
        ended = !descriptor.has_next();
        let outside = |e| broken(format!("{bytes} bytes at {:#x}: {e}", address.0));
        for slice in GuestMemory::get_slices(memory, address, bytes as usize, access).map_err(outside)? {
            to.push(slice.map_err(outside)?);
        }
    }
    // The iterator stops silently at what it can't follow.
    if ended { Ok((readable, writable)) } else { Err(broken("no end that can be reached".to_string())) }
}
