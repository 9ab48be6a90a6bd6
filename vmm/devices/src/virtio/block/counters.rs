//! What a disk has done, for whoever wants to know while it does it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Requests that were answered since the disk was made; a reset or a saved machine changes nothing about that.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DiskCounts {
    /// Reads that succeeded.
    pub reads: u64,
    /// Bytes that they brought.
    pub bytes_read: u64,
    /// Writes that succeeded.
    pub writes: u64,
    /// Bytes that they took.
    pub bytes_written: u64,
    /// Flushes that succeeded; for a driver that doesn't ask for any there is one with each write.
    pub flushes: u64,
    /// Requests to discard or to write zeroes that succeeded.
    pub cleared: u64,
    /// Requests that were refused or failed.
    pub errors: u64,
}

/// Counts that can be read while the disk is at work.
#[derive(Debug, Default)]
pub struct Counters {
    reads: AtomicU64,
    bytes_read: AtomicU64,
    writes: AtomicU64,
    bytes_written: AtomicU64,
    flushes: AtomicU64,
    cleared: AtomicU64,
    errors: AtomicU64,
}

impl Counters {
    /// The counts now. Each is exact; of two, one may be newer.
    #[must_use]
    pub fn now(&self) -> DiskCounts {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DiskCounts {
            reads: now(&self.reads),
            bytes_read: now(&self.bytes_read),
            writes: now(&self.writes),
            bytes_written: now(&self.bytes_written),
            flushes: now(&self.flushes),
            cleared: now(&self.cleared),
            errors: now(&self.errors),
        }
    }

    pub(super) fn read(&self, bytes: usize) {
        add(&self.reads, 1);
        add(&self.bytes_read, bytes);
    }

    pub(super) fn write(&self, bytes: usize) {
        add(&self.writes, 1);
        add(&self.bytes_written, bytes);
    }

    pub(super) fn flush(&self) {
        add(&self.flushes, 1);
    }

    pub(super) fn clear(&self) {
        add(&self.cleared, 1);
    }

    pub(super) fn error(&self) {
        add(&self.errors, 1);
    }
}

fn add(counter: &AtomicU64, count: usize) {
    counter.fetch_add(count as u64, Ordering::Relaxed);
}
