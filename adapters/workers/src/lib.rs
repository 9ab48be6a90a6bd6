//! The worker port over real forked processes.
//!
//! [`WorkloadHandle`] forks a group of workers, holds them until they are in their
//! cgroup, releases them at one moment, stops them and reports what each measured.
//! [`ForkedWorkers`] is the same thing behind the scenario's port, and
//! [`MonotonicClock`] the guest's time.
//!
//! A worker and the process that spawned it share one anonymous mapping. All that a
//! worker measures goes there as it happens, so a worker that is killed leaves a
//! report of the part that it ran. All that a worker needs is made before the fork;
//! the child itself only makes system calls.
//!
//! Workers die with the thread that spawned them (`PR_SET_PDEATHSIG` follows the
//! thread, not the process): spawn from a thread that outlives them.

mod child;
mod clock;
mod collect;
mod handle;
mod meter;
mod plan;
mod process;
mod report;
mod setup;
mod shm;
mod spawn;
mod spin;
mod sys;
mod work;

pub use clock::MonotonicClock;
pub use collect::{KILL_DEADLINE, STOP_DEADLINE};
pub use handle::{ForkedWorkers, WorkloadHandle};
pub use spawn::READY_DEADLINE;
