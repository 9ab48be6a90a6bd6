//! PID 1 of a guest: mounts, transport, test, power off.
