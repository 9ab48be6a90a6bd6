//! Which kernel a test runs on: specs, discovery order, cache keys, build plan.
