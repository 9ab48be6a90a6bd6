//! Things a step can do besides starting cgroups.

use crate::CgroupDef;
use crate::host::HostRequest;
use ktstr_topology::{CpuSet, CpusetSpec};
use ktstr_workload::{AffinityIntent, WorkSpec};

/// One change to a running scenario, applied in order at a step's beginning.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Op {
    /// Makes an empty cgroup.
    AddCgroup {
        /// Its name.
        name: String,
    },
    /// Makes a cgroup with all that its definition says and starts its workers.
    AddCgroupDef(Box<CgroupDef>),
    /// Stops the workers of a cgroup and removes it. A missing one is fine.
    RemoveCgroup {
        /// Its name.
        name: String,
    },
    /// Stops the workers of a cgroup and leaves it.
    StopCgroup {
        /// Its name.
        name: String,
    },
    /// Changes a cgroup's CPUs.
    SetCpuset {
        /// Its name.
        name: String,
        /// The new CPUs.
        cpus: CpusetSpec,
    },
    /// Gives a cgroup its parent's CPUs again.
    ClearCpuset {
        /// Its name.
        name: String,
    },
    /// Exchanges the CPUs of two cgroups.
    SwapCpusets {
        /// One.
        a: String,
        /// The other.
        b: String,
    },
    /// Starts more workers in a cgroup.
    Spawn {
        /// Its name.
        name: String,
        /// The workers; a work type override never applies.
        work: Box<WorkSpec>,
    },
    /// Starts workers in the runner's own cgroup, as a load beside the test's.
    SpawnHost {
        /// The workers.
        work: Box<WorkSpec>,
    },
    /// Changes the affinity of all workers of a cgroup.
    SetAffinity {
        /// Its name.
        name: String,
        /// The new affinity.
        affinity: AffinityIntent,
    },
    /// Moves all tasks of one cgroup to another.
    MoveAllTasks {
        /// From here.
        from: String,
        /// To there.
        to: String,
    },
    /// Freezes a cgroup.
    FreezeCgroup {
        /// Its name.
        name: String,
    },
    /// Thaws a cgroup.
    UnfreezeCgroup {
        /// Its name.
        name: String,
    },
    /// Has the host capture the kernel's state, all vCPUs standing still.
    CaptureSnapshot {
        /// What it is kept under.
        name: String,
    },
    /// Has the host capture the kernel's state whenever a variable is written; the last such
    /// snapshot is kept under its name. At most three variables a scenario. After 100 writes it is
    /// left alone, and the report says so. QEMU 7.2 can tell of that many where there was none,
    /// seen in about one of fifteen runs while another vCPU copied much memory.
    WatchSnapshot {
        /// A variable of the kernel's, aligned to four bytes.
        symbol: String,
    },
    /// Keeps the process ids of a cgroup's members, as a snapshot with the value `pids`.
    CaptureCgroupProcs {
        /// What it is kept under.
        tag: String,
        /// The cgroup.
        cgroup: String,
    },
    /// Reads kernel memory while the guest runs, as a snapshot with that path's value.
    ReadKernelHot {
        /// What it is kept under.
        tag: String,
        /// Such as `runqueues[0].nr_running`.
        path: String,
    },
    /// As [`ReadKernelHot`](Self::ReadKernelHot), all vCPUs standing still.
    ReadKernelCold {
        /// What it is kept under.
        tag: String,
        /// Such as `runqueues[0].nr_running`.
        path: String,
    },
    /// Writes a number of kernel memory while the guest runs.
    WriteKernelHot {
        /// Such as `sysctl_sched_base_slice`.
        path: String,
        /// The number.
        value: u64,
    },
    /// As [`WriteKernelHot`](Self::WriteKernelHot), all vCPUs standing still.
    WriteKernelCold {
        /// Such as `sysctl_sched_base_slice`.
        path: String,
        /// The number.
        value: u64,
    },
    /// Pins a map of the attached scheduler's in bpffs, so that it outlives the scheduler.
    PinBpfMap {
        /// How its name ends, such as `.bss`; of several the one made last.
        map: String,
        /// Where, below `/sys/fs/bpf`.
        path: String,
    },
    /// Has only some CPUs take an interrupt, until another op says otherwise or the machine ends.
    SteerIrq {
        /// Its number in `/proc/interrupts`.
        irq: u32,
        /// The CPUs.
        cpus: CpuSet,
    },
    /// Attaches one of the test's schedulers while none is attached.
    AttachScheduler {
        /// Its declared name; `None` is the test's own.
        name: Option<String>,
    },
    /// Detaches the scheduler: the kernel's own takes over.
    DetachScheduler,
    /// Detaches the scheduler and attaches it again.
    RestartScheduler,
    /// Detaches the scheduler and attaches another one of the test's.
    ReplaceScheduler {
        /// Its declared name.
        name: String,
    },
}

