//! What a test's own check on the host looks at once its machine has ended.

use crate::drive::Observation;
use ktstr_assert::AssertResult;
use ktstr_monitor::{MonitorLog, SampleSeries, Snapshot};
use ktstr_scheduler::SchedulerReport;
use ktstr_wire::Stimulus;

/// A check that a test makes on the host (`post_vm`).
pub type PostVm = fn(&VmResult<'_>) -> AssertResult;

/// A run that has ended, as it was seen from outside.
#[derive(Debug, Clone, Copy)]
pub struct VmResult<'a> {
    seen: &'a Observation,
    result: &'a AssertResult,
}

impl<'a> VmResult<'a> {
    pub(crate) fn new(seen: &'a Observation, result: &'a AssertResult) -> Self {
        Self { seen, result }
    }

    /// The verdict so far: the guest's, and that of the monitor's checks.
    pub fn result(&self) -> &'a AssertResult {
        self.result
    }

    /// The last snapshot of that name.
    pub fn snapshot(&self, name: &str) -> Option<&'a Snapshot> {
        self.seen.snapshots.get(name)
    }

    /// All snapshots that were kept, by time.
    pub fn snapshots(&self) -> &'a [Snapshot] {
        self.seen.snapshots.all()
    }

    /// The moments at which the kernel was looked at, to draw a value over time from.
    pub fn series(&self) -> SampleSeries<'a> {
        SampleSeries::new(self.snapshots(), &self.seen.monitor)
    }

    /// What the monitor saw.
    pub fn monitor(&self) -> &'a MonitorLog {
        &self.seen.monitor
    }

    /// What the scenario did.
    pub fn timeline(&self) -> &'a [Stimulus] {
        &self.seen.timeline
    }

    /// What became of the schedulers, one report a start: how each ended, its BPF programs, its scx_stats.
    pub fn schedulers(&self) -> &'a [SchedulerReport] {
        &self.seen.schedulers
    }

    /// The kernel's log, where the guest sent it.
    pub fn guest_kmsg(&self) -> String {
        String::from_utf8_lossy(&self.seen.kernel_log).into_owned()
    }

    /// The end of the console.
    pub fn stderr(&self) -> String {
        self.seen.console.last(usize::MAX).join("\n")
    }
}
