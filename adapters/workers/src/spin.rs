//! Keeping a CPU busy with arithmetic, and how long that takes here.

use crate::sys;
use std::hint::black_box;
use std::sync::OnceLock;
use std::time::Duration;

/// How long one uninterrupted chunk of spinning should take: long enough that
/// reading the clock after each is not the main cost (also where the clock is a
/// system call), short enough that a gap of a millisecond stands out.
const CHUNK_NS: u64 = 60_000;

/// Rounds that one timing sample runs.
const SAMPLE_ROUNDS: u64 = 2048;

/// How fast this machine spins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SpinRate {
    /// Rounds in a chunk.
    pub(crate) chunk_rounds: u64,
}

impl SpinRate {
    /// Measured once a process; the fastest of several samples, so that being
    /// preempted meanwhile does not count.
    pub(crate) fn measured() -> Self {
        static RATE: OnceLock<SpinRate> = OnceLock::new();
        *RATE.get_or_init(|| {
            let sample = || {
                let begin = sys::now_ns();
                spin_rounds(SAMPLE_ROUNDS);
                sys::now_ns() - begin
            };
            Self::from_sample((0..24).map(|_| sample()).min().unwrap_or(0))
        })
    }

    fn from_sample(sample_ns: u64) -> Self {
        Self { chunk_rounds: (CHUNK_NS * SAMPLE_ROUNDS / sample_ns.max(1)).clamp(256, 10_000_000) }
    }

    /// Rounds that take about `time`, at least one and at most a chunk.
    pub(crate) fn rounds_within(&self, time: Duration) -> u64 {
        let ns = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).min(CHUNK_NS);
        (self.chunk_rounds * ns / CHUNK_NS).max(1)
    }
}

/// Does `rounds` rounds of arithmetic that the compiler can't leave out.
#[inline(never)]
pub(crate) fn spin_rounds(rounds: u64) {
    let mut value = black_box(0x9e37_79b9_7f4a_7c15_u64);
    let mut left = rounds;
    while left > 0 {
        value = (value ^ left).wrapping_mul(0xbf58_476d_1ce4_e5b9).rotate_left(29);
        left -= 1;
    }
    black_box(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_is_bounded_whatever_the_clock_says() {
        assert_eq!(SpinRate::from_sample(0).chunk_rounds, 10_000_000);
        assert_eq!(SpinRate::from_sample(u64::MAX).chunk_rounds, 256);
        assert_eq!(SpinRate::from_sample(2048).chunk_rounds, 60_000);
    }

    #[test]
    fn short_times_take_fewer_rounds_than_a_chunk() {
        let rate = SpinRate { chunk_rounds: 60_000 };
        assert_eq!(rate.rounds_within(Duration::from_micros(6)), 6_000);
        assert_eq!(rate.rounds_within(Duration::from_secs(1)), 60_000);
        assert_eq!(rate.rounds_within(Duration::ZERO), 1);
    }
}
