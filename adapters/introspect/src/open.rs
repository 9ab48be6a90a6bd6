//! Finding the kernel, and what of it is sampled.

use crate::counters::CounterReader;
use crate::index::{ByIndex, IndexCache};
use crate::memory::MachineMemory;
use crate::scheduler::queue_depths;
use crate::variables::Variables;
use ktstr_introspect_kernel::{ErrorKind, Kernel, KernelError, RunqueueSample, RunqueueSampler};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_symbols::Vmlinux;
use ktstr_introspect_types::Plan;
use ktstr_monitor::{CpuSample, Sample, SampleError, Schedstat};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A kernel that was found, ready to be sampled.
pub(crate) struct Opened {
    pub(crate) kernel: Kernel,
    /// Whether the vmlinux is this kernel's.
    pub(crate) by_file: bool,
    /// Types of the kernel's variables.
    pub(crate) variables: Variables,
    /// How long it took to find it, and what helped.
    pub(crate) finding: (Duration, String),
    /// What did not go as it could have.
    pub(crate) remarks: Vec<String>,
    sampler: RunqueueSampler,
    plans: Plans,
    /// Where each possible CPU's runqueue is.
    runqueues: BTreeMap<u32, VirtAddr>,
    counts_events: bool,
    counters: CounterReader,
    buffer: Vec<RunqueueSample>,
}

/// Members beyond what every kernel has; `None` where this one lacks them.
struct Plans {
    scx_nr_running: Option<Plan>,
    scx_flags: Option<Plan>,
    tick_stopped: Option<Plan>,
    curr_pid: Option<Plan>,
    curr_prio: Option<Plan>,
    curr_comm: Option<Plan>,
    irq_util: Option<Plan>,
    schedstat: Option<[Plan; 7]>,
}

impl Opened {
    /// Finds the kernel in `memory`: by the symbols of `vmlinux` if there is one and it is
    /// this kernel's, else by what the kernel itself keeps in memory.
    pub(crate) fn find(
        memory: Arc<dyn ktstr_machine::PhysicalMemory>,
        vmlinux: Option<&Path>,
        index: Option<&IndexCache>,
    ) -> Result<Self, SampleError> {
        let start = Instant::now();
        let memory = Arc::new(MachineMemory::new(memory));
        let mut remarks = Vec::new();
        let by_file = vmlinux.and_then(|path| {
            let opened = Vmlinux::open(path).map_err(KernelError::from);
            let kernel = opened.and_then(|file| open(memory.clone(), Some(&file), index));
            kernel.map_err(|e| remarks.push(format!("{} was of no use: {e}", path.display()))).ok()
        });
        let from_file = by_file.is_some();
        let ByIndex { kernel, how } = match by_file {
            Some(kernel) => kernel,
            None => open(memory, None, index).map_err(|e| {
                let text = format!("finding the kernel in guest memory: {e}");
                SampleError::Broken(remarks.iter().fold(text, |text, remark| format!("{text}; {remark}")))
            })?,
        };
        let mut opened = Self::new(kernel, from_file, remarks)
            .map_err(|e| SampleError::Broken(format!("preparing to sample: {e}")))?;
        opened.finding = (start.elapsed(), how);
        opened.variables = Variables::new(vmlinux.filter(|_| from_file), index.cloned());
        Ok(opened)
    }

    fn new(kernel: Kernel, by_file: bool, remarks: Vec<String>) -> Result<Self, KernelError> {
        let mut runqueues = BTreeMap::new();
        for cpu in kernel.possible_cpus()?.0 {
            runqueues.insert(cpu, kernel.runqueue(cpu)?);
        }
        let plan = |path: &str| kernel.plan(path).ok();
        let plans = Plans {
            scx_nr_running: plan("rq.scx.nr_running"),
            scx_flags: plan("rq.scx.flags"),
            tick_stopped: plan("rq.nohz_tick_stopped"),
            curr_pid: plan("rq.curr->pid"),
            curr_prio: plan("rq.curr->prio"),
            curr_comm: plan("rq.curr->comm"),
            irq_util: plan("rq.avg_irq.util_avg"),
            schedstat: schedstat_plans(&kernel),
        };
        let counts_events = !matches!(kernel.scx_events(), Err(e) if e.kind() == ErrorKind::Absent);
        let sampler = RunqueueSampler::new(&kernel)?;
        let counters = CounterReader::new(&kernel);
        let (finding, buffer, variables) = Default::default();
        Ok(Self {
            kernel,
            by_file,
            variables,
            finding,
            remarks,
            sampler,
            plans,
            runqueues,
            counts_events,
            counters,
            buffer,
        })
    }

