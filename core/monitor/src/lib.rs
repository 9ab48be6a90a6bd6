//! Judges a guest kernel's scheduler state, sampled from outside.
//!
//! A [`Monitor`] takes samples through the [`Sampler`] port while a test runs and keeps
//! them in a [`MonitorLog`]; [`assess`] makes of that log a [`MonitorSummary`] and, for
//! the checks that the test itself asked for, details of its verdict. Missing or
//! implausible data never passes a check. [`KernelState`] is what a kernel looked like
//! when its run failed, a [`Snapshot`] at a moment that the test chose; [`SampleSeries`]
//! draws one value of either over time. [`StallWatch`] looks after tests that have no machine.
//!
//! Pure: memory, threads and clocks are behind [`ports`](Sampler).

mod assess;
mod checks;
mod context;
mod dump;
mod figures;
mod maps;
mod monitor;
mod phases;
mod ports;
mod render;
mod sample;
mod series;
mod snapshot;
mod stalls;
mod state;
mod summary;
mod timeline;
mod value;
mod vcpus;

pub use assess::{Assessment, assess};
pub use checks::{Check, Limits, Violation, violations};
pub use context::{ProbeCount, ProbeCounters, SetupContext, SetupEntry, render_setup};
pub use dump::{DumpSchema, FailureDump, LongestWait};
pub use figures::Figures;
pub use maps::{
    AllocatorState, ArenaPage, ArenaState, ElementState, EntryState, EntryValue, MapState, RingState,
    VariableState,
};
pub use monitor::{DEFAULT_PERIOD, Mark, Monitor, MonitorLog};
pub use ports::{HostCounters, Inspector, Place, Readings, SampleError, Sampler};
pub use render::{render_assessment, render_state};
pub use sample::{
    Counters, CpuSample, Current, MAX_PLAUSIBLE_DSQ_DEPTH, Observer, ProgramRuns, QueueSample, Sample,
    Schedstat, clock_ratio, implausible,
};
pub use series::SampleSeries;
pub use snapshot::{
    EntryView, FieldView, MAX_SNAPSHOTS, MapView, RqScxState, SchedulerView, Snapshot, SnapshotCause,
    SnapshotError, Snapshots, VarView,
};
pub use stalls::{Processes, RunFigures, StallWatch};
pub use state::{
    CgroupState, CpuTimes, CpuUse, DomainState, KernelState, NodeState, PressureState, ProgramState,
    QueueState, RunqueueState, SchedExtState, SchedulerExit, StallState, TaskState, VcpuState, state_letter,
};
pub use summary::{EventRate, IrqUtil, MetricError, MonitorSummary, PhaseSummary, phase_summaries};
pub use timeline::{EventPoint, EventTimeline, event_timeline, render_event_timeline};
pub use value::{FromValue, Value};
pub use vcpus::{COUNTERS_DIFFER, VcpuCounters, VcpuReadings};

#[cfg(test)]
mod testing;
