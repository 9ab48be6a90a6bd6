//! Maps whose values stand for other things of the kernel: arrays of programs, maps, cgroups and perf events, hashes of
//! maps (kernel/bpf/arraymap.c, kernel/bpf/hashtab.c, kernel/bpf/map_in_map.c); and stack traces (kernel/bpf/stackmap.c),
//! queues and stacks (kernel/bpf/queue_stack_maps.c).

use ktstr_introspect_memory::VirtAddr;

use super::hash;
use super::map::{BpfMapKind, MapContents, MapEntry, MapValue, Shape, ValueReader};
use crate::{Kernel, KernelError};

/// `BPF_F_STACK_BUILD_ID` (include/uapi/linux/bpf.h).
const BUILD_IDS: u64 = 1 << 5;
/// `struct bpf_stack_build_id`, and a plain address.
const BUILD_ID_BYTES: u64 = 32;
const ADDRESS_BYTES: u64 = 8;
/// `sysctl_perf_event_max_stack` is 127; nobody needs more than its limit of 640 KiB of addresses.
const MAX_FRAMES: u64 = 640 << 10;
/// Places looked at, most of which may be empty: an array of 2^32 would keep a reader for minutes.
const MAX_SLOTS: u64 = 1 << 24;
/// `BPF_MAP_TYPE_STACK`; 22 is the queue.
const STACK: u64 = 23;
/// `NAME_MAX`.
const NAME_LIMIT: usize = 256;

impl Kernel {
    /// The entries of an array of references that are there.
    pub(super) fn reference_array(
        &self,
        map: VirtAddr,
        shape: Shape,
        limit: usize,
    ) -> Result<MapContents, KernelError> {
        let kind = self.bpf_map_kind(map)?;
        let array = map.wrapping_sub(self.offset("bpf_array.map")?);
        let slots = self.plan("bpf_array.ptrs")?.address(self.memory(), array)?;
        let mut contents = MapContents { truncated: shape.entries > MAX_SLOTS, ..MapContents::default() };
        for index in 0..shape.entries.min(MAX_SLOTS) {
            let slot = slots.wrapping_add(index.wrapping_mul(8));
            let target = self.pointer("a BPF array's references", slot)?;
            if target.is_null() {
                continue;
            }
            let key = (index as u32).to_le_bytes().to_vec();
            if !self.push_reference(&mut contents, limit, (kind, key, slot, target)) {
                break;
            }
        }
        Ok(contents)
    }

    /// The maps in a hash of maps.
    pub(super) fn reference_hash(
        &self,
        map: VirtAddr,
        shape: Shape,
        limit: usize,
    ) -> Result<MapContents, KernelError> {
        let mut contents = MapContents::default();
        let whole = hash::Buckets::of(self, map, shape)?.each(|key, slot| {
            let target = self.pointer("a BPF hash's maps", slot)?;
            Ok(self.push_reference(&mut contents, limit, (BpfMapKind::MapHash, key, slot, target)))
        })?;
        contents.truncated |= !whole;
        Ok(contents)
    }

    /// Adds an entry; false when it is one too many.
    fn push_reference(
        &self,
        contents: &mut MapContents,
        limit: usize,
        (kind, key, at, target): (BpfMapKind, Vec<u8>, VirtAddr, VirtAddr),
    ) -> bool {
        if contents.entries.len() >= limit {
            contents.truncated = true;
            return false;
        }
        let id = self.reference_id(kind, target);
        contents.entries.push(MapEntry { key, at, value: MapValue::Reference { target, id } });
        true
    }

    /// By what user space knows the target. One that goes away has none any more.
    fn reference_id(&self, kind: BpfMapKind, target: VirtAddr) -> Option<u64> {
        let path = match kind {
            BpfMapKind::ProgramArray => "bpf_prog.aux->id",
            BpfMapKind::MapArray | BpfMapKind::MapHash => "bpf_map.id",
            BpfMapKind::CgroupArray => "cgroup.kn->id",
            _ => return None,
        };
        self.read(path, target).ok().filter(|id| *id != 0)
    }

