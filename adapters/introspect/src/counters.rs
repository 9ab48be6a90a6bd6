//! What samples carry beyond runqueues: time in BPF programs, pressure by interrupts, and now and then counters of domains
//! and programs.

use crate::around::NO_PRESSURE;
use crate::groups::domain_counters;
use crate::reasons::Reasons;
use ktstr_introspect_kernel::{ErrorKind, Kernel, KernelError, ProgramSample, ProgramSampler};
use ktstr_monitor::{Counters, ProgramRuns, Sample};
use std::collections::BTreeMap;
use std::time::Duration;

/// How far apart counters are read: they are told by their growth over all of a run, and cost more than the rest.
const PERIOD: Duration = Duration::from_secs(1);

/// Reads them, as far as this kernel has them.
pub(crate) struct CounterReader {
    programs: Option<ProgramSampler>,
    has_irq_pressure: bool,
    left_out: Vec<String>,
    due: Duration,
}

impl CounterReader {
    pub(crate) fn new(kernel: &Kernel) -> Self {
        let mut reasons = Reasons::default();
        let programs = reasons.value(&"the kernel", "BPF programs", ProgramSampler::new(kernel));
        let irq = kernel.irq_pressure();
        if irq.as_ref().is_err_and(|e| e.kind() == ErrorKind::Null) {
            reasons.left_out(format!("pressure by interrupts: {NO_PRESSURE}"));
        }
        let irq = reasons.value(&"the system", "pressure by interrupts", irq);
        reasons.value(&"a CPU", "utilization by interrupts", kernel.plan("rq.avg_irq.util_avg"));
        let (problems, left_out) = reasons.into_lists();
        let left_out = [problems, left_out].concat();
        Self { programs, has_irq_pressure: irq.is_some(), left_out, due: Duration::ZERO }
    }

    /// Adds to a sample what there is. Of what can't be read just now it has none, as of what is torn.
    pub(crate) fn add_to(&mut self, sample: &mut Sample, kernel: &Kernel) {
        let counted = kernel.bpf_stats_enabled().unwrap_or(false);
        let is_due = sample.at >= self.due;
        let programs = self.programs.as_ref().filter(|_| counted || is_due);
        let programs = programs.and_then(|sampler| sampler.sample(kernel).ok());
        if let Some(programs) = programs.as_ref().filter(|_| counted) {
            let times = programs.iter().map(|program| program.run_time_ns);
            sample.bpf_run_time_ns = Some(times.fold(0, u64::wrapping_add));
        }
        if self.has_irq_pressure {
            sample.irq_pressure_us = kernel.irq_pressure().ok();
        }
        if is_due && let Ok(domains) = domains(kernel) {
            self.due = sample.at + PERIOD;
            let programs = programs.unwrap_or_default();
            sample.counters = Some(Box::new(Counters {
                domains,
                programs: programs.iter().map(|program| named(kernel, program)).collect(),
                vcpus: Vec::new(),
                left_out: self.left_out.clone(),
            }));
        }
    }
}

fn named(kernel: &Kernel, program: &ProgramSample) -> (String, ProgramRuns) {
    let ProgramSample { id, runs, run_time_ns, misses, .. } = *program;
    let name = kernel.bpf_program_name(program.program).unwrap_or_else(|_| "?".to_string());
    (format!("{name} (id {id})"), ProgramRuns { runs, run_time_ns, misses })
}

/// The balancing counters of all CPUs' domains, summed by the domains' names.
fn domains(kernel: &Kernel) -> Result<BTreeMap<String, BTreeMap<String, u64>>, KernelError> {
    let mut sums: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    // Torn ones are the next sample's.
    let mut ignored = Reasons::default();
    for cpu in kernel.online_cpus()?.0 {
        for (level, at) in kernel.domains(kernel.runqueue(cpu)?)?.into_iter().enumerate() {
            let name = kernel.domain_name(at).unwrap_or_else(|_| format!("level {level}"));
            let sum = sums.entry(name).or_default();
            for (counter, count) in domain_counters(kernel, at, &"a domain", &mut ignored) {
                let total = sum.entry(counter).or_default();
                *total = total.wrapping_add(count);
            }
        }
    }
    sums.retain(|_, counters| !counters.is_empty());
    Ok(sums)
}
