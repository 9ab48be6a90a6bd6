//! What the guest has its host do at times of its own clock while a test runs: snapshots, and in deterministic mode,
//! where the host must choose no instant, the monitor's samples.

use super::link::GuestLink;
use ktstr_guest_init::complain;
use ktstr_scenario::ports::HostError;
use ktstr_wire::Call;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Of the thread that asks for snapshots: below the guest's watchdog, above what a test may run.
const SNAPSHOTS: i32 = 98;
/// Of the one that asks for samples, where it can't have a deadline: that of the guest's watchdog.
const SAMPLES: i32 = 99;
/// The CPU that the one that asks for samples begins on, and stays on unless that is another deadline task's.
const SAMPLED_ON: usize = 0;
/// The part of a period that it may run for at most.
const SHARE: u32 = 4;
/// The kernel takes deadlines between these (`sched_deadline_period_{min,max}_us`, kernel/sched/deadline.c).
const DEADLINES: (Duration, Duration) = (Duration::from_micros(400), Duration::from_secs(4));
/// How often the host may leave a series without an answer until nobody asks any more.
const MAX_SILENT: usize = 2;

/// A series of snapshots.
pub(super) struct Snapshots<'a> {
    pub(super) link: &'a GuestLink,
    /// How many, evenly spread over the inner 80 % of the duration.
    pub(super) count: u32,
    pub(super) duration: Duration,
    /// Tells the step that is being played.
    pub(super) step: &'a (dyn Fn() -> u16 + Sync),
}

impl Snapshots<'_> {
    /// Calls `body`, and has them taken meanwhile.
    pub(super) fn during<T>(&self, body: impl FnOnce() -> T) -> T {
        match self.count {
            0 => body(),
            _ => beside("ktstr-snapshots", |over| self.take(over), body),
        }
    }

    fn take(&self, over: &Over) {
        // A workload of real-time tasks must not keep the snapshots from being taken on time.
        run_before_others(SNAPSHOTS);
        let mut silent = 0;
        for index in 0..self.count {
            let at = instant(index, self.count, self.duration);
            if over.comes_within(at.saturating_sub(self.link.elapsed())) {
                return;
            }
            let call = Call::Capture { name: format!("periodic_{index:03}"), periodic: true };
            let Err(e) = self.link.call((self.step)(), call) else { continue };
            complain(&format!("ktstr: periodic snapshot {index}: {e}"));
            silent += usize::from(matches!(e, HostError::Silent(_)));
            if silent == MAX_SILENT {
                return;
            }
        }
    }
}

/// When the snapshot is due: the `index + 1`th of `count` points that cut the stretch from 10 to
/// 90 % of the duration into equal parts.
fn instant(index: u32, count: u32, duration: Duration) -> Duration {
    let part = f64::from(index + 1) / f64::from(count + 1);
    duration.mul_f64(0.1 + 0.8 * part)
}

/// The monitor's samples.
pub(super) struct Samples<'a> {
    pub(super) link: &'a GuestLink,
    /// How far apart; `None` where the host takes them by itself.
    pub(super) period: Option<Duration>,
}

impl Samples<'_> {
    /// Calls `body`, and has them taken meanwhile.
    pub(super) fn during<T>(&self, body: impl FnOnce() -> T) -> T {
        match self.period {
            Some(period) => beside("ktstr-samples", |over| self.take(period, over), body),
            None => body(),
        }
    }

    fn take(&self, period: Duration, over: &Over) {
        settle_on(SAMPLED_ON);
        if !run_by_deadline(period) {
            run_before_others(SAMPLES);
        }
        let tid = thread_id();
        let mut due = Duration::ZERO;
        while !over.comes_within(due.saturating_sub(self.link.elapsed())) {
            let call = Call::Sample { tid, switches: switches() };
            if let Err(e) = self.link.call(0, call) {
                complain(&format!("ktstr: a sample of the kernel's runqueues: {e}; no more are taken"));
                return;
            }
            // Those that it came too late for are left out.
            let missed = self.link.elapsed().saturating_sub(due).as_nanos() / period.as_nanos().max(1);
            due += period * (u32::try_from(missed).unwrap_or(u32::MAX - 1) + 1);
        }
    }
}

