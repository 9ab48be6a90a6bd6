//! How fast this machine's time-stamp counter counts. QEMU hands it to the lab as it is, and the lab's kernel would
//! measure it against emulated timers, which goes wrong where processors are shared: one lab took 2445 MHz for 510, and
//! every clock in it ran five times too fast.

use std::time::{Duration, Instant};

/// Longer measures better; the error is the uncertainty of one reading over this.
const SPAN: Duration = Duration::from_millis(50);

/// In kHz; `None` on processors that have no such counter.
pub(super) fn counter_khz() -> Option<u64> {
    let (began, first) = reading()?;
    std::thread::sleep(SPAN);
    let (ended, last) = reading()?;
    let micros = u64::try_from((ended - began).as_micros()).ok()?;
    Some(last.wrapping_sub(first) * 1000 / micros.max(1))
}

/// A point of time and the counter at it: the closest of some, as this thread may lose the processor between the two.
fn reading() -> Option<(Instant, u64)> {
    let one = || {
        let before = Instant::now();
        let count = counter()?;
        Some((before.elapsed(), before, count))
    };
    let closest = (0..100).filter_map(|_| one()).min_by_key(|(apart, ..)| *apart);
    closest.map(|(_, at, count)| (at, count))
}

#[cfg(target_arch = "x86_64")]
fn counter() -> Option<u64> {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user space use it.
    Some(unsafe { std::arch::x86_64::_rdtsc() })
}

#[cfg(not(target_arch = "x86_64"))]
fn counter() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn two_measurements_agree() {
        let (one, two) = (counter_khz().unwrap(), counter_khz().unwrap());
        assert!(one > 100_000, "{one} kHz");
        assert!(one.abs_diff(two) * 200 < one, "{one} kHz, then {two} kHz");
    }
}
