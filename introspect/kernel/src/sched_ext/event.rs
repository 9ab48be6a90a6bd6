//! Event counters: `struct scx_event_stats`, per CPU, since 6.14 ("sched_ext: Implement event counter infrastructure").

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::Type;

use crate::{ErrorKind, Kernel, KernelError};

/// One CPU's counters by name.
pub type CpuEvents = (u32, Vec<(String, i64)>);

impl Kernel {
    /// sched_ext's event counters by name, summed over CPUs.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] before 6.14, [`ErrorKind::Null`] from 6.16 on while no scheduler is
    /// loaded.
    pub fn scx_events(&self) -> Result<Vec<(String, i64)>, KernelError> {
        let by_cpu = self.scx_events_by_cpu()?;
        let mut sums: Vec<(String, i64)> = Vec::new();
        for (_, events) in by_cpu {
            for (at, (name, count)) in events.into_iter().enumerate() {
                match sums.get_mut(at) {
                    Some((_, sum)) => *sum = sum.wrapping_add(count),
                    None => sums.push((name, count)),
                }
            }
        }
        Ok(sums)
    }

    /// The same counters for each possible CPU.
    ///
    /// # Errors
    /// As [`Kernel::scx_events`].
    pub fn scx_events_by_cpu(&self) -> Result<Vec<CpuEvents>, KernelError> {
        let absent = || KernelError::NoSymbol { name: "scx_event_stats".into() };
        let ty = self.btf().composite("scx_event_stats").ok_or_else(absent)?;
        let Type::Struct(whole) = self.btf().get(ty)? else { return Err(absent()) };
        let mut plans = Vec::new();
        for member in whole.members() {
            let name = member?.name;
            plans.push((name, self.btf().plan_from(ty, &format!(".{name}"))?));
        }
        let pointer = self.scx_events_pointer()?;
        let mut found = Vec::new();
        for cpu in self.possible_cpus()?.0 {
            let at = self.per_cpu_pointer(pointer, cpu)?;
            let mut events = Vec::with_capacity(plans.len());
            for (name, plan) in &plans {
                events.push(((*name).to_owned(), plan.read(self.memory(), at)? as i64));
            }
            found.push((cpu, events));
        }
        Ok(found)
    }

    /// The counters' per-CPU address: a per-CPU variable up to 6.15, behind `scx_sched.event_stats_cpu` in 6.16 and
    /// 6.17, in `scx_sched.pcpu` from 6.18 and in stable kernels that took "sched_ext: Put event_stats_cpu in struct
    /// scx_sched_pcpu".
    fn scx_events_pointer(&self) -> Result<VirtAddr, KernelError> {
        if let Ok(at) = self.symbol("event_stats_cpu") {
            return Ok(at);
        }
        match self.scx_root_member("scx_sched.event_stats_cpu") {
            Ok(at) => self.pointer("scx_sched.event_stats_cpu", at),
            Err(error) if error.kind() == ErrorKind::Absent => {
                let at = self.scx_root_member("scx_sched.pcpu")?;
                let inside = self.offset("scx_sched_pcpu.event_stats")?;
                Ok(self.pointer("scx_sched.pcpu", at)?.wrapping_add(inside))
            }
            Err(other) => Err(other),
        }
    }
}
