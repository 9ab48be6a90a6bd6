//! Dispatch queues: `struct scx_dispatch_q` (include/linux/sched/ext.h), global, local and the scheduler's own.

use ktstr_introspect_memory::VirtAddr;

use crate::record::record;
use crate::{ErrorKind, Kernel, KernelError};

const MAX_QUEUES: usize = 1 << 16;
const MAX_QUEUED: usize = 4 << 20;
/// `MAX_NUMNODES` of x86-64 at most.
const MAX_NODES: u32 = 1024;
/// `SCX_DSQ_LNODE_ITER_CURSOR`: the list node of an iterator, not of a task.
const ITERATOR: u64 = 1;
/// `SCX_DSQ_FLAG_BUILTIN` and `SCX_DSQ_FLAG_LOCAL_ON`.
const BUILTIN: u64 = 1 << 63;
const LOCAL_ON: u64 = 1 << 62;

record! {
    /// A dispatch queue: `struct scx_dispatch_q` (include/linux/sched/ext.h).
    DispatchQueue, DispatchQueuePlans, dsq {
        /// Its id.
        id: u64 = "scx_dispatch_q.id";
        /// Tasks on it, those ordered by virtual time among them.
        nr: u64 = "scx_dispatch_q.nr";
        /// Sequence number for iterators.
        seq: u64 = "scx_dispatch_q.seq";
    }
}

impl Kernel {
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

    /// The tasks on a dispatch queue that are ordered by virtual time, lowest first; none on a FIFO queue. They are among
    /// [`Kernel::queued_tasks`], in the same order.
    ///
    /// # Errors
    /// [`KernelError`] when the tree can't be walked.
    pub fn queued_by_vtime(&self, queue: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let root = queue.wrapping_add(self.offset("scx_dispatch_q.priq.rb_node")?);
        let node = self.offset("task_struct.scx.dsq_priq")?;
        self.walker().rbtree("a dispatch queue's tree", root, node, MAX_QUEUED)
    }

    /// What a dispatch queue's id means: `global`, `local`, `local_on 3`, `bypass`, or the number that a scheduler chose,
    /// in hexadecimal. The kernel's own have the top bit set (`enum scx_dsq_id_flags`).
    #[must_use]
    pub fn queue_name(&self, id: u64) -> String {
        if id & (BUILTIN | LOCAL_ON) == BUILTIN | LOCAL_ON {
            return format!("local_on {}", id as u32);
        }
        let name = self.short_name("scx_dsq_id_flags", "SCX_DSQ_", id).filter(|_| id & BUILTIN != 0);
        name.unwrap_or_else(|| format!("{id:#x}"))
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
}
