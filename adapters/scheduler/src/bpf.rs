//! What the kernel knows of loaded BPF programs, by bpf(2).

use crate::btf;
use crate::program::doing;
use ktstr_scheduler::ProgramStats;
use std::collections::HashMap;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `enum bpf_cmd` of include/uapi/linux/bpf.h.
const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_BTF_GET_FD_BY_ID: libc::c_long = 19;
/// `BPF_PROG_TYPE_STRUCT_OPS` of `enum bpf_prog_type`.
const STRUCT_OPS: u32 = 27;
/// Programs of one scheduler: sched_ext has about thirty callbacks. More would mean that
/// ids are handed out faster than they are read.
const MAX_PROGRAMS: usize = 1024;

/// The part of `struct bpf_prog_info` up to `verified_insns` (kernel 5.16 and later).
#[repr(C)]
struct ProgInfo {
    kind: u32,
    id: u32,
    before_name: [u64; 7],
    name: [u8; 16],
    before_btf_id: [u64; 6],
    btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: u64,
    jited_line_info: u64,
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    before_run_time: [u64; 2],
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    attach_btf_obj_id: u32,
}

/// `struct bpf_func_info`: where a function of a program begins, and its type in the BTF.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FuncInfo {
    insn_off: u32,
    type_id: u32,
}

/// `struct bpf_line_info`: which line of its source an instruction comes from.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct LineInfo {
    insn_off: u32,
    file_name_off: u32,
    line_off: u32,
    /// The line in bits 10 and up.
    line_col: u32,
}

/// `struct bpf_btf_info`, to the size.
#[repr(C)]
struct BtfInfo {
    btf: u64,
    btf_size: u32,
    id: u32,
}

/// The struct_ops programs that are loaded.
///
/// # Errors
/// When the kernel refuses bpf(2).
pub(crate) fn struct_ops_programs() -> std::io::Result<Vec<ProgramStats>> {
    let (mut programs, mut objects) = (Vec::new(), HashMap::new());
    let mut id = 0;
    while let Some(next) = next_id(id)? {
        id = next;
        // One that went away between the two calls is none.
        let Ok(program) = open(BPF_PROG_GET_FD_BY_ID, id) else { continue };
        let info = info(&program)?;
        if info.kind == STRUCT_OPS {
            let name = whole_name(&program, &info, &mut objects);
            programs.push(ProgramStats { name: name.unwrap_or_else(|| short_name(&info)), ..stats(&info) });
        }
        if programs.len() == MAX_PROGRAMS {
            break;
        }
    }
    Ok(programs)
}

fn stats(info: &ProgInfo) -> ProgramStats {
    ProgramStats {
        name: String::new(),
        verified_insns: info.verified_insns,
        run_cnt: info.run_cnt,
        run_time_ns: info.run_time_ns,
    }
}

/// A program, opened, as its source knows it.
pub(crate) struct Opened {
    pub(crate) fd: OwnedFd,
    /// The type of its function, by number, in its own BTF.
    pub(crate) function: u32,
    pub(crate) name: String,
    /// Where it stands: `file:line`.
    pub(crate) line: Option<String>,
}

/// The program of that id.
///
/// # Errors
/// In words: it has gone, or knows too little of its source.
pub(crate) fn open_program(id: u32) -> Result<Opened, String> {
    let fd = open(BPF_PROG_GET_FD_BY_ID, id).map_err(doing("opening the program"))?;
    let whole = info(&fd).map_err(doing("asking what the program is"))?;
    if whole.btf_id == 0 || whole.nr_func_info == 0 || whole.func_info_rec_size < size_of::<FuncInfo>() as u32
    {
        return Err("it was loaded without types (BTF) of its functions".to_string());
    }
    let (mut first, mut begin) = (FuncInfo::default(), LineInfo::default());
    // SAFETY: a structure of plain integers.
    let mut ask: ProgInfo = unsafe { std::mem::zeroed() };
    (ask.nr_func_info, ask.func_info) = (1, (&raw mut first) as u64);
    ask.func_info_rec_size = size_of::<FuncInfo>() as u32;
    (ask.nr_line_info, ask.line_info) = (1, (&raw mut begin) as u64);
    ask.line_info_rec_size = size_of::<LineInfo>() as u32;
    object_info(&fd, &mut ask).map_err(doing("asking where the program's source is"))?;
    let btf = btf_of(whole.btf_id).map_err(doing("reading the program's types"))?;
    let short = short_name(&whole);
    let name = btf::function(&btf, first.type_id).filter(|name| name.starts_with(&short));
    let name = name.ok_or_else(|| format!("its types name no function that begins with {short:?}"))?;
    let file = btf::string(&btf, begin.file_name_off).filter(|file| !file.is_empty());
    let line = file.map(|file| format!("{file}:{}", begin.line_col >> 10)).filter(|_| whole.nr_line_info > 0);
    Ok(Opened { function: first.type_id, name: name.to_string(), line, fd })
}

