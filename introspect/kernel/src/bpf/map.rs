//! Maps: `struct bpf_map` and what is in those of each kind (include/linux/bpf.h, kernel/bpf/arraymap.c).

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Type, TypeId};

use super::hash;
use crate::record::record;
use crate::{Kernel, KernelError};

/// Bytes of keys and values read of one map; a `.bss` larger than this is cut.
pub(super) const MAX_BYTES: u64 = 64 << 20;

record! {
    /// A map.
    BpfMap, BpfMapPlans, bpf_map {
        /// Its ID, as in `bpftool map`.
        id: u64 = "bpf_map.id";
        /// `BPF_MAP_TYPE_*`.
        kind: u64 = "bpf_map.map_type";
        /// Its name, at most 15 bytes.
        name: String = "bpf_map.name";
        /// Size of a key, bytes.
        key_size: u64 = "bpf_map.key_size";
        /// Size of a value, bytes.
        value_size: u64 = "bpf_map.value_size";
        /// Most entries; for an arena, pages.
        max_entries: u64 = "bpf_map.max_entries";
        /// `BPF_F_*` flags.
        map_flags: u64 = "bpf_map.map_flags";
        /// Of the kind's own meaning; since 5.16.
        map_extra: u64 = "bpf_map.map_extra";
        /// Whether user space may no longer write it.
        frozen: bool = "bpf_map.frozen";
        /// References.
        refcnt: i64 = "bpf_map.refcnt.counter";
        /// References by user space.
        usercnt: i64 = "bpf_map.usercnt.counter";
        /// Type information of key and value: `struct btf` address, null for none.
        btf: VirtAddr = "bpf_map.btf";
        /// The key's type there.
        btf_key_type_id: u64 = "bpf_map.btf_key_type_id";
        /// The value's type there.
        btf_value_type_id: u64 = "bpf_map.btf_value_type_id";
        /// For a struct_ops map the value's type in the kernel's BTF.
        btf_vmlinux_value_type_id: u64 = "bpf_map.btf_vmlinux_value_type_id";
    }
}

/// The kinds of map whose contents are read. The numbers are those of `enum bpf_map_type` (include/uapi/linux/bpf.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BpfMapKind {
    /// `HASH` and `LRU_HASH`.
    Hash,
    /// `ARRAY`, global variables among them.
    Array,
    /// `PERCPU_HASH` and `LRU_PERCPU_HASH`.
    PerCpuHash,
    /// `PERCPU_ARRAY`.
    PerCpuArray,
    /// `ARENA`.
    Arena,
    /// `STRUCT_OPS`.
    StructOps,
    /// `TASK_STORAGE`, `CGRP_STORAGE`, `INODE_STORAGE` and `SK_STORAGE`: a value for each of some kernel objects.
    Storage,
    /// `RINGBUF` and `USER_RINGBUF`.
    RingBuffer,
    /// `PROG_ARRAY`.
    ProgramArray,
    /// `PERF_EVENT_ARRAY`.
    EventArray,
    /// `CGROUP_ARRAY`.
    CgroupArray,
    /// `ARRAY_OF_MAPS`.
    MapArray,
    /// `HASH_OF_MAPS`.
    MapHash,
    /// `STACK_TRACE`.
    StackTrace,
    /// `QUEUE` and `STACK`.
    Queue,
    /// Any other, with its number.
    Other(u64),
}

impl From<u64> for BpfMapKind {
    fn from(number: u64) -> Self {
        match number {
            1 | 9 => Self::Hash,
            2 => Self::Array,
            3 => Self::ProgramArray,
            4 => Self::EventArray,
            5 | 10 => Self::PerCpuHash,
            6 => Self::PerCpuArray,
            7 => Self::StackTrace,
            8 => Self::CgroupArray,
            12 => Self::MapArray,
            13 => Self::MapHash,
            22 | 23 => Self::Queue,
            24 | 28 | 29 | 32 => Self::Storage,
            26 => Self::StructOps,
            27 | 31 => Self::RingBuffer,
            33 => Self::Arena,
            other => Self::Other(other),
        }
    }
}

