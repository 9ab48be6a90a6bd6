//! Sampling runqueues at full speed: everything that doesn't change is worked out once.

use std::sync::Arc;

use ktstr_introspect_memory::{PhysAddr, PhysicalMemory};
use ktstr_introspect_types::Leaf;

use crate::{Kernel, KernelError};

/// What one CPU's runqueue said.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RunqueueSample {
    /// The CPU.
    pub cpu: u32,
    /// `rq.nr_running`: tasks, the running one included.
    pub nr_running: u32,
    /// `rq.clock`, nanoseconds.
    pub clock: u64,
    /// `rq.scx.local_dsq.nr`, where the kernel has sched_ext.
    pub local_dsq_nr: Option<u32>,
    /// `rq.nr_switches`.
    pub nr_switches: u64,
}

/// Physical addresses of the sampled fields. A runqueue never moves, and lies in memory that the kernel maps for good.
pub struct RunqueueSampler {
    memory: Arc<dyn PhysicalMemory>,
    cpus: Vec<CpuAddresses>,
}

struct CpuAddresses {
    cpu: u32,
    nr_running: PhysAddr,
    clock: PhysAddr,
    local_dsq_nr: Option<PhysAddr>,
    nr_switches: PhysAddr,
}

impl RunqueueSampler {
    /// Works out where the fields of all possible CPUs are.
    ///
    /// # Errors
    /// [`KernelError`] when a runqueue can't be found or has another layout than a sample needs.
    pub fn new(kernel: &Kernel) -> Result<Self, KernelError> {
        let physical = |cpu, path: &'static str, width| {
            let plan = kernel.plan(path)?;
            let at = plan.address(kernel.memory(), kernel.per_cpu("runqueues", cpu)?)?;
            if plan.leaf() != (Leaf::Word { size: width, signed: false }) {
                let (what, expected) = (path, "an unsigned number of the sample's width");
                return Err(KernelError::Implausible { what, at, seen: plan.size(), expected });
            }
            kernel.memory().translate(at).map(|found| found.0).map_err(KernelError::read(path))
        };
        let mut cpus = Vec::new();
        for cpu in kernel.possible_cpus()?.0 {
            let local_dsq_nr = match physical(cpu, "rq.scx.local_dsq.nr", 4) {
                Err(error) if error.kind() == crate::ErrorKind::Absent => None,
                other => Some(other?),
            };
            cpus.push(CpuAddresses {
                cpu,
                nr_running: physical(cpu, "rq.nr_running", 4)?,
                clock: physical(cpu, "rq.clock", 8)?,
                local_dsq_nr,
                nr_switches: physical(cpu, "rq.nr_switches", 8)?,
            });
        }
        Ok(Self { memory: kernel.memory().physical().clone(), cpus })
    }

    /// Reads every CPU once, into `samples`, which is emptied first. Each number is read whole; the numbers of one CPU
    /// are read one after the other and may be from either side of a switch.
    ///
    /// # Errors
    /// [`KernelError`] when memory has gone away.
    #[inline]
    pub fn sample(
        &self,
        samples: &mut Vec<RunqueueSample>,
    ) -> Result<(), ktstr_introspect_memory::MemoryFault> {
        samples.clear();
        for at in &self.cpus {
            let local_dsq_nr = at.local_dsq_nr.map(|at| self.word(at)).transpose()?;
            samples.push(RunqueueSample {
                cpu: at.cpu,
                nr_running: self.word(at.nr_running)?,
                clock: self.memory.read_u64(at.clock)?,
                local_dsq_nr,
                nr_switches: self.memory.read_u64(at.nr_switches)?,
            });
        }
        Ok(())
    }

    #[inline]
    fn word(&self, at: PhysAddr) -> Result<u32, ktstr_introspect_memory::MemoryFault> {
        let mut bytes = [0; 4];
        self.memory.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }
}
