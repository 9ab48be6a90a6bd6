//! What host and guest agree on about the mailbox, to the byte.
//!
//! Compiled twice: here, and into the boot init (guest-init/boot-init), which has
//! no standard library. All numbers are little-endian.

/// Bytes of a page of the guest.
pub const PAGE: usize = 4096;

/// Begins every page of a mailbox that waits; followed by the page's index and
/// its complement, eight bytes each.
pub const MARK: [u8; 16] = *b"ktstr mailbox \x91\xe5";

/// Bytes of a whole mark.
pub const MARK_BYTES: usize = 32;

/// Begins the header, which is all of a filled mailbox's last page.
pub const MAGIC: u64 = u64::from_le_bytes(*b"KTSTRMB2");

/// Offsets of the header's fields: the magic number is at 0.
/// Length of the program that the mailbox begins with, bytes.
pub const PROGRAM_BYTES_AT: usize = 8;
/// Where the archive begins, bytes from the mailbox's start.
pub const ARCHIVE_AT: usize = 16;
/// Length of the archive, bytes.
pub const ARCHIVE_BYTES_AT: usize = 24;
/// [`sum`] over the archive.
pub const SUM_AT: usize = 32;
/// [`SET_CLOCK`] or 0.
pub const FLAGS_AT: usize = 40;
/// Wall clock: seconds since the Unix epoch.
pub const SECONDS_AT: usize = 48;
/// Wall clock: nanoseconds.
pub const NANOS_AT: usize = 56;
/// Bytes for the guest's random number generator.
pub const ENTROPY_AT: usize = 64;
/// How many they are.
pub const ENTROPY_BYTES: usize = 32;
/// Bytes of the header.
pub const HEADER_BYTES: usize = ENTROPY_AT + ENTROPY_BYTES;

/// Set the wall clock.
pub const SET_CLOCK: u64 = 1;

/// In the boot image: a file with the number of the mailbox's pages, eight bytes.
pub const SIZE_FILE: &str = "/ktstr-mailbox";
/// What the boot init prints before it asks to be stopped.
pub const READY: &str = "ktstr: waiting in its mailbox";
/// The device that stops the machine (a watchdog, `i6300esb`) is at this PCI address.
pub const STOP_SLOT: u8 = 0x10;
/// A machine without that device has a third virtio console port of this name: whatever is
/// written to it stops the machine.
pub const STOP_PORT: &str = "ktstr.stop";

/// A sum over the first eight bytes of every page's worth of `archive`: it tells
/// pages that were lost, doubled or put in the wrong place, in no time.
pub fn sum(archive: &[u8]) -> u64 {
    let mut sum = archive.len() as u64;
    let mut at = 0;
    while at < archive.len() {
        let mut word = 0u64;
        let end = if archive.len() - at < 8 { archive.len() } else { at + 8 };
        let mut i = end;
        while i > at {
            i -= 1;
            word = word << 8 | archive[i] as u64;
        }
        sum = (sum.rotate_left(7) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        at += PAGE;
    }
    sum
}
