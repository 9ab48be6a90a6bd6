//! Maps that hang a value on a kernel object, and ring buffers.
//!
//! Local storage (kernel/bpf/bpf_local_storage.c) keeps an element for each task, cgroup, inode or socket that has a
//! value, in hash buckets of the map. A ring buffer (kernel/bpf/ringbuf.c) has two positions that only grow.

use ktstr_introspect_memory::VirtAddr;

use super::map::BpfMapKind;
use crate::{ErrorKind, Kernel, KernelError};

/// `bucket_log` is the logarithm of twice the number of CPUs.
const MAX_BUCKET_LOG: u64 = 20;
/// No kernel has more threads than `PID_MAX_LIMIT`, nor a bucket.
const MAX_CHAIN: usize = 4 << 20;

/// How far a ring buffer was written and read, in bytes since it was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RingPositions {
    /// Written by programs.
    pub producer: u64,
    /// Read by user space.
    pub consumer: u64,
    /// Its size, a power of two.
    pub size: u64,
}

impl RingPositions {
    /// Bytes written but not read.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.producer.saturating_sub(self.consumer)
    }
}

impl Kernel {
    /// The positions of a ring buffer map. The two are read one after the other.
    ///
    /// # Errors
    /// [`KernelError`] when `map` is of another kind or they can't be read.
    pub fn bpf_ring_positions(&self, map: VirtAddr) -> Result<RingPositions, KernelError> {
        let seen = self.read("bpf_map.map_type", map)?;
        if BpfMapKind::from(seen) != BpfMapKind::RingBuffer {
            let (what, expected) = ("a BPF map's type", "27 or 31, a ring buffer");
            return Err(KernelError::Implausible { what, at: map, seen, expected });
        }
        let whole = map.wrapping_sub(self.offset("bpf_ringbuf_map.map")?);
        let consumer = self.read("bpf_ringbuf_map.rb->consumer_pos", whole)?;
        let producer = self.read("bpf_ringbuf_map.rb->producer_pos", whole)?;
        let size = self.read("bpf_ringbuf_map.rb->mask", whole)?.wrapping_add(1);
        Ok(RingPositions { producer, consumer, size })
    }

    /// Calls `take` with owner (task, cgroup, inode or socket) and value address of each element of a local-storage map
    /// until it says no.
    pub(super) fn storage_elements(
        &self,
        map: VirtAddr,
        mut take: impl FnMut(Vec<u8>, VirtAddr) -> Result<bool, KernelError>,
    ) -> Result<(), KernelError> {
        let whole = map.wrapping_sub(self.offset("bpf_local_storage_map.map")?);
        let log = self.read("bpf_local_storage_map.bucket_log", whole)?;
        if log > MAX_BUCKET_LOG {
            let (what, expected) = ("a local storage's bucket_log", "at most 20");
            return Err(KernelError::Implausible { what, at: map, seen: log, expected });
        }
        let buckets = VirtAddr(self.read("bpf_local_storage_map.buckets", whole)?);
        let stride = self.plan("bpf_local_storage_map_bucket")?.size();
        let list = self.offset("bpf_local_storage_map_bucket.list")?;
        let node = self.offset("bpf_local_storage_elem.map_node")?;
        let data = self.offset("bpf_local_storage_elem.sdata.data")?;
        let owner = self.plan("bpf_local_storage_elem.local_storage->owner")?;
        for bucket in 0..1u64 << log {
            let head = buckets.wrapping_add(bucket * stride + list);
            for element in self.walker().hlist("a local storage's bucket", head, node, MAX_CHAIN)? {
                let owner = match owner.read(self.memory(), element).map_err(KernelError::from) {
                    // An element that is being unlinked has lost its storage already.
                    Err(error) if error.kind() == ErrorKind::Null => continue,
                    other => other?,
                };
                if !take(owner.to_le_bytes().to_vec(), element.wrapping_add(data))? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