/// Calls `body`, and `work` beside it, which is told when that has ended.
fn beside<T>(name: &str, work: impl FnOnce(&Over) + Send, body: impl FnOnce() -> T) -> T {
    let over = Over::default();
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new().name(name.to_string()).spawn_scoped(scope, || work(&over));
        if let Err(e) = spawned {
            complain(&format!("ktstr: starting the thread {name}: {e}"));
        }
        // It ends the thread on a panic, too, or the scope would wait for ever.
        let _end = End(&over);
        body()
    })
}

/// Tells that the test has ended.
#[derive(Default)]
struct Over {
    over: Mutex<bool>,
    told: Condvar,
}

impl Over {
    /// Waits; true if the end came meanwhile.
    fn comes_within(&self, time: Duration) -> bool {
        let guard = self.over.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.told.wait_timeout_while(guard, time, |over| !*over);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

struct End<'a>(&'a Over);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.told.notify_all();
    }
}

/// Gives the calling thread a real-time priority.
fn run_before_others(priority: i32) {
    let param = libc::sched_param { sched_priority: priority };
    // SAFETY: the structure lives through the call; a refusal only makes us late.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
}

/// `struct sched_attr` (include/uapi/linux/sched/types.h), as of its first version.
#[repr(C)]
struct DeadlineAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime_ns: u64,
    deadline_ns: u64,
    period_ns: u64,
}

/// Has the calling thread run before every real-time task, even one of the highest priority that never lets go of its
/// CPU; true if the kernel admits it. Such a task stays on its CPU, too, as long as no other is there.
fn run_by_deadline(period: Duration) -> bool {
    let period_ns = period.clamp(DEADLINES.0, DEADLINES.1).as_nanos() as u64;
    let attr = DeadlineAttr {
        size: size_of::<DeadlineAttr>() as u32,
        policy: libc::SCHED_DEADLINE as u32,
        flags: 0,
        nice: 0,
        priority: 0,
        runtime_ns: period_ns / u64::from(SHARE),
        deadline_ns: period_ns,
        period_ns,
    };
    // SAFETY: sched_setattr(2) on the calling thread; it reads as many bytes as the structure says it has.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) == 0 }
}

/// Moves the calling thread to a CPU and leaves it free to be moved away.
fn settle_on(cpu: usize) {
    // SAFETY: plain structures on this thread's stack, passed with their size. A refusal leaves the thread where it is.
    unsafe {
        let mut before: libc::cpu_set_t = std::mem::zeroed();
        let mut one: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut one);
        let bytes = size_of::<libc::cpu_set_t>();
        if libc::sched_getaffinity(0, bytes, &raw mut before) == 0
            && libc::sched_setaffinity(0, bytes, &raw const one) == 0
        {
            libc::sched_setaffinity(0, bytes, &raw const before);
        }
    }
}

fn thread_id() -> i32 {
    // SAFETY: gettid(2) takes nothing and can't fail.
    unsafe { libc::gettid() }
}

/// How often the calling thread has left a CPU so far.
fn switches() -> u64 {
    // SAFETY: getrusage(2) fills a structure on this stack; it can't fail for RUSAGE_THREAD.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    (usage.ru_nvcsw + usage.ru_nivcsw) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_spread_over_the_inner_part() {
        let ms = |index, count| instant(index, count, Duration::from_secs(10)).as_millis();
        assert_eq!(ms(0, 1), 5000);
        assert_eq!((ms(0, 3), ms(1, 3), ms(2, 3)), (3000, 5000, 7000));
    }

    #[test]
    fn work_beside_ends_with_the_body_even_where_that_panics() {
        let rounds = std::sync::atomic::AtomicUsize::new(0);
        let count = |over: &Over| {
            while !over.comes_within(Duration::from_millis(1)) {
                rounds.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        };
        let seen = || rounds.load(std::sync::atomic::Ordering::SeqCst);
        let wait = || {
            let before = seen();
            while seen() == before {
                std::thread::yield_now();
            }
        };
        assert_eq!(beside("a-test", count, || (wait(), 7).1), 7);
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            beside("a-test", count, || {
                wait();
                panic!("no");
            });
        }));
        assert!(panicked.is_err());
    }

    /// The kernel counts what the thread tells of itself.
    #[test]
    fn a_thread_that_sleeps_leaves_its_cpu() {
        let before = switches();
        std::thread::sleep(Duration::from_millis(2));
        assert!(switches() > before);
    }
}
