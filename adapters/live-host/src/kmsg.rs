//! `/dev/kmsg`, a record a read (Documentation/ABI/testing/dev-kmsg).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

const DEVICE: &str = "/dev/kmsg";
/// The kernel writes a record of at most 8192 bytes (`PRINTKRB_RECORD_MAX` and what goes with it).
const RECORD: usize = 16 << 10;

/// A part of the kernel's log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KmsgText {
    /// Its records as the device gives them, for [`parse_kmsg_window`](ktstr_live::parse_kmsg_window).
    pub text: String,
    /// How often records were overwritten before they were read: each time one or more are missing.
    pub gaps: usize,
    /// Whether there was more than was asked for: the last records are missing.
    pub truncated: bool,
}

/// A reader of the kernel's log, at a place in it.
#[derive(Debug)]
pub struct KmsgReader {
    device: File,
}

impl KmsgReader {
    /// From the oldest record on that the kernel has.
    ///
    /// # Errors
    /// The kernel's, such as `EPERM` for users with `kernel.dmesg_restrict`.
    pub fn from_oldest() -> io::Result<Self> {
        Self::open(Path::new(DEVICE))
    }

    /// From now on: only what is logged from here.
    ///
    /// # Errors
    /// As [`KmsgReader::from_oldest`].
    pub fn from_now() -> io::Result<Self> {
        let mut this = Self::from_oldest()?;
        this.device.seek(SeekFrom::End(0))?;
        Ok(this)
    }

    fn open(path: &Path) -> io::Result<Self> {
        let device = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
        Ok(Self { device })
    }

    /// What was logged since the last read, as many whole records as `most` bytes hold. Doesn't wait. A line that its
    /// writer has not ended is there once it has, or once another line begins.
    ///
    /// # Errors
    /// The kernel's.
    pub fn read(&mut self, most: usize) -> io::Result<KmsgText> {
        read_records(&mut self.device, most)
    }
}

fn read_records(device: &mut impl Read, most: usize) -> io::Result<KmsgText> {
    let (mut found, mut buffer) = (KmsgText::default(), vec![0; RECORD]);
    loop {
        match device.read(&mut buffer) {
            Ok(0) => return Ok(found),
            Ok(length) if found.text.len() + length > most => {
                found.truncated = true;
                return Ok(found);
            }
            Ok(length) => found.text.push_str(&String::from_utf8_lossy(&buffer[..length])),
            Err(e) => match e.raw_os_error() {
                // Nothing more at this time.
                Some(libc::EAGAIN) => return Ok(found),
                // Overwritten meanwhile; the next read gives the oldest that is there.
                Some(libc::EPIPE) => found.gaps += 1,
                Some(libc::EINTR) => {}
                _ => return Err(e),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives one of these a read, then says what it is made to say.
    struct Device(Vec<Result<&'static str, i32>>);

    impl Read for Device {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let next = if self.0.is_empty() { Err(libc::EAGAIN) } else { self.0.remove(0) };
            let text = next.map_err(io::Error::from_raw_os_error)?;
            buffer[..text.len()].copy_from_slice(text.as_bytes());
            Ok(text.len())
        }
    }

    #[test]
    fn records_are_read_to_the_end_and_gaps_told() {
        let mut device =
            Device(vec![Ok("6,1,1,-;one\n"), Err(libc::EPIPE), Err(libc::EINTR), Ok("6,9,9,-;nine\n")]);
        let read = read_records(&mut device, 1 << 20).unwrap();
        assert_eq!(read, KmsgText { text: "6,1,1,-;one\n6,9,9,-;nine\n".into(), gaps: 1, truncated: false });
        let mut failing = Device(vec![Err(libc::EPERM)]);
        assert!(read_records(&mut failing, 1).is_err());
    }

    #[test]
    fn only_whole_records_are_kept() {
        let read = read_records(&mut Device(vec![Ok("6,1,1,-;one\n"), Ok("6,2,2,-;two\n")]), 20).unwrap();
        assert_eq!(read, KmsgText { text: "6,1,1,-;one\n".into(), gaps: 0, truncated: true });
    }
}
