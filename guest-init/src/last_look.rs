//! A last look at the kernel, which whoever watches takes before it is told what went wrong.
//!
//! Where the guest stands still for its host at instants of its own (the bell), a host that looks when
//! it hears of a panic would look at an instant that its own pace chose. So the guest has it look first.

use std::sync::{Arc, Mutex, PoisonError};

/// Takes the look; told when it is, as in "when the test panicked". It must not wait for what the
/// process may never do again: it may have crashed.
pub type Look = Arc<dyn Fn(&str) + Send + Sync>;

static LOOK: Mutex<Option<Look>> = Mutex::new(None);

/// While it lives, `look` is called before a panic, a deadly signal or a test whose time is up is told.
#[must_use = "nobody looks once it is dropped"]
pub struct LastLook(());

impl LastLook {
    /// Of the whole process; the last one counts.
    pub fn by(look: Look) -> Self {
        *LOOK.lock().unwrap_or_else(PoisonError::into_inner) = Some(look);
        Self(())
    }
}

impl Drop for LastLook {
    fn drop(&mut self) {
        *LOOK.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Has the look taken, if there is somebody to take it.
pub(crate) fn take(when: &str) {
    let look = LOOK.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if let Some(look) = look {
        look(when);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_taken_while_somebody_looks() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&seen);
        let looking = LastLook::by(Arc::new(move |when| kept.lock().unwrap().push(when.to_string())));
        take("when it fell");
        drop(looking);
        take("when nobody looked");
        assert_eq!(*seen.lock().unwrap(), ["when it fell"]);
    }
}
