//! The worker port over real forked processes.