    /// Reads every online CPU once.
    pub(crate) fn sample(&mut self, at: Duration) -> Result<Sample, SampleError> {
        let online = self.kernel.online_cpus().map_err(|e| sample_error(&e))?.0;
        self.sampler.sample(&mut self.buffer).map_err(|fault| SampleError::Unmapped(fault.to_string()))?;
        let cpus = self.buffer.iter().filter(|s| online.contains(&s.cpu)).map(|s| self.cpu(s)).collect();
        // A scheduler that is being unloaded takes its counters along: then there are none.
        let events = self.counts_events.then(|| self.kernel.scx_events().ok()).flatten();
        let events = events.map(|events| events.into_iter().collect());
        let queues = queue_depths(&self.kernel);
        let mut sample = Sample { at, cpus, events, queues, ..Sample::default() };
        self.counters.add_to(&mut sample, &self.kernel);
        Ok(sample)
    }

    fn cpu(&self, sample: &RunqueueSample) -> CpuSample {
        let rq = self.runqueues.get(&sample.cpu);
        let read = |plan: &Option<Plan>| plan.as_ref()?.read(self.kernel.memory(), *rq?).ok();
        CpuSample {
            cpu: sample.cpu,
            nr_running: sample.nr_running,
            clock: sample.clock,
            nr_switches: sample.nr_switches,
            scx_nr_running: read(&self.plans.scx_nr_running).and_then(|n| u32::try_from(n).ok()),
            local_dsq_nr: sample.local_dsq_nr,
            scx_flags: read(&self.plans.scx_flags).and_then(|n| u32::try_from(n).ok()),
            curr_pid: read(&self.plans.curr_pid).map(|pid| pid as i32),
            curr_prio: read(&self.plans.curr_prio).map(|prio| prio as i32),
            curr_comm: rq.map(|rq| self.comm(*rq)).unwrap_or_default(),
            tick_stopped: read(&self.plans.tick_stopped).map(|n| n != 0),
            vcpu_time: None,
            schedstat: rq.and_then(|rq| self.schedstat(*rq)),
            irq_util: read(&self.plans.irq_util).and_then(|n| u32::try_from(n).ok()),
        }
    }

    fn schedstat(&self, rq: VirtAddr) -> Option<Schedstat> {
        let mut numbers = [0; 7];
        for (number, plan) in numbers.iter_mut().zip(self.plans.schedstat.as_ref()?) {
            *number = plan.read(self.kernel.memory(), rq).ok()?;
        }
        let [run_delay, pcount, yld_count, sched_count, sched_goidle, ttwu_count, ttwu_local] = numbers;
        Some(Schedstat { run_delay, pcount, yld_count, sched_count, sched_goidle, ttwu_count, ttwu_local })
    }

    /// The running task's name; empty where it can't be read.
    fn comm(&self, rq: VirtAddr) -> [u8; 16] {
        let mut comm = [0; 16];
        let memory = self.kernel.memory();
        if let Some(Ok(at)) = self.plans.curr_comm.as_ref().map(|plan| plan.address(memory, rq))
            && memory.read(at, &mut comm).is_err()
        {
            comm = [0; 16];
        }
        comm
    }
}

fn open(
    memory: Arc<MachineMemory>,
    vmlinux: Option<&Vmlinux>,
    index: Option<&IndexCache>,
) -> Result<ByIndex, KernelError> {
    match index {
        Some(index) => index.try_open(memory, vmlinux),
        None => Kernel::open(memory, vmlinux)
            .map(|kernel| ByIndex { kernel, how: "without an index".to_string() }),
    }
}

/// In the order of [`Schedstat`]'s fields; `None` when the kernel lacks one of them.
fn schedstat_plans(kernel: &Kernel) -> Option<[Plan; 7]> {
    let plan = |name: &str| kernel.plan(&format!("rq.{name}")).ok();
    Some([
        plan("rq_sched_info.run_delay")?,
        plan("rq_sched_info.pcount")?,
        plan("yld_count")?,
        plan("sched_count")?,
        plan("sched_goidle")?,
        plan("ttwu_count")?,
        plan("ttwu_local")?,
    ])
}

/// The monitor's word for a kernel that can't be read.
pub(crate) fn sample_error(error: &KernelError) -> SampleError {
    let text = error.to_string();
    match error.kind() {
        ErrorKind::Absent | ErrorKind::Null => SampleError::Absent(text),
        ErrorKind::Unmapped => SampleError::Unmapped(text),
        ErrorKind::Torn => SampleError::Torn(text),
        ErrorKind::Broken => SampleError::Broken(text),
    }
}
