//! What a scheduler did in a window of time.

mod decode;
mod format;
mod render;
mod ring;
mod text;
mod views;

pub use decode::{Decoder, DecoderError};
pub use views::{LockWait, WakeupDelay};

use serde::{Deserialize, Serialize};

/// A task as an event names it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRef {
    /// Thread id; 0 is a CPU's idle task.
    pub pid: i32,
    /// Its name, at most 15 bytes.
    pub comm: String,
    /// Effective priority, 0 to 139: the smaller the more urgent; -1 of the deadline class.
    pub prio: i32,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum TimelineEvent {
    /// A CPU went from one task to another (`sched:sched_switch`).
    Switch {
        /// The task that left the CPU.
        prev: TaskRef,
        /// Its state in `ps`'s letters: `R` wants to go on, `R+` was preempted, `S` sleeps…
        prev_state: String,
        /// The task that has the CPU now.
        next: TaskRef,
    },
    /// A task was moved (`sched:sched_migrate_task`).
    Migrate {
        /// The task.
        task: TaskRef,
        /// The CPU it was on.
        from_cpu: u32,
        /// The CPU it is on now.
        to_cpu: u32,
    },
    /// A task may run (`sched:sched_wakeup`, `sched:sched_wakeup_new`).
    Wakeup {
        /// The task.
        task: TaskRef,
        /// The CPU whose runqueue it is on.
        target_cpu: u32,
        /// Whether for the first time.
        new: bool,
    },
    /// A PI lock lends a task a priority, or takes it back (`sched:sched_pi_setprio`).
    PiBoost {
        /// The task; its `prio` is the one before.
        task: TaskRef,
        /// The one after.
        new_prio: i32,
    },
    /// The running task begins to wait for a lock of the kernel's (`lock:contention_begin`).
    LockBegin {
        /// The lock's address.
        lock: u64,
        /// `LCB_F_*` of include/trace/events/lock.h.
        flags: u32,
    },
    /// It has got the lock (`lock:contention_end`).
    LockEnd {
        /// The lock's address.
        lock: u64,
        /// 0, or a negative error number where it went away without.
        result: i32,
    },
}

/// A thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimelineRecord {
    /// When, nanoseconds of the clock of the trace: `CLOCK_MONOTONIC` where ktstr recorded it.
    pub at_ns: u64,
    /// On which CPU.
    pub cpu: u32,
    /// The task that was running there.
    pub pid: i32,
    /// What.
    #[serde(flatten)]
    pub event: TimelineEvent,
}

/// Records that a CPU's buffer had no room for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The CPU.
    pub cpu: u32,
    /// How many; `None` where the kernel does not say.
    pub records: Option<u64>,
    /// How it came.
    pub why: String,
}

/// The kinds of event that a timeline is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TracePoint {
    /// `sched:sched_switch`
    Switch,
    /// `sched:sched_migrate_task`
    Migrate,
    /// `sched:sched_wakeup`
    Wakeup,
    /// `sched:sched_wakeup_new`
    WakeupNew,
    /// `sched:sched_pi_setprio`
    PiBoost,
    /// `lock:contention_begin`, since 5.19.
    LockBegin,
    /// `lock:contention_end`, since 5.19.
    LockEnd,
}

impl TracePoint {
    /// All.
    pub const ALL: [Self; 7] = [
        Self::Switch,
        Self::Migrate,
        Self::Wakeup,
        Self::WakeupNew,
        Self::PiBoost,
        Self::LockBegin,
        Self::LockEnd,
    ];

    /// Its system and name, as below `events/` of tracefs.
    #[must_use]
    pub const fn path(self) -> (&'static str, &'static str) {
        match self {
            Self::Switch => ("sched", "sched_switch"),
            Self::Migrate => ("sched", "sched_migrate_task"),
            Self::Wakeup => ("sched", "sched_wakeup"),
            Self::WakeupNew => ("sched", "sched_wakeup_new"),
            Self::PiBoost => ("sched", "sched_pi_setprio"),
            Self::LockBegin => ("lock", "contention_begin"),
            Self::LockEnd => ("lock", "contention_end"),
        }
    }

    /// The one of that name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|point| point.path().1 == name)
    }
}

