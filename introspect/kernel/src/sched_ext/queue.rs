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

    /// The dispatch queue that bypass mode uses for a CPU. In its runqueue at first, in `scx_sched_pcpu` since ff06f727a941
    /// ("sched_ext: Move bypass_dsq into scx_sched_pcpu", 7.1).
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] before bypass mode had queues of its own.
    pub fn bypass_queue(&self, cpu: u32) -> Result<VirtAddr, KernelError> {
        match self.offset("rq.scx.bypass_dsq") {
            Ok(inside) => Ok(self.runqueue(cpu)?.wrapping_add(inside)),
            Err(error) if error.kind() == ErrorKind::Absent => {
                let inside = self.offset("scx_sched_pcpu.bypass_dsq")?;
                let pointer = self.pointer("scx_sched.pcpu", self.scx_root_member("scx_sched.pcpu")?)?;
                Ok(self.per_cpu_pointer(pointer, cpu)?.wrapping_add(inside))
            }
            Err(other) => Err(other),
        }
    }

    /// One queue a node since 6.12: `global_dsqs`, an array of pointers to them, or since `struct scx_sched_pnode` an array
    /// of pointers to what has one inside.
    fn global_queues(&self) -> Result<Vec<VirtAddr>, KernelError> {
        let (array, inside) = match self.scx_member("global_dsqs", "scx_sched.global_dsqs") {
            Ok(at) => (self.pointer("global_dsqs", at)?, 0),
            Err(error) if error.kind() == ErrorKind::Absent => {
                match self.offset("scx_sched_pnode.global_dsq") {
                    Ok(inside) => {
                        (self.pointer("scx_sched.pnode", self.scx_root_member("scx_sched.pnode")?)?, inside)
                    }
                    Err(_) => return Err(error),
                }
            }
            Err(other) => return Err(other),
        };
        let mut found = Vec::new();
        if array.is_null() {
            return Ok(found);
        }
        for node in 0..u64::from(self.nr_nodes(array)?) {
            let queue = self.pointer("sched_ext's global dispatch queues", array.wrapping_add(node * 8))?;
            if !queue.is_null() {
                found.push(queue.wrapping_add(inside));
            }
        }
        Ok(found)
    }

    /// `nr_node_ids`: a constant 1 without CONFIG_NUMA, and then no symbol.
    pub(crate) fn nr_nodes(&self, at: VirtAddr) -> Result<u32, KernelError> {
        let seen = match self.variable(&["nr_node_ids"], 4) {
            Err(error) if error.kind() == ErrorKind::Absent => 1,
            other => other?,
        };
        match u32::try_from(seen) {
            Ok(nodes) if nodes <= MAX_NODES => Ok(nodes),
            _ => {
                let (what, expected) = ("nr_node_ids", "at most 1024 nodes");
                Err(KernelError::Implausible { what, at, seen, expected })
            }
        }
    }
}