/// One entry's value: one for all CPUs, or one for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MapValue {
    /// The bytes.
    Shared(Vec<u8>),
    /// The bytes by possible CPU.
    PerCpu(Vec<(u32, Vec<u8>)>),
    /// What it stands for: a program, map, cgroup or perf event.
    Reference {
        /// The `struct bpf_prog`, `bpf_map`, `cgroup` or `bpf_event_entry`.
        target: VirtAddr,
        /// The ID that user space sees instead; perf events have none.
        id: Option<u64>,
    },
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapEntry {
    /// The key's bytes; of an array the index, 4 bytes; of local storage the owner's address (`task_struct`, `cgroup`…),
    /// 8 bytes; of a queue or stack, which has no keys, the place in it, 4 bytes.
    pub key: Vec<u8>,
    /// Where the value is; of a per-CPU map, what its per-CPU pointer points to on no CPU.
    pub at: VirtAddr,
    /// The value.
    pub value: MapValue,
}

/// What was read of a map.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapContents {
    /// Its entries.
    pub entries: Vec<MapEntry>,
    /// Whether a limit left entries or bytes out.
    pub truncated: bool,
}

/// A struct_ops map: an implementation of a kernel interface by programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StructOps {
    /// The interface, such as `sched_ext_ops`.
    pub interface: String,
    /// `BPF_STRUCT_OPS_STATE_*` by name, without its prefix and in lower case: `init`, `inuse`, `tobefree`, `ready`.
    pub state: String,
    /// Members that programs implement, with the programs' IDs.
    pub programs: Vec<(String, u32)>,
}

/// Sizes that every reader of contents needs, checked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) entries: u64,
}

