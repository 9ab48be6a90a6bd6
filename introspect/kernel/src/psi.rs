//! Pressure stall information: `struct psi_group` (include/linux/psi_types.h, kernel/sched/psi.c), of the system and of
//! each cgroup, as `*.pressure` and /proc/pressure show it.

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::PlanFault;

use crate::{Kernel, KernelError};

/// Resources, with the kernel's names of the states of some and of all tasks stalled.
const RESOURCES: [(&str, &str, &str); 4] = [
    ("io", "PSI_IO_SOME", "PSI_IO_FULL"),
    ("memory", "PSI_MEM_SOME", "PSI_MEM_FULL"),
    ("cpu", "PSI_CPU_SOME", "PSI_CPU_FULL"),
    ("irq", "", "PSI_IRQ_FULL"),
];
/// `enum psi_states` has 8 values with interrupts among them.
const MAX_STATES: u64 = 16;
/// Bits behind the point in an average (`FSHIFT`, include/linux/sched/loadavg.h).
const FSHIFT: u32 = 11;
const NSEC_PER_USEC: u64 = 1000;

/// How long tasks were stalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stall {
    /// In all, microseconds.
    pub total_us: u64,
    /// Over the last 10, 60 and 300 seconds, in hundredths of a percent.
    pub averages: [u64; 3],
}

/// Pressure on one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pressure {
    /// `io`, `memory`, `cpu` or `irq`.
    pub resource: &'static str,
    /// While some task was stalled; interrupts have none.
    pub some: Option<Stall>,
    /// While all were.
    pub full: Option<Stall>,
}

/// What of the states this kernel has and where their numbers lie, bytes.
#[derive(Debug)]
pub(crate) struct PsiLayout {
    states: Vec<(&'static str, Option<u64>, Option<u64>)>,
    /// `PSI_NONIDLE`, the last, of which no pressure is told.
    nonidle: u64,
    averages: u64,
    totals: u64,
    by_cpu: u64,
    times: u64,
    previous: u64,
    mask: u64,
    since: u64,
}

impl Kernel {
    /// Where the `psi_group` of the whole system is.
    ///
    /// # Errors
    /// As [`Kernel::psi_group`].
    pub fn system_psi_group(&self) -> Result<VirtAddr, KernelError> {
        let group = self.symbol("psi_system")?;
        // A static key: first how often it was turned on.
        match self.symbol("psi_disabled") {
            Ok(at) if self.variable(&["psi_disabled"], 4)? != 0 => {
                Err(PlanFault::Null { path: "psi_disabled".into(), at }.into())
            }
            _ => Ok(group),
        }
    }

    /// Where a cgroup's `psi_group` is; the system's for the root.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without `CONFIG_PSI`, [`crate::ErrorKind::Null`] when it was turned off for all
    /// (`psi=0`).
    pub fn psi_group(&self, cgroup: VirtAddr) -> Result<VirtAddr, KernelError> {
        let system = self.system_psi_group()?;
        let root = self.symbol("cgrp_dfl_root")?.wrapping_add(self.offset("cgroup_root.cgrp")?);
        if cgroup == root {
            return Ok(system);
        }
        let plan = self.plan("cgroup.psi")?;
        // Inside of the cgroup until 6.1, when it became a pointer.
        if plan.leaf() == ktstr_introspect_types::Leaf::Bytes {
            return Ok(plan.address(self.memory(), cgroup)?);
        }
        let at = VirtAddr(plan.read(self.memory(), cgroup)?);
        if at.is_null() {
            let at = plan.address(self.memory(), cgroup)?;
            return Err(PlanFault::Null { path: plan.path().into(), at }.into());
        }
        Ok(at)
    }

    /// The pressure that a `psi_group` has seen. Totals are as reading the file in the guest would bring them up to date;
    /// averages as of the kernel's last averaging, which it does every two seconds while anything changes.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without `CONFIG_PSI`.
    pub fn pressure(&self, group: VirtAddr, now: u64) -> Result<Vec<Pressure>, KernelError> {
        if self.plans.psi.get().is_none() {
            let layout = self.psi_layout()?;
            // Another thread's is the same.
            let _ = self.plans.psi.set(layout);
        }
        let Some(layout) = self.plans.psi.get() else { return Ok(Vec::new()) };
        let pending = self.pending(layout, group, now)?;
        let word = |at: u64| {
            self.memory().read_u64(group.wrapping_add(at)).map_err(KernelError::read("a psi_group"))
        };
        let stall = |state: u64| -> Result<Stall, KernelError> {
            let total = word(layout.totals + state * 8)?;
            let average = |index: u64| {
                let fixed = word(layout.averages + (state * 3 + index) * 8)?;
                Ok::<u64, KernelError>(fixed.saturating_mul(100) >> FSHIFT)
            };
            let total = total.saturating_add(pending.get(state as usize).copied().unwrap_or_default());
            let averages = [average(0)?, average(1)?, average(2)?];
            Ok(Stall { total_us: total / NSEC_PER_USEC, averages })
        };
        let one = |&(resource, some, full): &(&'static str, Option<u64>, Option<u64>)| {
            Ok(Pressure { resource, some: some.map(stall).transpose()?, full: full.map(stall).transpose()? })
        };
        layout.states.iter().map(one).collect()
    }

