//! What a host has for machines that want it to themselves: which CPUs this process may use, whether threads can have a
//! real-time priority, how many huge pages are free; and locks, so that two such machines don't share an LLC.
//!
//! May touch: `/proc`, `/sys`, a thread of its own for a moment, and the lock files. Knows nothing of tests.

mod abilities;
mod locks;

pub use abilities::{HostError, free_huge_pages, realtime, usable_cpus};
pub use locks::{Lease, LockError, Locks, Taken, Wanted};
