//! How a worker measures itself while it runs.
//!
//! A worker that wants to run looks at the clock after every chunk of work. When far
//! more time than a chunk takes has passed between two looks, the part of it that the
//! worker was not on a CPU is a gap: it wanted to run and did not. After a sleep or a
//! wait the overshoot past the due time, or the time since the waker's stamp, is a
//! wake-up latency, and the part of it that the worker was runnable is a gap too.
//!
//! Only that part counts because the whole machine may stand still: a virtual CPU
//! that its host does not run makes the wall clock jump, which is no doing of the
//! guest's scheduler. Its accounts of the worker (CPU time, run delay) tell the two
//! apart, and are asked only when a pause is long enough to matter.
//!
//! Everything goes to shared memory as it happens; nothing here allocates.

use crate::shm::{Control, DUE_NEVER, DUE_NOW, SchedstatSlot, WorkerBlock, bump};
use crate::spin::{SpinRate, spin_rounds};
use crate::sys;
use ktstr_workload::{MAX_MIGRATIONS, bucket_index};
use std::cell::Cell;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// Shorter pauses are not counted as gaps: interrupts and the clock itself cause them.
const GAP_FLOOR_NS: u64 = 1_000_000;

/// How often the scheduler's accounts are read anyway: the CPU time for the report of
/// a worker that is killed, both so that what they are compared with is not too old.
const ACCOUNT_EVERY_NS: u64 = 10_000_000;

/// No CPU seen yet.
const NO_CPU: u32 = u32::MAX;

/// A worker's view of its block.
pub(crate) struct Meter<'a> {
    control: &'a Control,
    block: &'a WorkerBlock,
    schedstat: &'a Schedstat,
    rate: SpinRate,
    started_at: u64,
    last: Cell<u64>,
    cpu: Cell<u32>,
    base: Cell<Base>,
}

/// The accounts when they were last read.
#[derive(Debug, Clone, Copy)]
struct Base {
    /// When that was.
    at: u64,
    /// CPU time then.
    cpu_ns: u64,
    /// Time blocked by choice since.
    blocked_ns: u64,
    /// Run delay then, where the kernel has it.
    run_delay_ns: u64,
}

impl<'a> Meter<'a> {
    /// Begins measuring: whatever passed since the release counts as a gap.
    pub(crate) fn begin(
        control: &'a Control,
        block: &'a WorkerBlock,
        schedstat: &'a Schedstat,
        rate: SpinRate,
    ) -> Self {
        let started_at = control.started_at_ns.load(Relaxed);
        let base = Base {
            at: started_at,
            cpu_ns: block.cpu_before_ns.load(Relaxed),
            blocked_ns: 0,
            run_delay_ns: block.schedstat_before.run_delay_ns.load(Relaxed),
        };
        let meter = Self {
            control,
            block,
            schedstat,
            rate,
            started_at,
            last: Cell::new(started_at),
            cpu: Cell::new(NO_CPU),
            base: Cell::new(base),
        };
        meter.tick();
        meter
    }

    /// True once the worker should return.
    pub(crate) fn stop_requested(&self) -> bool {
        self.control.stop.load(Relaxed) != 0
    }

    /// Counts work.
    pub(crate) fn add_work(&self, units: u64) {
        bump(&self.block.work_units, units);
    }

    /// Counts an iteration.
    pub(crate) fn add_iteration(&self) {
        bump(&self.block.iterations, 1);
    }

    /// Looks at the clock after some work; the worker has wanted to run since the
    /// last look. Returns the time.
    pub(crate) fn tick(&self) -> u64 {
        let now = sys::now_ns();
        self.note_cpu(now);
        let pause = now.saturating_sub(self.last.get());
        if pause > GAP_FLOOR_NS {
            self.note_gap(pause.min(self.off_cpu_since_base(now)), now);
        }
        self.see(now);
        now
    }

    /// Looks at the clock after a time that the worker spent blocked by choice.
    pub(crate) fn resume(&self) -> u64 {
        let now = sys::now_ns();
        let mut base = self.base.get();
        base.blocked_ns += now.saturating_sub(self.last.get());
        self.base.set(base);
        self.block.due_ns.store(DUE_NOW, Relaxed);
        self.note_cpu(now);
        self.see(now);
        now
    }

    /// Says that the worker is about to wait for somebody else.
    pub(crate) fn about_to_wait(&self) -> u64 {
        let now = self.tick();
        self.block.due_ns.store(DUE_NEVER, Relaxed);
        now
    }

    /// [`resume`](Self::resume) after a wait that `stamp` ended; a stamp from before
    /// `began` was no wake-up, as nobody was asleep yet.
    pub(crate) fn resume_from(&self, began: u64, stamp: u64) {
        let now = self.resume();
        if stamp >= began {
            self.record_wake(now.saturating_sub(stamp), now);
        }
    }

