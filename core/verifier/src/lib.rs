//! What the kernel's BPF verifier said: parsed, shortened, summed up.
//!
//! [`VerifierLog::parse`] reads what a loader printed: for each program the log that
//! libbpf frames, with its [`Verdict`] and [`Stats`]. [`render`] makes of a log a text that
//! a person can read: register states dropped but at the end, repeated rounds of a loop
//! [collapsed](collapse) to the first and the last. [`Grid`] is the outcome of a sweep over
//! schedulers, topologies and kernels; a [`Comparison`] is two of its cells beside each other, program by program.
//!
//! Pure. Whatever the text, nothing here panics: a log may be cut, or no log at all.

mod collapse;
mod delta;
mod grid;
mod line;
mod log;
mod render;
mod stats;

pub use collapse::{Collapsed, MAX_PASSES, MIN_PERIOD, MIN_ROUNDS, collapse};
pub use delta::{Comparison, ProgramDelta, deltas, render_deltas};
pub use grid::{Cell, Grid, Outcome};
pub use line::{LineKind, kind, without_registers};
pub use log::{ProgramLog, ProgramSummary, Verdict, VerifierLog, scheduler_output};
pub use render::{Mode, render, render_program, render_summary};
pub use stats::Stats;
