//! sched_ext: state, loaded scheduler, dispatch queues, events (kernel/sched/ext.c).
//!
//! Up to 6.15 its globals are variables; from 6.16 (48e126777386 "sched_ext: Introduce scx_sched") most are members of
//! a `struct scx_sched` that `scx_root` points to. Both are looked for, by symbol and by member.

use ktstr_introspect_memory::VirtAddr;

use crate::record::record;
use crate::{ErrorKind, Kernel, KernelError};

const MAX_QUEUES: usize = 1 << 16;
const MAX_QUEUED: usize = 4 << 20;
/// `MAX_NUMNODES` of x86-64 at most.
const MAX_NODES: u32 = 1024;
/// `SCX_DSQ_LNODE_ITER_CURSOR`: the list node of an iterator, not of a task.
const ITERATOR: u64 = 1;

record! {
    /// A dispatch queue: `struct scx_dispatch_q` (include/linux/sched/ext.h).
    DispatchQueue, DispatchQueuePlans, dsq {
        /// Its id.
        id: u64 = "scx_dispatch_q.id";
        /// Tasks on it.
        nr: u64 = "scx_dispatch_q.nr";
        /// Sequence number for iterators.
        seq: u64 = "scx_dispatch_q.seq";
    }
}

record! {
    /// The loaded scheduler's `struct sched_ext_ops`; after an unload, what is left of it.
    SchedExtOps, SchedExtOpsPlans, ops {
        /// Its name.
        name: String = "sched_ext_ops.name";
        /// `SCX_OPS_*` flags.
        flags: u64 = "sched_ext_ops.flags";
        /// Tasks dispatched at most in one go.
        dispatch_max_batch: u64 = "sched_ext_ops.dispatch_max_batch";
        /// Watchdog timeout, ms.
        timeout_ms: u64 = "sched_ext_ops.timeout_ms";
        /// Size of the exit dump, bytes.
        exit_dump_len: u64 = "sched_ext_ops.exit_dump_len";
        /// Hotplug sequence that it was loaded for.
        hotplug_seq: u64 = "sched_ext_ops.hotplug_seq";
        /// Address of its `enqueue`, null when it has none.
        enqueue: VirtAddr = "sched_ext_ops.enqueue";
        /// Address of its `dispatch`.
        dispatch: VirtAddr = "sched_ext_ops.dispatch";
        /// Address of its `select_cpu`.
        select_cpu: VirtAddr = "sched_ext_ops.select_cpu";
    }
}

record! {
    /// Why a scheduler ended: `struct scx_exit_info`.
    ExitInfo, ExitInfoPlans, exit_info {
        /// `SCX_EXIT_*`.
        kind: i64 = "scx_exit_info.kind";
        /// The scheduler's own code.
        exit_code: i64 = "scx_exit_info.exit_code";
        /// Address of the reason's text.
        reason: VirtAddr = "scx_exit_info.reason";
        /// Address of the message.
        msg: VirtAddr = "scx_exit_info.msg";
        /// Entries in the back-trace.
        bt_len: u64 = "scx_exit_info.bt_len";
    }
}

/// sched_ext's global state. Each field has its own outcome.
#[derive(Debug)]
pub struct SchedExt {
    /// Where the `sched_ext_ops` of the loaded scheduler are.
    pub ops: Result<VirtAddr, KernelError>,
    /// `SCX_*` enable state by name, without its prefix and in lower case, as /sys/kernel/sched_ext/state has it.
    pub state: Result<String, KernelError>,
    /// Whether all tasks of the fair class are switched.
    pub switch_all: Result<bool, KernelError>,
    /// Tasks refused by `disallow`.
    pub nr_rejected: Result<u64, KernelError>,
    /// CPU hotplug events.
    pub hotplug_seq: Result<u64, KernelError>,
    /// Schedulers loaded so far.
    pub enable_seq: Result<u64, KernelError>,
    /// Depth of bypass mode; 0 when the scheduler schedules.
    pub bypass_depth: Result<u64, KernelError>,
    /// Last watchdog run, jiffies.
    pub watchdog_timestamp: Result<u64, KernelError>,
    /// Watchdog timeout, jiffies.
    pub watchdog_timeout: Result<u64, KernelError>,
    /// Where the `scx_exit_info` is; null when no scheduler was ever loaded.
    pub exit_info: Result<VirtAddr, KernelError>,
}

