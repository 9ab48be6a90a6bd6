//! Spinning, with and without giving the CPU away.

use crate::meter::Meter;
use std::time::Duration;

/// Rounds between two yields of `YieldHeavy`.
const YIELD_ROUNDS: u64 = 64;

/// Arithmetic without a pause.
pub(super) fn spin_wait(meter: &Meter<'_>) {
    while !meter.stop_requested() {
        meter.spin_chunk();
        meter.add_iteration();
    }
}

/// Little work, then a yield.
pub(super) fn yield_heavy(meter: &Meter<'_>) {
    while !meter.stop_requested() {
        meter.spin(YIELD_ROUNDS);
        meter.add_work(YIELD_ROUNDS);
        meter.yield_cpu();
        meter.add_iteration();
    }
}

/// A chunk of work, then a yield.
pub(super) fn mixed(meter: &Meter<'_>) {
    while !meter.stop_requested() {
        meter.spin_chunk();
        meter.yield_cpu();
        meter.add_iteration();
    }
}

/// Busy for `burst` of CPU time, then asleep for `sleep`.
pub(super) fn bursts(meter: &Meter<'_>, burst: Duration, sleep: Duration) {
    while !meter.stop_requested() {
        meter.burn(burst);
        meter.add_iteration();
        meter.sleep(sleep);
    }
}
