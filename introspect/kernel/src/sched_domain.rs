//! Scheduling domains: `struct sched_domain` (include/linux/sched/topology.h) and its groups.

use ktstr_introspect_memory::VirtAddr;

use crate::percpu::MAX_CPUS;
use crate::record::{Cpus, record};
use crate::{Kernel, KernelError};

/// Domains above one another: SMT, cluster, MC, package, and NUMA levels, of which `NR_NODES`-many would be needed
/// for more.
const MAX_LEVELS: usize = 64;

record! {
    /// A scheduling domain of one CPU.
    SchedDomain, SchedDomainPlans, domain {
        /// Its level, from 0 below.
        level: i64 = "sched_domain.level";
        /// `SD_*` flags.
        flags: i64 = "sched_domain.flags";
        /// Number of CPUs spanned.
        span_weight: u64 = "sched_domain.span_weight";
        /// The domain above; null on top.
        parent: VirtAddr = "sched_domain.parent";
        /// The domain below; null at the bottom.
        child: VirtAddr = "sched_domain.child";
        /// The first of its groups.
        groups: VirtAddr = "sched_domain.groups";
        /// What its CPUs share, for the LLC's domain.
        shared: VirtAddr = "sched_domain.shared";
        /// Shortest balancing interval, ms.
        min_interval: u64 = "sched_domain.min_interval";
        /// Longest balancing interval, ms.
        max_interval: u64 = "sched_domain.max_interval";
        /// Balancing is this much rarer on a busy CPU.
        busy_factor: u64 = "sched_domain.busy_factor";
        /// Imbalance accepted, percent.
        imbalance_pct: u64 = "sched_domain.imbalance_pct";
        /// Failed attempts before cache-hot tasks are moved.
        cache_nice_tries: u64 = "sched_domain.cache_nice_tries";
        /// Tasks that a NUMA node may have more than another.
        imb_numa_nr: u64 = "sched_domain.imb_numa_nr";
        /// Last balancing, jiffies.
        last_balance: u64 = "sched_domain.last_balance";
        /// Current balancing interval, ms.
        balance_interval: u64 = "sched_domain.balance_interval";
        /// Failed attempts in a row.
        nr_balance_failed: u64 = "sched_domain.nr_balance_failed";
        /// Dearest newly-idle balancing, nanoseconds.
        max_newidle_lb_cost: u64 = "sched_domain.max_newidle_lb_cost";
    }
}

record! {
    /// What the CPUs of an LLC share: `struct sched_domain_shared`.
    DomainShared, DomainSharedPlans, shared {
        /// Domains that refer to it.
        refcount: i64 = "sched_domain_shared.ref.counter";
        /// CPUs that aren't idle.
        nr_busy_cpus: i64 = "sched_domain_shared.nr_busy_cpus.counter";
        /// Whether some core is wholly idle.
        has_idle_cores: i64 = "sched_domain_shared.has_idle_cores";
        /// How many CPUs a search for an idle one looks at.
        nr_idle_scan: i64 = "sched_domain_shared.nr_idle_scan";
    }
}

record! {
    /// A group that a domain balances between: `struct sched_group` (kernel/sched/sched.h).
    SchedGroup, SchedGroupPlans, group {
        /// Number of CPUs.
        group_weight: u64 = "sched_group.group_weight";
        /// Number of cores; since 6.6.
        cores: u64 = "sched_group.cores";
        /// `SD_*` flags of the child domain.
        flags: i64 = "sched_group.flags";
        /// Capacity of all its CPUs.
        capacity: u64 = "sched_group.sgc->capacity";
        /// Capacity of the weakest.
        min_capacity: u64 = "sched_group.sgc->min_capacity";
        /// Capacity of the strongest.
        max_capacity: u64 = "sched_group.sgc->max_capacity";
    }
}

impl Kernel {
    /// The domains of a runqueue, from the lowest up.
    ///
    /// # Errors
    /// [`KernelError::Endless`] when there are more than a kernel can have, or a read's fault.
    pub fn domains(&self, rq: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let (first, parent) = (self.plan("rq.sd")?, self.plan("sched_domain.parent")?);
        let mut found = Vec::new();
        let mut at = VirtAddr(first.read(self.memory(), rq)?);
        while !at.is_null() {
            if found.len() >= MAX_LEVELS {
                return Err(KernelError::Endless { what: "a runqueue's domains", at: rq, limit: MAX_LEVELS });
            }
            found.push(at);
            at = VirtAddr(parent.read(self.memory(), at)?);
        }
        Ok(found)
    }

    /// The CPUs that a domain spans.
    ///
    /// # Errors
    /// [`KernelError`] when they can't be read.
    pub fn domain_span(&self, domain: VirtAddr) -> Result<Cpus, KernelError> {
        let at = self.plan("sched_domain.span")?.address(self.memory(), domain)?;
        self.cpumask("a domain's span", at)
    }

    /// A domain's name (SMT, MC, PKG, NUMA…).
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] when this kernel keeps none.
    pub fn domain_name(&self, domain: VirtAddr) -> Result<String, KernelError> {
        let at = self.plan("sched_domain.name[0]")?.address(self.memory(), domain)?;
        self.memory().read_string(at, 64).map_err(KernelError::read("a domain's name"))
    }

    /// The groups of a domain, each with its CPUs: a ring that starts with the CPU's own.
    ///
    /// # Errors
    /// [`KernelError::Endless`] when the ring doesn't close, or a read's fault.
    pub fn domain_groups(&self, domain: VirtAddr) -> Result<Vec<(VirtAddr, Cpus)>, KernelError> {
        let (first, next) = (self.plan("sched_domain.groups")?, self.plan("sched_group.next")?);
        let mask = self.plan("sched_group.cpumask")?;
        let start = VirtAddr(first.read(self.memory(), domain)?);
        let (mut found, mut at) = (Vec::new(), start);
        while !at.is_null() {
            if found.len() >= MAX_CPUS as usize {
                let limit = MAX_CPUS as usize;
                return Err(KernelError::Endless { what: "a domain's groups", at: domain, limit });
            }
            found.push((at, self.cpumask("a group's cpumask", mask.address(self.memory(), at)?)?));
            at = VirtAddr(next.read(self.memory(), at)?);
            if at == start {
                break;
            }
        }
        Ok(found)
    }
}
