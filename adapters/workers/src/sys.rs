//! The system calls that workers and their parent make, as small safe functions.
//!
//! None of them allocates or takes a lock, so all may be called between `fork(2)`
//! and `_exit(2)`.

use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// A process or thread id.
pub(crate) type Pid = libc::pid_t;

/// CPUs that masks and bitmaps have room for: more than `CONFIG_NR_CPUS` may be.
pub(crate) const MAX_CPUS: usize = 8192;

/// A `cpumask` for the affinity calls.
pub(crate) type CpuMask = [u64; MAX_CPUS / 64];

/// The error number of the last call.
pub(crate) fn errno() -> i32 {
    // SAFETY: the location is that of this thread and always valid.
    unsafe { *libc::__errno_location() }
}

/// `Ok` for 0 or more, else the error number.
fn checked(result: libc::c_long) -> Result<libc::c_long, i32> {
    if result < 0 { Err(errno()) } else { Ok(result) }
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the result. The clocks used here always
    // exist, so the call can't fail.
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `CLOCK_MONOTONIC`, ns; from the vDSO where the clock source allows.
pub(crate) fn now_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// CPU time of the calling thread, ns; always a system call.
pub(crate) fn thread_cpu_ns() -> u64 {
    clock_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Sleeps until `CLOCK_MONOTONIC` is `due`; a signal ends the sleep early.
pub(crate) fn sleep_until_ns(due: u64) {
    let time = libc::timespec {
        tv_sec: (due / 1_000_000_000).try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: (due % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: `time` is a valid absolute time; no remainder is asked for.
    unsafe {
        libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &raw const time, ptr::null_mut())
    };
}

/// The CPU that the caller runs on.
pub(crate) fn current_cpu() -> u32 {
    // SAFETY: takes nothing and returns a number.
    let cpu = unsafe { libc::sched_getcpu() };
    u32::try_from(cpu).unwrap_or(0)
}

/// Id of the calling thread.
pub(crate) fn gettid() -> Pid {
    // SAFETY: takes nothing and always succeeds.
    unsafe { libc::gettid() }
}

/// Sleeps while `word` is `expected`, at most `limit`. Returns on a wake-up, a
/// signal, the limit, or at once when the word is something else: look again.
pub(crate) fn futex_wait(word: &AtomicU32, expected: u32, limit: Option<Duration>) {
    let time = limit.map(|limit| libc::timespec {
        tv_sec: limit.as_secs().try_into().unwrap_or(libc::time_t::MAX),
        tv_nsec: libc::c_long::from(limit.subsec_nanos() as i32),
    });
    let time_ptr = time.as_ref().map_or(ptr::null(), ptr::from_ref);
    // SAFETY: the word outlives the call and `time_ptr` is null or valid. Not
    // FUTEX_PRIVATE: the word is shared between processes.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, expected, time_ptr) };
}

/// Wakes up to `count` waiters of `word`.
pub(crate) fn futex_wake(word: &AtomicU32, count: i32) {
    // SAFETY: the word is valid; waking has no other effect.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, count) };
}

/// `struct sched_attr` of `uapi/linux/sched/types.h`, first version.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SchedAttr {
    pub(crate) size: u32,
    pub(crate) policy: u32,
    pub(crate) flags: u64,
    pub(crate) nice: i32,
    pub(crate) priority: u32,
    pub(crate) runtime: u64,
    pub(crate) deadline: u64,
    pub(crate) period: u64,
}

/// `sched_setattr(2)` for the calling thread.
pub(crate) fn sched_setattr(attr: &SchedAttr) -> Result<(), i32> {
    // SAFETY: `attr` is a valid structure of the size that it says.
    checked(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, ptr::from_ref(attr), 0) }).map(drop)
}

/// Gives a thread the highest `SCHED_FIFO` priority, if the caller may.
pub(crate) fn make_urgent(tid: Pid) {
    let size = size_of::<SchedAttr>() as u32;
    let policy = libc::SCHED_FIFO.cast_unsigned();
    let attr = SchedAttr { size, policy, priority: 99, ..SchedAttr::default() };
    // SAFETY: `attr` is a valid structure of the size that it says.
    unsafe { libc::syscall(libc::SYS_sched_setattr, tid, ptr::from_ref(&attr), 0) };
}

/// Nice value of the calling thread.
pub(crate) fn nice() -> i32 {
    // SAFETY: takes numbers only; for the caller itself it can't fail.
    unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) }
}

