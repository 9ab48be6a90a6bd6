//! What a kernel looks like, for a failure dump.

use crate::around::{PressureReader, cpu_use, nodes};
use crate::groups::{cgroups, domain};
use crate::reasons::Reasons;
use crate::scheduler::sched_ext;
use crate::tasks::{task, tasks};
use ktstr_introspect_kernel::{ErrorKind, Field, Kernel, KernelError, Runqueue, ScxWait, Task};
use ktstr_introspect_memory::VirtAddr;
use ktstr_machine::VcpuRegisters;
use ktstr_monitor::{KernelState, LongestWait, RunqueueState, VcpuState};
use std::path::Path;

/// Tasks that are listed of one runqueue.
const MAX_TASKS: usize = 64;

/// Reads runqueues, tasks and what stands around them, and says where each vCPU is. What can't be read is listed, nothing
/// is fatal; what this kernel lacks and what was cut short is told, too.
pub fn kernel_state(kernel: &Kernel, registers: &[VcpuRegisters]) -> KernelState {
    let mut reasons = Reasons::default();
    let vcpus = vcpus(kernel, registers, &mut reasons);
    let mut runqueues = Vec::new();
    let cpus = reasons.value(&"the kernel", "possible CPUs", kernel.possible_cpus());
    for cpu in cpus.unwrap_or_default().0 {
        if let Some(at) = reasons.value(&format!("cpu{cpu}"), "runqueue", kernel.runqueue(cpu)) {
            runqueues.push(runqueue(kernel, cpu, at, &mut reasons));
        }
    }
    let pressure = PressureReader::new(kernel, &mut reasons);
    let mut state = KernelState {
        vcpus,
        runqueues,
        tasks: tasks(kernel, &mut reasons),
        cgroups: cgroups(kernel, pressure.as_ref(), &mut reasons),
        cpu_use: cpu_use(kernel, &mut reasons),
        pressure: pressure.map(|pressure| pressure.of_system(&mut reasons)).unwrap_or_default(),
        nodes: nodes(kernel, &mut reasons),
        sched_ext: sched_ext(kernel, &mut reasons),
        ..KernelState::default()
    };
    spinners(&mut state);
    (state.problems, state.left_out) = reasons.into_lists();
    state
}

/// A task that a vCPU was seen spinning for is in that lock's slow path, too.
fn spinners(state: &mut KernelState) {
    for vcpu in &state.vcpus {
        let symbol = vcpu.symbol.as_deref().and_then(|symbol| symbol.split(['+', '.']).next());
        let Some(path) = symbol.filter(|name| name.contains("queued_") && name.contains("_lock_slowpath"))
        else {
            continue;
        };
        let rq = state.runqueues.iter_mut().find(|rq| rq.cpu == vcpu.cpu);
        let Some(task) = rq.and_then(|rq| rq.current.as_mut()) else { continue };
        let pid = task.pid;
        for task in std::iter::once(task).chain(state.tasks.iter_mut().filter(|task| task.pid == pid)) {
            task.lock_slow_path = Some(path.to_string());
        }
    }
}

fn vcpus(kernel: &Kernel, registers: &[VcpuRegisters], reasons: &mut Reasons) -> Vec<VcpuState> {
    let mut symbol = |r: &VcpuRegisters| {
        let found = in_kernel(r.ip).then(|| code_at(kernel, VirtAddr(r.ip)))?;
        reasons.value(&format!("vcpu{}", r.cpu), "symbol", found).flatten()
    };
    let state = |r: &VcpuRegisters| VcpuState {
        cpu: r.cpu,
        ip: r.ip,
        symbol: symbol(r),
        source: Vec::new(),
        sp: r.sp,
        page_table: r.page_table,
        halted: r.halted,
        counters: None,
    };
    registers.iter().map(state).collect()
}

/// What code an address is in: a function of the kernel's or of a module's, or a BPF program; `None` too where that
/// can't be found out.
pub(crate) fn code(kernel: &Kernel, at: VirtAddr) -> Option<String> {
    code_at(kernel, at).ok().flatten()
}

