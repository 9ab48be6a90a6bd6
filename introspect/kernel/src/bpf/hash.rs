//! Hash maps (kernel/bpf/hashtab.c): buckets of `hlist_nulls` chains.

use ktstr_introspect_memory::VirtAddr;

use super::map::Shape;
use crate::{Kernel, KernelError};

/// How often a chain that changes is walked again.
const ATTEMPTS: usize = 3;
/// Buckets looked at, and elements of one chain, at most: a table of 2^32 would keep a reader for minutes.
const MAX_BUCKETS: u64 = 1 << 24;
const MAX_CHAIN: usize = 1 << 22;

/// The buckets of a hash map.
pub(super) struct Buckets<'a> {
    kernel: &'a Kernel,
    start: VirtAddr,
    count: u64,
    stride: u64,
    head: u64,
    /// From an element's link to its key.
    key: u64,
    key_size: u64,
    back: u64,
    /// Elements that a chain can hold.
    longest: usize,
}

impl<'a> Buckets<'a> {
    pub(super) fn of(kernel: &'a Kernel, map: VirtAddr, shape: Shape) -> Result<Self, KernelError> {
        let table = map.wrapping_sub(kernel.offset("bpf_htab.map")?);
        let count = kernel.read("bpf_htab.n_buckets", table)?;
        // `n_buckets = roundup_pow_of_two(max_entries)`.
        if !count.is_power_of_two() || count > shape.entries.max(1).next_power_of_two() {
            let (what, expected) =
                ("a BPF hash map's bucket count", "max_entries rounded up to a power of two");
            return Err(KernelError::Implausible { what, at: map, seen: count, expected });
        }
        let link = kernel.offset("htab_elem.hash_node")?;
        // All entries, and while one is replaced one more on each CPU.
        let longest = usize::try_from(shape.entries).unwrap_or(MAX_CHAIN).min(MAX_CHAIN) + 8192;
        Ok(Self {
            kernel,
            start: VirtAddr(kernel.read("bpf_htab.buckets", table)?),
            count,
            stride: kernel.plan("bucket")?.size(),
            head: kernel.offset("bucket.head.first")?,
            key: kernel.offset("htab_elem.key")?.wrapping_sub(link),
            key_size: shape.key,
            back: kernel.offset("hlist_nulls_node.pprev")?,
            longest,
        })
    }

    /// Calls `take` with key and value address of every element until it says no. Returns whether all buckets were
    /// looked at.
    pub(super) fn each(
        &self,
        mut take: impl FnMut(Vec<u8>, VirtAddr) -> Result<bool, KernelError>,
    ) -> Result<bool, KernelError> {
        for bucket in 0..self.count.min(MAX_BUCKETS) {
            let at = self.start.wrapping_add(self.stride.wrapping_mul(bucket).wrapping_add(self.head));
            for element in self.chain(at, bucket)? {
                let key_at = element.wrapping_add(self.key);
                let mut key = vec![0; self.key_size as usize];
                let read = self.kernel.memory().read(key_at, &mut key);
                read.map_err(KernelError::read("a BPF hash map's key"))?;
                // The value follows the key, which is rounded up to 8 bytes.
                let value = key_at.wrapping_add(self.key_size.next_multiple_of(8));
                if !take(key, value)? {
                    return Ok(true);
                }
            }
        }
        Ok(self.count <= MAX_BUCKETS)
    }

    /// The links of one chain. An element that is freed and taken again may lead into another bucket's chain; the
    /// odd word at the end names the bucket, so that this is seen (`hlist_nulls`, include/linux/list_nulls.h).
    fn chain(&self, head: VirtAddr, bucket: u64) -> Result<Vec<VirtAddr>, KernelError> {
        let mut last = self.walk(head, bucket);
        for _ in 1..ATTEMPTS {
            if !matches!(last, Err(KernelError::Torn { .. })) {
                break;
            }
            last = self.walk(head, bucket);
        }
        last
    }

    fn walk(&self, head: VirtAddr, bucket: u64) -> Result<Vec<VirtAddr>, KernelError> {
        const WHAT: &str = "a BPF hash map's chain";
        let (mut found, mut link) = (Vec::new(), head);
        loop {
            let node = self.kernel.pointer(WHAT, link)?;
            if node.0 & 1 == 1 {
                // `NULLS_MARKER`: the bucket's number, shifted left, and the odd bit.
                let expected = bucket << 1 | 1;
                return match node.0 == expected {
                    true => Ok(found),
                    false => Err(KernelError::Torn { what: WHAT, at: link, expected, seen: node.0 }),
                };
            }
            let back = self.kernel.pointer(WHAT, node.wrapping_add(self.back))?;
            if back != link {
                return Err(KernelError::Torn { what: WHAT, at: node, expected: link.0, seen: back.0 });
            }
            if found.len() >= self.longest {
                return Err(KernelError::Endless { what: WHAT, at: head, limit: self.longest });
            }
            found.push(node);
            // `next` is the first member of a node, as `first` is of a head.
            link = node;
        }
    }
}
