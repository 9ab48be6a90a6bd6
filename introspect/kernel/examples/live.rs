//! `live RAM_FILE [SECONDS]`: walks a running guest over and over and counts the outcomes of each walk. RAM_FILE is
//! what a hypervisor maps as guest memory from physical address 0. Nothing but `torn` may go wrong.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ktstr_introspect_kernel::{BpfMapKind, Kernel, KernelError, RunqueueSampler};
use ktstr_introspect_memory::RawImage;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let ram = RawImage::open(Path::new(&arguments.next().ok_or("usage: live RAM_FILE [SECONDS]")?))?;
    let end = Instant::now() + Duration::from_secs(arguments.next().map_or(Ok(10), |text| text.parse())?);
    let kernel = Kernel::open(Arc::new(ram), None)?;
    let sampler = RunqueueSampler::new(&kernel)?;
    let (mut counts, mut clocks) = (BTreeMap::new(), BTreeMap::new());
    let mut samples = Vec::new();
    let mut note = |what, outcome: Result<usize, KernelError>| {
        let kind = outcome.as_ref().map_or_else(|error| format!("{:?}", error.kind()), |_| "ok".into());
        let entry: &mut (u64, String) = counts.entry((what, kind)).or_default();
        entry.0 += 1;
        entry.1 = outcome.map_or_else(|error| error.to_string(), |found| format!("{found} found"));
    };
    while Instant::now() < end {
        note("tasks", kernel.tasks().map(|found| found.len()));
        note("tasks by pid", kernel.tasks_by_pid().map(|found| found.len()));
        note("cgroups", kernel.cgroups().map(|found| found.len()));
        note("dispatch queues", kernel.dispatch_queues().map(|found| found.len()));
        note("bpf programs", kernel.bpf_programs().map(|found| found.len()));
        for program in kernel.bpf_programs().unwrap_or_default() {
            note("bpf statistics", kernel.bpf_program_stats(program).map(|stats| stats.run_count as usize));
        }
        note("bpf variables", kernel.bpf_variable(".bss", "nr_enqueued").map(|found| found.size as usize));
        for map in kernel.bpf_maps().unwrap_or_default() {
            match kernel.bpf_map_kind(map) {
                Ok(BpfMapKind::Hash | BpfMapKind::PerCpuHash) => {
                    note("bpf hashes", kernel.bpf_map_contents(map, 10_000).map(|found| found.entries.len()));
                }
                Ok(BpfMapKind::Array | BpfMapKind::PerCpuArray) => {
                    note("bpf arrays", kernel.bpf_map_contents(map, 10_000).map(|found| found.entries.len()));
                }
                Ok(BpfMapKind::Arena) => {
                    note("bpf arenas", kernel.bpf_arena_pages(map, 4096).map(|found| found.pages.len()));
                }
                _ => {}
            }
        }
        for queue in kernel.dispatch_queues().unwrap_or_default() {
            note("queued tasks", kernel.queued_tasks(queue).map(|found| found.len()));
            note("queued by vtime", kernel.queued_by_vtime(queue).map(|found| found.len()));
        }
        note("exit reports", kernel.scx_exit_report().map(|report| usize::from(report.is_some())));
        for cpu in kernel.possible_cpus()?.0 {
            let rq = kernel.runqueue(cpu)?;
            note("cfs tasks", kernel.cfs_tasks(rq).map(|found| found.len()));
            note("cfs timeline", kernel.cfs_timeline(rq).map(|found| found.len()));
            note("rt tasks", kernel.rt_tasks(rq).map(|found| found.len()));
            note("scx runnable", kernel.scx_runnable(rq).map(|found| found.len()));
        }
        sampler.sample(&mut samples)?;
        for sample in &samples {
            let before = clocks.insert(sample.cpu, sample.clock).unwrap_or(0);
            if sample.clock < before {
                println!("cpu {} clock went back from {before} to {}", sample.cpu, sample.clock);
            }
        }
    }
    for ((what, kind), (times, last)) in counts {
        println!("{what}: {kind} {times} times, last: {last}");
    }
    Ok(())
}
