//! What the running system does and says, whether it is a guest or a machine of its own.
//!
//! [`Recorder`] has the kernel trace scheduling events in a trace instance of its own and makes a timeline of them;
//! [`KmsgReader`] reads the kernel's log; [`scx_state`] and [`task_states`] read what sysfs and /proc say of sched_ext
//! and of all threads, into the values that a snapshot of a machine has.
//!
//! May touch: a directory of its own below tracefs's `instances`, those left there by recorders that died, and one
//! process for each recorder, which takes the directory away when its parent can't; else it only reads `/dev/kmsg`,
//! `/proc` and `/sys`. Wants root.

mod kmsg;
mod scx;
mod tasks;
mod trace;

pub use kmsg::{KmsgReader, KmsgText};
pub use scx::{scx_events, scx_state};
pub use tasks::task_states;
pub use trace::{Recorder, TraceError, TraceRequest};
