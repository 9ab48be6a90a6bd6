//! Judges a guest kernel's scheduler state, sampled from outside.
//!
//! A [`Monitor`] takes samples through the [`Sampler`] port while a test runs and keeps
//! them in a [`MonitorLog`]; [`assess`] makes of that log a [`MonitorSummary`] and, for
//! the checks that the test itself asked for, details of its verdict. Missing or
//! implausible data never passes a check. [`KernelState`] is what a kernel looked like
//! when its run failed.
//!
//! Pure: memory, threads and clocks are behind [`ports`](Sampler).

mod assess;
mod checks;
mod monitor;
mod phases;
mod ports;
mod render;
mod sample;
mod state;
mod summary;

pub use assess::{Assessment, assess};
pub use checks::{Check, Limits, Violation, violations};
pub use monitor::{DEFAULT_PERIOD, Mark, Monitor, MonitorLog};
pub use ports::{Inspector, SampleError, Sampler};
pub use render::{render_assessment, render_state};
pub use sample::{CpuSample, MAX_PLAUSIBLE_DSQ_DEPTH, Sample, clock_ratio, implausible};
pub use state::{KernelState, RunqueueState, TaskState, VcpuState};
pub use summary::{EventRate, MonitorSummary, PhaseSummary};

#[cfg(test)]
mod testing;
