//! The cgroup v2 tree: `struct cgroup` (include/linux/cgroup-defs.h) and its controllers' state.

use ktstr_introspect_memory::VirtAddr;

use crate::record::{Cpus, record};
use crate::{Kernel, KernelError};

const MAX_CGROUPS: usize = 1 << 20;
const MAX_MEMBERS: usize = 4 << 20;
/// `cgroup.max.depth` is unbounded in theory; a path can't be longer than this many names.
const MAX_DEPTH: usize = 2048;
/// `CSS_ONLINE` of `cgroup.self.flags` (include/linux/cgroup-defs.h): what `cgroup_is_dead` asks for.
const CSS_ONLINE: u64 = 1 << 1;
/// `NAME_MAX`.
const NAME_LIMIT: usize = 255;

record! {
    /// A cgroup.
    Cgroup, CgroupPlans, cgroup {
        /// Its id: the inode number of its directory.
        id: u64 = "cgroup.kn->id";
        /// Depth, 0 for the root.
        level: i64 = "cgroup.level";
        /// Deepest level allowed below.
        max_depth: i64 = "cgroup.max_depth";
        /// Live descendants.
        nr_descendants: i64 = "cgroup.nr_descendants";
        /// Removed but still referenced descendants.
        nr_dying_descendants: i64 = "cgroup.nr_dying_descendants";
        /// Most descendants allowed.
        max_descendants: i64 = "cgroup.max_descendants";
        /// css_sets with tasks.
        nr_populated_csets: i64 = "cgroup.nr_populated_csets";
        /// Children with tasks somewhere below.
        nr_populated_domain_children: i64 = "cgroup.nr_populated_domain_children";
        /// Controllers enabled for the children, as written.
        subtree_control: u64 = "cgroup.subtree_control";
        /// Controllers enabled for the children, with what those need.
        subtree_ss_mask: u64 = "cgroup.subtree_ss_mask";
        /// `CSS_*` flags.
        css_flags: u64 = "cgroup.self.flags";
        /// Serial number, ascending with creation.
        css_serial_nr: u64 = "cgroup.self.serial_nr";
        /// Whether it was asked to freeze.
        freezer_freeze: bool = "cgroup.freezer.freeze";
        /// How many of it and its ancestors ask. A bool-like counter.
        freezer_e_freeze: i64 = "cgroup.freezer.e_freeze";
        /// Frozen descendants.
        freezer_nr_frozen_descendants: i64 = "cgroup.freezer.nr_frozen_descendants";
        /// Frozen tasks of its own.
        freezer_nr_frozen_tasks: i64 = "cgroup.freezer.nr_frozen_tasks";
        /// `CGRP_*` flag bits; bit 4 or so is `CGRP_FROZEN`.
        flags: u64 = "cgroup.flags";
    }
}

record! {
    /// The cpu controller's state: `struct task_group` (kernel/sched/sched.h).
    CpuGroup, CpuGroupPlans, cpu_group {
        /// Load weight, scaled by 1024.
        shares: u64 = "task_group.shares";
        /// Whether it is a `SCHED_IDLE` group.
        idle: i64 = "task_group.idle";
        /// Load average over all CPUs.
        load_avg: i64 = "task_group.load_avg.counter";
        /// sched_ext: `SCX_TG_*` flags.
        scx_flags: u64 = "task_group.scx_flags";
        /// sched_ext: weight.
        scx_weight: u64 = "task_group.scx_weight" | "task_group.scx.weight";
        /// Bandwidth: period, nanoseconds.
        period: i64 = "task_group.cfs_bandwidth.period";
        /// Bandwidth: quota a period, nanoseconds; all ones for none.
        quota: u64 = "task_group.cfs_bandwidth.quota";
        /// Bandwidth: left in this period, nanoseconds.
        runtime: u64 = "task_group.cfs_bandwidth.runtime";
        /// Bandwidth: burst allowed, nanoseconds.
        burst: u64 = "task_group.cfs_bandwidth.burst";
        /// Periods with a task in them.
        nr_periods: i64 = "task_group.cfs_bandwidth.nr_periods";
        /// Periods throttled.
        nr_throttled: i64 = "task_group.cfs_bandwidth.nr_throttled";
        /// Time throttled, nanoseconds.
        throttled_time: u64 = "task_group.cfs_bandwidth.throttled_time";
    }
}