impl Kernel {
    /// The kind of a map.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn bpf_map_kind(&self, map: VirtAddr) -> Result<BpfMapKind, KernelError> {
        self.read("bpf_map.map_type", map).map(BpfMapKind::from)
    }

    /// The name of a map's kind, without its prefix and in lower case: `array`, `percpu_hash`, `arena`…
    ///
    /// # Errors
    /// The map's own error, or [`KernelError::Implausible`] when this kernel has no such kind.
    pub fn bpf_map_kind_name(&self, map: VirtAddr) -> Result<String, KernelError> {
        let seen = self.read("bpf_map.map_type", map)?;
        self.short_name("bpf_map_type", "BPF_MAP_TYPE_", seen).ok_or(KernelError::Implausible {
            what: "a BPF map's type",
            at: map,
            seen,
            expected: "a value of enum bpf_map_type",
        })
    }

    /// The entries of an array or hash map, per-CPU or not, of local storage, of a queue, of a map of stack traces or of
    /// references to programs, maps, cgroups and perf events, at most `limit` of them. The scheduler may be writing
    /// them: a hash chain that changes is walked again, an entry's bytes may be of two writes.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be walked; [`KernelError::Unsupported`] for other kinds.
    pub fn bpf_map_contents(&self, map: VirtAddr, limit: usize) -> Result<MapContents, KernelError> {
        let shape = self.bpf_map_shape(map)?;
        match self.bpf_map_kind(map)? {
            BpfMapKind::Array => self.array_entries(map, shape, limit, false),
            BpfMapKind::PerCpuArray => self.array_entries(map, shape, limit, true),
            BpfMapKind::Hash => self.hash_entries(map, shape, limit, false),
            BpfMapKind::PerCpuHash => self.hash_entries(map, shape, limit, true),
            BpfMapKind::Storage => {
                let mut reader = ValueReader::new(self, shape, false)?;
                self.storage_elements(map, |key, at| reader.push(key, at, limit))?;
                Ok(reader.contents)
            }
            BpfMapKind::ProgramArray
            | BpfMapKind::EventArray
            | BpfMapKind::CgroupArray
            | BpfMapKind::MapArray => self.reference_array(map, shape, limit),
            BpfMapKind::MapHash => self.reference_hash(map, shape, limit),
            BpfMapKind::StackTrace => self.stack_traces(map, shape, limit),
            BpfMapKind::Queue => self.queued_values(map, shape, limit),
            _ => Err(KernelError::Unsupported {
                what: format!("the contents of a BPF map of type {}", self.bpf_map_kind_name(map)?),
                instead: "arrays, hashes, local storage, queues, stack traces and references; arenas, ring buffers and struct_ops have readers of their own",
            }),
        }
    }

    /// The types of a map's key and value in its own BTF; nothing when it has none.
    ///
    /// # Errors
    /// [`KernelError`] when the BTF can't be read.
    pub fn bpf_map_types(
        &self,
        map: VirtAddr,
    ) -> Result<Option<(std::sync::Arc<ktstr_introspect_types::Btf>, TypeId, TypeId)>, KernelError> {
        let btf = VirtAddr(self.read("bpf_map.btf", map)?);
        let value = self.read("bpf_map.btf_value_type_id", map)?;
        if btf.is_null() || value == 0 {
            return Ok(None);
        }
        let key = self.read("bpf_map.btf_key_type_id", map)?;
        Ok(Some((self.bpf_types(btf)?, TypeId(key as u32), TypeId(value as u32))))
    }

    /// What a struct_ops map implements, and by which programs: its `uvalue` holds the IDs (kernel/bpf/bpf_struct_ops.c).
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read, for instance because `map` is of another kind.
    pub fn bpf_struct_ops(&self, map: VirtAddr) -> Result<StructOps, KernelError> {
        let inside = self.offset("bpf_struct_ops_map.map")?;
        let whole = map.wrapping_sub(inside);
        let ty = self.read("bpf_map.btf_vmlinux_value_type_id", map)? as u32;
        let wrapped = TypeId(ty);
        let data = self.btf().plan_from(wrapped, ".data")?;
        let (_, Type::Struct(interface)) = self.btf().resolve(data.ty())? else {
            let (what, expected) = ("a struct_ops map's value type", "a struct around a struct named data");
            return Err(KernelError::Implausible { what, at: map, seen: ty.into(), expected });
        };
        // `state` was in `kvalue` itself before there was a `struct bpf_struct_ops_common_value` (6.9).
        let state = ["bpf_struct_ops_map.kvalue.common.state", "bpf_struct_ops_map.kvalue.state"];
        let state = self.btf().plan_any(&state)?.read(self.memory(), whole)?;
        let value = VirtAddr(self.read("bpf_struct_ops_map.uvalue", whole)?);
        let base = data.address(self.memory(), value)?;
        let mut programs = Vec::new();
        for member in interface.members() {
            let member = member?;
            if let (_, Type::Pointer(target)) = self.btf().resolve(member.ty)?
                && matches!(self.btf().resolve(target)?.1, Type::Prototype { .. })
            {
                let at = base.wrapping_add(u64::from(member.bit_offset / 8));
                let id =
                    self.memory().read_u64(at).map_err(KernelError::read("a struct_ops map's programs"))?;
                if let Ok(id @ 1..) = u32::try_from(id) {
                    programs.push((member.name.to_owned(), id));
                }
            }
        }
        let state = self
            .short_name("bpf_struct_ops_state", "BPF_STRUCT_OPS_STATE_", state)
            .unwrap_or_else(|| state.to_string());
        Ok(StructOps { interface: interface.name.to_owned(), state, programs })
    }

    /// Where element `index` of an array map's values starts, for one that isn't per-CPU.
    pub(super) fn array_value(&self, map: VirtAddr, index: u64) -> Result<VirtAddr, KernelError> {
        let array = map.wrapping_sub(self.offset("bpf_array.map")?);
        let size = self.read("bpf_array.elem_size", array)?;
        let values = self.plan("bpf_array.value")?.address(self.memory(), array)?;
        Ok(values.wrapping_add(size.wrapping_mul(index)))
    }

    pub(super) fn bpf_map_shape(&self, map: VirtAddr) -> Result<Shape, KernelError> {
        let (key, value) = (self.read("bpf_map.key_size", map)?, self.read("bpf_map.value_size", map)?);
        let entries = self.read("bpf_map.max_entries", map)?;
        let (in_key, in_value) = ("a size of at most 4 MiB", "a size of at most 2 GiB");
        for (what, seen, most, expected) in [
            ("a BPF map's key size", key, 4 << 20, in_key),
            ("a BPF map's value size", value, 2 << 30, in_value),
        ] {
            if seen > most {
                return Err(KernelError::Implausible { what, at: map, seen, expected });
            }
        }
        Ok(Shape { key, value, entries })
    }

    fn array_entries(
        &self,
        map: VirtAddr,
        shape: Shape,
        limit: usize,
        per_cpu: bool,
    ) -> Result<MapContents, KernelError> {
        let array = map.wrapping_sub(self.offset("bpf_array.map")?);
        let values = self.plan("bpf_array.value")?.address(self.memory(), array)?;
        // `elem_size` is the value size rounded up to 8; per-CPU arrays hold a pointer for each element instead.
        let stride = if per_cpu { 8 } else { self.read("bpf_array.elem_size", array)? };
        let mut reader = ValueReader::new(self, shape, per_cpu)?;
        for index in 0..shape.entries {
            let at = values.wrapping_add(stride.wrapping_mul(index));
            let key = (index as u32).to_le_bytes().to_vec();
            if !reader.push(key, at, limit)? {
                break;
            }
        }
        Ok(reader.contents)
    }

    fn hash_entries(
        &self,
        map: VirtAddr,
        shape: Shape,
        limit: usize,
        per_cpu: bool,
    ) -> Result<MapContents, KernelError> {
        let mut reader = ValueReader::new(self, shape, per_cpu)?;
        let buckets = hash::Buckets::of(self, map, shape)?;
        let cpus = reader.cpus.clone().unwrap_or_default();
        let whole = buckets.each(|key, rounded| {
            let at = match per_cpu {
                true => self.per_cpu_slot(rounded, shape.key, &cpus)?,
                false => rounded,
            };
            reader.push(key, at, limit)
        })?;
        reader.contents.truncated |= !whole;
        Ok(reader.contents)
    }

    /// Where a per-CPU hash keeps the pointer to an element's values: behind the key rounded up to 8 bytes, at `rounded`,
    /// since 11ba7ce076e5 ("bpf: Fix kmemleak warning for percpu hashmap", 6.15 and many stable kernels), and before
    /// that right behind the key. No type tells the two apart, but the word does: read at the wrong place it has
    /// halves of two words, which is no pointer that leads to memory on every CPU.
    fn per_cpu_slot(&self, rounded: VirtAddr, key: u64, cpus: &[u32]) -> Result<VirtAddr, KernelError> {
        let close = rounded.wrapping_sub(key.next_multiple_of(8) - key);
        if close == rounded {
            return Ok(rounded);
        }
        let pointer = self.pointer("a per-CPU BPF map's value pointer", close)?;
        let mut leads = pointer.0 % 8 == 0;
        for cpu in cpus {
            leads = leads && self.memory().translate(self.per_cpu_pointer(pointer, *cpu)?).is_ok();
        }
        Ok(if leads { close } else { rounded })
    }
}

