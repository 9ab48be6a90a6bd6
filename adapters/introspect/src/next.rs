//! Which task a CPU goes on with when the one that runs leaves it.

use crate::open::Opened;
use ktstr_introspect_kernel::{KernelError, Task};
use ktstr_introspect_memory::VirtAddr;
use ktstr_monitor::Current;

/// `prio` of an idle task (`INIT_TASK`, init/init_task.c).
const IDLE_PRIO: i32 = 120;

impl Opened {
    /// The task that follows `pid` on a CPU, by what the kernel's classes pick first; `None` where several of one class
    /// wait and their order is that class's affair, or where a list can't be read.
    pub(crate) fn next_after(&self, cpu: u32, pid: i32) -> Option<Current> {
        let rq = self.kernel.runqueue(cpu).ok()?;
        let others = |found: Result<Vec<VirtAddr>, KernelError>| -> Option<Vec<(VirtAddr, Task)>> {
            let tasks = found.ok()?.into_iter().map(|at| (at, Task::read(&self.kernel, at)));
            Some(tasks.filter(|(_, task)| !matches!(&task.pid, Ok(p) if *p == i64::from(pid))).collect())
        };
        // Deadline tasks come and go by their clocks; where there are others than the one that leaves, they are missed.
        if let Some((_, task)) = others(self.kernel.rt_tasks(rq))?.first() {
            return current(task);
        }
        match &others(self.kernel.cfs_tasks(rq))?[..] {
            [] => {}
            [(_, only)] => return current(only),
            _ => return None,
        }
        // A kernel without sched_ext has no such lists.
        let Some(ext) = others(self.kernel.scx_runnable(rq)) else { return Some(idle(cpu)) };
        // One that was interrupted before its slice was over is put first (`put_prev_task_scx`, kernel/sched/ext.c).
        let local = self.kernel.local_queue(rq).and_then(|queue| self.kernel.queued_tasks(queue));
        match (others(local).unwrap_or_default().first(), &ext[..]) {
            (Some((_, first)), _) => current(first),
            (None, []) => Some(idle(cpu)),
            (None, [(_, only)]) => current(only),
            (None, _) => None,
        }
    }
}

fn current(task: &Task) -> Option<Current> {
    let mut comm = [0; 16];
    if let Ok(name) = &task.comm {
        comm.iter_mut().zip(name.bytes()).for_each(|(to, byte)| *to = byte);
    }
    let pid = i32::try_from(*task.pid.as_ref().ok()?).ok()?;
    let prio = task.prio.as_ref().ok().and_then(|prio| i32::try_from(*prio).ok());
    Some(Current { pid, prio, comm })
}

fn idle(cpu: u32) -> Current {
    let mut comm = [0; 16];
    comm.iter_mut().zip(format!("swapper/{cpu}").bytes()).for_each(|(to, byte)| *to = byte);
    Current { pid: 0, prio: Some(IDLE_PRIO), comm }
}
