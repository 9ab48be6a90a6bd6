//! The cgroup port over the cgroup v2 file system.
