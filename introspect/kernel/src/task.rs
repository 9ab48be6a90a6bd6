//! Tasks: `struct task_struct` (include/linux/sched.h).

use ktstr_introspect_memory::VirtAddr;

use crate::record::{Cpus, record};
use crate::{Kernel, KernelError};

/// `PID_MAX_LIMIT` (include/linux/threads.h): no kernel has more threads.
const MAX_TASKS: usize = 4 << 20;

record! {
    /// A thread, as its `task_struct` has it.
    Task, TaskPlans, task {
        /// Thread id.
        pid: i64 = "task_struct.pid";
        /// Process id.
        tgid: i64 = "task_struct.tgid";
        /// Its name, at most 15 bytes.
        comm: String = "task_struct.comm";
        /// `TASK_*` bits. It was `state` until "sched: Change task_struct::state" (5.14).
        state: u64 = "task_struct.__state" | "task_struct.state";
        /// `EXIT_*` bits.
        exit_state: i64 = "task_struct.exit_state";
        /// `PF_*` bits.
        flags: u64 = "task_struct.flags";
        /// Whether it is running on a CPU.
        on_cpu: i64 = "task_struct.on_cpu";
        /// 1 on a runqueue, 2 migrating.
        on_rq: i64 = "task_struct.on_rq";
        /// The CPU that it is on, or was last. In `thread_info` with `CONFIG_THREAD_INFO_IN_TASK` since 5.16.
        cpu: u64 = "task_struct.thread_info.cpu" | "task_struct.cpu";
        /// The last CPU that it woke on.
        wake_cpu: i64 = "task_struct.wake_cpu";
        /// Effective priority, 0 to 139; -1 for deadline tasks.
        prio: i64 = "task_struct.prio";
        /// Nice level plus 120.
        static_prio: i64 = "task_struct.static_prio";
        /// Whether it counts as load while it sleeps: one bit.
        sched_contributes_to_load: bool = "task_struct.sched_contributes_to_load";
        /// Whether it was migrated since it last ran: one bit.
        sched_migrated: bool = "task_struct.sched_migrated";
        /// Whether it forks with the default policy: one bit.
        sched_reset_on_fork: bool = "task_struct.sched_reset_on_fork";
        /// Whether it waits for I/O: one bit.
        in_iowait: bool = "task_struct.in_iowait";
        /// Whether it is in `execve`: one bit.
        in_execve: bool = "task_struct.in_execve";
        /// Whether its cgroup may not change it: one bit.
        no_cgroup_migration: bool = "task_struct.no_cgroup_migration";
        /// Priority without boosts.
        normal_prio: i64 = "task_struct.normal_prio";
        /// Real-time priority, 1 to 99, or 0.
        rt_priority: u64 = "task_struct.rt_priority";
        /// `SCHED_*` policy.
        policy: u64 = "task_struct.policy";
        /// Its `struct sched_class`.
        sched_class: VirtAddr = "task_struct.sched_class";
        /// Number of CPUs allowed.
        nr_cpus_allowed: i64 = "task_struct.nr_cpus_allowed";
        /// The CPUs allowed.
        cpus_mask: Cpus = "task_struct.cpus_mask";
        /// The process that made it: `task_struct` address.
        real_parent: VirtAddr = "task_struct.real_parent";
        /// Its address space; null for kernel threads.
        mm: VirtAddr = "task_struct.mm";
        /// Its `css_set`, which names its cgroups.
        cgroups: VirtAddr = "task_struct.cgroups";
        /// Whether it is frozen by its cgroup.
        frozen: bool = "task_struct.frozen";
        /// User time, nanoseconds.
        utime: u64 = "task_struct.utime";
        /// System time, nanoseconds.
        stime: u64 = "task_struct.stime";
        /// Voluntary context switches.
        nvcsw: u64 = "task_struct.nvcsw";
        /// Involuntary context switches.
        nivcsw: u64 = "task_struct.nivcsw";
        /// When it was made, monotonic nanoseconds.
        start_time: u64 = "task_struct.start_time";
        /// Whether it is on a CFS queue.
        se_on_rq: u64 = "task_struct.se.on_rq";
        /// Load weight, scaled by 1024.
        se_weight: u64 = "task_struct.se.load.weight";
        /// When it last was put on a CPU or accounted, rq clock nanoseconds.
        se_exec_start: u64 = "task_struct.se.exec_start";
        /// Time run in all, nanoseconds.
        se_sum_exec_runtime: u64 = "task_struct.se.sum_exec_runtime";
        /// Virtual run time, nanoseconds of weight 1024.
        se_vruntime: u64 = "task_struct.se.vruntime";
        /// Virtual deadline. EEVDF, since 6.6.
        se_deadline: u64 = "task_struct.se.deadline";
        /// Lag against the queue's average, or virtual lag. EEVDF, since 6.6.
        se_vlag: i64 = "task_struct.se.vlag";
        /// Requested slice, nanoseconds. EEVDF, since 6.6.
        se_slice: u64 = "task_struct.se.slice";
        /// Migrations between CPUs.
        se_nr_migrations: u64 = "task_struct.se.nr_migrations";
        /// Utilization average, 0 to 1024 and somewhat above.
        se_util_avg: u64 = "task_struct.se.avg.util_avg";
        /// Load average.
        se_load_avg: u64 = "task_struct.se.avg.load_avg";
        /// Slice left of a round-robin task, ticks.
        rt_time_slice: u64 = "task_struct.rt.time_slice";
        /// Deadline task: its budget, nanoseconds.
        dl_runtime: u64 = "task_struct.dl.dl_runtime";
        /// Deadline task: its relative deadline, nanoseconds.
        dl_deadline: u64 = "task_struct.dl.dl_deadline";
        /// Deadline task: its period, nanoseconds.
        dl_period: u64 = "task_struct.dl.dl_period";
        /// Deadline task: budget left, nanoseconds.
        dl_remaining: i64 = "task_struct.dl.runtime";
        /// Deadline task: absolute deadline, rq clock nanoseconds.
        dl_absolute: u64 = "task_struct.dl.deadline";
        /// Times that it got a CPU.
        sched_info_pcount: u64 = "task_struct.sched_info.pcount";
        /// Time waited on runqueues, nanoseconds.
        sched_info_run_delay: u64 = "task_struct.sched_info.run_delay";
        /// schedstat: time waited, nanoseconds. In `se.statistics` until "sched: Make struct sched_statistics
        /// independent of fair sched class" (5.16).
        stats_wait_sum: u64 = "task_struct.stats.wait_sum" | "task_struct.se.statistics.wait_sum";
        /// schedstat: the longest wait, nanoseconds.
        stats_wait_max: u64 = "task_struct.stats.wait_max" | "task_struct.se.statistics.wait_max";
        /// schedstat: wake-ups.
        stats_nr_wakeups: u64 = "task_struct.stats.nr_wakeups" | "task_struct.se.statistics.nr_wakeups";
        /// sched_ext: the dispatch queue that it is on.
        scx_dsq: VirtAddr = "task_struct.scx.dsq";
        /// sched_ext: that queue's id.
        scx_dsq_id: u64 = "task_struct.scx.dsq->id";
        /// sched_ext: `SCX_TASK_DSQ_*` flags of its place on the queue.
        scx_dsq_flags: u64 = "task_struct.scx.dsq_flags";
        /// sched_ext: the queue's sequence number when it was put there.
        scx_dsq_seq: u64 = "task_struct.scx.dsq_seq";
        /// sched_ext: `SCX_TASK_*` flags; [`Kernel::scx_task_state`] reads the state in them.
        scx_flags: u64 = "task_struct.scx.flags";
        /// sched_ext: weight, 1 to 10000.
        scx_weight: u64 = "task_struct.scx.weight";
        /// sched_ext: slice left, nanoseconds.
        scx_slice: u64 = "task_struct.scx.slice";
        /// sched_ext: virtual time on its queue.
        scx_dsq_vtime: u64 = "task_struct.scx.dsq_vtime";
        /// sched_ext: CPU that it is stuck to, or -1.
        scx_sticky_cpu: i64 = "task_struct.scx.sticky_cpu";
        /// sched_ext: CPU that holds it during a dispatch, or -1.
        scx_holding_cpu: i64 = "task_struct.scx.holding_cpu";
        /// sched_ext: `SCX_OPSS_*` state and sequence; [`Kernel::scx_ops_state`] takes them apart.
        scx_ops_state: i64 = "task_struct.scx.ops_state.counter";
        /// sched_ext: when it became runnable, jiffies.
        scx_runnable_at: u64 = "task_struct.scx.runnable_at";
        /// sched_ext: the queue that it is to be dispatched to directly.
        scx_ddsp_dsq_id: u64 = "task_struct.scx.ddsp_dsq_id";
        /// sched_ext: `SCX_ENQ_*` flags for that.
        scx_ddsp_enq_flags: u64 = "task_struct.scx.ddsp_enq_flags";
        /// sched_ext: whether it was refused at its start.
        scx_disallow: bool = "task_struct.scx.disallow";
        /// sched_ext: how often it went to the scheduler's `enqueue`. Counted for a runqueue at first
        /// ([`crate::Runqueue::scx_ops_qseq`]).
        scx_ops_qseq: u64 = "task_struct.scx.ops_qseq";
        /// Process id of the process that made it.
        parent_tgid: i64 = "task_struct.real_parent->tgid";
        /// Process group, in the first PID namespace: `PIDTYPE_PGID` is 2 in `enum pid_type` since 4.19.
        pgid: i64 = "task_struct.signal->pids[2]->numbers[0].nr";
        /// Session, likewise: `PIDTYPE_SID` is 3.
        sid: i64 = "task_struct.signal->pids[3]->numbers[0].nr";
        /// Tasks with the same cookie may share a core; 0 for none. `CONFIG_SCHED_CORE`.
        core_cookie: u64 = "task_struct.core_cookie";
        /// The most urgent of the tasks that wait for a PI lock of its; null for none. `CONFIG_RT_MUTEXES`.
        pi_top_task: VirtAddr = "task_struct.pi_top_task";
        /// That task's thread id.
        pi_top_pid: i64 = "task_struct.pi_top_task->pid";
        /// Start of its kernel stack.
        stack: VirtAddr = "task_struct.stack";
        /// Stack pointer where it was switched from. x86.
        saved_sp: VirtAddr = "task_struct.thread.sp";
    }
}

