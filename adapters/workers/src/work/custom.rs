//! A user's function and what it is given.

use crate::meter::Meter;
use crate::sys;
use ktstr_workload::{CustomWork, WorkerCtx};
use std::cell::Cell;

/// Runs a user's function.
pub(super) fn run(meter: &Meter<'_>, index: usize, work: CustomWork) {
    work(&Context { meter, index, last: Cell::new(sys::now_ns()) });
}

struct Context<'a> {
    meter: &'a Meter<'a>,
    index: usize,
    /// When the last iteration ended.
    last: Cell<u64>,
}

impl WorkerCtx for Context<'_> {
    fn stop_requested(&self) -> bool {
        self.meter.stop_requested()
    }

    fn add_work(&self, units: u64) {
        self.meter.add_work(units);
    }

    /// What the function did in the iteration is unknown: it may have slept by
    /// choice. So it is a gap only as far as the worker was runnable meanwhile.
    fn iteration(&self) {
        self.meter.add_iteration();
        let now = self.meter.resume();
        self.meter.note_runnable(now.saturating_sub(self.last.replace(now)), now);
    }

    fn record_wake_latency_ns(&self, ns: u64) {
        self.meter.record_latency(ns);
    }

    fn index(&self) -> usize {
        self.index
    }

    fn spin(&self, iterations: u64) {
        // What came before was the function's own; only the spinning wants to run.
        self.meter.resume_afresh();
        self.meter.spin(iterations);
    }
}
