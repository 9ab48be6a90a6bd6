//! The kernel's watchdog, set while a scheduler attaches.
//!
//! [`Hook::set`] puts a program at the entry of every system call, before the scheduler's own program is started; it is
//! gone again when that has attached. `ktstr_scheduler::bpf` says what it does there and why there.

use crate::program::{Element, Kind, Link, Program, doing};
use ktstr_scheduler::bpf::{Places, WatchdogRecord, effective_timeout, override_timeout};
use ktstr_scheduler::{WatchdogOrder, WatchdogReport};
use std::time::Duration;

/// The program at its place, while a scheduler attaches.
pub(crate) struct Hook {
    order: WatchdogOrder,
    /// Why it is not there.
    set: Result<(Element<{ WatchdogRecord::LEN }>, Link), String>,
}

impl Hook {
    /// For the scheduler that is about to be started. It never fails: what went wrong is part of what it tells.
    pub(crate) fn set(places: &Result<Places, String>, order: WatchdogOrder) -> Self {
        Self { order, set: places.as_ref().map_err(Clone::clone).and_then(|places| put(places, order)) }
    }

    /// Takes it away; tells what the attached scheduler is watched by.
    pub(crate) fn take(self, places: &Result<Places, String>) -> WatchdogReport {
        let record = self.set.and_then(|(record, link)| {
            drop(link);
            record.read().map(WatchdogRecord::parse).map_err(doing("reading what the program at bpf(2) saw"))
        });
        let effective = places.as_ref().map_err(Clone::clone).and_then(effective);
        WatchdogReport::of(self.order, record, effective)
    }
}

fn put(places: &Places, order: WatchdogOrder) -> Result<(Element<{ WatchdogRecord::LEN }>, Link), String> {
    let record = Element::new().map_err(doing("making a BPF array"))?;
    let bpf = i32::try_from(libc::SYS_bpf).map_err(|e| format!("the number of bpf(2): {e}"))?;
    let instructions = override_timeout(places, order, bpf, record.fd());
    let program = Program::load(Kind::RawTracepoint, "ktstr_watchdog", &instructions)?;
    let link = program.attach(Some(c"sys_enter")).map_err(doing("attaching to the tracepoint sys_enter"))?;
    Ok((record, link))
}

/// The timeout in jiffies, and how long one is.
fn effective(places: &Places) -> Result<(u32, Duration), String> {
    let program = Program::load(Kind::Syscall, "ktstr_timeout", &effective_timeout(places))?;
    let jiffies = program.run().map_err(doing("asking the kernel for its watchdog's timeout"))?;
    if jiffies == u32::MAX {
        return Err("the kernel has no variable that holds its watchdog's timeout".to_string());
    }
    Ok((jiffies, tick()?))
}

/// The resolution of the clock that counts ticks (`clock_getres(2)`, `CLOCK_MONOTONIC_COARSE`).
fn tick() -> Result<Duration, String> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure outlives the call.
    let result = unsafe { libc::clock_getres(libc::CLOCK_MONOTONIC_COARSE, &raw mut time) };
    if result != 0 {
        return Err(doing("asking how long a tick is")(std::io::Error::last_os_error()));
    }
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    match (seconds, nanos) {
        (Ok(seconds), Ok(nanos)) => Ok(Duration::new(seconds, nanos)),
        _ => Err("the kernel says that a tick has a negative length".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_of_a_length_that_kernels_have() {
        let tick = tick().unwrap();
        assert!((Duration::from_millis(1)..=Duration::from_millis(10)).contains(&tick), "{tick:?}");
    }

    #[test]
    fn a_kernel_without_types_is_told() {
        let places = Err("no BTF".to_string());
        let order = WatchdogOrder { timeout_ms: 4000, even_if_declared: true };
        let report = Hook::set(&places, order).take(&places);
        assert_eq!((report.problem.as_deref(), report.is_broken()), (Some("no BTF"), true));
    }
}