impl Kernel {
    /// All threads of all processes: leaders on `init_task.tasks`, the threads of each on its `signal->thread_head`.
    /// The idle tasks of CPUs other than the first aren't on these lists; their runqueues name them.
    ///
    /// # Errors
    /// [`KernelError`] when a list can't be walked.
    pub fn tasks(&self) -> Result<Vec<VirtAddr>, KernelError> {
        let init = self.symbol("init_task")?;
        let tasks = self.offset("task_struct.tasks")?;
        let walker = self.walker();
        let mut leaders = vec![init];
        leaders.extend(walker.list("the process list", init.wrapping_add(tasks), tasks, MAX_TASKS)?);
        let (head, node) =
            (self.plan("task_struct.signal->thread_head")?, self.offset("task_struct.thread_node")?);
        let mut found = Vec::with_capacity(leaders.len());
        for leader in leaders {
            let threads = head.address(self.memory(), leader)?;
            found.extend(walker.list("a process's threads", threads, node, MAX_TASKS)?);
            if found.len() > MAX_TASKS {
                return Err(KernelError::Endless { what: "the task list", at: init, limit: MAX_TASKS });
            }
        }
        Ok(found)
    }

    /// All threads by their ids, over the first PID namespace's IDR (kernel/pid.c): another way to the same tasks, for
    /// when the process list is torn. A thread that has ended keeps its number while someone holds it, and isn't listed.
    ///
    /// # Errors
    /// [`KernelError`] when the IDR or one of its `struct pid` can't be walked.
    pub fn tasks_by_pid(&self) -> Result<Vec<(u64, VirtAddr)>, KernelError> {
        let ids = self.symbol("init_pid_ns")?.wrapping_add(self.offset("pid_namespace.idr.idr_rt")?);
        // `PIDTYPE_PID`, the thread itself, is 0 in `enum pid_type`.
        let (head, node) = (self.offset("pid.tasks[0]")?, self.offset("task_struct.pid_links[0]")?);
        let walker = self.walker();
        let mut found = Vec::new();
        for (number, pid) in walker.xarray("the PID namespace's IDR", ids, MAX_TASKS)? {
            let threads = walker.hlist("a pid's tasks", pid.wrapping_add(head), node, 1)?;
            found.extend(threads.into_iter().map(|task| (number, task)));
        }
        Ok(found)
    }

    /// The scheduling class of a task: `fair`, `rt`, `dl`, `idle`, `stop`, `ext`, by the symbol that it points to.
    ///
    /// # Errors
    /// The task's own error, or [`KernelError::Implausible`] when it points to none.
    pub fn class_of(&self, task: &Task) -> Result<String, KernelError> {
        let at = match &task.sched_class {
            Ok(at) => *at,
            Err(_) => VirtAddr(self.read("task_struct.sched_class", task.address)?),
        };
        // By name first: at the address of the first class, symbols of the linker script stand too.
        let known = ["stop", "dl", "rt", "fair", "ext", "idle"];
        let is_it = |name: &&str| self.symbol(&format!("{name}_sched_class")).is_ok_and(|class| class == at);
        let by_address = || {
            let (symbol, offset) = self.symbols().at(at)?;
            symbol.name.strip_suffix("_sched_class").filter(|_| offset == 0)
        };
        known.into_iter().find(is_it).or_else(by_address).map(str::to_owned).ok_or(KernelError::Implausible {
            what: "a task's sched_class",
            at: task.address,
            seen: at.0,
            expected: "the address of a *_sched_class",
        })
    }
}
