//! Brings the loopback interface up.

use crate::InitError;
use std::io::Error;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Sets `IFF_UP` on `lo` (netdevice(7)). A kernel without `CONFIG_INET` has none.
pub(crate) fn loopback_up() -> Result<(), InitError> {
    let doing = "bringing the loopback interface up (CONFIG_INET)";
    // SAFETY: socket(2) takes no pointers.
    let raw = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if raw < 0 {
        return Err(InitError::os(doing)(Error::last_os_error()));
    }
    // SAFETY: a fresh descriptor that nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // SAFETY: ifreq is plain data for which all zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    // The boot init of a saved machine has brought it up already.
    // SAFETY: SIOCGIFFLAGS reads and writes one ifreq, which outlives the call.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &raw mut request) };
    // SAFETY: the call above filled in the flags.
    if asked == 0 && i32::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0 {
        return Ok(());
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) } != 0 {
        return Err(InitError::os(doing)(Error::last_os_error()));
    }
    Ok(())
}
