//! What a host has for machines that want it to themselves: which CPUs this process may use, whether threads can have a
//! real-time priority, how many huge pages are free; locks, so that two such machines don't share an LLC, and others stay
//! out of it; threads that are kept on some CPUs; and what its kernel counts of a machine's threads.
//!
//! May touch: `/proc`, `/sys`, a thread of its own for a moment, CPUs of the calling thread, the lock files, and counters
//! of threads (`perf_event_open`). Knows
//! nothing of tests.

mod abilities;
mod affinity;
mod counters;
mod locks;

pub use abilities::{HostError, free_huge_pages, realtime, usable_cpus};
pub use affinity::{Kept, keep_on};
pub use counters::PerfCounters;
pub use locks::{Lease, LockError, Locks, Part, Shared, Taken, Wanted};
