//! Sampling runqueues at full speed: everything that doesn't change is worked out once.

use std::sync::Arc;

use ktstr_introspect_memory::{PhysAddr, PhysicalMemory, VirtAddr};
use ktstr_introspect_types::{Leaf, Plan};

use crate::{ErrorKind, Kernel, KernelError};

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

/// How often a BPF program ran, summed over CPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramSample {
    /// Its `struct bpf_prog`.
    pub program: VirtAddr,
    /// Its ID.
    pub id: u64,
    /// Runs; counted only with `kernel.bpf_stats_enabled`.
    pub runs: u64,
    /// Time in it, nanoseconds; as above.
    pub run_time_ns: u64,
    /// Runs that recursion prevented.
    pub misses: u64,
}

/// Reads the statistics of all BPF programs by plans that were compiled once; [`Kernel::bpf_program_stats`] reads those of
/// one.
#[derive(Debug)]
pub struct ProgramSampler {
    id: Plan,
    stats: Plan,
    runs: Plan,
    time: Plan,
    misses: Option<Plan>,
}

impl ProgramSampler {
    /// Works out where the numbers are.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] without BPF.
    pub fn new(kernel: &Kernel) -> Result<Self, KernelError> {
        kernel.symbol("prog_idr")?;
        let misses = match kernel.counter("bpf_prog_stats.misses") {
            Err(error) if error.kind() == ErrorKind::Absent => None,
            other => Some(other?),
        };
        Ok(Self {
            id: kernel.plan("bpf_prog.aux->id")?,
            stats: kernel.plan("bpf_prog.stats")?,
            runs: kernel.counter("bpf_prog_stats.cnt")?,
            time: kernel.counter("bpf_prog_stats.nsecs")?,
            misses,
        })
    }

    /// Reads every program once, by ID. Those without statistics (subprograms) aren't among them.
    ///
    /// # Errors
    /// [`KernelError`] when programs or their numbers can't be read.
    pub fn sample(&self, kernel: &Kernel) -> Result<Vec<ProgramSample>, KernelError> {
        let memory = kernel.memory();
        let cpus = kernel.possible_cpus()?.0;
        let mut found = Vec::new();
        for program in kernel.bpf_programs()? {
            let pointer = VirtAddr(self.stats.read(memory, program)?);
            if pointer.is_null() {
                continue;
            }
            let id = self.id.read(memory, program)?;
            let mut sample = ProgramSample { program, id, runs: 0, run_time_ns: 0, misses: 0 };
            for cpu in &cpus {
                let at = kernel.per_cpu_pointer(pointer, *cpu)?;
                sample.runs = sample.runs.wrapping_add(self.runs.read(memory, at)?);
                sample.run_time_ns = sample.run_time_ns.wrapping_add(self.time.read(memory, at)?);
                if let Some(misses) = &self.misses {
                    sample.misses = sample.misses.wrapping_add(misses.read(memory, at)?);
                }
            }
            found.push(sample);
        }
        Ok(found)
    }
}

impl Kernel {
    /// Whether the runs of BPF programs are counted: `kernel.bpf_stats_enabled`, a static key of which the first word is how
    /// often it was turned on.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Absent`] without BPF.
    pub fn bpf_stats_enabled(&self) -> Result<bool, KernelError> {
        Ok(self.variable(&["bpf_stats_enabled_key"], 4)? != 0)
    }
}
