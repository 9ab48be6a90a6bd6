//! What a kernel looked like at one moment: the material of a failure dump.

use ktstr_machine::VcpuRegisters;
use serde::{Deserialize, Serialize};

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
}

/// A thread.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskState {
    /// Thread id.
    pub pid: i64,
    /// Process id.
    pub tgid: i64,
    /// Its name.
    pub comm: String,
    /// Scheduling class: `stop`, `dl`, `rt`, `fair`, `ext` or `idle`.
    pub class: String,
    /// Effective priority, 0 to 139.
    pub prio: i64,
    /// `TASK_*` bits; 0 is running.
    pub state: u64,
    /// Time run in all, ns.
    pub runtime_ns: u64,
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
    /// The running task.
    pub current: Option<TaskState>,
    /// The tasks queued, by class as the kernel picks them; the running one may be among
    /// them.
    pub runnable: Vec<TaskState>,
    /// How many more there were.
    pub more: usize,
}

/// What a kernel looked like.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelState {
    /// The vCPUs.
    pub vcpus: Vec<VcpuState>,
    /// The runqueues of possible CPUs.
    pub runqueues: Vec<RunqueueState>,
    /// sched_ext's state, such as `enabled`, where the kernel has it.
    pub sched_ext: Option<String>,
    /// What could not be read, and why.
    pub problems: Vec<String>,
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
