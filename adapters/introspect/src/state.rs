//! What a kernel looks like, for a failure dump.

use crate::groups::{cgroups, domain};
use crate::scheduler::sched_ext;
use ktstr_introspect_kernel::{ErrorKind, Field, Kernel, KernelError, Runqueue, ScxWait, Task};
use ktstr_introspect_memory::VirtAddr;
use ktstr_machine::VcpuRegisters;
use ktstr_monitor::{KernelState, LongestWait, RunqueueState, TaskState, VcpuState};
use std::path::Path;

/// Tasks that are listed of one runqueue.
const MAX_TASKS: usize = 64;
/// Problems that are listed; a kernel whose memory is gone has one a field.
const MAX_PROBLEMS: usize = 32;

/// Reads runqueues and their tasks, what stands around them, and says where each vCPU is. What
/// can't be read is listed, nothing is fatal.
pub fn kernel_state(kernel: &Kernel, registers: &[VcpuRegisters]) -> KernelState {
    let mut problems = Vec::new();
    let vcpus = vcpus(kernel, registers);
    let mut runqueues = Vec::new();
    match kernel.possible_cpus() {
        Ok(cpus) => {
            for cpu in cpus.0 {
                match kernel.runqueue(cpu) {
                    Ok(at) => runqueues.push(runqueue(kernel, cpu, at, &mut problems)),
                    Err(e) => problems.push(format!("cpu{cpu}'s runqueue: {e}")),
                }
            }
        }
        Err(e) => problems.push(format!("the CPUs: {e}")),
    }
    let cgroups = cgroups(kernel, &mut problems);
    let sched_ext = sched_ext(kernel, &mut problems);
    problems.truncate(MAX_PROBLEMS);
    KernelState { vcpus, runqueues, cgroups, sched_ext, problems, ..KernelState::default() }
}

fn vcpus(kernel: &Kernel, registers: &[VcpuRegisters]) -> Vec<VcpuState> {
    let state = |r: &VcpuRegisters| VcpuState {
        cpu: r.cpu,
        ip: r.ip,
        symbol: in_kernel(r.ip).then(|| code(kernel, VirtAddr(r.ip))).flatten(),
        source: Vec::new(),
        sp: r.sp,
        page_table: r.page_table,
        halted: r.halted,
    };
    registers.iter().map(state).collect()
}

/// What code an address is in: a function of the kernel's, or a BPF program.
pub(crate) fn code(kernel: &Kernel, at: VirtAddr) -> Option<String> {
    let of_bpf = || {
        let program = kernel.bpf_program_at(at).ok().flatten()?;
        Some(format!("BPF program {}", kernel.bpf_program_name(program).ok()?))
    };
    kernel.symbolize(at).or_else(of_bpf)
}

/// The upper half of the address space is the kernel's.
const fn in_kernel(ip: u64) -> bool {
    ip >= 1 << 63
}

/// Adds the source lines of the vCPUs' instruction pointers, as `vmlinux` tells them.
#[cfg(feature = "dwarf")]
pub(crate) fn explain(kernel: &Kernel, vmlinux: Option<&Path>, state: &mut KernelState) {
    use ktstr_introspect_dwarf::{DebugSections, SourceFrame, SourceLines};
    let Some(path) = vmlinux.filter(|_| state.vcpus.iter().any(|v| in_kernel(v.ip))) else { return };
    let Ok(file) = ktstr_introspect_symbols::Vmlinux::open(path) else { return };
    let mut failed = |e| state.problems.push(format!("source lines of {}: {e}", path.display()));
    let sections = match DebugSections::read(file.bytes()) {
        Ok(sections) => sections,
        Err(e) => return failed(e),
    };
    let lines = match SourceLines::open(&sections) {
        Ok(lines) => lines,
        Err(e) => return failed(e),
    };
    let say = |frame: &SourceFrame| {
        let place = match (&frame.file, frame.line) {
            (Some(file), Some(line)) => format!("{file}:{line}"),
            (Some(file), None) => file.clone(),
            (None, _) => "no line".to_string(),
        };
        format!("{} at {place}", frame.function.as_deref().unwrap_or("?"))
    };
    for vcpu in state.vcpus.iter_mut().filter(|v| in_kernel(v.ip)) {
        match lines.frames(kernel.placement().kaslr.undo(VirtAddr(vcpu.ip))) {
            Ok(frames) => vcpu.source = frames.iter().map(say).collect(),
            Err(e) => state.problems.push(format!("the source line of vcpu{}: {e}", vcpu.cpu)),
        }
    }
}

