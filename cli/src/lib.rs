//! Test Linux schedulers like code.
//!
//! A test declares a machine (NUMA nodes, LLCs, cores, threads), cgroups and
//! workloads. ktstr boots a real kernel in a small virtual machine of that shape,
//! runs the test function inside it as PID 1, and says pass or fail with the
//! evidence:
//!
//! ```no_run
//! use ktstr::prelude::*;
//!
//! #[ktstr_test(llcs = 1, cores = 2, threads = 1)]
//! fn two_cgroups_share_the_machine(ctx: &Ctx) -> Result<AssertResult> {
//!     execute_defs(ctx, vec![
//!         CgroupDef::named("cg_0").workers(2),
//!         CgroupDef::named("cg_1").workers(2),
//!     ])
//! }
//! ```
//!
//! Run it with `cargo ktstr test`, `cargo nextest run` or `cargo test`.
//!
//! This crate is the composition root: the only place that wires the pure crates
//! (topology, workload, scenario, assert, run …) to the adapters that do the work
//! (QEMU, cgroupfs, forked workers, initramfs, kernel cache). It re-exports what a
//! test author needs; see [`prelude`].

#[allow(unused_extern_crates, reason = "expansions of our own macros name `::ktstr` inside this crate too")]
extern crate self as ktstr;

mod execute;
mod guest;
mod host_check;
pub mod live_host;
mod registry;
mod run;
mod settings;
mod sweep;
pub mod test_support;
pub mod timeline;

#[cfg(feature = "cli-bins")]
pub mod cli;

pub use ktstr_kconfig::{
    EMBEDDED_KCONFIG, cache_key_suffix, cache_key_suffix_with_extra, extra_kconfig_hash, kconfig_hash,
    merge_kconfig_fragments,
};
pub use ktstr_kernel::KTSTR_KERNEL_HINT;
#[cfg(feature = "integration")]
pub use ktstr_procfs::resolve_func_ip;
pub use linkme::{self, distributed_slice};
pub use run::kernel::find_kernel;

pub use guest::{read_kmsg, send_kmsg};
pub use ktstr_macros::{Claim, declare_scheduler, json, ktstr_test};
pub use ktstr_scheduler::per_name_scheduler_env;
pub use run::programs::{build_and_find_binary, scheduler_profile_name};
pub use settings::{
    KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK_ENV, KTSTR_SCHEDULER_ENV, KTSTR_SCHEDULER_PROFILE_ENV,
};
pub use sweep::{KTSTR_VERIFIER_RAW_ENV, KTSTR_VERIFIER_RESULT_DIR_ENV, KTSTR_VERIFIER_SCHEDULER_ENV};

/// Logs of the kernel's BPF verifier: parsed, shortened, summed up over a sweep.
pub mod verifier {
    pub use ktstr_verifier::*;
}

// Macros of ktstr-assert, under the name that users write.
pub use ktstr_assert::{claim, claim_present};

/// Whether locks on the host's CPUs are left alone (`KTSTR_BYPASS_LLC_LOCKS`, not empty): then machines may share CPUs
/// with one in performance mode.
#[must_use]
pub fn bypass_llc_locks_active() -> bool {
    std::env::var_os(settings::BYPASS_LLC_LOCKS).is_some_and(|value| !value.is_empty())
}

/// Checks, claims and results.
pub mod assert {
    pub use crate::timeline::{PhaseBucket, build_phase_buckets_with_stimulus};
    pub use ktstr_assert::*;
}

/// CPU topology: declared machines, CPU sets, cpulists.
pub mod topology {
    pub use ktstr_procfs::{SystemError, test_topology_from_sysfs};
    pub use ktstr_topology::*;

    /// Looks at the running system; a trait, since the topology itself knows no files.
    pub trait FromSystem: Sized {
        /// What sysfs of the running system says.
        ///
        /// # Errors
        /// When sysfs can't be read or contradicts itself.
        fn from_system() -> Result<Self, SystemError>;
    }

    impl FromSystem for TestTopology {
        fn from_system() -> Result<Self, SystemError> {
            test_topology_from_sysfs(std::path::Path::new("/sys"))
        }
    }
}

/// Work types, worker configuration and reports.
pub mod workload {
    pub use ktstr_workers::{ForkedWorkers, WorkloadHandle};
    pub use ktstr_workload::*;
}

/// cgroup v2 operations.
pub mod cgroup {
    pub use ktstr_cgroupfs::CgroupManager;
    pub use ktstr_scenario::ports::{CgroupError, CgroupLimit, CgroupOps};
}

/// Schedulers under test.
pub mod scheduler {
    pub use ktstr_scheduler::{
        BpfMapWrite, Detach, DumpCpu, DumpTask, ExitKind, ProgramStats, Scheduler, SchedulerReport,
        SchedulerSpec, SchedulerStats, ScxDump, ScxExit, StatsSample, StuckTask, Sysctl,
    };
    pub use ktstr_topology::ShapeBounds;
}

/// The kernel's state at moments of a run, and what a check on the host sees of it.
pub mod snapshot {
    pub use ktstr_monitor::{
        ArenaPage, ArenaState, CgroupState, CpuSample, CpuTimes, CpuUse, EntryState, EntryValue, EntryView,
        EventRate, FieldView, Figures, FromValue, KernelState, MapState, MapView, MetricError, MonitorLog,
        MonitorSummary, NodeState, PhaseSummary, PressureState, ProgramState, QueueState, RingState,
        RqScxState, RunqueueState, Sample, SampleSeries, SchedExtState, SchedulerView, Snapshot,
        SnapshotCause, SnapshotError, TaskState, Value, VarView, VariableState,
    };
    pub use ktstr_run::{PostVm, SnapshotEvent, VmResult};
}

/// Scenarios as data and what plays them.
pub mod scenario {
    pub use crate::execute::*;
    pub use ktstr_scenario::{
        Backdrop, CgroupDef, Ctx, HoldError, HoldSpec, Op, ScenarioError, Setup, Step, StimulusEvent, ports,
    };
}

/// What a test file wants in scope.
pub mod prelude {
    pub use crate::assert::{Assert, AssertResult, CgroupStats, Phase, SeriesField, Verdict};
    pub use crate::cgroup::CgroupOps;
    pub use crate::scenario::{
        Backdrop, CgroupDef, CgroupGroup, Ctx, HoldSpec, Op, Setup, Step, collect_all, dfl_wl, execute_defs,
        execute_scenario, execute_scenario_with, execute_steps, execute_steps_with, scenarios, setup_cgroups,
        spawn_diverse,
    };
    pub use crate::scheduler::{BpfMapWrite, Scheduler, SchedulerSpec, Sysctl};
    pub use crate::snapshot::{SampleSeries, Snapshot, VmResult};
    pub use crate::timeline::StimulusEvent;
    pub use crate::topology::{CpuSet, CpusetSpec, FromSystem, TestTopology, Topology};
    pub use crate::workload::{
        AffinityIntent, CloneMode, MemPolicy, MpolFlags, SchedPolicy, WorkPhase, WorkSpec, WorkType,
        WorkerCtx, WorkerReport, WorkloadConfig, WorkloadHandle,
    };
    pub use crate::{Claim, claim, claim_present, declare_scheduler, json, ktstr_test};
    pub use anyhow::{Context, Result, anyhow, bail, ensure};
}
