//! `hostile CORE VMLINUX [SECONDS]`: reads a core through memory that lies, a different lie each round, and counts what
//! comes of it. The only failures would be a panic or a walk without end: the slowest round is printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use ktstr_introspect_kernel::{Cgroup, Kernel, KernelError, Runqueue, SchedDomain, Task};
use ktstr_introspect_memory::{ElfCore, MemoryFault, PhysAddr, PhysRange, PhysicalMemory};
use ktstr_introspect_symbols::Vmlinux;
use ktstr_introspect_types::DecodeLimits;

/// Gives one word in `1 << rate` another value: noise, a small number, or a word of the core from elsewhere.
struct Liar {
    core: ElfCore,
    state: AtomicU64,
    rate: AtomicU64,
}

impl PhysicalMemory for Liar {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.core.read(at, into)?;
        let mut random = self.state.load(Ordering::Relaxed);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.state.store(random, Ordering::Relaxed);
        let rate = self.rate.load(Ordering::Relaxed);
        if rate > 0 && random >> (64 - rate) == 0 && into.len() <= 8 {
            let noise = match random >> 8 & 3 {
                0 => random,
                1 => random >> 16 & 0xff,
                _ => self.core.read_u64(PhysAddr(random >> 10 & 0x0fff_fff8)).unwrap_or(0),
            };
            into.copy_from_slice(&noise.to_le_bytes()[..into.len()]);
        }
        Ok(())
    }

    fn ranges(&self) -> &[PhysRange] {
        self.core.ranges()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [core, vmlinux, rest @ ..] = &arguments[..] else {
        return Err("usage: hostile CORE VMLINUX [SECONDS]".into());
    };
    let core = ElfCore::open(Path::new(core))?;
    let liar = Arc::new(Liar { core, state: AtomicU64::new(1), rate: AtomicU64::new(0) });
    let kernel = Kernel::open(liar.clone(), Some(&Vmlinux::open(Path::new(vmlinux))?))?;
    let end = Instant::now() + Duration::from_secs(rest.first().map_or(Ok(10), |text| text.parse())?);
    let (mut counts, mut slowest, mut rounds) = (BTreeMap::new(), Duration::ZERO, 0u64);
    while Instant::now() < end {
        liar.rate.store(2 + rounds % 12, Ordering::Relaxed);
        let start = Instant::now();
        for error in round(&kernel) {
            *counts.entry(format!("{:?}", error.kind())).or_insert(0u64) += 1;
        }
        slowest = slowest.max(start.elapsed());
        rounds += 1;
    }
    println!("{rounds} rounds, slowest {slowest:?}, errors {counts:?}");
    Ok(())
}

/// Everything there is to read, once; the errors of it.
fn round(kernel: &Kernel) -> Vec<KernelError> {
    let mut errors = Vec::new();
    let mut tasks = take(&mut errors, kernel.tasks());
    tasks.extend(take(&mut errors, kernel.tasks_by_pid()).into_iter().map(|(_, at)| at));
    for cgroup in take(&mut errors, kernel.cgroups()) {
        let _ = Cgroup::read(kernel, cgroup.address);
        tasks.extend(take(&mut errors, kernel.cgroup_tasks(cgroup.address)));
        if let Ok(Some(set)) = kernel.cpuset(cgroup.address) {
            let _ = take(&mut errors, kernel.cpuset_cpus(set, "effective_cpus").map(|cpus| cpus.0));
        }
    }
    for cpu in 0..4 {
        let Ok(rq) = kernel.runqueue(cpu) else { continue };
        let _ = Runqueue::read(kernel, rq);
        for walk in [
            Kernel::cfs_tasks,
            Kernel::cfs_timeline,
            Kernel::rt_tasks,
            Kernel::dl_entities,
            Kernel::scx_runnable,
        ] {
            tasks.extend(take(&mut errors, walk(kernel, rq)));
        }
        for domain in take(&mut errors, kernel.domains(rq)) {
            let _ = (SchedDomain::read(kernel, domain), kernel.domain_name(domain));
            let _ = take(&mut errors, kernel.domain_groups(domain));
        }
    }
    for queue in take(&mut errors, kernel.dispatch_queues()) {
        tasks.extend(take(&mut errors, kernel.queued_tasks(queue)));
        tasks.extend(take(&mut errors, kernel.queued_by_vtime(queue)));
    }
    let _ = (kernel.sched_ext(), kernel.scx_events(), kernel.scx_operations());
    bpf(kernel, &mut errors);
    for task in tasks.into_iter().take(500) {
        let _ = kernel.class_of(&Task::read(kernel, task));
    }
    errors
}

fn bpf(kernel: &Kernel, errors: &mut Vec<KernelError>) {
    for map in take(errors, kernel.bpf_maps()) {
        let _ = take(errors, kernel.bpf_map_contents(map, 1000).map(|found| found.entries));
        let _ = take(errors, kernel.bpf_arena_pages(map, 64).map(|found| found.pages));
        let _ = take(errors, kernel.bpf_struct_ops(map).map(|found| found.programs));
        for variable in take(errors, kernel.bpf_variables(map)).iter().take(100) {
            let limits = DecodeLimits { elements: 100, values: 1000 };
            let _ = take(errors, kernel.bpf_value(variable, limits).map(|value| vec![value]));
        }
    }
    for program in take(errors, kernel.bpf_programs()) {
        let _ = take(errors, kernel.bpf_program_stats(program).map(|stats| stats.by_cpu));
        let _ = take(errors, kernel.bpf_program_maps(program));
        let _ = take(errors, kernel.bpf_program_name(program).map(|name| vec![name]));
    }
    let _ = take(errors, kernel.bpf_exit_records());
    let _ = take(errors, kernel.module_type_infos());
    let _ =
        take(errors, kernel.scx_exit_report().map(|report| report.map_or(Vec::new(), |report| report.trace)));
}

fn take<T>(errors: &mut Vec<KernelError>, result: Result<Vec<T>, KernelError>) -> Vec<T> {
    result.map_err(|error| errors.push(error)).unwrap_or_default()
}