impl Op {
    /// [`Op::AddCgroup`].
    pub fn add_cgroup(name: impl Into<String>) -> Self {
        Self::AddCgroup { name: name.into() }
    }

    /// [`Op::AddCgroupDef`].
    pub fn add_cgroup_def(def: CgroupDef) -> Self {
        Self::AddCgroupDef(Box::new(def))
    }

    /// [`Op::RemoveCgroup`].
    pub fn remove_cgroup(name: impl Into<String>) -> Self {
        Self::RemoveCgroup { name: name.into() }
    }

    /// [`Op::StopCgroup`].
    pub fn stop_cgroup(name: impl Into<String>) -> Self {
        Self::StopCgroup { name: name.into() }
    }

    /// [`Op::SetCpuset`].
    pub fn set_cpuset(name: impl Into<String>, cpus: CpusetSpec) -> Self {
        Self::SetCpuset { name: name.into(), cpus }
    }

    /// [`Op::SetCpuset`] with these very CPUs.
    pub fn set_cpuset_exact(name: impl Into<String>, cpus: CpuSet) -> Self {
        Self::set_cpuset(name, CpusetSpec::Exact(cpus))
    }

    /// [`Op::ClearCpuset`].
    pub fn clear_cpuset(name: impl Into<String>) -> Self {
        Self::ClearCpuset { name: name.into() }
    }

    /// [`Op::SwapCpusets`].
    pub fn swap_cpusets(a: impl Into<String>, b: impl Into<String>) -> Self {
        Self::SwapCpusets { a: a.into(), b: b.into() }
    }

    /// [`Op::Spawn`].
    pub fn spawn(name: impl Into<String>, work: WorkSpec) -> Self {
        Self::Spawn { name: name.into(), work: Box::new(work) }
    }

    /// [`Op::SpawnHost`].
    pub fn spawn_host(work: WorkSpec) -> Self {
        Self::SpawnHost { work: Box::new(work) }
    }

    /// [`Op::SetAffinity`].
    pub fn set_affinity(name: impl Into<String>, affinity: AffinityIntent) -> Self {
        Self::SetAffinity { name: name.into(), affinity }
    }

    /// [`Op::MoveAllTasks`].
    pub fn move_all_tasks(from: impl Into<String>, to: impl Into<String>) -> Self {
        Self::MoveAllTasks { from: from.into(), to: to.into() }
    }

    /// [`Op::FreezeCgroup`].
    pub fn freeze_cgroup(name: impl Into<String>) -> Self {
        Self::FreezeCgroup { name: name.into() }
    }

    /// [`Op::UnfreezeCgroup`].
    pub fn unfreeze_cgroup(name: impl Into<String>) -> Self {
        Self::UnfreezeCgroup { name: name.into() }
    }

    /// [`Op::AttachScheduler`] of the test's own scheduler.
    pub fn attach_scheduler() -> Self {
        Self::AttachScheduler { name: None }
    }

    /// [`Op::AttachScheduler`] of a staged one.
    pub fn attach_staged_scheduler(name: impl Into<String>) -> Self {
        Self::AttachScheduler { name: Some(name.into()) }
    }

    /// [`Op::DetachScheduler`].
    pub fn detach_scheduler() -> Self {
        Self::DetachScheduler
    }

    /// [`Op::RestartScheduler`].
    pub fn restart_scheduler() -> Self {
        Self::RestartScheduler
    }

    /// [`Op::ReplaceScheduler`].
    pub fn replace_scheduler(name: impl Into<String>) -> Self {
        Self::ReplaceScheduler { name: name.into() }
    }

    /// [`Op::CaptureSnapshot`].
    pub fn capture_snapshot(name: impl Into<String>) -> Self {
        Self::CaptureSnapshot { name: name.into() }
    }

    /// [`Op::WatchSnapshot`].
    pub fn watch_snapshot(symbol: impl Into<String>) -> Self {
        Self::WatchSnapshot { symbol: symbol.into() }
    }

    /// [`Op::CaptureCgroupProcs`].
    pub fn capture_cgroup_procs(tag: impl Into<String>, cgroup: impl Into<String>) -> Self {
        Self::CaptureCgroupProcs { tag: tag.into(), cgroup: cgroup.into() }
    }

