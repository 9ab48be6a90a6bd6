//! What the kernel knows of BPF programs and maps that are loaded, by bpf(2).

use crate::sys::{self, info, next_id, open};
use ktstr_introspect_types::{Btf, BtfError, Type, TypeId};
use std::collections::HashMap;
use std::io::Result;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

/// Objects of one kind that are listed; more would mean that ids are handed out faster than they are read.
const MAX_OBJECTS: usize = 1 << 14;
/// Maps that one program refers to: `MAX_USED_MAPS` is 64.
const MAX_USED: u32 = 1024;
/// `BTF_MAX_SIZE` is 16 MiB.
const MAX_BTF: u32 = 64 << 20;

/// A loaded program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BpfProgramInfo {
    /// Its ID.
    pub id: u32,
    /// `BPF_PROG_TYPE_*`.
    pub kind: u32,
    /// Its function's name: whole where its types tell it, else the 15 bytes that the kernel keeps.
    pub name: String,
    /// Instructions that the verifier went through; 0 on kernels that don't tell (before 5.16).
    pub verified_insns: u32,
    /// Runs, counted with `kernel.bpf_stats_enabled` only.
    pub run_count: u64,
    /// Time in it, ns; likewise.
    pub run_time_ns: u64,
    /// Runs that recursion prevented.
    pub misses: u64,
    /// IDs of the maps that it uses.
    pub maps: Vec<u32>,
}

/// A loaded map.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BpfMapInfo {
    /// Its ID.
    pub id: u32,
    /// `BPF_MAP_TYPE_*`.
    pub kind: u32,
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Most entries.
    pub max_entries: u32,
    /// Of a struct_ops map the value's type in the kernel's BTF; else 0.
    pub kernel_value_type: u32,
    /// ID of the types of keys and values; 0 for none.
    pub btf: u32,
    /// The key's type there; 0 for none.
    pub key_type: u32,
    /// The value's type there; 0 for none.
    pub value_type: u32,
}

/// `struct bpf_prog_info` up to what kernels since 5.16 have.
#[repr(C)]
struct ProgInfo {
    kind: u32,
    id: u32,
    before_maps: [u64; 5],
    created_by_uid: u32,
    nr_map_ids: u32,
    map_ids: u64,
    name: [u8; 16],
    before_btf_id: [u64; 6],
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    lines: [u64; 5],
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    attach_btf_obj_id: u32,
}

/// `struct bpf_func_info`.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FuncInfo {
    insn_off: u32,
    type_id: u32,
}

/// `struct bpf_map_info`.
#[repr(C)]
#[derive(Default)]
struct MapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    vmlinux_value_type: u32,
    netns: [u64; 2],
    btf_id: u32,
    key_type: u32,
    value_type: u32,
    vmlinux_btf: u32,
}

/// `struct bpf_btf_info`, to its id.
#[repr(C)]
struct BtfInfo {
    btf: u64,
    size: u32,
    id: u32,
}

/// The BPF objects of the running system.
#[derive(Debug, Default)]
pub struct BpfObjects {
    /// By id, which no other object gets for a long time. `None` where it can't be read.
    types: Mutex<HashMap<u32, Option<Arc<Btf>>>>,
}

