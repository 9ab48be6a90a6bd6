//! Schedulers under test: how one is declared, where its program comes from, what the
//! guest is told to start, and what became of it.
//!
//! - [`Scheduler`] is a declaration, a constant of the user's crate.
//! - [`find`] decides which program is meant, over the port [`ports::Programs`].
//! - [`SchedulerPlan`] is what the guest starts; [`SchedulerReport`] is what it tells.
//! - [`repro`] has a crash made again with probes where it came from.
//! - [`BpfMapWrite`] is what the host writes into a scheduler's variables before a test.
//! - [`bpf`] puts small BPF programs together; with them [`WatchdogOrder`] is carried out.
//! - [`ScxExit`] and [`ScxDump`] are what the kernel says when it drops a scheduler.
//!
//! Everything here is data and rules: no process, file or environment is touched.

mod attach;
pub mod bpf;
mod declare;
mod dump;
mod exit;
mod find;
mod last_words;
mod log;
mod map_write;
mod plan;
pub mod ports;
mod report;
pub mod repro;
mod stats;
mod watchdog;

pub use attach::{NotAttached, why_not_attached};
pub use declare::{Scheduler, SchedulerSpec, Sysctl};
pub use dump::{DumpCpu, DumpTask, ScxDump};
pub use exit::{ExitKind, ScxExit, StuckTask};
pub use find::{DEFAULT_PROFILE, FindError, Found, Wanted, find, per_name_scheduler_env};
pub use last_words::last_words;
pub use log::{BoundedLog, bytes_left_out, without_colours};
pub use map_write::BpfMapWrite;
pub use plan::{Program, SchedulerPlan};
pub use report::{Detach, ProgramStats, Refusal, SchedulerReport, StartOutcome};
pub use stats::{SchedulerStats, StatsSample};
pub use watchdog::{WatchdogOrder, WatchdogReport};
