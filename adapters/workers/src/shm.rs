//! The memory that a group of workers shares with the process that spawned it.
//!
//! One anonymous shared mapping: a [`Control`], one [`WorkerBlock`] a worker, one
//! [`GroupBlock`] for each set of workers that talk to each other. All fields are
//! atomics; zero, which a fresh mapping is, is a valid start for each. A block has
//! one writer (its worker), so counters need no read-modify-write.

use ktstr_workload::{BUCKETS, MAX_MIGRATIONS};
use std::ptr::{self, NonNull};
use std::sync::atomic::{
    AtomicI32, AtomicU32, AtomicU64,
    Ordering::{Acquire, Relaxed},
};

use crate::sys::{self, MAX_CPUS};

/// NUMA nodes that a block counts pages of (`MAX_NUMNODES` of x86 is 1024, machines have few).
pub(crate) const MAX_NODES: usize = 64;

/// [`Control::start`]: not released yet.
pub(crate) const START_WAIT: u32 = 0;
/// [`Control::start`]: run.
pub(crate) const START_GO: u32 = 1;
/// [`Control::start`]: end without having run.
pub(crate) const START_ABANDON: u32 = 2;

/// [`WorkerBlock::due_ns`]: it wants to run, and has since `last_seen_ns`.
pub(crate) const DUE_NOW: u64 = 0;
/// [`WorkerBlock::due_ns`]: it waits for somebody else.
pub(crate) const DUE_NEVER: u64 = u64::MAX;

/// Where a worker is in its life ([`WorkerBlock::state`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum State {
    /// Not set up yet.
    New = 0,
    /// Set up, waiting for the release.
    Ready = 1,
    /// Released.
    Running = 2,
    /// Stopped in order; its figures are final.
    Done = 3,
    /// A step failed; `fail_step` and `fail_errno` say which and why.
    Failed = 4,
    /// Its function panicked.
    Panicked = 5,
}

impl State {
    /// The state of that number; an unknown one counts as not set up.
    pub(crate) fn from_number(number: u32) -> Self {
        [Self::New, Self::Ready, Self::Running, Self::Done, Self::Failed, Self::Panicked]
            .into_iter()
            .find(|s| *s as u32 == number)
            .unwrap_or(Self::New)
    }
}

/// What the parent tells all workers.
#[repr(C, align(128))]
pub(crate) struct Control {
    /// Futex: [`START_WAIT`], [`START_GO`] or [`START_ABANDON`].
    pub(crate) start: AtomicU32,
    /// 1 once workers should return.
    pub(crate) stop: AtomicU32,
    /// Futex: workers that are ready or have failed.
    pub(crate) settled: AtomicU32,
    /// When the workers were released.
    pub(crate) started_at_ns: AtomicU64,
}

/// One migration as it lies in shared memory.
#[repr(C)]
pub(crate) struct MigrationSlot {
    pub(crate) at_ns: AtomicU64,
    pub(crate) from: AtomicU32,
    pub(crate) to: AtomicU32,
}

/// The three fields of `/proc/<tid>/schedstat` and whether they were read.
#[repr(C)]
pub(crate) struct SchedstatSlot {
    pub(crate) known: AtomicU32,
    pub(crate) cpu_ns: AtomicU64,
    pub(crate) run_delay_ns: AtomicU64,
    pub(crate) run_count: AtomicU64,
}

/// What one worker measures.
#[repr(C, align(4096))]
pub(crate) struct WorkerBlock {
    pub(crate) tid: AtomicI32,
    pub(crate) state: AtomicU32,
    pub(crate) fail_step: AtomicU32,
    pub(crate) fail_errno: AtomicI32,
    /// When it last looked at the clock.
    pub(crate) last_seen_ns: AtomicU64,
    /// [`DUE_NOW`], [`DUE_NEVER`], or when its sleep ends.
    pub(crate) due_ns: AtomicU64,
    pub(crate) stopped_at_ns: AtomicU64,
    /// CPU time when it became ready.
    pub(crate) cpu_before_ns: AtomicU64,
    /// CPU time at the end, or the last time it looked.
    pub(crate) cpu_after_ns: AtomicU64,
    pub(crate) work_units: AtomicU64,
    pub(crate) iterations: AtomicU64,
    pub(crate) max_gap_ns: AtomicU64,
    pub(crate) max_gap_cpu: AtomicU32,
    pub(crate) max_gap_at_ns: AtomicU64,
    pub(crate) migration_count: AtomicU64,
    pub(crate) migrations: [MigrationSlot; MAX_MIGRATIONS],
    pub(crate) cpus_used: [AtomicU64; MAX_CPUS / 64],
    pub(crate) wake_sum: AtomicU64,
    pub(crate) wake_min: AtomicU64,
    pub(crate) wake_max: AtomicU64,
    pub(crate) wake_buckets: [AtomicU64; BUCKETS],
    pub(crate) schedstat_before: SchedstatSlot,
    pub(crate) schedstat_after: SchedstatSlot,
    pub(crate) node_pages: [AtomicU64; MAX_NODES],
}

