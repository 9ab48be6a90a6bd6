//! The kernel configuration fragment of the guest kernel: merge, hash, checks.