    /// Records a wake-up latency that ended at `now`.
    pub(crate) fn record_wake(&self, latency: u64, now: u64) {
        self.record_latency(latency);
        self.note_late(latency, now);
    }

    /// Writes down the gap in a time of `late` that ended at `now`: as much of it as
    /// the worker was runnable without running. Without schedstats all of it counts.
    pub(crate) fn note_late(&self, late: u64, now: u64) {
        if late > GAP_FLOOR_NS {
            self.note_gap(late.min(self.run_delay_since_base().unwrap_or(late)), now);
        }
    }

    /// As [`note_late`](Self::note_late) for a time of which it isn't known whether the
    /// worker wanted to run; without schedstats nothing of it counts.
    pub(crate) fn note_runnable(&self, time: u64, now: u64) {
        if time > GAP_FLOOR_NS {
            self.note_gap(time.min(self.run_delay_since_base().unwrap_or(0)), now);
        }
    }

    /// [`resume`](Self::resume) after a time that was neither clearly work nor clearly
    /// a wait: what comes next is measured afresh.
    pub(crate) fn resume_afresh(&self) {
        let now = self.resume();
        self.off_cpu_since_base(now);
    }

    /// Time off the CPU since the accounts were last read, without that spent blocked
    /// by choice. Time in which the whole machine stood still is not in it: the
    /// kernel's CPU time goes on as the wall clock does.
    fn off_cpu_since_base(&self, now: u64) -> u64 {
        let base = self.base.get();
        let cpu_ns = sys::thread_cpu_ns();
        let blocked = base.blocked_ns + cpu_ns.saturating_sub(base.cpu_ns);
        self.base.set(Base { at: now, cpu_ns, blocked_ns: 0, ..base });
        now.saturating_sub(base.at).saturating_sub(blocked)
    }

    fn run_delay_since_base(&self) -> Option<u64> {
        let run_delay_ns = self.schedstat.read()?.run_delay_ns;
        let base = self.base.get();
        self.base.set(Base { run_delay_ns, ..base });
        Some(run_delay_ns.saturating_sub(base.run_delay_ns))
    }

    /// Adds a value to the wake-up latencies.
    pub(crate) fn record_latency(&self, latency: u64) {
        let block = self.block;
        bump(&block.wake_buckets[bucket_index(latency)], 1);
        bump(&block.wake_sum, latency);
        // Zero means "none yet" to the minimum, so it is kept one higher.
        let min = block.wake_min.load(Relaxed);
        if min == 0 || latency < min - 1 {
            block.wake_min.store(latency.saturating_add(1), Relaxed);
        }
        if latency > block.wake_max.load(Relaxed) {
            block.wake_max.store(latency, Relaxed);
        }
    }

    /// Writes down a gap that ended at `now`, if it is one and the longest.
    fn note_gap(&self, gap: u64, now: u64) {
        if gap <= GAP_FLOOR_NS || gap <= self.block.max_gap_ns.load(Relaxed) {
            return;
        }
        self.block.max_gap_ns.store(gap, Relaxed);
        self.block.max_gap_cpu.store(self.cpu.get(), Relaxed);
        self.block.max_gap_at_ns.store(now.saturating_sub(self.started_at), Relaxed);
    }

    /// Spins for about `rounds` rounds, looking at the clock in between. Ends early
    /// when the worker should return.
    pub(crate) fn spin(&self, rounds: u64) {
        let mut left = rounds;
        while left > 0 && !self.stop_requested() {
            let chunk = left.min(self.rate.chunk_rounds);
            spin_rounds(chunk);
            left -= chunk;
            self.tick();
        }
    }

    /// Spins for one chunk and counts its rounds as work.
    pub(crate) fn spin_chunk(&self) -> u64 {
        self.spin_counted(self.rate.chunk_rounds)
    }

    fn spin_counted(&self, rounds: u64) -> u64 {
        spin_rounds(rounds);
        self.add_work(rounds);
        self.tick()
    }

    /// Spins until it has used `time` of CPU time, counting rounds as work. The CPU
    /// clock costs a system call, so it is read only when the wall clock says that
    /// the time may be over.
    pub(crate) fn burn(&self, time: Duration) {
        let want = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let rounds = self.rate.rounds_within(time);
        let cpu_before = sys::thread_cpu_ns();
        let mut look_at = self.last.get().saturating_add(want);
        while !self.stop_requested() {
            let now = self.spin_counted(rounds);
            if now < look_at {
                continue;
            }
            let used = sys::thread_cpu_ns().saturating_sub(cpu_before);
            if used >= want {
                return;
            }
            look_at = now.saturating_add(want - used);
        }
    }