    /// [`Op::ReadKernelHot`].
    pub fn read_kernel_hot(tag: impl Into<String>, path: impl Into<String>) -> Self {
        Self::ReadKernelHot { tag: tag.into(), path: path.into() }
    }

    /// [`Op::ReadKernelCold`].
    pub fn read_kernel_cold(tag: impl Into<String>, path: impl Into<String>) -> Self {
        Self::ReadKernelCold { tag: tag.into(), path: path.into() }
    }

    /// [`Op::WriteKernelHot`].
    pub fn write_kernel_hot(path: impl Into<String>, value: u64) -> Self {
        Self::WriteKernelHot { path: path.into(), value }
    }

    /// [`Op::WriteKernelCold`].
    pub fn write_kernel_cold(path: impl Into<String>, value: u64) -> Self {
        Self::WriteKernelCold { path: path.into(), value }
    }

    /// [`Op::PinBpfMap`].
    pub fn pin_bpf_map(map: impl Into<String>, path: impl Into<String>) -> Self {
        Self::PinBpfMap { map: map.into(), path: path.into() }
    }

    /// [`Op::SteerIrq`].
    pub fn steer_irq(irq: u32, cpus: CpuSet) -> Self {
        Self::SteerIrq { irq, cpus }
    }

    /// What it asks of the host, with the name, variable or path that must not be empty;
    /// `None` for an op that the guest carries out.
    pub(crate) fn request(&self) -> Option<HostRequest> {
        let read = |tag: &String, path: &String, frozen| {
            Some(HostRequest::ReadKernel { tag: tag.clone(), path: path.clone(), frozen })
        };
        let write = |path: &String, value: u64, frozen| {
            Some(HostRequest::WriteKernel { path: path.clone(), value, frozen })
        };
        match self {
            Self::CaptureSnapshot { name } => Some(HostRequest::Capture { name: name.clone() }),
            Self::WatchSnapshot { symbol } => Some(HostRequest::Watch { symbol: symbol.clone() }),
            Self::ReadKernelHot { tag, path } => read(tag, path, false),
            Self::ReadKernelCold { tag, path } => read(tag, path, true),
            Self::WriteKernelHot { path, value } => write(path, *value, false),
            Self::WriteKernelCold { path, value } => write(path, *value, true),
            _ => None,
        }
    }

    /// The op's kind, as the timeline names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::AddCgroup { .. } => "AddCgroup",
            Self::AddCgroupDef(_) => "AddCgroupDef",
            Self::RemoveCgroup { .. } => "RemoveCgroup",
            Self::StopCgroup { .. } => "StopCgroup",
            Self::SetCpuset { .. } => "SetCpuset",
            Self::ClearCpuset { .. } => "ClearCpuset",
            Self::SwapCpusets { .. } => "SwapCpusets",
            Self::Spawn { .. } => "Spawn",
            Self::SpawnHost { .. } => "SpawnHost",
            Self::SetAffinity { .. } => "SetAffinity",
            Self::MoveAllTasks { .. } => "MoveAllTasks",
            Self::FreezeCgroup { .. } => "FreezeCgroup",
            Self::UnfreezeCgroup { .. } => "UnfreezeCgroup",
            Self::CaptureSnapshot { .. } => "CaptureSnapshot",
            Self::WatchSnapshot { .. } => "WatchSnapshot",
            Self::CaptureCgroupProcs { .. } => "CaptureCgroupProcs",
            Self::ReadKernelHot { .. } => "ReadKernelHot",
            Self::ReadKernelCold { .. } => "ReadKernelCold",
            Self::WriteKernelHot { .. } => "WriteKernelHot",
            Self::WriteKernelCold { .. } => "WriteKernelCold",
            Self::PinBpfMap { .. } => "PinBpfMap",
            Self::SteerIrq { .. } => "SteerIrq",
            Self::AttachScheduler { .. } => "AttachScheduler",
            Self::DetachScheduler => "DetachScheduler",
            Self::RestartScheduler => "RestartScheduler",
            Self::ReplaceScheduler { .. } => "ReplaceScheduler",
        }
    }

    /// Its name in the timeline, such as `set_cpuset`.
    pub fn label(&self) -> String {
        let mut label = String::new();
        for c in self.kind().chars() {
            if c.is_ascii_uppercase() && !label.is_empty() {
                label.push('_');
            }
            label.push(c.to_ascii_lowercase());
        }
        label
    }
}