/// What happened in a window, by time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// By time; of one CPU in the kernel's order.
    pub records: Vec<TimelineRecord>,
    /// What is missing in it, by CPU. A gap is before the oldest record of its CPU, or somewhere after it.
    pub lost: Vec<Lost>,
    /// Records that were there and left out: more than were asked for, the oldest first.
    pub left_out: u64,
    /// What could not be read, and why; kinds of event that this kernel does not tell of.
    pub problems: Vec<String>,
}

impl Timeline {
    /// Of the records of each CPU, each CPU's in order.
    #[must_use]
    pub fn of(records: Vec<TimelineRecord>) -> Self {
        let mut this = Self { records, ..Self::default() };
        this.sort();
        this
    }

    /// Takes up another's, of other CPUs or of a later time.
    pub fn merge(&mut self, other: Self) {
        self.records.extend(other.records);
        self.lost.extend(other.lost);
        self.left_out += other.left_out;
        self.problems.extend(other.problems);
        self.sort();
    }

    /// Stable: of one CPU what comes first in the buffer stays first.
    fn sort(&mut self) {
        self.records.sort_by_key(|record| (record.at_ns, record.cpu));
    }

    /// Leaves out the oldest, until there are no more than `most`.
    pub fn keep_latest(&mut self, most: usize) {
        let surplus = self.records.len().saturating_sub(most);
        self.records.drain(..surplus);
        self.left_out += surplus as u64;
    }

    /// Whether nothing is known to be missing.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lost.is_empty() && self.left_out == 0 && self.problems.is_empty()
    }

    /// From the first record to the last, nanoseconds.
    #[must_use]
    pub fn span_ns(&self) -> u64 {
        match (self.records.first(), self.records.last()) {
            (Some(first), Some(last)) => last.at_ns - first.at_ns,
            _ => 0,
        }
    }

    /// The timeline of the records for which `is` holds. What is lost or left out of this one is of that one, too.
    #[must_use]
    pub fn filter(&self, is: impl Fn(&TimelineRecord) -> bool) -> Self {
        let records = self.records.iter().filter(|record| is(record)).cloned().collect();
        let (lost, problems) = (self.lost.clone(), self.problems.clone());
        Self { records, lost, left_out: self.left_out, problems }
    }

    /// What a task did, or was done to it.
    #[must_use]
    pub fn of_pid(&self, pid: i32) -> Self {
        self.filter(|record| record.is_about(pid))
    }

    /// What happened on a CPU; what is lost on others does not concern it.
    #[must_use]
    pub fn on_cpu(&self, cpu: u32) -> Self {
        let mut this = self.filter(|record| record.cpu == cpu);
        this.lost.retain(|lost| lost.cpu == cpu);
        this
    }

    /// What happened from `from_ns` to `to_ns`, both included.
    #[must_use]
    pub fn between(&self, from_ns: u64, to_ns: u64) -> Self {
        self.filter(|record| (from_ns..=to_ns).contains(&record.at_ns))
    }

    /// How many records are of that kind.
    #[must_use]
    pub fn count(&self, point: TracePoint) -> usize {
        self.records.iter().filter(|record| record.point() == point).count()
    }
}

impl TimelineRecord {
    /// The kind of event.
    #[must_use]
    pub const fn point(&self) -> TracePoint {
        match &self.event {
            TimelineEvent::Switch { .. } => TracePoint::Switch,
            TimelineEvent::Migrate { .. } => TracePoint::Migrate,
            TimelineEvent::Wakeup { new: false, .. } => TracePoint::Wakeup,
            TimelineEvent::Wakeup { new: true, .. } => TracePoint::WakeupNew,
            TimelineEvent::PiBoost { .. } => TracePoint::PiBoost,
            TimelineEvent::LockBegin { .. } => TracePoint::LockBegin,
            TimelineEvent::LockEnd { .. } => TracePoint::LockEnd,
        }
    }

    /// Whether the task did it, or it was done to the task.
    #[must_use]
    pub fn is_about(&self, pid: i32) -> bool {
        let named = match &self.event {
            TimelineEvent::Switch { prev, next, .. } => prev.pid == pid || next.pid == pid,
            TimelineEvent::Migrate { task, .. }
            | TimelineEvent::Wakeup { task, .. }
            | TimelineEvent::PiBoost { task, .. } => task.pid == pid,
            TimelineEvent::LockBegin { .. } | TimelineEvent::LockEnd { .. } => false,
        };
        named || self.pid == pid
    }
}

#[cfg(test)]
mod tests;
