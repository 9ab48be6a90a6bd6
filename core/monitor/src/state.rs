//! What a kernel looked like at one moment: the material of a failure dump.

mod around;
mod task;

pub use around::{CpuTimes, CpuUse, NodeState, PressureState, StallState};
pub use task::{TaskState, state_letter};

use crate::{MapState, VcpuCounters};
use ktstr_machine::VcpuRegisters;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Registers of one vCPU, with what they point at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VcpuState {
    /// vCPU number.
    pub cpu: u32,
    /// Instruction pointer.
    pub ip: u64,
    /// The kernel symbol it is in, with a distance; `None` in user space.
    pub symbol: Option<String>,
    /// Source lines of it, the innermost inlined function first, where the kernel's debug
    /// information is at hand.
    pub source: Vec<String>,
    /// Stack pointer.
    pub sp: u64,
    /// Page-table root (x86: CR3).
    pub page_table: u64,
    /// True when halted.
    pub halted: bool,
    /// What the host counted for it until then; `None` where it counts nothing, and in deterministic mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<VcpuCounters>,
}

/// A runqueue with its tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunqueueState {
    /// The CPU.
    pub cpu: u32,
    /// Runnable tasks of all classes.
    pub nr_running: u64,
    /// Its clock, ns.
    pub clock: u64,
    /// Context switches so far.
    pub nr_switches: u64,
    /// sched_ext: runnable tasks, and tasks on the local dispatch queue.
    pub scx_nr_running: Option<u64>,
    /// As above.
    pub local_dsq_nr: Option<u64>,
    /// sched_ext: `SCX_RQ_*` flags.
    #[serde(default)]
    pub scx_flags: Option<u64>,
    /// sched_ext: whether a higher class has the CPU.
    #[serde(default)]
    pub scx_cpu_released: Option<bool>,
    /// sched_ext: how often a task of it went to the scheduler's `enqueue`; `None` on kernels that count that for each
    /// task.
    #[serde(default)]
    pub scx_ops_qseq: Option<u64>,
    /// sched_ext: grows with each task picked; who kicks a CPU waits by it.
    #[serde(default)]
    pub scx_kick_sync: Option<u64>,
    /// Share of the time that went to interrupts, 0 to 1024; `None` where the kernel doesn't account for it.
    #[serde(default)]
    pub irq_util: Option<u64>,
    /// The running task.
    pub current: Option<TaskState>,
    /// The tasks queued, by class as the kernel picks them; the running one may be among
    /// them.
    pub runnable: Vec<TaskState>,
    /// How many more there were.
    pub more: usize,
    /// Its scheduling domains, the lowest first.
    #[serde(default)]
    pub domains: Vec<DomainState>,
}

/// A scheduling domain of a CPU (`struct sched_domain`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainState {
    /// Its name, such as `MC`; its level where the kernel keeps no names.
    pub name: String,
    /// Its level, from 0.
    pub level: i64,
    /// The CPUs it spans, as a list.
    pub span: String,
    /// How many those are.
    #[serde(default)]
    pub span_weight: u64,
    /// `SD_*` flags.
    pub flags: u64,
    /// Current balancing interval, ms.
    pub balance_interval: u64,
    /// Failed attempts to balance, in a row.
    pub nr_balance_failed: u64,
    /// Dearest newly-idle balancing, ns.
    pub max_newidle_lb_cost: u64,
    /// Its balancing counters by the kernel's names (Documentation/scheduler/sched-stats.rst), those of `lb_` with what
    /// the CPU was doing behind a dot, such as `lb_count.newly_idle`; none without `CONFIG_SCHEDSTATS`.
    #[serde(default)]
    pub schedstat: BTreeMap<String, u64>,
}

/// A cgroup of the v2 hierarchy with its own members.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupState {
    /// Its path from the root, which is `/`.
    pub path: String,
    /// The CPUs it may use, as a list; `None` without the cpuset controller.
    pub cpus: Option<String>,
    /// Whether it was told to freeze, itself or by one above it.
    pub frozen: bool,
    /// Its tasks: pid and name.
    pub tasks: Vec<(i64, String)>,
    /// How many more there were.
    pub more: usize,
    /// How its tasks were held up, by resource; empty where the kernel doesn't keep that.
    #[serde(default)]
    pub pressure: Vec<PressureState>,
}

