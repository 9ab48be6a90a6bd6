//! bpf(2) and pidfd_open(2).

use std::io::{Error, Result};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `enum bpf_cmd` of include/uapi/linux/bpf.h.
pub(crate) const MAP_LOOKUP_ELEM: libc::c_long = 1;
pub(crate) const MAP_GET_NEXT_KEY: libc::c_long = 4;
pub(crate) const PROG_GET_NEXT_ID: libc::c_long = 11;
pub(crate) const MAP_GET_NEXT_ID: libc::c_long = 12;
pub(crate) const PROG_GET_FD_BY_ID: libc::c_long = 13;
pub(crate) const MAP_GET_FD_BY_ID: libc::c_long = 14;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
pub(crate) const BTF_GET_FD_BY_ID: libc::c_long = 19;

/// `PIDFD_THREAD`, since 6.9: `O_EXCL`.
const PIDFD_THREAD: libc::c_uint = 0o200;

/// bpf(2) with as much of `union bpf_attr` as the command has.
fn bpf<T>(command: libc::c_long, attr: &mut T) -> Result<i32> {
    let at = std::ptr::from_mut(attr);
    // SAFETY: `attr` is as long as said and outlives the call; so does what it points to, by the callers below.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, at, size_of::<T>() as libc::c_ulong) };
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result as i32) }
}

/// The next id after this one; `None` after the last.
pub(crate) fn next_id(command: libc::c_long, after: u32) -> Result<Option<u32>> {
    // start_id, next_id, open_flags
    let mut attr = [after, 0, 0, 0];
    match bpf(command, &mut attr) {
        Ok(_) => Ok(Some(attr[1])),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens an object by its id; `None` when it has gone.
pub(crate) fn open(command: libc::c_long, id: u32) -> Result<Option<OwnedFd>> {
    // the object's id, next_id, open_flags
    let mut attr = [id, 0, 0, 0];
    match bpf(command, &mut attr) {
        // SAFETY: the kernel just made this descriptor for us.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Fills `info`; what it points to must have the room that it says.
pub(crate) fn info<T>(object: &OwnedFd, info: &mut T) -> Result<()> {
    let at = std::ptr::from_mut(info) as u64;
    // bpf_fd, info_len, info (64 bits)
    let mut attr = [object.as_raw_fd() as u32, size_of::<T>() as u32, at as u32, (at >> 32) as u32];
    bpf(OBJ_GET_INFO_BY_FD, &mut attr).map(drop)
}

/// map_fd, key, value or next key, flags.
#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// The value of a key; `false` without such an entry. `value` must have the room that a map of its kind wants.
pub(crate) fn lookup(map: &OwnedFd, key: &[u8], value: &mut [u8]) -> Result<bool> {
    let (key, value) = (key.as_ptr() as u64, value.as_mut_ptr() as u64);
    let mut attr = Element { map: map.as_raw_fd() as u32, pad: 0, key, value, flags: 0 };
    match bpf(MAP_LOOKUP_ELEM, &mut attr) {
        Ok(_) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

/// The key after this one, or the first; `None` after the last.
pub(crate) fn next_key(map: &OwnedFd, key: Option<&[u8]>, next: &mut [u8]) -> Result<Option<()>> {
    let (key, value) = (key.map_or(0, |key| key.as_ptr() as u64), next.as_mut_ptr() as u64);
    let mut attr = Element { map: map.as_raw_fd() as u32, pad: 0, key, value, flags: 0 };
    match bpf(MAP_GET_NEXT_KEY, &mut attr) {
        Ok(_) => Ok(Some(())),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A thread by its number; `None` when it has gone, or when it leads no process and the kernel can't name others.
pub(crate) fn thread(tid: u32) -> Result<Option<OwnedFd>> {
    for flags in [PIDFD_THREAD, 0] {
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, tid as libc::c_long, flags as libc::c_long) };
        if fd >= 0 {
            // SAFETY: the kernel just made this descriptor for us.
            return Ok(Some(unsafe { OwnedFd::from_raw_fd(fd as i32) }));
        }
        let error = Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINVAL) => {}
            Some(libc::ESRCH | libc::ENOENT) => return Ok(None),
            _ => return Err(error),
        }
    }
    Ok(None)
}