record! {
    /// The cpuset controller's state: `struct cpuset` (kernel/cgroup/cpuset-internal.h). Its CPU masks are behind
    /// pointers with `CONFIG_CPUMASK_OFFSTACK`; [`Kernel::cpuset_cpus`] reads either.
    Cpuset, CpusetPlans, cpuset {
        /// `CS_*` flag bits.
        flags: u64 = "cpuset.flags";
        /// Memory nodes as written.
        mems_allowed: Cpus = "cpuset.mems_allowed";
        /// Memory nodes in effect.
        effective_mems: Cpus = "cpuset.effective_mems";
        /// `PRS_*`: whether it is a partition root.
        partition_root_state: i64 = "cpuset.partition_root_state";
        /// Deadline tasks in it; since 6.5, and a plain number at first.
        nr_deadline_tasks: i64 = "cpuset.nr_deadline_tasks.counter" | "cpuset.nr_deadline_tasks";
    }
}

record! {
    /// The pids controller's state: `struct pids_cgroup` (kernel/cgroup/pids.c).
    Pids, PidsPlans, pids {
        /// Threads in it and below.
        counter: i64 = "pids_cgroup.counter.counter";
        /// Most allowed; one past `PID_MAX_LIMIT` for no limit. It was a plain number until 5.4.
        limit: i64 = "pids_cgroup.limit.counter" | "pids_cgroup.limit";
        /// The most there ever were; since 6.7.
        watermark: i64 = "pids_cgroup.watermark";
    }
}

/// A cgroup's place in the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CgroupNode {
    /// Its `struct cgroup`.
    pub address: VirtAddr,
    /// Its path from the root, which is `/`.
    pub path: String,
    /// Whether it is alive. One that was removed stays in the tree until its last reference goes, for instance the
    /// memory that it was charged for.
    pub online: bool,
}

impl Kernel {
    /// All cgroups of the v2 hierarchy, parents before children, those that are dying among them.
    ///
    /// # Errors
    /// [`KernelError`] when the tree can't be walked.
    pub fn cgroups(&self) -> Result<Vec<CgroupNode>, KernelError> {
        let root = self.symbol("cgrp_dfl_root")?.wrapping_add(self.offset("cgroup_root.cgrp")?);
        let (children, sibling) = (self.offset("cgroup.self.children")?, self.offset("cgroup.self.sibling")?);
        let (name, parent) = (self.plan("cgroup.kn->name[0]")?, self.plan("cgroup.self.parent")?);
        let (own, flags) = (self.offset("cgroup.self")?, self.plan("cgroup.self.flags")?);
        let mut found: Vec<CgroupNode> = Vec::new();
        let mut waiting = vec![(CgroupNode { address: root, path: "/".into(), online: true }, 0)];
        while let Some((node, depth)) = waiting.pop() {
            if found.len() + waiting.len() >= MAX_CGROUPS || depth > MAX_DEPTH {
                let (what, limit) = ("the cgroup tree", MAX_CGROUPS);
                return Err(KernelError::Endless { what, at: node.address, limit });
            }
            let head = node.address.wrapping_add(children);
            let mut below = self.walker().list("a cgroup's children", head, sibling, MAX_CGROUPS)?;
            below.reverse();
            for child in below {
                // A child names its parent, so that what is walked is a tree and ends.
                let (what, expected) = ("a cgroup's parent", node.address.0.wrapping_add(own));
                let seen = parent.read(self.memory(), child)?;
                if seen != expected {
                    return Err(KernelError::Torn { what, at: child, expected, seen });
                }
                let at = name.address(self.memory(), child)?;
                let name = self
                    .memory()
                    .read_string(at, NAME_LIMIT)
                    .map_err(KernelError::read("a cgroup's name"))?;
                let path = format!("{}/{name}", node.path.trim_end_matches('/'));
                let online = flags.read(self.memory(), child)? & CSS_ONLINE != 0;
                waiting.push((CgroupNode { address: child, path, online }, depth + 1));
            }
            found.push(node);
        }
        Ok(found)
    }