#[cfg(not(feature = "dwarf"))]
pub(crate) fn explain(_: &Kernel, _: Option<&Path>, _: &mut KernelState) {}

fn runqueue(kernel: &Kernel, cpu: u32, at: VirtAddr, problems: &mut Vec<String>) -> RunqueueState {
    let rq = Runqueue::read(kernel, at);
    let mut number = |name: &str, field: &Field<u64>| match field {
        Ok(number) => *number,
        Err(e) => {
            problems.push(format!("cpu{cpu}'s {name}: {e}"));
            0
        }
    };
    let mut state = RunqueueState {
        cpu,
        nr_running: number("nr_running", &rq.nr_running),
        clock: number("clock", &rq.clock),
        nr_switches: number("nr_switches", &rq.nr_switches),
        scx_nr_running: rq.scx_nr_running.ok(),
        local_dsq_nr: rq.scx_local_dsq_nr.ok(),
        scx_flags: rq.scx_flags.ok(),
        ..RunqueueState::default()
    };
    match rq.curr {
        Ok(current) if !current.is_null() => state.current = Some(task(kernel, current)),
        Ok(_) => {}
        Err(e) => problems.push(format!("cpu{cpu}'s running task: {e}")),
    }
    let mut list = |what: &str, found: Result<Vec<VirtAddr>, KernelError>| match found {
        Ok(tasks) => {
            let room = MAX_TASKS.saturating_sub(state.runnable.len());
            state.more += tasks.len().saturating_sub(room);
            state.runnable.extend(tasks.into_iter().take(room).map(|at| task(kernel, at)));
        }
        Err(e) => problems.push(format!("cpu{cpu}'s {what} tasks: {e}")),
    };
    list("real-time", kernel.rt_tasks(at));
    list("fair", kernel.cfs_tasks(at));
    if state.scx_nr_running.is_some() {
        list("sched_ext", kernel.scx_runnable(at));
    }
    match kernel.domains(at) {
        Ok(domains) => state.domains = domains.into_iter().map(|at| domain(kernel, at)).collect(),
        Err(e) if e.kind() == ErrorKind::Absent => {}
        Err(e) => problems.push(format!("cpu{cpu}'s scheduling domains: {e}")),
    }
    state
}

/// Who waits longest under a sched_ext scheduler.
pub(crate) fn longest_wait(kernel: &Kernel, wait: &ScxWait) -> Result<LongestWait, KernelError> {
    let task = Task::read(kernel, wait.task);
    let &ScxWait { cpu, waited, limit, .. } = wait;
    Ok(LongestWait { cpu, pid: task.pid?, comm: task.comm?, waited, limit })
}

fn task(kernel: &Kernel, at: VirtAddr) -> TaskState {
    let task = Task::read(kernel, at);
    let class = kernel.class_of(&task).unwrap_or_else(|_| "?".to_string());
    TaskState {
        pid: task.pid.unwrap_or(-1),
        tgid: task.tgid.unwrap_or(-1),
        comm: task.comm.unwrap_or_else(|e| format!("({e})")),
        class,
        prio: task.prio.unwrap_or(-1),
        state: task.state.unwrap_or_default(),
        runtime_ns: task.se_sum_exec_runtime.unwrap_or_default(),
    }
}
