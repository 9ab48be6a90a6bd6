//! How long tasks have been runnable under sched_ext, by what the kernel's watchdog goes by
//! (`check_rq_for_timeouts`, kernel/sched/ext.c).

use ktstr_introspect_memory::VirtAddr;

use crate::{ErrorKind, Kernel, KernelError};

/// The task that has been runnable for longest without running.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScxWait {
    /// The CPU on whose runqueue it is.
    pub cpu: u32,
    /// The task.
    pub task: VirtAddr,
    /// Jiffies since it became runnable.
    pub waited: u64,
    /// Jiffies after which the watchdog ends the scheduler.
    pub limit: u64,
}

impl Kernel {
    /// The task that has been runnable for longest without running; nothing when no scheduler is enabled or nobody waits.
    /// A running task isn't on the lists that this looks through.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] without sched_ext.
    pub fn scx_longest_wait(&self) -> Result<Option<ScxWait>, KernelError> {
        if self.scx_state()? != "enabled" {
            return Ok(None);
        }
        let limit = self.scx_watchdog_timeout()?;
        let since = self.plan("task_struct.scx.runnable_at")?;
        let mut longest: Option<ScxWait> = None;
        for cpu in self.possible_cpus()?.0 {
            let tasks = self.scx_runnable(self.runqueue(cpu)?)?;
            // After the list: a task that has just come to it can't be younger than now.
            let now = self.variable(&["jiffies", "jiffies_64"], 8)?;
            for task in tasks {
                // Negative for one that was freed or became runnable anew meanwhile.
                let waited = now.wrapping_sub(since.read(self.memory(), task)?) as i64;
                let waited = u64::try_from(waited).unwrap_or(0);
                if longest.is_none_or(|longest| waited > longest.waited) {
                    longest = Some(ScxWait { cpu, task, waited, limit });
                }
            }
        }
        Ok(longest)
    }

    /// The watchdog's timeout, jiffies: a variable up to 7.0, then a member of the scheduler.
    pub(super) fn scx_watchdog_timeout(&self) -> Result<u64, KernelError> {
        self.variable(&["scx_watchdog_timeout"], 8).or_else(|absent| match absent.kind() {
            ErrorKind::Absent => self.scx_number("scx_sched.watchdog_timeout", absent),
            _ => Err(absent),
        })
    }
}