/// The name as far as the kernel keeps it.
fn short_name(info: &ProgInfo) -> String {
    let end = info.name.iter().position(|b| *b == 0).unwrap_or(info.name.len());
    String::from_utf8_lossy(&info.name[..end]).into_owned()
}

/// The name that its source gives it, out of its object's BTF. It must begin with what the
/// kernel keeps, or the BTF was read wrongly.
fn whole_name(program: &OwnedFd, info: &ProgInfo, objects: &mut HashMap<u32, Vec<u8>>) -> Option<String> {
    if info.btf_id == 0 || info.nr_func_info == 0 || info.func_info_rec_size < size_of::<FuncInfo>() as u32 {
        return None;
    }
    // The first function is the program itself.
    let mut first = FuncInfo::default();
    // SAFETY: a structure of plain integers.
    let mut ask: ProgInfo = unsafe { std::mem::zeroed() };
    (ask.nr_func_info, ask.func_info) = (1, (&raw mut first) as u64);
    ask.func_info_rec_size = size_of::<FuncInfo>() as u32;
    object_info(program, &mut ask).ok()?;
    if let std::collections::hash_map::Entry::Vacant(place) = objects.entry(info.btf_id) {
        place.insert(btf_of(info.btf_id).ok()?);
    }
    let name = btf::function(&objects[&info.btf_id], first.type_id)?;
    name.starts_with(&short_name(info)).then(|| name.to_string())
}

/// The BTF of this id, whole.
fn btf_of(id: u32) -> std::io::Result<Vec<u8>> {
    let btf = open(BPF_BTF_GET_FD_BY_ID, id)?;
    let mut info = BtfInfo { btf: 0, btf_size: 0, id: 0 };
    object_info(&btf, &mut info)?;
    let mut bytes = vec![0; info.btf_size as usize];
    let mut info = BtfInfo { btf: bytes.as_mut_ptr() as u64, ..info };
    object_info(&btf, &mut info)?;
    Ok(bytes)
}

fn next_id(after: u32) -> std::io::Result<Option<u32>> {
    // start_id, next_id, open_flags
    let mut attr = [after, 0, 0, 0];
    match bpf(BPF_PROG_GET_NEXT_ID, &mut attr) {
        Ok(_) => Ok(Some(attr[1])),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// By one of the commands that open an object by its id.
pub(crate) fn open(command: libc::c_long, id: u32) -> std::io::Result<OwnedFd> {
    // prog_id, btf_id or map_id, next_id, open_flags
    let mut attr = [id, 0, 0, 0];
    bpf_fd(command, &mut attr)
}

fn info(program: &OwnedFd) -> std::io::Result<ProgInfo> {
    // SAFETY: a structure of plain integers.
    let mut info: ProgInfo = unsafe { std::mem::zeroed() };
    object_info(program, &mut info)?;
    Ok(info)
}

/// Fills `info`; what it points to must have the room that it says.
pub(crate) fn object_info<T>(object: &OwnedFd, info: &mut T) -> std::io::Result<()> {
    let at = std::ptr::from_mut(info) as u64;
    // bpf_fd, info_len, info (64 bits)
    let mut attr = [object.as_raw_fd() as u32, size_of::<T>() as u32, at as u32, (at >> 32) as u32];
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// bpf(2) with as much of `union bpf_attr` as the command has.
pub(crate) fn bpf<T>(command: libc::c_long, attr: &mut T) -> std::io::Result<i32> {
    let at = std::ptr::from_mut(attr);
    // SAFETY: `attr` is as long as said and outlives the call; so does what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, size_of::<T>() as libc::c_ulong) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result as i32) }
}

/// The same for a command that makes a descriptor.
pub(crate) fn bpf_fd<T>(command: libc::c_long, attr: &mut T) -> std::io::Result<OwnedFd> {
    let fd = bpf(command, attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(std::mem::offset_of!(ProgInfo, name), 64);
        assert_eq!(std::mem::offset_of!(ProgInfo, btf_id), 128);
        assert_eq!(std::mem::offset_of!(ProgInfo, func_info), 136);
        assert_eq!(std::mem::offset_of!(ProgInfo, line_info), 152);
        assert_eq!(std::mem::offset_of!(ProgInfo, line_info_rec_size), 172);
        assert_eq!(std::mem::offset_of!(ProgInfo, run_time_ns), 192);
        assert_eq!(std::mem::offset_of!(ProgInfo, verified_insns), 216);
    }
}