    /// Sleeps for `time` and records how late it woke. A stop ends the sleep early
    /// and is no latency.
    pub(crate) fn sleep(&self, time: Duration) {
        // What the overshoot is compared with must not be older than the sleep.
        self.run_delay_since_base();
        let now = self.tick();
        let due = now.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.block.due_ns.store(due, Relaxed);
        while sys::now_ns() < due && !self.stop_requested() {
            sys::sleep_until_ns(due);
        }
        let now = self.resume();
        if now >= due {
            self.record_wake(now - due, now);
        }
    }

    /// Gives the CPU away; the worker still wants to run, so a long absence is a gap.
    pub(crate) fn yield_cpu(&self) {
        std::thread::yield_now();
        self.tick();
    }

    fn see(&self, now: u64) {
        self.last.set(now);
        self.block.last_seen_ns.store(now, Relaxed);
        if now.saturating_sub(self.base.get().at) >= ACCOUNT_EVERY_NS {
            self.off_cpu_since_base(now);
            self.run_delay_since_base();
        }
        self.block.cpu_after_ns.store(self.base.get().cpu_ns, Relaxed);
    }

    fn note_cpu(&self, now: u64) {
        let cpu = sys::current_cpu();
        let before = self.cpu.replace(cpu);
        if cpu == before {
            return;
        }
        if let Some(word) = self.block.cpus_used.get(cpu as usize / 64) {
            word.store(word.load(Relaxed) | 1 << (cpu % 64), Relaxed);
        }
        if before == NO_CPU {
            return;
        }
        let count = self.block.migration_count.load(Relaxed);
        if let Some(slot) = usize::try_from(count).ok().and_then(|i| self.block.migrations.get(i)) {
            slot.at_ns.store(now.saturating_sub(self.started_at), Relaxed);
            slot.from.store(before, Relaxed);
            slot.to.store(cpu, Relaxed);
        }
        self.block.migration_count.store(count + 1, Relaxed);
    }

    /// Writes down the final figures.
    pub(crate) fn end(&self) {
        let block = self.block;
        block.cpu_after_ns.store(sys::thread_cpu_ns(), Relaxed);
        block.stopped_at_ns.store(sys::now_ns(), Relaxed);
    }

    /// Counts a page of the working set that lies on `node`.
    pub(crate) fn add_page_on(&self, node: usize) {
        if let Some(count) = self.block.node_pages.get(node) {
            bump(count, 1);
        }
    }
}

const _: () = assert!(MAX_MIGRATIONS > 0);

/// The scheduler's account of a thread, `/proc/<tid>/schedstat`: held open from
/// before an identity change that could hide it.
pub(crate) struct Schedstat {
    fd: libc::c_int,
}

/// The three numbers of `/proc/<tid>/schedstat`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchedstatValues {
    /// Time on a CPU, ns.
    pub(crate) cpu_ns: u64,
    /// Time runnable but not running, ns.
    pub(crate) run_delay_ns: u64,
    /// Times put on a CPU.
    pub(crate) run_count: u64,
}

impl Schedstat {
    /// Opens that of the calling thread; without `/proc` or schedstats every read
    /// yields nothing.
    pub(crate) fn open_own() -> Self {
        let path = c"/proc/thread-self/schedstat".as_ptr();
        // SAFETY: the path is a C string.
        Self { fd: unsafe { libc::open(path, libc::O_RDONLY | libc::O_CLOEXEC) } }
    }

    /// Reads it now.
    pub(crate) fn read(&self) -> Option<SchedstatValues> {
        let mut buffer = [0u8; 96];
        // SAFETY: the buffer has as many writable bytes as it says; a bad descriptor
        // is an error that the kernel reports.
        let len = unsafe { libc::pread(self.fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) };
        parse_schedstat(buffer.get(..usize::try_from(len).ok()?)?)
    }

    /// Reads it into shared memory.
    pub(crate) fn store(&self, slot: &SchedstatSlot) {
        let Some(values) = self.read() else { return };
        slot.cpu_ns.store(values.cpu_ns, Relaxed);
        slot.run_delay_ns.store(values.run_delay_ns, Relaxed);
        slot.run_count.store(values.run_count, Relaxed);
        slot.known.store(1, Relaxed);
    }
}

/// Parses the text of a schedstat file. A kernel without schedstats shows three
/// zeros, also for a task that has run: that is nothing known.
pub(crate) fn parse_schedstat(text: &[u8]) -> Option<SchedstatValues> {
    let mut numbers = text.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(|word| {
        word.iter().try_fold(0u64, |sum, &digit| {
            digit.is_ascii_digit().then(|| sum.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
        })
    });
    let mut next = || numbers.next().flatten();
    let values = SchedstatValues { cpu_ns: next()?, run_delay_ns: next()?, run_count: next()? };
    (values != SchedstatValues::default()).then_some(values)
}

#[cfg(test)]
mod tests;