/// Collects entries until one of the limits.
pub(super) struct ValueReader<'a> {
    kernel: &'a Kernel,
    size: usize,
    cpus: Option<Vec<u32>>,
    left: u64,
    pub(super) contents: MapContents,
}

impl<'a> ValueReader<'a> {
    pub(super) fn new(kernel: &'a Kernel, shape: Shape, per_cpu: bool) -> Result<Self, KernelError> {
        let cpus = if per_cpu { Some(kernel.possible_cpus()?.0) } else { None };
        let size = shape.value as usize;
        Ok(Self { kernel, size, cpus, left: MAX_BYTES, contents: MapContents::default() })
    }

    /// Adds the entry whose value, or whose pointer to per-CPU values, is at `at`; false when that is one too many.
    pub(super) fn push(&mut self, key: Vec<u8>, at: VirtAddr, limit: usize) -> Result<bool, KernelError> {
        self.push_cut(key, at, u64::MAX, limit)
    }

    /// The same for a value of which only the first `length` bytes are there: the rest is zero.
    pub(super) fn push_cut(
        &mut self,
        key: Vec<u8>,
        at: VirtAddr,
        length: u64,
        limit: usize,
    ) -> Result<bool, KernelError> {
        let length = usize::try_from(length).unwrap_or(self.size).min(self.size);
        let copies = self.cpus.as_ref().map_or(1, Vec::len) as u64;
        let cost = (self.size as u64).saturating_mul(copies).saturating_add(key.len() as u64 + 64);
        let Some(left) = self.left.checked_sub(cost).filter(|_| self.contents.entries.len() < limit) else {
            self.contents.truncated = true;
            return Ok(false);
        };
        self.left = left;
        let (at, value) = match &self.cpus {
            None => (at, MapValue::Shared(self.bytes(at, length)?)),
            Some(cpus) => {
                let pointer = self.kernel.pointer("a per-CPU BPF map's value pointer", at)?;
                let read =
                    |cpu: &u32| Ok((*cpu, self.bytes(self.kernel.per_cpu_pointer(pointer, *cpu)?, length)?));
                (pointer, MapValue::PerCpu(cpus.iter().map(read).collect::<Result<_, KernelError>>()?))
            }
        };
        self.contents.entries.push(MapEntry { key, at, value });
        Ok(true)
    }

    fn bytes(&self, at: VirtAddr, length: usize) -> Result<Vec<u8>, KernelError> {
        let mut bytes = vec![0; self.size];
        self.kernel
            .memory()
            .read(at, &mut bytes[..length])
            .map_err(KernelError::read("a BPF map's value"))?;
        Ok(bytes)
    }
}