impl Kernel {
    /// sched_ext's global state.
    #[must_use]
    pub fn sched_ext(&self) -> SchedExt {
        let word = |names: &[&'static str], width| self.variable(names, width);
        SchedExt {
            ops: self.scx_ops(),
            state: self.scx_state(),
            switch_all: word(&["scx_switching_all"], 1).map(|word| word != 0),
            nr_rejected: word(&["scx_nr_rejected"], 8),
            hotplug_seq: word(&["scx_hotplug_seq"], 8),
            enable_seq: word(&["scx_enable_seq"], 8),
            bypass_depth: word(&["scx_ops_bypass_depth", "scx_bypass_depth"], 4),
            watchdog_timestamp: word(&["scx_watchdog_timestamp"], 8),
            watchdog_timeout: word(&["scx_watchdog_timeout"], 8),
            exit_info: self
                .scx_member("scx_exit_info", "scx_sched.exit_info")
                .and_then(|at| self.pointer("scx_exit_info", at)),
        }
    }

    /// All dispatch queues but the local ones, which are in their runqueues: global ones of each node first, then
    /// those that the scheduler made.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] without sched_ext.
    pub fn dispatch_queues(&self) -> Result<Vec<VirtAddr>, KernelError> {
        let mut found = self.global_queues()?;
        let table = self.scx_member("dsq_hash", "scx_sched.dsq_hash")?;
        let node = self.offset("scx_dispatch_q.hash_node")?;
        found.extend(self.walker().rhashtable("sched_ext's dispatch queues", table, node, MAX_QUEUES)?);
        Ok(found)
    }

    /// The local dispatch queue of a runqueue.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] without sched_ext.
    pub fn local_queue(&self, rq: VirtAddr) -> Result<VirtAddr, KernelError> {
        Ok(rq.wrapping_add(self.offset("rq.scx.local_dsq")?))
    }

    /// The tasks on a dispatch queue, in dispatch order.
    ///
    /// # Errors
    /// [`KernelError`] when the list can't be walked.
    pub fn queued_tasks(&self, queue: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let head = queue.wrapping_add(self.offset("scx_dispatch_q.list")?);
        let node = self.offset("task_struct.scx.dsq_list.node")?;
        let flags = self.plan("scx_dsq_list_node.flags")?;
        let list = self.offset("task_struct.scx.dsq_list")?;
        let mut tasks = Vec::new();
        for task in self.walker().list("a dispatch queue", head, node, MAX_QUEUED)? {
            // An iterator's node isn't in a task: only the node itself may be looked at.
            if flags.read(self.memory(), task.wrapping_add(list))? & ITERATOR == 0 {
                tasks.push(task);
            }
        }
        Ok(tasks)
    }

    /// sched_ext's event counters by name, summed over CPUs. Since 6.14 ("sched_ext: Implement event counter
    /// infrastructure").
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] before that.
    pub fn scx_events(&self) -> Result<Vec<(String, i64)>, KernelError> {
        let Some(ty) = self.btf().composite("scx_event_stats") else {
            return Err(KernelError::NoSymbol { name: "scx_event_stats".into() });
        };
        let pointer = match self.symbol("event_stats_cpu") {
            Ok(at) => at,
            Err(_) => {
                self.pointer("scx_sched.event_stats_cpu", self.scx_root_member("scx_sched.event_stats_cpu")?)?
            }
        };
        let cpus = self.possible_cpus()?.0;
        let mut events = Vec::new();
        let ktstr_introspect_types::Type::Struct(whole) = self.btf().get(ty)? else { return Ok(events) };
        for member in whole.members() {
            let name = member?.name;
            let plan = self.btf().plan_from(ty, &format!(".{name}"))?;
            let mut sum = 0i64;
            for cpu in &cpus {
                sum =
                    sum.wrapping_add(plan.read(self.memory(), self.per_cpu_pointer(pointer, *cpu)?)? as i64);
            }
            events.push((name.to_owned(), sum));
        }
        Ok(events)
    }

