//! Runqueues: `struct rq` and the queues of each class in it (kernel/sched/sched.h).

use ktstr_introspect_memory::VirtAddr;

use crate::record::record;
use crate::{Kernel, KernelError};

const MAX_QUEUED: usize = 1 << 20;
/// `MAX_RT_PRIO`.
const RT_PRIORITIES: u64 = 100;

record! {
    /// A CPU's runqueue.
    Runqueue, RunqueuePlans, rq {
        /// The CPU.
        cpu: i64 = "rq.cpu";
        /// Whether the CPU takes tasks.
        online: i64 = "rq.online";
        /// Runnable tasks of all classes, the running one included.
        nr_running: u64 = "rq.nr_running";
        /// Context switches.
        nr_switches: u64 = "rq.nr_switches";
        /// Contribution to the number of uninterruptible tasks; meaningful only as a sum over CPUs.
        nr_uninterruptible: u64 = "rq.nr_uninterruptible";
        /// Tasks waiting for I/O.
        nr_iowait: i64 = "rq.nr_iowait.counter";
        /// Clock, nanoseconds.
        clock: u64 = "rq.clock";
        /// Clock without stolen and interrupt time, nanoseconds.
        clock_task: u64 = "rq.clock_task";
        /// `RQCF_*` flags.
        clock_update_flags: u64 = "rq.clock_update_flags";
        /// `NOHZ_*` flags.
        nohz_flags: i64 = "rq.nohz_flags.counter";
        /// Whether the tick is stopped.
        nohz_tick_stopped: u64 = "rq.nohz_tick_stopped";
        /// Whether a wake-up is on its way.
        ttwu_pending: u64 = "rq.ttwu_pending";
        /// When load is balanced next, jiffies.
        next_balance: u64 = "rq.next_balance";
        /// The running task.
        curr: VirtAddr = "rq.curr";
        /// Its thread id.
        curr_pid: i64 = "rq.curr->pid";
        /// Its name.
        curr_comm: String = "rq.curr->comm";
        /// The idle task.
        idle: VirtAddr = "rq.idle";
        /// The stopper thread.
        stop: VirtAddr = "rq.stop";
        /// Capacity, 1024 for the strongest CPU.
        cpu_capacity: u64 = "rq.cpu_capacity";
        /// The lowest scheduling domain.
        sd: VirtAddr = "rq.sd";
        /// Average idle time, nanoseconds.
        avg_idle: u64 = "rq.avg_idle";
        /// CFS: load weight.
        cfs_weight: u64 = "rq.cfs.load.weight";
        /// CFS: entities on the root queue. `nr_running` until "sched/fair: Rename cfs_rq.nr_running into nr_queued" (6.14).
        cfs_nr_queued: u64 = "rq.cfs.nr_queued" | "rq.cfs.nr_running";
        /// CFS: tasks in the hierarchy. `h_nr_running` until "sched/fair: Rename h_nr_running into h_nr_queued" (6.14).
        cfs_h_nr_queued: u64 = "rq.cfs.h_nr_queued" | "rq.cfs.h_nr_running";
        /// CFS: the floor of virtual time. `min_vruntime` until "sched/fair: Rename cfs_rq::min_vruntime" to
        /// `zero_vruntime` (6.19, and stable kernels that took it).
        cfs_zero_vruntime: u64 = "rq.cfs.zero_vruntime" | "rq.cfs.min_vruntime";
        /// CFS: weighted sum of lags. EEVDF, since 6.6.
        cfs_avg_vruntime: i64 = "rq.cfs.avg_vruntime";
        /// CFS: the running entity, if it is one of the root queue.
        cfs_curr: VirtAddr = "rq.cfs.curr";
        /// CFS: utilization average.
        cfs_util_avg: u64 = "rq.cfs.avg.util_avg";
        /// CFS: load average.
        cfs_load_avg: u64 = "rq.cfs.avg.load_avg";
        /// RT: tasks.
        rt_nr_running: u64 = "rq.rt.rt_nr_running";
        /// RT: the highest priority queued.
        rt_highest_prio: i64 = "rq.rt.highest_prio.curr";
        /// RT: whether there is more than one task.
        rt_overloaded: bool = "rq.rt.overloaded" | "rq.rt.overload";
        /// RT: whether its tasks count as running.
        rt_queued: i64 = "rq.rt.rt_queued";
        /// Deadline: tasks.
        dl_nr_running: u64 = "rq.dl.dl_nr_running";
        /// Deadline: the earliest deadline queued, clock nanoseconds.
        dl_earliest: u64 = "rq.dl.earliest_dl.curr";
        /// Deadline: active bandwidth, in units of 2^-20.
        dl_running_bw: u64 = "rq.dl.running_bw";
        /// Deadline: assigned bandwidth.
        dl_this_bw: u64 = "rq.dl.this_bw";
        /// sched_ext: runnable tasks.
        scx_nr_running: u64 = "rq.scx.nr_running";
        /// sched_ext: `SCX_RQ_*` flags.
        scx_flags: u64 = "rq.scx.flags";
        /// sched_ext: tasks on the local dispatch queue.
        scx_local_dsq_nr: u64 = "rq.scx.local_dsq.nr";
        /// sched_ext: the local dispatch queue's id.
        scx_local_dsq_id: u64 = "rq.scx.local_dsq.id";
        /// sched_ext: its sequence number.
        scx_local_dsq_seq: u64 = "rq.scx.local_dsq.seq";
        /// sched_ext: whether a higher class took the CPU.
        scx_cpu_released: bool = "rq.scx.cpu_released";
        /// sched_ext: requested performance level, 0 to 1024.
        scx_cpuperf_target: u64 = "rq.scx.cpuperf_target";
        /// sched_ext: what a CPU that was kicked is waited for by: it grows with each task picked. It was
        /// `pnt_seq` at first.
        scx_kick_sync: u64 = "rq.scx.kick_sync" | "rq.scx.pnt_seq";
        /// sched_ext: how often a task went to the scheduler's `enqueue`. Newer kernels count for each task
        /// ([`crate::Task::scx_ops_qseq`]).
        scx_ops_qseq: u64 = "rq.scx.ops_qseq";
        /// Share of the time that went to interrupts, 0 to 1024. `CONFIG_IRQ_TIME_ACCOUNTING` or
        /// `CONFIG_PARAVIRT_TIME_ACCOUNTING`.
        irq_util_avg: u64 = "rq.avg_irq.util_avg";
    }
}

