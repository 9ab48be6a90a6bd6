//! The kernel's ring buffer.

use std::io::Error;

const SYSLOG_ACTION_READ_ALL: libc::c_int = 3;
const SYSLOG_ACTION_SIZE_BUFFER: libc::c_int = 10;

/// The whole ring buffer as text, without time stamps, as `dmesg --notime` prints it
/// (syslog(2), `SYSLOG_ACTION_READ_ALL`). Needs `CONFIG_PRINTK` and root.
pub fn read_kmsg() -> std::io::Result<String> {
    // SAFETY: this action ignores the buffer.
    let size = unsafe { libc::klogctl(SYSLOG_ACTION_SIZE_BUFFER, std::ptr::null_mut(), 0) };
    if size < 0 {
        return Err(Error::last_os_error());
    }
    let mut buffer = vec![0u8; size as usize];
    // SAFETY: the buffer holds `size` bytes and outlives the call.
    let read = unsafe { libc::klogctl(SYSLOG_ACTION_READ_ALL, buffer.as_mut_ptr().cast(), size) };
    if read < 0 {
        return Err(Error::last_os_error());
    }
    buffer.truncate(read as usize);
    Ok(String::from_utf8_lossy(&buffer).lines().map(without_time).collect::<Vec<_>>().join("\n"))
}

/// A line of the ring buffer without its `<level>` and `[time]` prefixes.
pub fn without_time(line: &str) -> &str {
    let mut rest = line;
    if let Some((_, after)) = rest.strip_prefix('<').and_then(|r| r.split_once('>')) {
        rest = after;
    }
    if let Some((stamp, after)) = rest.strip_prefix('[').and_then(|r| r.split_once("] "))
        && stamp.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ' ')
    {
        rest = after;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_go_and_text_stays() {
        assert_eq!(without_time("<6>[    0.123456] Linux version"), "Linux version");
        assert_eq!(without_time("[drm] hello"), "[drm] hello");
        assert_eq!(without_time("<4>plain"), "plain");
    }
}
