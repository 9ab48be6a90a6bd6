//! The guest's way to the host that watches it, and the snapshots that the clock causes.

use ktstr_guest_init::{AskError, HostCalls};
use ktstr_scenario::ports::{HostError, HostLink, HostRequest};
use ktstr_wire::Call;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Below the guest's watchdog, above what a test may run.
const PRIORITY: i32 = 98;

/// Asks the host over the machine's own channel.
pub(super) struct GuestLink {
    calls: Result<HostCalls, String>,
    begin: Instant,
    /// The end of the workload was told.
    ended: AtomicBool,
}

impl GuestLink {
    /// Of a test that begins then.
    pub(super) fn new(calls: Result<HostCalls, String>, begin: Instant) -> Self {
        Self { calls, begin, ended: AtomicBool::new(false) }
    }

    /// Tells that the workload has ended, unless the scenario has.
    pub(super) fn workload_ends(&self, step: u16) {
        if !self.ended.load(Ordering::Relaxed) {
            // It only helps to explain a failure.
            let _ = self.ask(step, &HostRequest::WorkloadEnds);
        }
    }

    fn call(&self, step: u16, call: Call) -> Result<u64, HostError> {
        let calls = self.calls.as_ref().map_err(|why| HostError::Broken(why.clone()))?;
        calls.ask(self.begin.elapsed(), step, call).map_err(|error| match error {
            AskError::Refused(why) => HostError::Refused(why),
            AskError::Silent(after) => HostError::Silent(after),
            AskError::Broken(_) => HostError::Broken(error.to_string()),
        })
    }
}

impl HostLink for GuestLink {
    fn ask(&self, step: u16, request: &HostRequest) -> Result<u64, HostError> {
        if *request == HostRequest::WorkloadEnds {
            self.ended.store(true, Ordering::Relaxed);
        }
        self.call(step, call(request))
    }
}

fn call(request: &HostRequest) -> Call {
    match request.clone() {
        HostRequest::Capture { name } => Call::Capture { name, periodic: false },
        HostRequest::ReadKernel { tag, path, frozen } => Call::ReadKernel { tag, path, frozen },
        HostRequest::WriteKernel { path, value, frozen } => Call::WriteKernel { path, value, frozen },
        HostRequest::Watch { symbol } => Call::Watch { symbol },
        HostRequest::KeepPids { tag, pids } => Call::KeepPids { tag, pids },
        HostRequest::WorkloadEnds => Call::WorkloadEnds,
    }
}

/// Calls `body`, and meanwhile has `count` snapshots taken, evenly spread over the inner 80 % of
/// `duration`; `step` tells the step that is being played.
pub(super) fn with_periodic<T>(
    link: &GuestLink,
    count: u32,
    duration: Duration,
    step: impl Fn() -> u16 + Sync,
    body: impl FnOnce() -> T,
) -> T {
    if count == 0 {
        return body();
    }
    let over = (Mutex::new(false), Condvar::new());
    std::thread::scope(|scope| {
        let spawned = std::thread::Builder::new()
            .name("ktstr-snapshots".to_string())
            .spawn_scoped(scope, || take_turns(link, count, duration, &step, &over));
        if let Err(e) = spawned {
            eprintln!("ktstr: no periodic snapshots: starting their thread: {e}");
        }
        // It ends the thread on a panic, too, or the scope would wait for ever.
        let _end = End(&over);
        body()
    })
}

type Over = (Mutex<bool>, Condvar);

struct End<'a>(&'a Over);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

fn take_turns(link: &GuestLink, count: u32, duration: Duration, step: &dyn Fn() -> u16, over: &Over) {
    raise_priority();
    for index in 0..count {
        let at = instant(index, count, duration);
        let left = at.saturating_sub(link.begin.elapsed());
        let guard = over.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = over.1.wait_timeout_while(guard, left, |over| !*over);
        if *waited.unwrap_or_else(PoisonError::into_inner).0 {
            return;
        }
        let call = Call::Capture { name: format!("periodic_{index:03}"), periodic: true };
        if let Err(e) = link.call(step(), call) {
            eprintln!("ktstr: periodic snapshot {index}: {e}");
            return;
        }
    }
}

/// When the snapshot is due: the `index + 1`th of `count` points that cut the stretch from 10 to
/// 90 % of the duration into equal parts.
fn instant(index: u32, count: u32, duration: Duration) -> Duration {
    let part = f64::from(index + 1) / f64::from(count + 1);
    duration.mul_f64(0.1 + 0.8 * part)
}

/// A workload of real-time tasks must not keep the snapshots from being taken on time.
fn raise_priority() {
    let param = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: the structure lives through the call; a refusal only makes us late.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
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
}
