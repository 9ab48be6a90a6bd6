//! Guest time from `CLOCK_MONOTONIC`.

use crate::sys;
use ktstr_scenario::ports::Clock;
use std::time::Duration;

/// `CLOCK_MONOTONIC`, the clock that all worker reports use too.
#[derive(Debug, Clone, Copy, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Duration {
        Duration::from_nanos(sys::now_ns())
    }

    fn sleep_until(&self, deadline: Duration) {
        let due = u64::try_from(deadline.as_nanos()).unwrap_or(u64::MAX);
        // A signal ends the sleep early; the deadline is absolute, so nothing drifts.
        while sys::now_ns() < due {
            sys::sleep_until_ns(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeping_reaches_the_deadline() {
        let clock = MonotonicClock;
        let deadline = clock.now() + Duration::from_millis(5);
        clock.sleep_until(deadline);
        assert!(clock.now() >= deadline);
        clock.sleep_until(Duration::ZERO);
    }
}
