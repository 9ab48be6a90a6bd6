//! What CPUs spent their time on and how many softirqs they ran: `struct kernel_cpustat` and `kernel_stat`
//! (include/linux/kernel_stat.h), as /proc/stat and /proc/softirqs show them.

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::Plan;

use crate::{ErrorKind, Kernel, KernelError};

/// Softirqs by number (include/linux/interrupt.h); their order is an ABI.
const SOFTIRQS: [&str; 10] =
    ["HI", "TIMER", "NET_TX", "NET_RX", "BLOCK", "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU"];

/// `TS_FLAG_IDLE_ACTIVE` of `tick_sched.flags` (kernel/time/tick-sched.h).
const IDLE_ACTIVE: u64 = 1 << 2;

/// What a CPU spent its time on, nanoseconds. `user` and `nice` include `guest` and `guest_nice`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CpuTimes {
    /// User space.
    pub user: u64,
    /// User space of tasks with a nice level above 0.
    pub nice: u64,
    /// The kernel.
    pub system: u64,
    /// Idle, without I/O waited for.
    pub idle: u64,
    /// Idle with a task of it waiting for I/O.
    pub iowait: u64,
    /// Interrupts.
    pub irq: u64,
    /// Softirqs.
    pub softirq: u64,
    /// Taken by the hypervisor.
    pub steal: u64,
    /// A guest's user space.
    pub guest: u64,
    /// The same of tasks with a nice level above 0.
    pub guest_nice: u64,
}

/// Softirqs that a CPU ran, by their names in /proc/softirqs.
pub type CpuSoftirqs = (u32, Vec<(&'static str, u64)>);

impl Kernel {
    /// What each possible CPU spent its time on so far. Where idle time is counted by the tick's absence, that of a CPU
    /// that is idle now is exact to a tick.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn cpu_times(&self) -> Result<Vec<(u32, CpuTimes)>, KernelError> {
        let plan = |name: &str| {
            let enumerator = format!("CPUTIME_{name}");
            match self.btf().enumerator_value("cpu_usage_stat", &enumerator) {
                Some(index) => self.plan(&format!("kernel_cpustat.cpustat[{index}]")),
                None => Err(KernelError::NoSymbol { name: enumerator }),
            }
        };
        let names =
            ["USER", "NICE", "SYSTEM", "IDLE", "IOWAIT", "IRQ", "SOFTIRQ", "STEAL", "GUEST", "GUEST_NICE"];
        let plans: Vec<Plan> = names.into_iter().map(plan).collect::<Result<_, _>>()?;
        let online = self.online_cpus()?.0;
        let tickless = self.tickless()?;
        let mut found = Vec::new();
        for cpu in self.possible_cpus()?.0 {
            let at = self.per_cpu("kernel_cpustat", cpu)?;
            let mut numbers = [0; 10];
            for (number, plan) in numbers.iter_mut().zip(&plans) {
                *number = plan.read(self.memory(), at)?;
            }
            let [user, nice, system, mut idle, mut iowait, irq, softirq, steal, guest, guest_nice] = numbers;
            if let Some(tickless) = tickless.as_ref().filter(|_| online.contains(&cpu)) {
                (idle, iowait) = self.sleep_times(tickless, cpu)?;
            }
            let times = CpuTimes { user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice };
            found.push((cpu, times));
        }
        Ok(found)
    }

    /// How many softirqs of each kind each possible CPU ran.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn softirqs(&self) -> Result<Vec<CpuSoftirqs>, KernelError> {
        let first = self.offset("kernel_stat.softirqs[0]")?;
        let read = |at: VirtAddr, number: u64| {
            let count = self.memory().read_u32(at.wrapping_add(first + number * 4));
            count.map(u64::from).map_err(KernelError::read("kstat"))
        };
        let mut found = Vec::new();
        for cpu in self.possible_cpus()?.0 {
            let at = self.per_cpu("kstat", cpu)?;
            let counts: Result<_, KernelError> =
                SOFTIRQS.into_iter().zip(0..).map(|(name, number)| Ok((name, read(at, number)?))).collect();
            found.push((cpu, counts?));
        }
        Ok(found)
    }

    /// How idle time is read where the kernel counts it by itself instead of by ticks (`get_cpu_idle_time_us`); nothing
    /// where it doesn't.
    fn tickless(&self) -> Result<Option<Tickless>, KernelError> {
        match self.variable(&["tick_nohz_active"], 4) {
            Ok(0) => return Ok(None),
            Err(error) if error.kind() == ErrorKind::Absent => return Ok(None),
            other => other?,
        };
        let all = || -> Result<Tickless, KernelError> {
            Ok(Tickless {
                now: self.variable(&["tick_next_period"], 8)?,
                idle: self.plan("tick_sched.idle_sleeptime")?,
                iowait: self.plan("tick_sched.iowait_sleeptime")?,
                entered: self.plan("tick_sched.idle_entrytime")?,
                waiting: self.plan("rq.nr_iowait.counter")?,
                flags: self.plan("tick_sched.flags").ok(),
                // A bit field until 6.9.
                active: self.plan("tick_sched.idle_active").ok(),
            })
        };
        match all() {
            Err(error) if error.kind() == ErrorKind::Absent => Ok(None),
            other => other.map(Some),
        }
    }

    fn sleep_times(&self, plans: &Tickless, cpu: u32) -> Result<(u64, u64), KernelError> {
        let at = self.per_cpu("tick_cpu_sched", cpu)?;
        let read = |plan: &Plan| plan.read(self.memory(), at);
        let (mut idle, mut iowait) = (read(&plans.idle)?, read(&plans.iowait)?);
        let active = match (&plans.active, &plans.flags) {
            (Some(active), _) => read(active)? != 0,
            (None, Some(flags)) => read(flags)? & IDLE_ACTIVE != 0,
            (None, None) => false,
        };
        if active {
            let lasting = plans.now.saturating_sub(read(&plans.entered)?);
            // One that entered after the last tick of any CPU reads as the far future.
            let lasting = if lasting >> 63 == 0 { lasting } else { 0 };
            match plans.waiting.read(self.memory(), self.runqueue(cpu)?)? {
                0 => idle = idle.saturating_add(lasting),
                _ => iowait = iowait.saturating_add(lasting),
            }
        }
        Ok((idle, iowait))
    }
}

struct Tickless {
    /// The next tick, monotonic nanoseconds: at most a tick from now while any CPU has one.
    now: u64,
    idle: Plan,
    iowait: Plan,
    entered: Plan,
    waiting: Plan,
    flags: Option<Plan>,
    active: Option<Plan>,
}