impl Kernel {
    /// Where the runqueue of a CPU is.
    ///
    /// # Errors
    /// [`KernelError`] when there is no such CPU.
    pub fn runqueue(&self, cpu: u32) -> Result<VirtAddr, KernelError> {
        self.per_cpu("runqueues", cpu)
    }

    /// Runnable tasks of the fair class on a runqueue, in the order of its `cfs_tasks` list.
    ///
    /// # Errors
    /// [`KernelError`] when the list can't be walked.
    pub fn cfs_tasks(&self, rq: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let (head, node) = (self.offset("rq.cfs_tasks")?, self.offset("task_struct.se.group_node")?);
        self.walker().list("a runqueue's cfs_tasks", rq.wrapping_add(head), node, MAX_QUEUED)
    }

    /// `sched_entity` addresses in the root CFS queue's tree, by virtual deadline (before 6.6 by virtual run time).
    /// The running one isn't in it.
    ///
    /// # Errors
    /// [`KernelError`] when the tree can't be walked.
    pub fn cfs_timeline(&self, rq: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let (root, node) =
            (self.offset("rq.cfs.tasks_timeline.rb_root.rb_node")?, self.offset("sched_entity.run_node")?);
        self.walker().rbtree("a runqueue's tasks_timeline", rq.wrapping_add(root), node, MAX_QUEUED)
    }

    /// Queued real-time tasks, highest priority first.
    ///
    /// # Errors
    /// [`KernelError`] when a list can't be walked.
    pub fn rt_tasks(&self, rq: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let (queues, node) = (self.offset("rq.rt.active.queue")?, self.offset("task_struct.rt.run_list")?);
        let stride = self.btf().plan("list_head")?.size();
        let mut found = Vec::new();
        for priority in 0..RT_PRIORITIES {
            let head = rq.wrapping_add(queues + priority * stride);
            found.extend(self.walker().list("a runqueue's rt queue", head, node, MAX_QUEUED)?);
        }
        Ok(found)
    }

    /// Queued deadline tasks' `sched_dl_entity` addresses, earliest first. A server's entity (since 6.8) stands for
    /// the tasks of another class.
    ///
    /// # Errors
    /// [`KernelError`] when the tree can't be walked.
    pub fn dl_entities(&self, rq: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let (root, node) =
            (self.offset("rq.dl.root.rb_root.rb_node")?, self.offset("sched_dl_entity.rb_node")?);
        self.walker().rbtree("a runqueue's dl tree", rq.wrapping_add(root), node, MAX_QUEUED)
    }

    /// Queued deadline tasks, earliest deadline first: of [`Kernel::dl_entities`] those that stand for a task.
    ///
    /// # Errors
    /// [`KernelError`] when the tree can't be walked.
    pub fn dl_tasks(&self, rq: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let inside = self.offset("task_struct.dl")?;
        let server = match self.plan("sched_dl_entity.dl_server") {
            Ok(plan) => Some(plan),
            // Before 6.8 there were no servers.
            Err(error) if error.kind() == crate::ErrorKind::Absent => None,
            Err(other) => return Err(other),
        };
        let mut tasks = Vec::new();
        for entity in self.dl_entities(rq)? {
            let of_server = server.as_ref().map(|plan| plan.read(self.memory(), entity)).transpose()?;
            if of_server.is_none_or(|flag| flag == 0) {
                tasks.push(entity.wrapping_sub(inside));
            }
        }
        Ok(tasks)
    }

    /// The newest of the runqueues' clocks: the kernel's `sched_clock`, nanoseconds, to within a tick while any CPU is
    /// busy.
    ///
    /// # Errors
    /// [`KernelError`] when a runqueue can't be read.
    pub fn newest_clock(&self) -> Result<u64, KernelError> {
        let clock = self.plan("rq.clock")?;
        let mut newest = 0;
        for cpu in self.possible_cpus()?.0 {
            newest = clock.read(self.memory(), self.runqueue(cpu)?)?.max(newest);
        }
        Ok(newest)
    }

    /// Runnable sched_ext tasks, in the order that they became so.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without sched_ext.
    pub fn scx_runnable(&self, rq: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let (head, node) =
            (self.offset("rq.scx.runnable_list")?, self.offset("task_struct.scx.runnable_node")?);
        self.walker().list("a runqueue's scx runnable_list", rq.wrapping_add(head), node, MAX_QUEUED)
    }
}
