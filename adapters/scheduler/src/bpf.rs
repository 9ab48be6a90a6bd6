//! What the kernel knows of loaded BPF programs, by bpf(2).

use ktstr_scheduler::ProgramStats;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `enum bpf_cmd` of include/uapi/linux/bpf.h.
const BPF_PROG_GET_NEXT_ID: libc::c_long = 11;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
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
    before_run_time: [u64; 14],
    run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    attach_btf_obj_id: u32,
}

/// The struct_ops programs that are loaded.
///
/// # Errors
/// When the kernel refuses bpf(2).
pub(crate) fn struct_ops_programs() -> std::io::Result<Vec<ProgramStats>> {
    let mut programs = Vec::new();
    let mut id = 0;
    while let Some(next) = next_id(id)? {
        id = next;
        // One that went away between the two calls is none.
        let Ok(program) = open(id) else { continue };
        let info = info(&program)?;
        if info.kind == STRUCT_OPS {
            programs.push(stats(&info));
        }
        if programs.len() == MAX_PROGRAMS {
            break;
        }
    }
    Ok(programs)
}

fn stats(info: &ProgInfo) -> ProgramStats {
    let end = info.name.iter().position(|b| *b == 0).unwrap_or(info.name.len());
    ProgramStats {
        name: String::from_utf8_lossy(&info.name[..end]).into_owned(),
        verified_insns: info.verified_insns,
        run_cnt: info.run_cnt,
        run_time_ns: info.run_time_ns,
    }
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

fn open(id: u32) -> std::io::Result<OwnedFd> {
    // prog_id, next_id, open_flags
    let mut attr = [id, 0, 0, 0];
    let fd = bpf(BPF_PROG_GET_FD_BY_ID, &mut attr)?;
    // SAFETY: the kernel just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn info(program: &OwnedFd) -> std::io::Result<ProgInfo> {
    // SAFETY: a structure of plain integers.
    let mut info: ProgInfo = unsafe { std::mem::zeroed() };
    let at = (&raw mut info) as u64;
    // bpf_fd, info_len, info (64 bits)
    let mut attr = [program.as_raw_fd() as u32, size_of::<ProgInfo>() as u32, at as u32, (at >> 32) as u32];
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok(info)
}

fn bpf(command: libc::c_long, attr: &mut [u32; 4]) -> std::io::Result<i32> {
    // SAFETY: `attr` is as long as said and outlives the call; so does what it points to.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr) as libc::c_ulong)
    };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(std::mem::offset_of!(ProgInfo, name), 64);
        assert_eq!(std::mem::offset_of!(ProgInfo, run_time_ns), 192);
        assert_eq!(std::mem::offset_of!(ProgInfo, verified_insns), 216);
    }
}
