//! The cgroup port over the cgroup v2 file system.
//!
//! [`CgroupManager`] makes, changes and removes cgroups below one parent
//! directory of a cgroup v2 mount (`Documentation/admin-guide/cgroup-v2.rst`). It
//! touches only cgroups that it made itself.

mod events;
mod file;
mod hint;
mod limit;
mod manager;
mod name;
mod tasks;

pub use manager::{CONTROLLERS, CgroupManager};
