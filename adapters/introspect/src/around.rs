//! Where time and memory of a machine went, for a failure dump.

use crate::reasons::Reasons;
use ktstr_introspect_kernel::{ErrorKind, Kernel, KernelError, Pressure, Stall};
use ktstr_introspect_memory::VirtAddr;
use ktstr_monitor::{CpuTimes, CpuUse, NodeState, PressureState, StallState};
use std::collections::BTreeMap;

/// Where pressure is turned off.
pub(crate) const NO_PRESSURE: &str = "the kernel keeps none, which `psi=1` on its command line changes";

/// What each possible CPU spent its time on, and its softirqs.
pub(crate) fn cpu_use(kernel: &Kernel, reasons: &mut Reasons) -> Vec<CpuUse> {
    let mut found: BTreeMap<u32, CpuUse> = BTreeMap::new();
    let times = reasons.value(&"the kernel", "CPU times", kernel.cpu_times());
    for (cpu, times) in times.unwrap_or_default() {
        let ktstr_introspect_kernel::CpuTimes {
            user,
            nice,
            system,
            idle,
            iowait,
            irq,
            softirq,
            steal,
            guest,
            guest_nice,
        } = times;
        let times = CpuTimes { user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice };
        found.entry(cpu).or_default().times = Some(times);
    }
    let softirqs = reasons.value(&"the kernel", "softirqs", kernel.softirqs());
    for (cpu, counts) in softirqs.unwrap_or_default() {
        let counts = counts.into_iter().map(|(name, count)| (name.to_string(), count));
        found.entry(cpu).or_default().softirqs = counts.collect();
    }
    found.into_iter().map(|(cpu, of_cpu)| CpuUse { cpu, ..of_cpu }).collect()
}

/// The page counters of each node.
pub(crate) fn nodes(kernel: &Kernel, reasons: &mut Reasons) -> Vec<NodeState> {
    let nodes = reasons.value(&"the kernel", "NUMA counters", kernel.numa_counters());
    let state = |(node, counters): (u32, Vec<(&str, u64)>)| NodeState {
        node,
        counters: counters.into_iter().map(|(name, count)| (name.to_string(), count)).collect(),
    };
    nodes.unwrap_or_default().into_iter().map(state).collect()
}

/// Reads pressure, all at one moment of the scheduler's clock.
pub(crate) struct PressureReader<'a> {
    kernel: &'a Kernel,
    now: u64,
}

impl<'a> PressureReader<'a> {
    /// `None` where the clock can't be read.
    pub(crate) fn new(kernel: &'a Kernel, reasons: &mut Reasons) -> Option<Self> {
        let now = reasons.value(&"the scheduler", "clock", kernel.newest_clock())?;
        Some(Self { kernel, now })
    }

    /// The whole system's.
    pub(crate) fn of_system(&self, reasons: &mut Reasons) -> Vec<PressureState> {
        self.told(&"the system", self.kernel.system_psi_group(), reasons)
    }

    /// A cgroup's.
    pub(crate) fn of_cgroup(
        &self,
        cgroup: VirtAddr,
        path: &str,
        reasons: &mut Reasons,
    ) -> Vec<PressureState> {
        self.told(&format!("cgroup {path}"), self.kernel.psi_group(cgroup), reasons)
    }

    fn told(
        &self,
        of: &dyn std::fmt::Display,
        group: Result<VirtAddr, KernelError>,
        reasons: &mut Reasons,
    ) -> Vec<PressureState> {
        let pressure = group.and_then(|group| self.kernel.pressure(group, self.now));
        if pressure.as_ref().is_err_and(|e| e.kind() == ErrorKind::Null) {
            reasons.left_out(format!("pressure: {NO_PRESSURE}"));
        }
        let pressure = reasons.value(of, "pressure", pressure).unwrap_or_default();
        pressure.iter().map(pressure_state).collect()
    }
}

fn pressure_state(pressure: &Pressure) -> PressureState {
    let stall = |stall: Stall| StallState { total_us: stall.total_us, averages: stall.averages };
    PressureState {
        resource: pressure.resource.to_string(),
        some: pressure.some.map(stall),
        full: pressure.full.map(stall),
    }
}
