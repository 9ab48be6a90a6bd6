//! A thread as a dump has it.

use serde::{Deserialize, Serialize};

/// `TASK_*` bits of a task that runs or waits for a CPU.
const RUNNING: u64 = 0;
/// `MAX_RT_PRIO`: effective priorities below it are of the real-time class, and of the deadline class below 0.
const MAX_RT_PRIO: i64 = 100;

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
    /// Effective priority, 0 to 139; -1 of the deadline class.
    pub prio: i64,
    /// `TASK_*` bits; 0 is running.
    pub state: u64,
    /// Time run in all, ns.
    pub runtime_ns: u64,
    /// The CPU that it is on, or was last.
    #[serde(default)]
    pub cpu: Option<u64>,
    /// Whether it is a thread of the kernel's.
    #[serde(default)]
    pub kernel_thread: bool,
    /// Process id of its parent.
    #[serde(default)]
    pub parent: Option<i64>,
    /// Process group.
    #[serde(default)]
    pub pgid: Option<i64>,
    /// Session.
    #[serde(default)]
    pub sid: Option<i64>,
    /// Load weight: 1024 for a nice level of 0.
    #[serde(default)]
    pub weight: Option<u64>,
    /// sched_ext: weight, 1 to 10000.
    #[serde(default)]
    pub scx_weight: Option<u64>,
    /// sched_ext: how often it went to the scheduler's `enqueue`; `None` on kernels that count that for each runqueue.
    #[serde(default)]
    pub scx_ops_qseq: Option<u64>,
    /// Nice level plus 120.
    #[serde(default)]
    pub static_prio: Option<i64>,
    /// Priority without what PI locks lend it.
    #[serde(default)]
    pub normal_prio: Option<i64>,
    /// Real-time priority, 1 to 99, or 0.
    #[serde(default)]
    pub rt_priority: Option<u64>,
    /// Tasks with the same cookie may share a core; 0 for none.
    #[serde(default)]
    pub core_cookie: Option<u64>,
    /// The most urgent of the tasks that wait for a PI lock which it holds.
    #[serde(default)]
    pub pi_waiter: Option<i64>,
    /// Whether that task's priority lifts it out of its own class, into `rt` or `dl`.
    #[serde(default)]
    pub pi_boosted_out: bool,
    /// Voluntary context switches.
    #[serde(default)]
    pub nvcsw: Option<u64>,
    /// Involuntary context switches.
    #[serde(default)]
    pub nivcsw: Option<u64>,
    /// User time, ns, as the tick counted it.
    #[serde(default)]
    pub utime_ns: Option<u64>,
    /// System time, ns, likewise.
    #[serde(default)]
    pub stime_ns: Option<u64>,
    /// The slow path of the kernel's lock that it waits for, such as `rwsem_down_write_slowpath`.
    #[serde(default)]
    pub lock_slow_path: Option<String>,
}

impl TaskState {
    /// Its state in `ps`'s letter.
    pub const fn state_letter(&self) -> char {
        state_letter(self.state)
    }

    /// Whether an effective priority is one that PI locks lent, to a class above its own.
    pub const fn is_boosted_out(prio: i64, normal_prio: i64) -> bool {
        prio < normal_prio
            && prio < MAX_RT_PRIO
            && (normal_prio >= MAX_RT_PRIO || (prio < 0 && normal_prio >= 0))
    }

    /// Whether it is worth a line among all: it runs or waits for a CPU, waits uninterruptibly or for a lock, or holds one
    /// that lends it a priority.
    pub fn is_notable(&self) -> bool {
        let waits = self.state == RUNNING || self.state_letter() == 'D' || self.lock_slow_path.is_some();
        waits || self.pi_waiter.is_some() || self.pi_boosted_out
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
    fn a_priority_that_is_lent_may_lift_into_another_class() {
        // From fair to rt, from rt to dl; within rt, and not at all.
        let cases = [(50, 120), (-1, 120), (-1, 60), (50, 60), (120, 120), (-1, -1), (110, 120)];
        let lifted = cases.map(|(prio, normal)| TaskState::is_boosted_out(prio, normal));
        assert_eq!(lifted, [true, true, true, false, false, false, false]);
    }

    #[test]
    fn what_sleeps_as_it_should_is_not_notable() {
        let state = |state| TaskState { state, ..TaskState::default() };
        assert!(state(0).is_notable() && state(2).is_notable());
        assert!(!state(1).is_notable() && !state(0x402).is_notable());
        assert!(TaskState { lock_slow_path: Some("__mutex_lock".into()), ..state(1) }.is_notable());
        assert!(TaskState { pi_waiter: Some(3), ..state(1) }.is_notable());
    }

    #[test]
    fn states_have_the_letters_of_ps() {
        // TASK_RUNNING, INTERRUPTIBLE, UNINTERRUPTIBLE, IDLE, KILLABLE, STOPPED, TRACED, PARKED, FROZEN, TASK_DEAD.
        let bits = [0, 1, 2, 0x402, 0x102, 4, 8, 0x40, 0x8000, 0x80];
        assert_eq!(bits.map(state_letter), ['R', 'S', 'D', 'I', 'D', 'T', 't', 'P', 'D', 'X']);
    }
}
