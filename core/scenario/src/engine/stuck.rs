//! Who among the workers gets no further.

use std::time::Duration;

/// How long a worker may go without an iteration before the scheduler is asked about it, guest time.
const STUCK: Duration = Duration::from_secs(2);

/// How far the workers of a group were seen to get.
#[derive(Debug, Default)]
pub(crate) struct Progress(Vec<Seen>);

#[derive(Debug, Clone, Copy)]
struct Seen {
    iterations: u64,
    since: Duration,
    told: bool,
}

impl Progress {
    /// Notes the iterations of each worker; those that are found to be stuck now, by index, each once until it gets on.
    /// `held`: nobody could get on.
    pub(crate) fn look(&mut self, iterations: &[u64], now: Duration, held: bool) -> Vec<usize> {
        let mut stuck = Vec::new();
        for (index, &iterations) in iterations.iter().enumerate() {
            let fresh = Seen { iterations, since: now, told: false };
            match self.0.get_mut(index) {
                None => self.0.push(fresh),
                Some(seen) if held || seen.iterations != iterations => *seen = fresh,
                Some(seen) if !seen.told && now.saturating_sub(seen.since) > STUCK => {
                    seen.told = true;
                    stuck.push(index);
                }
                Some(_) => {}
            }
        }
        stuck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(tenths: u64) -> Duration {
        Duration::from_millis(100 * tenths)
    }

    #[test]
    fn who_is_stuck_is_told_once() {
        let mut progress = Progress::default();
        assert!(progress.look(&[5, 1], s(0), false).is_empty());
        assert!(progress.look(&[5, 2], s(20), false).is_empty());
        assert_eq!(progress.look(&[5, 3], s(21), false), [0]);
        assert!(progress.look(&[5, 4], s(50), false).is_empty());
        // It got on, and is stuck again.
        assert!(progress.look(&[6, 5], s(51), false).is_empty());
        assert_eq!(progress.look(&[6, 6], s(72), false), [0]);
    }

    #[test]
    fn the_time_in_which_all_were_held_does_not_count() {
        let mut progress = Progress::default();
        assert!(progress.look(&[5], s(0), false).is_empty());
        assert!(progress.look(&[5], s(30), true).is_empty());
        assert!(progress.look(&[5], s(50), false).is_empty());
        assert_eq!(progress.look(&[5], s(51), false), [0]);
    }
}
