//! What a kernel looked like at one moment: the material of a failure dump.

use crate::MapState;
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

impl TaskState {
    /// Its state in `ps`'s letter.
    pub const fn state_letter(&self) -> char {
        state_letter(self.state)
    }
}

/// The letter for `TASK_*` bits as `ps` and /proc show them (`task_index_to_char`, include/linux/sched.h): `R` runnable,
/// `S` sleeping, `D` sleeping uninterruptibly, `I` the same but idle, `T` stopped, `t` traced, `P` parked, `X` dead.
pub const fn state_letter(bits: u64) -> char {
    /// `TASK_UNINTERRUPTIBLE`, `TASK_NOLOAD`, `TASK_FROZEN` (6.1).
    const UNINTERRUPTIBLE: u64 = 0x2;
    const NO_LOAD: u64 = 0x400;
    const FROZEN: u64 = 0x8000;
    if bits & UNINTERRUPTIBLE != 0 {
        return if bits & NO_LOAD != 0 { 'I' } else { 'D' };
    }
    // The lowest bit decides; waking, new and rtlock-wait are shown as what they are about to be.
    match bits & 0xff {
        _ if bits & FROZEN != 0 => 'D',
        0 => 'R',
        bits if bits & 0x1 != 0 => 'S',
        bits if bits & 0x4 != 0 => 'T',
        bits if bits & 0x8 != 0 => 't',
        bits if bits & 0x10 != 0 => 'X',
        bits if bits & 0x20 != 0 => 'Z',
        bits if bits & 0x40 != 0 => 'P',
        _ => 'X',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_have_the_letters_of_ps() {
        // TASK_RUNNING, INTERRUPTIBLE, UNINTERRUPTIBLE, IDLE, KILLABLE, STOPPED, TRACED, PARKED, FROZEN, TASK_DEAD.
        let bits = [0, 1, 2, 0x402, 0x102, 4, 8, 0x40, 0x8000, 0x80];
        assert_eq!(bits.map(state_letter), ['R', 'S', 'D', 'I', 'D', 'T', 't', 'P', 'D', 'X']);
    }
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
    /// `SD_*` flags.
    pub flags: u64,
    /// Current balancing interval, ms.
    pub balance_interval: u64,
    /// Failed attempts to balance, in a row.
    pub nr_balance_failed: u64,
    /// Dearest newly-idle balancing, ns.
    pub max_newidle_lb_cost: u64,
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
}

/// sched_ext as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SchedExtState {
    /// Its state, such as `enabled`.
    pub state: String,
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
    /// Dispatch queues beyond the local ones: the global ones of each node, then the scheduler's.
    #[serde(default)]
    pub dsqs: Vec<QueueState>,
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
