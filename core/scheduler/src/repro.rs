//! Auto-repro: a crash is made to happen again, with probes where it came from.
//!
//! 1. [`choose`] picks the kernel functions that are worth a look, out of the end of the first run.
//! 2. In the second machine, [`define`] writes a [`Probe`] for each, over the kernel's own types: what to fetch when the
//!    function is entered and what to fetch again when it returns (the syntax of `Documentation/trace/kprobetrace.rst`).
//! 3. When the scheduler has ended, [`Selection`] keeps the events of the one task that its end is about.
//! 4. The host pairs entries with exits and [`render`]s them.
//!
//! A scheduler's own programs can't have kprobes: small BPF programs are attached to them ([`Callback`],
//! [`crate::bpf`]), which print what a kprobe event would hold.

mod callback;
mod calls;
mod decode;
mod fields;
mod functions;
mod probe;
mod render;
mod trace;

pub use callback::{Callback, Callbacks};
pub use functions::{Choice, choose};
pub use probe::{Field, Part, Probe, Show, define};
pub use render::{Rerun, render};
pub use trace::{AtTheEnd, ProbeHits, ProbeProfile, ProbeTrace, Selection, Task};

#[cfg(test)]
mod tests;