    fn scx_ops(&self) -> Result<VirtAddr, KernelError> {
        self.scx_member("scx_ops", "scx_sched.ops")
    }

    /// The enum, its variable and its prefix lost their `ops` in 6.16.
    fn scx_state(&self) -> Result<String, KernelError> {
        let seen = self.variable(&["scx_ops_enable_state_var", "scx_enable_state_var"], 4)?;
        let found = ["scx_ops_enable_state", "scx_enable_state"]
            .into_iter()
            .find_map(|name| self.btf().enumerator(name, seen));
        let name = found.ok_or(KernelError::Implausible {
            what: "sched_ext's enable state",
            at: VirtAddr(0),
            seen,
            expected: "a value of enum scx_ops_enable_state",
        })?;
        Ok(name.trim_start_matches("SCX_").trim_start_matches("OPS_").to_lowercase())
    }

    /// One queue a node since 6.12 (`global_dsqs`, an array of pointers).
    fn global_queues(&self) -> Result<Vec<VirtAddr>, KernelError> {
        let array = self.pointer("global_dsqs", self.scx_member("global_dsqs", "scx_sched.global_dsqs")?)?;
        if array.is_null() {
            return Ok(Vec::new());
        }
        // A constant 1 without CONFIG_NUMA, and then no symbol.
        let nodes = match self.variable(&["nr_node_ids"], 4) {
            Err(error) if error.kind() == ErrorKind::Absent => 1,
            other => other? as u32,
        };
        if nodes > MAX_NODES {
            let expected = "at most 1024 nodes";
            return Err(KernelError::Implausible {
                what: "nr_node_ids",
                at: array,
                seen: nodes.into(),
                expected,
            });
        }
        let mut found = Vec::new();
        for node in 0..u64::from(nodes) {
            let queue = self.pointer("global_dsqs", array.wrapping_add(node * 8))?;
            if !queue.is_null() {
                found.push(queue);
            }
        }
        Ok(found)
    }

    /// A global of sched_ext: a variable of its own, or a member of the root scheduler.
    fn scx_member(&self, symbol: &str, member: &str) -> Result<VirtAddr, KernelError> {
        match self.symbol(symbol) {
            Ok(at) => Ok(at),
            Err(absent) => self.scx_root_member(member).map_err(|error| match error.kind() {
                ErrorKind::Absent => absent,
                _ => error,
            }),
        }
    }

    fn scx_root_member(&self, member: &str) -> Result<VirtAddr, KernelError> {
        let plan = self.plan(member)?;
        let root = self.pointer("scx_root", self.symbol("scx_root")?)?;
        if root.is_null() {
            let (path, at) = (member.to_owned(), self.symbol("scx_root")?);
            return Err(KernelError::Fault(ktstr_introspect_types::PlanFault::Null { path, at }));
        }
        Ok(plan.address(self.memory(), root)?)
    }

    /// The value of the first of these variables that the kernel has, `width` bytes of it.
    fn variable(&self, names: &[&'static str], width: usize) -> Result<u64, KernelError> {
        let mut missing = String::new();
        for name in names {
            let Ok(at) = self.symbol(name) else {
                missing = (*name).to_owned();
                continue;
            };
            let mut bytes = [0; 8];
            self.memory().read(at, &mut bytes[..width.min(8)]).map_err(KernelError::read(name))?;
            return Ok(u64::from_le_bytes(bytes));
        }
        Err(KernelError::NoSymbol { name: missing })
    }
}