    /// What has come together on each CPU since the last averaging, by state, nanoseconds: `collect_percpu_times`. CPUs
    /// count by the time in which they weren't idle.
    fn pending(&self, layout: &PsiLayout, group: VirtAddr, now: u64) -> Result<Vec<u64>, KernelError> {
        let states = layout.nonidle as usize + 1;
        let pointer = self.pointer("a psi_group's per-CPU part", group.wrapping_add(layout.by_cpu))?;
        let (mut sums, mut weights) = (vec![0u128; states], 0u128);
        for cpu in self.possible_cpus()?.0 {
            let at = self.per_cpu_pointer(pointer, cpu)?;
            let failed = KernelError::read("a psi_group_cpu");
            let word = |at: VirtAddr| self.memory().read_u32(at).map_err(&failed);
            let mask = word(at.wrapping_add(layout.mask))?;
            let since = self.memory().read_u64(at.wrapping_add(layout.since)).map_err(&failed)?;
            let lasting = now.saturating_sub(since) as u32;
            let mut recent = vec![0u32; states];
            for (state, recent) in (0u64..).zip(&mut recent) {
                let mut time = word(at.wrapping_add(layout.times + state * 4))?;
                if mask >> state & 1 == 1 {
                    time = time.wrapping_add(lasting);
                }
                *recent = time.wrapping_sub(word(at.wrapping_add(layout.previous + state * 4))?);
            }
            let weight = u128::from(recent.last().copied().unwrap_or_default());
            weights += weight;
            sums.iter_mut().zip(&recent).for_each(|(sum, time)| *sum += u128::from(*time) * weight);
        }
        Ok(sums.into_iter().map(|sum| (sum / weights.max(1)) as u64).collect())
    }

    fn psi_layout(&self) -> Result<PsiLayout, KernelError> {
        let state = |name: &str| self.btf().enumerator_value("psi_states", name);
        let nonidle = state("PSI_NONIDLE").filter(|state| *state < MAX_STATES);
        let nonidle = nonidle.ok_or(KernelError::NoSymbol { name: "PSI_NONIDLE".into() })?;
        let known = |name: &str| state(name).filter(|state| *state < nonidle);
        let states = RESOURCES.map(|(resource, some, full)| (resource, known(some), known(full)));
        let states = states.into_iter().filter(|(_, some, full)| some.is_some() || full.is_some());
        Ok(PsiLayout {
            states: states.collect(),
            nonidle,
            // Of arrays of arrays, BTF has one of all elements.
            averages: self.offset("psi_group.avg[0]")?,
            totals: self.offset("psi_group.total[0]")?,
            by_cpu: self.offset("psi_group.pcpu")?,
            times: self.offset("psi_group_cpu.times[0]")?,
            previous: self.offset("psi_group_cpu.times_prev[0]")?,
            mask: self.offset("psi_group_cpu.state_mask")?,
            since: self.offset("psi_group_cpu.state_start")?,
        })
    }

    /// How long interrupts have stalled the whole system so far, microseconds: `full` of /proc/pressure/irq.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without `CONFIG_PSI` and `CONFIG_IRQ_TIME_ACCOUNTING`,
    /// [`crate::ErrorKind::Null`] where pressure is turned off.
    pub fn irq_pressure(&self) -> Result<u64, KernelError> {
        let absent = || KernelError::NoSymbol { name: "PSI_IRQ_FULL".into() };
        self.btf().enumerator_value("psi_states", "PSI_IRQ_FULL").ok_or_else(absent)?;
        let all = self.pressure(self.system_psi_group()?, self.newest_clock()?)?;
        let of_irq = all.into_iter().find(|pressure| pressure.resource == "irq");
        of_irq.and_then(|pressure| pressure.full).map(|stall| stall.total_us).ok_or_else(absent)
    }
}