fn code_at(kernel: &Kernel, at: VirtAddr) -> Result<Option<String>, KernelError> {
    if let Some(symbol) = kernel.symbolize(at) {
        return Ok(Some(symbol));
    }
    if let Some(symbol) = kernel.module_symbol(at)? {
        return Ok(Some(symbol));
    }
    let program = match kernel.bpf_program_at(at) {
        Err(e) if e.kind() == ErrorKind::Absent => None,
        other => other?,
    };
    program.map(|program| Ok(format!("BPF program {}", kernel.bpf_program_name(program)?))).transpose()
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

fn runqueue(kernel: &Kernel, cpu: u32, at: VirtAddr, reasons: &mut Reasons) -> RunqueueState {
    let rq = Runqueue::read(kernel, at);
    let of = format!("cpu{cpu}");
    // Without sched_ext these are missing all together; the dump says that of all of sched_ext.
    let scx_nr_running = reasons.quiet(&of, "sched_ext nr_running", rq.scx_nr_running);
    let has_scx = scx_nr_running.is_some();
    let mut of_scx = |what: &str, field: Field<u64>| {
        if has_scx { reasons.value(&of, what, field) } else { None }
    };
    let mut state = RunqueueState {
        cpu,
        scx_nr_running,
        local_dsq_nr: of_scx("sched_ext local_dsq.nr", rq.scx_local_dsq_nr),
        scx_flags: of_scx("sched_ext flags", rq.scx_flags),
        scx_cpu_released: of_scx("sched_ext cpu_released", rq.scx_cpu_released.map(u64::from))
            .map(|n| n != 0),
        scx_ops_qseq: of_scx("sched_ext ops_qseq", rq.scx_ops_qseq),
        scx_kick_sync: of_scx("sched_ext kick_sync", rq.scx_kick_sync),
        nr_running: reasons.value(&of, "nr_running", rq.nr_running).unwrap_or_default(),
        clock: reasons.value(&of, "clock", rq.clock).unwrap_or_default(),
        nr_switches: reasons.value(&of, "nr_switches", rq.nr_switches).unwrap_or_default(),
        irq_util: reasons.value(&of, "utilization by interrupts", rq.irq_util_avg),
        ..RunqueueState::default()
    };
    let current = reasons.value(&of, "running task", rq.curr).filter(|current| !current.is_null());
    state.current = current.map(|current| task(kernel, current, reasons));
    // As the kernel picks them.
    let mut queues = vec![
        ("deadline tasks", kernel.dl_tasks(at)),
        ("real-time tasks", kernel.rt_tasks(at)),
        ("fair tasks", kernel.cfs_tasks(at)),
    ];
    if has_scx {
        queues.push(("sched_ext tasks", kernel.scx_runnable(at)));
    }
    for (what, found) in queues {
        let found = reasons.value(&of, what, found).unwrap_or_default();
        let room = MAX_TASKS.saturating_sub(state.runnable.len());
        state.more += found.len().saturating_sub(room);
        state.runnable.extend(found.into_iter().take(room).map(|at| task(kernel, at, reasons)));
    }
    let domains = reasons.value(&of, "scheduling domains", kernel.domains(at)).unwrap_or_default();
    state.domains = domains.into_iter().map(|at| domain(kernel, cpu, at, reasons)).collect();
    state
}

/// Who waits longest under a sched_ext scheduler.
pub(crate) fn longest_wait(kernel: &Kernel, wait: &ScxWait) -> Result<LongestWait, KernelError> {
    let task = Task::read(kernel, wait.task);
    let &ScxWait { cpu, waited, limit, .. } = wait;
    Ok(LongestWait { cpu, pid: task.pid?, comm: task.comm?, waited, limit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_monitor::TaskState;

    #[test]
    fn who_spins_for_a_lock_is_in_its_slow_path() {
        let task = |pid| TaskState { pid, ..TaskState::default() };
        let vcpu = |cpu, symbol: &str| VcpuState { cpu, symbol: Some(symbol.into()), ..VcpuState::default() };
        let rq = |cpu, pid| RunqueueState { cpu, current: Some(task(pid)), ..RunqueueState::default() };
        let mut state = KernelState {
            vcpus: vec![vcpu(0, "native_queued_spin_lock_slowpath+0x1c"), vcpu(1, "schedule+0x1")],
            runqueues: vec![rq(0, 7), rq(1, 8)],
            tasks: vec![task(6), task(7), task(8)],
            ..KernelState::default()
        };
        spinners(&mut state);
        let path = |task: &TaskState| task.lock_slow_path.clone();
        assert_eq!(
            state.tasks.iter().map(path).collect::<Vec<_>>(),
            [None, Some("native_queued_spin_lock_slowpath".into()), None]
        );
        let current = |rq: &RunqueueState| rq.current.as_ref().and_then(path).is_some();
        assert_eq!(state.runqueues.iter().map(current).collect::<Vec<_>>(), [true, false]);
    }
}
