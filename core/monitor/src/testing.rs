//! Samples for the tests of this crate.

use crate::{CpuSample, Sample};
use std::time::Duration;

/// A sample at `ms` of CPUs with that many runnable tasks each, whose clocks run.
pub(crate) fn sample(ms: u64, nr_running: &[u32]) -> Sample {
    let cpus = (0u32..).zip(nr_running).map(|(cpu, nr)| CpuSample {
        cpu,
        nr_running: *nr,
        clock: 1_000_000_000 + ms * 1_000_000 + u64::from(cpu),
        local_dsq_nr: Some(0),
        ..CpuSample::default()
    });
    Sample { at: Duration::from_millis(ms), cpus: cpus.collect(), events: None, queues: None }
}
