//! How fast the host's time stamp counter runs.
//!
//! An emulated guest's counter is the host's (`cpu_get_host_ticks`, QEMU
//! include/qemu/timer.h). Its kernel would measure the rate against an emulated timer while
//! it boots (`quick_pit_calibrate`, arch/x86/kernel/tsc.c); on a loaded host that goes wrong
//! by a factor, for as long as the machine lives, or the machine that is saved. Told by
//! `tsc_early_khz=`, it believes us, and its later, longer measurement is taken only if it
//! differs by less than 1 % (`tsc_refine_calibration_work`).

use std::time::Duration;

/// Nanoseconds of virtual time are counted in deterministic mode.
pub(crate) const DETERMINISTIC_KHZ: u32 = 1_000_000;
/// How long to look for a rate that is right to some parts in a million.
const LONG_ENOUGH: Duration = Duration::from_millis(20);
/// Looks at both clocks at once; the one that took least counts.
const TRIES: usize = 16;

/// Both clocks at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    ticks: u64,
    nanos: u64,
}

impl Moment {
    /// `None` on a host without such a counter.
    pub(crate) fn now() -> Option<Self> {
        let look = || {
            let before = ticks()?;
            let nanos = nanos()?;
            let took = ticks()?.wrapping_sub(before);
            Some((took, Self { ticks: before.wrapping_add(took / 2), nanos }))
        };
        (0..TRIES).filter_map(|_| look()).min_by_key(|(took, _)| *took).map(|(_, moment)| moment)
    }

    /// The rate between this moment and now, kHz, after so short a wait as it needs.
    pub(crate) fn khz(self) -> Option<u32> {
        let passed = Duration::from_nanos(nanos()?.saturating_sub(self.nanos));
        std::thread::sleep(LONG_ENOUGH.saturating_sub(passed));
        let now = Self::now()?;
        let nanos = now.nanos.checked_sub(self.nanos).filter(|n| *n > 0)?;
        let ticks = now.ticks.checked_sub(self.ticks)?;
        u32::try_from(u128::from(ticks) * 1_000_000 / u128::from(nanos)).ok().filter(|khz| *khz > 0)
    }
}

#[cfg(target_arch = "x86_64")]
fn ticks() -> Option<u64> {
    // SAFETY: reads a counter, which Linux lets every process do unless it asks otherwise
    // (prctl(2), PR_SET_TSC).
    Some(unsafe { core::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn ticks() -> Option<u64> {
    None
}

/// The clock that nobody adjusts.
fn nanos() -> Option<u64> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: clock_gettime(2) fills the structure that it is given.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_RAW, &raw mut time) } != 0;
    let nanos = time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64;
    (!failed).then_some(nanos)
}

/// True if a machine that was told one rate can go on where the other is the counter's.
pub(crate) fn is_same(told_khz: u32, khz: u32) -> bool {
    told_khz.abs_diff(khz) <= khz / 200
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measurements_agree() {
        let measure = || Moment::now().unwrap().khz().unwrap();
        let (one, other) = (measure(), measure());
        assert!((100_000..20_000_000).contains(&one), "{one}");
        assert!(one.abs_diff(other) < one / 1000, "{one} {other}");
        assert!(is_same(one, other) && !is_same(one, one + one / 50));
    }
}
