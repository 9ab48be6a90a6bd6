//! Events on their way from the machine's threads to its owner.

use crate::watches;
use ktstr_machine::VmEvent;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that may wait for the owner before the guest has to.
pub(crate) const MAX_QUEUED: usize = 64 << 20;

/// A queue whose writers wait while it holds too much.
#[derive(Default)]
pub(crate) struct Queue {
    /// What of the machine's memory is watched, and which writes are still to go through here.
    pub(crate) watches: Mutex<watches::State>,
    state: Mutex<State>,
    filled: Condvar,
    drained: Condvar,
}

#[derive(Default)]
struct State {
    events: VecDeque<VmEvent>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    /// Adds an event; waits for room unless the queue is closed, and then drops it.
    pub(crate) fn push(&self, event: VmEvent) {
        let bytes = event.room();
        let mut state = self.lock();
        while bytes > 0 && state.bytes >= MAX_QUEUED && !state.closed {
            state = self.drained.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return;
        }
        state.bytes += bytes;
        state.events.push_back(event);
        self.filled.notify_one();
    }

    /// The oldest event; `None` when none came within `timeout`.
    pub(crate) fn pop(&self, timeout: Duration) -> Option<VmEvent> {
        let deadline = Instant::now().checked_add(timeout);
        let mut state = self.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                state.bytes -= event.room();
                self.drained.notify_all();
                return Some(event);
            }
            // Without a deadline the time is too far away to be told.
            let left = deadline.map_or(timeout, |d| d.saturating_duration_since(Instant::now()));
            if left == Duration::ZERO {
                return None;
            }
            state = self.filled.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets every writer go, now and later.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.drained.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_machine::VmExit;
    use std::sync::Arc;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_writer_waits_for_room_and_order_is_kept() {
        let queue = Arc::new(Queue::default());
        queue.push(VmEvent::Data(vec![0; MAX_QUEUED]));
        let writer = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || {
                queue.push(VmEvent::Data(vec![1]));
                queue.push(VmEvent::Exited(VmExit::PowerOff));
            })
        };
        assert!(matches!(queue.pop(LONG), Some(VmEvent::Data(bytes)) if bytes.len() == MAX_QUEUED));
        assert_eq!(queue.pop(LONG), Some(VmEvent::Data(vec![1])));
        assert_eq!(queue.pop(LONG), Some(VmEvent::Exited(VmExit::PowerOff)));
        writer.join().unwrap();
        assert_eq!(queue.pop(Duration::from_millis(1)), None);
    }

    #[test]
    fn closing_lets_a_waiting_writer_go() {
        let queue = Arc::new(Queue::default());
        queue.push(VmEvent::Data(vec![0; MAX_QUEUED]));
        let writer = {
            let queue = Arc::clone(&queue);
            std::thread::spawn(move || queue.push(VmEvent::Data(vec![1])))
        };
        queue.close();
        writer.join().unwrap();
    }

    #[test]
    fn the_end_is_told_even_when_the_queue_is_full() {
        let queue = Queue::default();
        queue.push(VmEvent::Data(vec![0; MAX_QUEUED]));
        queue.push(VmEvent::Exited(VmExit::Reset));
        queue.pop(LONG);
        assert_eq!(queue.pop(LONG), Some(VmEvent::Exited(VmExit::Reset)));
    }
}