    /// The traces in a stack-trace map; a key is what `bpf_get_stackid` returned, a value the addresses, the innermost
    /// first, as a look-up from user space gives them: filled up with zeros.
    pub(super) fn stack_traces(
        &self,
        map: VirtAddr,
        shape: Shape,
        limit: usize,
    ) -> Result<MapContents, KernelError> {
        let whole = map.wrapping_sub(self.offset("bpf_stack_map.map")?);
        let count = self.read("bpf_stack_map.n_buckets", whole)?;
        if count > shape.entries.max(1).next_power_of_two() {
            let (what, expected) =
                ("a stack-trace map's buckets", "max_entries rounded up to a power of two");
            return Err(KernelError::Implausible { what, at: map, seen: count, expected });
        }
        let flags = self.read("bpf_map.map_flags", map)?;
        let frame = if flags & BUILD_IDS == 0 { ADDRESS_BYTES } else { BUILD_ID_BYTES };
        let slots = self.plan("bpf_stack_map.buckets")?.address(self.memory(), whole)?;
        let (frames, data) = (self.plan("stack_map_bucket.nr")?, self.plan("stack_map_bucket.data")?);
        let mut reader = ValueReader::new(self, shape, false)?;
        reader.contents.truncated = count > MAX_SLOTS;
        for index in 0..count.min(MAX_SLOTS) {
            let slot = slots.wrapping_add(index.wrapping_mul(8));
            let bucket = self.pointer("a stack-trace map's buckets", slot)?;
            if bucket.is_null() {
                continue;
            }
            let seen = frames.read(self.memory(), bucket)?;
            if seen > MAX_FRAMES || seen * frame > shape.value {
                let (what, expected) =
                    ("the length of a stack trace", "as many frames as its map's value holds");
                return Err(KernelError::Implausible { what, at: bucket, seen, expected });
            }
            let key = (index as u32).to_le_bytes().to_vec();
            let at = data.address(self.memory(), bucket)?;
            // The bucket's memory may be longer than the trace, and hold the end of an earlier one.
            if !reader.push_cut(key, at, seen * frame, limit)? {
                break;
            }
        }
        Ok(reader.contents)
    }

    /// The elements of a queue or stack, in the order that they would be taken out; keys count them.
    pub(super) fn queued_values(
        &self,
        map: VirtAddr,
        shape: Shape,
        limit: usize,
    ) -> Result<MapContents, KernelError> {
        let whole = map.wrapping_sub(self.offset("bpf_queue_stack.map")?);
        let member = |name: &str| self.read(&format!("bpf_queue_stack.{name}"), whole);
        // Values are put in at `head` and a queue's taken out at `tail`; a ring of one more than there may be.
        let (head, tail, size) = (member("head")?, member("tail")?, member("size")?);
        if size == 0 || size > shape.entries + 1 || head >= size || tail >= size {
            let (what, expected) = ("a BPF queue's head", "below its size, one above max_entries");
            return Err(KernelError::Implausible { what, at: map, seen: head, expected });
        }
        let values = self.plan("bpf_queue_stack.elements")?.address(self.memory(), whole)?;
        let (count, stack) = ((head + size - tail) % size, self.read("bpf_map.map_type", map)? == STACK);
        let mut reader = ValueReader::new(self, shape, false)?;
        for number in 0..count {
            let index = if stack { (head + size - 1 - number) % size } else { (tail + number) % size };
            let at = values.wrapping_add(shape.value.wrapping_mul(index));
            if !reader.push((number as u32).to_le_bytes().to_vec(), at, limit)? {
                break;
            }
        }
        Ok(reader.contents)
    }

    /// The name of the program, map or cgroup that an entry of a map of that kind refers to.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read; [`crate::ErrorKind::Absent`] for other kinds.
    pub fn bpf_reference_name(&self, kind: BpfMapKind, target: VirtAddr) -> Result<String, KernelError> {
        match kind {
            BpfMapKind::ProgramArray => self.bpf_program_name(target),
            BpfMapKind::MapArray | BpfMapKind::MapHash => {
                Ok(self.plan("bpf_map.name")?.read_text(self.memory(), target)?)
            }
            BpfMapKind::CgroupArray => {
                let name = VirtAddr(self.read("cgroup.kn->name", target)?);
                self.memory().read_string(name, NAME_LIMIT).map_err(KernelError::read("a cgroup's name"))
            }
            _ => Err(KernelError::NoSymbol { name: format!("the name of an entry of a {kind:?}") }),
        }
    }
}