impl WorkerBlock {
    /// The worker's thread id while it is ready or running. The number of one that
    /// has ended may be another task's by now.
    pub(crate) fn live_tid(&self) -> Option<sys::Pid> {
        let state = State::from_number(self.state.load(Acquire));
        let tid = self.tid.load(Relaxed);
        (matches!(state, State::Ready | State::Running) && tid > 0).then_some(tid)
    }
}

/// What workers that talk to each other share.
#[repr(C, align(128))]
pub(crate) struct GroupBlock {
    /// Futex: whose turn it is, or the number of the wake-up.
    pub(crate) word: AtomicU32,
    /// Futex: receivers that have answered.
    pub(crate) acks: AtomicU32,
    /// When the last wake-up was sent, one for each direction.
    pub(crate) stamps: [AtomicU64; 2],
}

/// Adds to a counter that has only one writer.
pub(crate) fn bump(counter: &AtomicU64, by: u64) {
    counter.store(counter.load(Relaxed).wrapping_add(by), Relaxed);
}

/// The shared mapping of one group of workers.
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    workers: usize,
    groups: usize,
}

// SAFETY: the mapping holds nothing but atomics and stays where it is until drop.
unsafe impl Send for Mapping {}
// SAFETY: as above; all access is through shared references to atomics.
unsafe impl Sync for Mapping {}

const CONTROL_LEN: usize = 4096;

impl Mapping {
    /// Maps blocks for `workers` workers and `groups` groups, all zero.
    pub(crate) fn new(workers: usize, groups: usize) -> Result<Self, i32> {
        let blocks = workers.checked_mul(size_of::<WorkerBlock>());
        let rest = groups.checked_mul(size_of::<GroupBlock>());
        let len = blocks.zip(rest).and_then(|(b, r)| b.checked_add(r)?.checked_add(CONTROL_LEN));
        let len = len.ok_or(libc::ENOMEM)?;
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // Populated now, so that no worker takes a page fault, or is charged, for it.
        // SAFETY: a fresh anonymous mapping overlaps nothing.
        let start =
            unsafe { libc::mmap(ptr::null_mut(), len, protection, flags | libc::MAP_POPULATE, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(sys::errno());
        }
        let start = NonNull::new(start.cast()).ok_or(libc::ENOMEM)?;
        Ok(Self { start, len, workers, groups })
    }

    /// Number of workers.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// What the parent tells all workers.
    pub(crate) fn control(&self) -> &Control {
        // SAFETY: the mapping begins with a Control: page-aligned, zeroed, atomics only.
        unsafe { self.start.cast().as_ref() }
    }

    /// The block of worker `index`.
    pub(crate) fn worker(&self, index: usize) -> &WorkerBlock {
        assert!(index < self.workers, "worker {index} of {}", self.workers);
        // SAFETY: within the mapping by the assertion; blocks follow the control page
        // and are page-aligned; zeroed atomics are valid.
        unsafe { self.start.add(CONTROL_LEN).cast::<WorkerBlock>().add(index).as_ref() }
    }

    /// The block of group `index`.
    pub(crate) fn group(&self, index: usize) -> &GroupBlock {
        assert!(index < self.groups, "group {index} of {}", self.groups);
        let offset = CONTROL_LEN + self.workers * size_of::<WorkerBlock>();
        // SAFETY: within the mapping by the assertion; the offset is a multiple of the
        // page size and so aligned; zeroed atomics are valid.
        unsafe { self.start.add(offset).cast::<GroupBlock>().add(index).as_ref() }
    }

    /// All worker blocks.
    pub(crate) fn blocks(&self) -> impl Iterator<Item = &WorkerBlock> {
        (0..self.workers).map(|i| self.worker(i))
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and no reference outlives `self`. Workers have
        // their own view of the memory.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zero_and_apart() {
        let mapping = Mapping::new(3, 2).unwrap();
        mapping.worker(1).iterations.store(7, Relaxed);
        mapping.group(0).word.store(9, Relaxed);
        let seen: Vec<u64> = mapping.blocks().map(|b| b.iterations.load(Relaxed)).collect();
        assert_eq!(seen, [0, 7, 0]);
        assert_eq!(mapping.group(1).word.load(Relaxed), 0);
        assert_eq!(mapping.control().start.load(Relaxed), START_WAIT);
    }

    #[test]
    fn an_absurd_number_of_workers_is_an_error() {
        assert!(Mapping::new(usize::MAX / 4096, 0).is_err());
    }

    #[test]
    fn states_survive_as_numbers() {
        for state in [State::New, State::Ready, State::Running, State::Done, State::Failed, State::Panicked] {
            assert_eq!(State::from_number(state as u32), state);
        }
        assert_eq!(State::from_number(77), State::New);
    }
}
