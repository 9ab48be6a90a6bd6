//! Notices a scheduler's end at once, whatever the test does meanwhile.

use crate::guest::GuestSchedulers;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

type Over = (Mutex<bool>, Condvar);

impl GuestSchedulers {
    /// Calls `body`, and meanwhile looks every 100 ms whether the attached scheduler lives: a scenario looks itself, other
    /// code does not. `told` hears of each failure that was noticed here: why, and when, since the beginning.
    pub fn watched<T>(&self, told: &(dyn Fn(&str, Duration) + Sync), body: impl FnOnce() -> T) -> T {
        let begin = Instant::now();
        let over = (Mutex::new(false), Condvar::new());
        std::thread::scope(|scope| {
            let looks = || {
                while !is_over(&over) {
                    let noticed = begin.elapsed();
                    if let Some(why) = self.new_failure() {
                        told(&why, noticed);
                    }
                }
            };
            let spawned =
                std::thread::Builder::new().name("ktstr-watcher".to_string()).spawn_scoped(scope, looks);
            if let Err(e) = spawned {
                eprintln!(
                    "ktstr: a scheduler's end is noticed at the test's end only: starting a thread: {e}"
                );
            }
            // It ends the thread on a panic, too, or the scope would wait for ever.
            let _end = End(&over);
            body()
        })
    }
}

struct End<'a>(&'a Over);

impl Drop for End<'_> {
    fn drop(&mut self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }
}

/// Waits for the next look; true if there is to be none.
fn is_over(over: &Over) -> bool {
    let guard = over.0.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = over.1.wait_timeout_while(guard, LOOK, |over| !*over);
    *waited.unwrap_or_else(PoisonError::into_inner).0
}