/// sched_ext as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedExtState {
    /// Its state, such as `enabled`.
    pub state: String,
    /// Whether the scheduler's operations are cut short since it is being aborted; `None` before 6.19.
    #[serde(default)]
    pub aborting: Option<bool>,
    /// Depth of bypass mode; 0 when the loaded scheduler schedules.
    pub bypass_depth: Option<u64>,
    /// Schedulers loaded so far.
    pub enable_seq: Option<u64>,
    /// Watchdog timeout, jiffies.
    pub watchdog_timeout: Option<u64>,
    /// Tasks refused by the scheduler.
    pub nr_rejected: Option<u64>,
    /// Name of the scheduler that is loaded, or was last.
    #[serde(default)]
    pub ops: Option<String>,
    /// Why it ended, in one word; `none` while it runs, `done` once nothing is left of it.
    #[serde(default)]
    pub exit_kind: Option<String>,
    /// Why it ended, as long as the kernel or the scheduler itself still tells.
    #[serde(default)]
    pub exit: Option<SchedulerExit>,
    /// Dispatch queues: the local ones of each CPU and those for bypass mode, the global ones of each node, then the
    /// scheduler's.
    #[serde(default)]
    pub dsqs: Vec<QueueState>,
    /// Event counters (`SCX_EV_*`), summed over CPUs; empty on kernels without them.
    #[serde(default)]
    pub events: BTreeMap<String, i64>,
    /// The scheduler's BPF programs.
    #[serde(default)]
    pub programs: Vec<ProgramState>,
    /// The BPF maps that they use.
    #[serde(default)]
    pub maps: Vec<MapState>,
}

/// Why a scheduler ended: `struct scx_exit_info`; what the scheduler kept of it once the kernel has let that go; or,
/// where both are gone, the kernel's log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedulerExit {
    /// `SCX_EXIT_*`, such as `error_stall`.
    pub kind: String,
    /// The scheduler's own code; `None` where only the log was left, which lacks it.
    pub exit_code: Option<i64>,
    /// The kernel's short reason.
    pub reason: String,
    /// The message of whoever ended it.
    pub message: String,
    /// Where it was ended: symbols, with distances unless the log tells it, the innermost first.
    pub trace: Vec<String>,
}

/// A dispatch queue.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueState {
    /// Its id.
    pub id: u64,
    /// What the id means: `global`, `local`, `bypass`, or the scheduler's number in hexadecimal.
    pub name: String,
    /// Whose it is: `cpu 3` or `node 0`; empty for the scheduler's own.
    #[serde(default)]
    pub origin: String,
    /// Grows with each task that is put on it.
    #[serde(default)]
    pub seq: Option<u64>,
    /// Tasks on it.
    pub nr: u64,
    /// The first of them in dispatch order: pid and name.
    pub tasks: Vec<(i64, String)>,
    /// Whether it orders them by virtual time.
    pub by_vtime: bool,
}

/// A BPF program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramState {
    /// Its ID, as `bpftool prog` shows it.
    pub id: u64,
    /// Its function's name.
    pub name: String,
    /// Its kind, such as `struct_ops`.
    pub kind: String,
    /// The operation that it implements, such as `enqueue`.
    pub implements: String,
    /// Instructions that the verifier went through; `None` where the kernel doesn't keep that.
    pub verified_insns: Option<u64>,
    /// Runs; counted only with `kernel.bpf_stats_enabled`.
    pub run_count: u64,
    /// Time in it, ns; as above.
    pub run_time_ns: u64,
    /// Runs that recursion prevented.
    pub misses: u64,
}

/// What a kernel looked like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelState {
    /// Which moment it is.
    #[serde(default)]
    pub moment: String,
    /// The vCPUs.
    pub vcpus: Vec<VcpuState>,
    /// The runqueues of possible CPUs.
    pub runqueues: Vec<RunqueueState>,
    /// All threads, at most 4096; the idle ones of CPUs but the first aren't among them.
    #[serde(default)]
    pub tasks: Vec<TaskState>,
    /// What each possible CPU spent its time on, and its softirqs.
    #[serde(default)]
    pub cpu_use: Vec<CpuUse>,
    /// How tasks of the whole system were held up, by resource; empty where the kernel doesn't keep that.
    #[serde(default)]
    pub pressure: Vec<PressureState>,
    /// Where pages of each node came from; empty without `CONFIG_NUMA`.
    #[serde(default)]
    pub nodes: Vec<NodeState>,
    /// sched_ext, where the kernel has it.
    pub sched_ext: Option<SchedExtState>,
    /// The cgroups, parents before children.
    #[serde(default)]
    pub cgroups: Vec<CgroupState>,
    /// The last lines of the console.
    #[serde(default)]
    pub console: Vec<String>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
    /// What is missing without having failed, and why: what this kernel lacks or has turned off, what lists that were cut
    /// short had more.
    #[serde(default)]
    pub left_out: Vec<String>,
    /// Why this is not the whole kernel at one moment, but registers at most, or parts of a machine
    /// that went on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<String>,
}

impl KernelState {
    /// All that registers tell without the kernel's symbols.
    pub fn of_registers(registers: &[VcpuRegisters]) -> Self {
        let vcpu = |r: &VcpuRegisters| VcpuState {
            cpu: r.cpu,
            ip: r.ip,
            sp: r.sp,
            page_table: r.page_table,
            halted: r.halted,
            ..VcpuState::default()
        };
        Self { vcpus: registers.iter().map(vcpu).collect(), ..Self::default() }
    }
}
