//! How long each part of a run may take, in host time.

use ktstr_machine::Pace;
use std::time::Duration;

/// Deadlines of a run. They only catch a guest that hangs as a whole: a test that
/// is merely slow is ended by the guest's own watchdog, in guest time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// From the start of the machine to the guest's greeting.
    pub boot: Duration,
    /// From there to the guest's goodbye.
    pub run: Duration,
    /// From there to the end of the machine.
    pub power_off: Duration,
}

impl Limits {
    /// Deadlines of a machine with `cpus` vCPUs at that pace, for a test that holds `duration`
    /// and may take `timeout` more.
    pub fn new(pace: Pace, cpus: u32, duration: Duration, timeout: Duration) -> Self {
        let patience = pace.patience();
        Self {
            boot: (Duration::from_secs(20) + Duration::from_secs(2) * cpus) * patience,
            run: (Duration::from_secs(10) + duration + timeout) * patience,
            power_off: Duration::from_secs(10) * patience,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emulation_is_given_more_time() {
        let limits = |pace| Limits::new(pace, 4, Duration::from_secs(2), Duration::from_secs(30));
        assert_eq!(limits(Pace::Hardware).run, Duration::from_secs(42));
        assert!(limits(Pace::Emulated).boot > limits(Pace::Hardware).boot);
        assert!(limits(Pace::Counted).boot > limits(Pace::Emulated).boot);
    }
}
