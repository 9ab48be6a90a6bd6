//! How a declared test becomes a run, and a run becomes a result.
//!
//! A [`TestSpec`] is what `#[ktstr_test]` declares. The host turns it into a
//! machine, [`drive`] follows that machine to its end, with an eye on its kernel, [`judge`] makes one verdict
//! of what was seen, [`render`] says it in words and [`Sidecar`] for programs.
//! Pure: machines, time and files are ports.

mod drive;
mod expected;
mod guest;
mod instants;
mod judge;
mod kernel_log;
mod last_words;
mod limits;
mod names;
pub mod ports;
mod quote;
mod render;
mod reported;
mod repro;
mod scheduler;
mod serve;
mod setup;
mod sidecar;
mod spec;
mod vm_result;
mod watch;

pub use drive::{Deadline, Observation, Panic, Signal, Times, drive};
pub use guest::{GuestPlan, PayloadError, TestReturn, decode_reports, encode_reports};
pub use judge::{CaseResult, died_of_lost_code_patch, judge, judge_kernel_state};
pub use limits::Limits;
pub use names::{CASE_PREFIX, case_name, file_stem, test_of_case};
pub use render::{RunFacts, render, render_timeline};
pub use repro::{Crash, Repro, judge_repro};
pub use scheduler::check_expected;
pub use sidecar::{SIDECAR_SCHEMA, Sidecar, SidecarTimes};
pub use spec::TestSpec;
pub use vm_result::{PostVm, SnapshotEvent, VmResult};
pub use watch::Watch;
