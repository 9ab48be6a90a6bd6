//! Threads, for a failure dump.

use crate::reasons::Reasons;
use ktstr_introspect_kernel::{ErrorKind, Kernel, KernelError, Task};
use ktstr_introspect_memory::VirtAddr;
use ktstr_monitor::TaskState;

/// Threads that are listed in all.
const MAX_TASKS: usize = 4096;
/// `PF_KTHREAD` (include/linux/sched.h).
const KERNEL_THREAD: u64 = 0x0020_0000;
/// `NICE_0_LOAD` is 1024, kept with 10 more bits of precision on 64 bits (`SCHED_FIXEDPOINT_SHIFT`).
const WEIGHT_SHIFT: u32 = 10;
/// `TASK_DEAD` and what an exiting task passes through: its stack may be gone.
const DEAD: u64 = 0x80 | 0x10 | 0x20;

/// All threads, with the locks that those of them wait for that sleep. Where the process list is torn, by their numbers.
pub(crate) fn tasks(kernel: &Kernel, reasons: &mut Reasons) -> Vec<TaskState> {
    let listed = kernel.tasks().or_else(|torn| match torn.kind() {
        ErrorKind::Torn => kernel.tasks_by_pid().map(|found| found.into_iter().map(|(_, at)| at).collect()),
        _ => Err(torn),
    });
    let Some(mut all) = reasons.value(&"the kernel", "task list", listed) else { return Vec::new() };
    reasons.cut(&"the tasks", &mut all, MAX_TASKS);
    all.into_iter()
        .map(|at| {
            let seen = Task::read(kernel, at);
            let asleep = matches!(seen.state, Ok(state) if state != 0 && state & DEAD == 0)
                && matches!(seen.on_cpu, Ok(0));
            let slow_path = if asleep { kernel.lock_slow_path(&seen) } else { Ok(None) };
            let mut state = state(kernel, seen, reasons);
            let who = format!("{} (pid {})", state.comm, state.pid);
            state.lock_slow_path = reasons.value(&who, "lock slow path", slow_path).flatten();
            state
        })
        .collect()
}

/// One thread, as it stands on a list or runs.
pub(crate) fn task(kernel: &Kernel, at: VirtAddr, reasons: &mut Reasons) -> TaskState {
    state(kernel, Task::read(kernel, at), reasons)
}

fn state(kernel: &Kernel, seen: Task, reasons: &mut Reasons) -> TaskState {
    let class = kernel.class_of(&seen);
    let who = match (&seen.comm, &seen.pid) {
        (Ok(comm), Ok(pid)) => format!("{comm} (pid {pid})"),
        _ => format!("the task at {}", seen.address),
    };
    let mut told = Of { who, reasons };
    let normal_prio = told.value("normal_prio", seen.normal_prio);
    let prio = told.value("prio", seen.prio).unwrap_or(-1);
    TaskState {
        pid: told.value("pid", seen.pid).unwrap_or(-1),
        tgid: told.value("tgid", seen.tgid).unwrap_or(-1),
        comm: told.value("comm", seen.comm).unwrap_or_else(|| "?".to_string()),
        class: told.value("sched_class", class).unwrap_or_else(|| "?".to_string()),
        prio,
        state: told.value("state", seen.state).unwrap_or_default(),
        runtime_ns: told.value("run time", seen.se_sum_exec_runtime).unwrap_or_default(),
        cpu: told.value("cpu", seen.cpu),
        kernel_thread: told.value("flags", seen.flags).is_some_and(|flags| flags & KERNEL_THREAD != 0),
        parent: told.value("parent", seen.parent_tgid),
        pgid: told.value("process group", seen.pgid),
        sid: told.value("session", seen.sid),
        weight: told.value("weight", seen.se_weight).map(|weight| weight >> WEIGHT_SHIFT),
        // Without sched_ext there is none; the dump says that of all of sched_ext.
        scx_weight: told.reasons.quiet(&told.who, "sched_ext weight", seen.scx_weight),
        // On a kernel without it, runqueues have one.
        scx_ops_qseq: told.reasons.quiet(&told.who, "ops_qseq", seen.scx_ops_qseq),
        static_prio: told.value("static_prio", seen.static_prio),
        normal_prio,
        rt_priority: told.value("rt_priority", seen.rt_priority),
        core_cookie: told.value("core cookie", seen.core_cookie),
        pi_waiter: told.value("PI waiter", seen.pi_top_pid),
        pi_boosted_out: normal_prio.is_some_and(|normal| TaskState::is_boosted_out(prio, normal)),
        nvcsw: told.value("nvcsw", seen.nvcsw),
        nivcsw: told.value("nivcsw", seen.nivcsw),
        utime_ns: told.value("utime", seen.utime),
        stime_ns: told.value("stime", seen.stime),
        lock_slow_path: None,
    }
}

/// The reasons of one task.
struct Of<'a> {
    who: String,
    reasons: &'a mut Reasons,
}

impl Of<'_> {
    fn value<T>(&mut self, what: &str, field: Result<T, KernelError>) -> Option<T> {
        self.reasons.value(&self.who, what, field)
    }
}
