//! What follows from a timeline: how long tasks waited, for a CPU and for locks.

use super::{Timeline, TimelineEvent};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A task that was woken, and ran.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WakeupDelay {
    /// The task.
    pub pid: i32,
    /// Its name.
    pub comm: String,
    /// The CPU it came to run on.
    pub cpu: u32,
    /// When it was woken, ns.
    pub woken_ns: u64,
    /// When it ran, ns.
    pub ran_ns: u64,
}

impl WakeupDelay {
    /// How long that took, ns.
    #[must_use]
    pub const fn delay_ns(&self) -> u64 {
        self.ran_ns.saturating_sub(self.woken_ns)
    }
}

/// A wait for a lock of the kernel's, from its begin to its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockWait {
    /// The task.
    pub pid: i32,
    /// The lock's address.
    pub lock: u64,
    /// `LCB_F_*`.
    pub flags: u32,
    /// When it began, ns.
    pub begin_ns: u64,
    /// When it ended, ns.
    pub end_ns: u64,
    /// 0, or a negative error number where it ended without the lock.
    pub result: i32,
}

impl Timeline {
    /// Each wakeup that was followed by the task's run, by the time of the run. One that is woken twice before it runs
    /// has waited since the first; one that still waits at the end is not among them.
    #[must_use]
    pub fn wakeup_delays(&self) -> Vec<WakeupDelay> {
        let (mut woken, mut found) = (BTreeMap::new(), Vec::new());
        for record in &self.records {
            match &record.event {
                TimelineEvent::Wakeup { task, .. } => drop(woken.entry(task.pid).or_insert(record.at_ns)),
                TimelineEvent::Switch { next, .. } => {
                    if let Some(woken_ns) = woken.remove(&next.pid) {
                        let (pid, comm) = (next.pid, next.comm.clone());
                        found.push(WakeupDelay {
                            pid,
                            comm,
                            cpu: record.cpu,
                            woken_ns,
                            ran_ns: record.at_ns,
                        });
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Each wait for a lock whose begin and end were both recorded, by the time of its end.
    #[must_use]
    pub fn lock_waits(&self) -> Vec<LockWait> {
        let (mut begun, mut found) = (BTreeMap::new(), Vec::new());
        // Idle tasks have one pid on all CPUs.
        let key = |pid: i32, cpu: u32, lock: u64| (pid, if pid == 0 { cpu } else { 0 }, lock);
        for record in &self.records {
            let (pid, cpu) = (record.pid, record.cpu);
            match record.event {
                // A mutex tells of its begin again when it goes from spinning to sleeping.
                TimelineEvent::LockBegin { lock, flags } => {
                    begun.entry(key(pid, cpu, lock)).or_insert((record.at_ns, flags));
                }
                TimelineEvent::LockEnd { lock, result } => {
                    if let Some((begin_ns, flags)) = begun.remove(&key(pid, cpu, lock)) {
                        found.push(LockWait { pid, lock, flags, begin_ns, end_ns: record.at_ns, result });
                    }
                }
                _ => {}
            }
        }
        found
    }
}