/// Sets the nice value of the calling thread.
pub(crate) fn set_nice(nice: i32) -> Result<(), i32> {
    // SAFETY: takes numbers only.
    checked(libc::c_long::from(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) })).map(drop)
}

/// `sched_setaffinity(2)`; `tid` 0 is the caller.
pub(crate) fn set_affinity(tid: Pid, mask: &[u64]) -> Result<(), i32> {
    let (bytes, data) = (size_of_val(mask), mask.as_ptr());
    // SAFETY: `data` has `bytes` readable bytes.
    checked(unsafe { libc::syscall(libc::SYS_sched_setaffinity, tid, bytes, data) }).map(drop)
}

/// `sched_getaffinity(2)` of the caller.
pub(crate) fn affinity() -> Result<CpuMask, i32> {
    let mut mask: CpuMask = [0; MAX_CPUS / 64];
    // SAFETY: `mask` has as many writable bytes as it says.
    checked(unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) })?;
    Ok(mask)
}

/// `set_mempolicy(2)`; `mode` includes the mode flags.
pub(crate) fn set_mempolicy(mode: u32, nodes: &[u64]) -> Result<(), i32> {
    let data = if nodes.is_empty() { ptr::null() } else { nodes.as_ptr() };
    // The kernel looks at one bit less than it is told of.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    // SAFETY: `data` is null with no bits, or has `bits` readable bits.
    checked(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, data, bits) }).map(drop)
}

/// `move_pages(2)` without moving: the node of each page, or a negative error number.
pub(crate) fn page_nodes(pages: &[*mut libc::c_void], nodes: &mut [i32]) -> Result<(), i32> {
    let count = pages.len().min(nodes.len());
    let (pages, nodes) = (pages.as_ptr(), nodes.as_mut_ptr());
    let none = ptr::null::<libc::c_int>();
    // SAFETY: both arrays have `count` entries; without target nodes nothing moves.
    checked(unsafe { libc::syscall(libc::SYS_move_pages, 0, count, pages, none, nodes, 0) }).map(drop)
}

/// `prctl(2)` with one argument.
pub(crate) fn prctl(option: i32, argument: libc::c_ulong) -> Result<(), i32> {
    // SAFETY: the options used here take a number or a pointer to a C string that
    // the caller keeps alive.
    checked(libc::c_long::from(unsafe { libc::prctl(option, argument, 0, 0, 0) })).map(drop)
}

/// Sets an id of the calling thread alone. The C library's functions would change
/// all threads of the process.
pub(crate) fn set_ids(call: libc::c_long, id: u32) -> Result<(), i32> {
    // SAFETY: setresuid and setresgid take three numbers.
    checked(unsafe { libc::syscall(call, id, id, id) }).map(drop)
}

/// Gives up the supplementary groups of the calling thread.
pub(crate) fn drop_groups() -> Result<(), i32> {
    // SAFETY: zero groups need no array.
    checked(unsafe { libc::syscall(libc::SYS_setgroups, 0, ptr::null::<libc::gid_t>()) }).map(drop)
}

/// Sends a signal to one thread of a process.
pub(crate) fn signal_thread(pid: Pid, tid: Pid, signal: i32) {
    // SAFETY: takes numbers only. A thread that is gone is no failure here.
    unsafe { libc::syscall(libc::SYS_tgkill, pid, tid, signal) };
}

/// A mapping of anonymous memory, private to the process, unmapped on drop.
pub(crate) struct Region {
    start: *mut u8,
    len: usize,
}

impl Region {
    /// Maps `len` bytes, rounded up to pages; none is touched yet.
    pub(crate) fn map(len: usize) -> Result<Self, i32> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a fresh anonymous mapping overlaps nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), len, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED { Err(errno()) } else { Ok(Self { start: start.cast(), len }) }
    }

    /// Its size in bytes.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds one to the byte at `offset`, so that its cache line is written.
    pub(crate) fn touch(&self, offset: usize) {
        assert!(offset < self.len, "touching byte {offset} of {}", self.len);
        // SAFETY: within the mapping, which nobody else uses; volatile keeps the write.
        unsafe {
            let byte = self.start.add(offset);
            byte.write_volatile(byte.read_volatile().wrapping_add(1));
        }
    }

    /// The address of the byte at `offset`, for calls about its page.
    pub(crate) fn address(&self, offset: usize) -> *mut libc::c_void {
        self.start.wrapping_add(offset).cast()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.start.cast(), self.len) };
    }
}