impl BpfObjects {
    /// Reads nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All programs, by ID.
    ///
    /// # Errors
    /// The kernel's, `EPERM` without `CAP_BPF` among them (and `CAP_SYS_ADMIN`, which ids want).
    pub fn programs(&self) -> Result<Vec<BpfProgramInfo>> {
        let mut found = Vec::new();
        each(sys::PROG_GET_NEXT_ID, sys::PROG_GET_FD_BY_ID, |fd| {
            found.push(self.program(&fd)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// All maps, by ID.
    ///
    /// # Errors
    /// As [`BpfObjects::programs`].
    pub fn maps(&self) -> Result<Vec<BpfMapInfo>> {
        let mut found = Vec::new();
        each(sys::MAP_GET_NEXT_ID, sys::MAP_GET_FD_BY_ID, |fd| {
            found.push(map_info(&fd)?);
            Ok(())
        })?;
        Ok(found)
    }

    /// The types of a map's keys and values, of a program's functions: by the ID of a BTF object. `None` for 0, and for
    /// one that has gone or is broken.
    pub fn types(&self, id: u32) -> Option<Arc<Btf>> {
        if id == 0 {
            return None;
        }
        let mut kept = self.types.lock().unwrap_or_else(PoisonError::into_inner);
        kept.entry(id)
            .or_insert_with(|| read_btf(id).ok().flatten().and_then(std::result::Result::ok).map(Arc::new))
            .clone()
    }

    fn program(&self, fd: &OwnedFd) -> Result<BpfProgramInfo> {
        let (seen, maps) = program_info(fd)?;
        let short = text(&seen.name);
        Ok(BpfProgramInfo {
            id: seen.id,
            kind: seen.kind,
            name: self.whole_name(fd, &seen).filter(|whole| whole.starts_with(&short)).unwrap_or(short),
            verified_insns: seen.verified_insns,
            run_count: seen.run_cnt,
            run_time_ns: seen.run_time_ns,
            misses: seen.recursion_misses,
            maps,
        })
    }

    /// What its source calls it: the first function of its types is the program itself.
    fn whole_name(&self, fd: &OwnedFd, seen: &ProgInfo) -> Option<String> {
        let fits = seen.func_info_rec_size as usize >= size_of::<FuncInfo>();
        if seen.btf_id == 0 || seen.nr_func_info == 0 || !fits {
            return None;
        }
        let (mut first, mut ask) = (FuncInfo::default(), zeroed_prog_info());
        (ask.nr_func_info, ask.func_info) = (1, (&raw mut first) as u64);
        ask.func_info_rec_size = size_of::<FuncInfo>() as u32;
        info(fd, &mut ask).ok()?;
        match self.types(seen.btf_id)?.get(TypeId(first.type_id)) {
            Ok(Type::Function { name, .. }) => Some(name.to_owned()),
            _ => None,
        }
    }
}

/// Opens one after another; one that goes away in between is none.
fn each(next: libc::c_long, by_id: libc::c_long, mut take: impl FnMut(OwnedFd) -> Result<()>) -> Result<()> {
    let mut id = 0;
    for _ in 0..MAX_OBJECTS {
        let Some(following) = next_id(next, id)? else { return Ok(()) };
        id = following;
        if let Some(fd) = open(by_id, id)? {
            take(fd)?;
        }
    }
    Ok(())
}

/// What the kernel says of a map.
pub(crate) fn map_info(fd: &OwnedFd) -> Result<BpfMapInfo> {
    let mut seen = MapInfo::default();
    info(fd, &mut seen)?;
    Ok(BpfMapInfo {
        id: seen.id,
        kind: seen.kind,
        name: text(&seen.name),
        key_size: seen.key_size,
        value_size: seen.value_size,
        max_entries: seen.max_entries,
        kernel_value_type: seen.vmlinux_value_type,
        btf: seen.btf_id,
        key_type: seen.key_type,
        value_type: seen.value_type,
    })
}

/// With the IDs of the maps that it uses.
fn program_info(fd: &OwnedFd) -> Result<(ProgInfo, Vec<u32>)> {
    let mut seen = zeroed_prog_info();
    info(fd, &mut seen)?;
    let mut maps = vec![0u32; seen.nr_map_ids.min(MAX_USED) as usize];
    let mut ask = zeroed_prog_info();
    (ask.nr_map_ids, ask.map_ids) = (maps.len() as u32, maps.as_mut_ptr() as u64);
    info(fd, &mut ask)?;
    maps.truncate(ask.nr_map_ids as usize);
    Ok((seen, maps))
}

fn zeroed_prog_info() -> ProgInfo {
    // SAFETY: a structure of plain integers.
    unsafe { std::mem::zeroed() }
}

/// `None` when it has gone.
fn read_btf(id: u32) -> Result<Option<std::result::Result<Btf, BtfError>>> {
    let Some(fd) = open(sys::BTF_GET_FD_BY_ID, id)? else { return Ok(None) };
    let mut seen = BtfInfo { btf: 0, size: 0, id: 0 };
    info(&fd, &mut seen)?;
    let mut bytes = vec![0; seen.size.min(MAX_BTF) as usize];
    let mut ask = BtfInfo { btf: bytes.as_mut_ptr() as u64, size: bytes.len() as u32, id: 0 };
    info(&fd, &mut ask)?;
    Ok(Some(Btf::parse(bytes)))
}

/// Up to the first NUL.
fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn the_layouts_are_the_kernels() {
        assert_eq!((offset_of!(ProgInfo, nr_map_ids), offset_of!(ProgInfo, map_ids)), (52, 56));
        assert_eq!((offset_of!(ProgInfo, name), offset_of!(ProgInfo, btf_id)), (64, 128));
        assert_eq!((offset_of!(ProgInfo, func_info), offset_of!(ProgInfo, run_time_ns)), (136, 192));
        assert_eq!(offset_of!(ProgInfo, verified_insns), 216);
        assert_eq!((offset_of!(MapInfo, name), offset_of!(MapInfo, vmlinux_value_type)), (24, 44));
        assert_eq!((offset_of!(MapInfo, btf_id), offset_of!(MapInfo, value_type)), (64, 72));
    }

    #[test]
    fn a_name_ends_at_its_first_nul() {
        assert_eq!(text(b"name\0rest"), "name");
        assert_eq!(text(b"whole"), "whole");
    }
}
