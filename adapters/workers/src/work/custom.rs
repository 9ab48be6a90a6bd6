//! A user's function and what it is given.

use crate::meter::{Meter, Schedstat};
use crate::sys;
use ktstr_workload::{CustomWork, WorkerCtx};
use std::cell::Cell;

/// An iteration shorter than this hides no gap worth a look.
const LOOK_FLOOR_NS: u64 = 1_000_000;

/// How old the last look at schedstat may be.
const LOOK_EVERY_NS: u64 = 10_000_000;

/// Runs a user's function.
pub(super) fn run(meter: &Meter<'_>, schedstat: &Schedstat, index: usize, work: CustomWork) {
    let now = sys::now_ns();
    let run_delay = schedstat.read().map_or(0, |s| s.run_delay_ns);
    let ctx = Context { meter, schedstat, index, last: Cell::new(now), looked: Cell::new((now, run_delay)) };
    work(&ctx);
}

struct Context<'a> {
    meter: &'a Meter<'a>,
    schedstat: &'a Schedstat,
    index: usize,
    /// When the last iteration ended.
    last: Cell<u64>,
    /// When schedstat was last looked at, and the run delay then.
    looked: Cell<(u64, u64)>,
}

impl WorkerCtx for Context<'_> {
    fn stop_requested(&self) -> bool {
        self.meter.stop_requested()
    }

    fn add_work(&self, units: u64) {
        self.meter.add_work(units);
    }

    /// What the function did in the iteration is unknown: it may have slept by
    /// choice. So a long one is a gap only as far as the scheduler's own account says
    /// that the worker was runnable and not running.
    fn iteration(&self) {
        self.meter.add_iteration();
        let now = self.meter.resume();
        let took = now.saturating_sub(self.last.replace(now));
        let (looked_at, delay_then) = self.looked.get();
        if took < LOOK_FLOOR_NS && now.saturating_sub(looked_at) < LOOK_EVERY_NS {
            return;
        }
        let Some(values) = self.schedstat.read() else { return };
        self.looked.set((now, values.run_delay_ns));
        self.meter.note_gap(took.min(values.run_delay_ns.saturating_sub(delay_then)), now);
    }

    fn record_wake_latency_ns(&self, ns: u64) {
        self.meter.record_latency(ns);
    }

    fn index(&self) -> usize {
        self.index
    }

    fn spin(&self, iterations: u64) {
        // What came before was the function's own; only the spinning wants to run.
        self.meter.resume();
        self.meter.spin(iterations);
    }
}
