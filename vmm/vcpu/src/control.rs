//! What is wanted of a vCPU and what it does, shared by its thread and its owner.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a vCPU does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Runs guest code, or is about to.
    Running,
    /// Stands still; its registers can be read.
    Paused,
    /// Won't run any more.
    Ended,
}

/// What its owner wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    Run,
    Pause,
    Stop,
}

const RUN: u8 = 0;
const PAUSE: u8 = 1;
const STOP: u8 = 2;

pub(crate) struct Control {
    want: AtomicU8,
    state: Mutex<State>,
    changed: Condvar,
}

impl Control {
    /// Paused from the first: its thread rests before it does anything else.
    pub(crate) fn new() -> Self {
        Self { want: AtomicU8::new(PAUSE), state: Mutex::new(State::Paused), changed: Condvar::new() }
    }

    /// Looked at before every entry into the guest, so without a lock.
    pub(crate) fn want(&self) -> Want {
        match self.want.load(Ordering::SeqCst) {
            RUN => Want::Run,
            PAUSE => Want::Pause,
            _ => Want::Stop,
        }
    }

    /// Changes what is wanted; nothing takes a stop back.
    pub(crate) fn ask(&self, want: Want) {
        let code = match want {
            Want::Run => RUN,
            Want::Pause => PAUSE,
            Want::Stop => STOP,
        };
        let mut state = self.lock();
        if self.want.load(Ordering::SeqCst) != STOP {
            self.want.store(code, Ordering::SeqCst);
            // From here on its registers mean nothing, though its thread may not
            // have woken yet.
            if want == Want::Run && *state == State::Paused {
                *state = State::Running;
            }
        }
        self.changed.notify_all();
    }

    pub(crate) fn state(&self) -> State {
        *self.lock()
    }

    pub(crate) fn set(&self, state: State) {
        *self.lock() = state;
        self.changed.notify_all();
    }

    /// Stands still until something else than a pause is wanted.
    pub(crate) fn rest(&self) -> Want {
        let mut state = self.lock();
        loop {
            match self.want() {
                Want::Pause => {
                    *state = State::Paused;
                    self.changed.notify_all();
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                Want::Run => {
                    *state = State::Running;
                    return Want::Run;
                }
                Want::Stop => return Want::Stop,
            }
        }
    }

    /// Waits until it runs no more; false when `deadline` came first.
    pub(crate) fn wait_still(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while *state == State::Running {
            let left = deadline.saturating_duration_since(Instant::now());
            if left == Duration::ZERO {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