    /// Whether there are tasks in a cgroup or below: `populated` in `cgroup.events`.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn cgroup_populated(&self, cgroup: VirtAddr) -> Result<bool, KernelError> {
        let mut populated = 0;
        for part in ["csets", "domain_children", "threaded_children"] {
            populated |= self.read(&format!("cgroup.nr_populated_{part}"), cgroup)?;
        }
        Ok(populated != 0)
    }

    /// Whether all tasks in a cgroup are frozen: `frozen` in `cgroup.events`. One that is only asked to freeze has
    /// [`Cgroup::freezer_freeze`].
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] before 5.2.
    pub fn cgroup_frozen(&self, cgroup: VirtAddr) -> Result<bool, KernelError> {
        let bit = *self.plans.cgroup_frozen.get_or_init(|| self.btf().constant("CGRP_FROZEN"));
        let bit = bit.ok_or(KernelError::NoSymbol { name: "CGRP_FROZEN".into() })?;
        Ok(self.read("cgroup.flags", cgroup)? >> (bit & 63) & 1 == 1)
    }

    /// `cpu.weight` of a cgroup, 1 to 10000; nothing when the cpu controller isn't enabled there. The kernel keeps 1024
    /// for a weight of 100 (`CGROUP_WEIGHT_DFL`), scaled by 1024.
    ///
    /// # Errors
    /// As [`Kernel::controller`].
    pub fn cpu_weight(&self, cgroup: VirtAddr) -> Result<Option<u64>, KernelError> {
        let Some(group) = self.task_group(cgroup)? else { return Ok(None) };
        let load = match self.read("task_group.shares", group) {
            // Without CONFIG_FAIR_GROUP_SCHED only sched_ext keeps one, as `cpu.weight` has it.
            Err(error) if error.kind() == crate::ErrorKind::Absent => {
                let plan = self.btf().plan_any(&["task_group.scx_weight", "task_group.scx.weight"])?;
                return Ok(Some(plan.read(self.memory(), group)?));
            }
            other => other? >> 10,
        };
        Ok(Some(((load.saturating_mul(100) + 512) / 1024).clamp(1, 10_000)))
    }

    /// The state of a controller (`cpu`, `cpuset`, `pids`…) for a cgroup: its `cgroup_subsys_state`, or nothing when
    /// the controller isn't enabled there.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] when the kernel has no such controller.
    pub fn controller(&self, cgroup: VirtAddr, name: &str) -> Result<Option<VirtAddr>, KernelError> {
        let enumerator = format!("{name}_cgrp_id");
        let Some(index) = self.btf().enumerator_value("cgroup_subsys_id", &enumerator) else {
            return Err(KernelError::NoSymbol { name: enumerator });
        };
        let css = VirtAddr(self.read(&format!("cgroup.subsys[{index}]"), cgroup)?);
        Ok((!css.is_null()).then_some(css))
    }

    /// The cpu controller's `task_group` of a cgroup.
    ///
    /// # Errors
    /// As [`Kernel::controller`].
    pub fn task_group(&self, cgroup: VirtAddr) -> Result<Option<VirtAddr>, KernelError> {
        self.of_controller(cgroup, "cpu", "task_group.css")
    }

    /// The `cpuset` of a cgroup.
    ///
    /// # Errors
    /// As [`Kernel::controller`].
    pub fn cpuset(&self, cgroup: VirtAddr) -> Result<Option<VirtAddr>, KernelError> {
        self.of_controller(cgroup, "cpuset", "cpuset.css")
    }

    /// The `pids_cgroup` of a cgroup.
    ///
    /// # Errors
    /// As [`Kernel::controller`].
    pub fn pids(&self, cgroup: VirtAddr) -> Result<Option<VirtAddr>, KernelError> {
        self.of_controller(cgroup, "pids", "pids_cgroup.css")
    }

    fn of_controller(
        &self,
        cgroup: VirtAddr,
        name: &str,
        css: &str,
    ) -> Result<Option<VirtAddr>, KernelError> {
        let inside = self.offset(css)?;
        Ok(self.controller(cgroup, name)?.map(|css| css.wrapping_sub(inside)))
    }

    /// A CPU mask of a cpuset: `cpus_allowed`, `effective_cpus`, `exclusive_cpus`…
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] when this kernel has no such mask.
    pub fn cpuset_cpus(&self, cpuset: VirtAddr, mask: &str) -> Result<Cpus, KernelError> {
        // `cpumask_var_t` is a pointer with CONFIG_CPUMASK_OFFSTACK, else an array of one mask.
        let pointer = self.plan(&format!("cpuset.{mask}"))?;
        let at = match pointer.leaf() {
            ktstr_introspect_types::Leaf::Bytes => pointer.address(self.memory(), cpuset)?,
            _ => VirtAddr(pointer.read(self.memory(), cpuset)?),
        };
        self.cpumask("a cpuset's mask", at)
    }

    /// The tasks of a cgroup itself, over its `cset_links`.
    ///
    /// # Errors
    /// [`KernelError`] when a list can't be walked.
    pub fn cgroup_tasks(&self, cgroup: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let link = self.offset("cgrp_cset_link.cset_link")?;
        let cset = self.plan("cgrp_cset_link.cset")?;
        let (tasks, node) = (self.offset("css_set.tasks")?, self.offset("task_struct.cg_list")?);
        let head = cgroup.wrapping_add(self.offset("cgroup.cset_links")?);
        let mut found = Vec::new();
        for link in self.walker().list("a cgroup's cset_links", head, link, MAX_CGROUPS)? {
            let set = self.pointer("a cgroup's css_set", cset.address(self.memory(), link)?)?;
            found.extend(self.walker().list(
                "a css_set's tasks",
                set.wrapping_add(tasks),
                node,
                MAX_MEMBERS,
            )?);
            if found.len() > MAX_MEMBERS {
                return Err(KernelError::Endless {
                    what: "a cgroup's tasks",
                    at: cgroup,
                    limit: MAX_MEMBERS,
                });
            }
        }
        Ok(found)
    }
}
