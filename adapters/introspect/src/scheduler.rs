//! sched_ext as a whole, and the BPF scheduler behind it: its queues, programs, maps and variables.

use crate::maps::map;
use crate::state::code;
use crate::typed::Budget;
use ktstr_introspect_kernel::{
    BpfMapKind, BpfProgram, DispatchQueue, ErrorKind, Kernel, KernelError, SchedExtOps, Task,
};
use ktstr_introspect_memory::VirtAddr;
use ktstr_monitor::{MapState, ProgramState, QueueState, SchedExtState, SchedulerExit};
use std::collections::{BTreeMap, BTreeSet};

/// Dispatch queues that are listed, and tasks of each.
const MAX_QUEUES: usize = 256;
const MAX_QUEUED: usize = 16;
/// Characters of a value, of an exit's message and of its reason.
const MAX_TEXT: usize = 512;

/// `None` where the kernel has no sched_ext.
pub(crate) fn sched_ext(kernel: &Kernel, problems: &mut Vec<String>) -> Option<SchedExtState> {
    let seen = kernel.sched_ext();
    let mut state = SchedExtState {
        state: seen.state.ok()?,
        ops: seen.ops.ok().and_then(|at| SchedExtOps::read(kernel, at).name.ok()).filter(|n| !n.is_empty()),
        exit_kind: seen.exit_kind.ok(),
        bypass_depth: seen.bypass_depth.ok(),
        enable_seq: seen.enable_seq.ok(),
        watchdog_timeout: seen.watchdog_timeout.ok(),
        nr_rejected: seen.nr_rejected.ok(),
        ..SchedExtState::default()
    };
    // A scheduler that is being unloaded takes queues and exit information along.
    state.exit = exit(kernel);
    state.dsqs = kernel
        .dispatch_queues()
        .unwrap_or_default()
        .into_iter()
        .take(MAX_QUEUES)
        .filter_map(|at| queue(kernel, at))
        .collect();
    match scheduler(kernel) {
        Ok(found) => (state.programs, state.maps) = found,
        Err(e) if e.kind() == ErrorKind::Absent => {}
        Err(e) => problems.push(format!("the scheduler's BPF programs and maps: {e}")),
    }
    Some(state)
}

/// Why the scheduler ends, from the kernel; where that has forgotten already, from the scheduler.
fn exit(kernel: &Kernel) -> Option<SchedulerExit> {
    let of_kernel = kernel.scx_exit_report().ok().flatten().filter(|report| report.kind != "none");
    if let Some(report) = of_kernel {
        return Some(SchedulerExit {
            kind: report.kind,
            exit_code: Some(report.exit_code),
            reason: short(&report.reason),
            message: short(&report.message),
            trace: report
                .trace
                .iter()
                .map(|at| code(kernel, *at).unwrap_or_else(|| at.to_string()))
                .collect(),
        });
    }
    let records = kernel.bpf_exit_records().unwrap_or_default();
    let record = records.into_iter().find(|record| record.kind != 0)?;
    Some(SchedulerExit {
        kind: kernel.scx_exit_kind_name(record.kind),
        exit_code: Some(record.exit_code),
        reason: short(&record.reason),
        message: short(&record.message),
        trace: Vec::new(),
    })
}

/// A dispatch queue with the first of its tasks. `None` for one that goes away.
fn queue(kernel: &Kernel, at: VirtAddr) -> Option<QueueState> {
    let queue = DispatchQueue::read(kernel, at);
    let (id, nr) = (queue.id.ok()?, queue.nr.ok()?);
    let tasks = if nr == 0 { Vec::new() } else { kernel.queued_tasks(at).unwrap_or_default() };
    let named = |at: &VirtAddr| {
        let task = Task::read(kernel, *at);
        (task.pid.unwrap_or(-1), task.comm.unwrap_or_else(|e| format!("({e})")))
    };
    Some(QueueState {
        id,
        name: kernel.queue_name(id),
        nr,
        tasks: tasks.iter().take(MAX_QUEUED).map(named).collect(),
        by_vtime: nr > 0 && kernel.queued_by_vtime(at).is_ok_and(|tasks| !tasks.is_empty()),
    })
}

/// All dispatch queues: the local ones of each CPU, then the rest as the kernel has them.
///
/// # Errors
/// [`KernelError`], [`ErrorKind::Absent`] without sched_ext.
pub fn dispatch_queues(kernel: &Kernel) -> Result<Vec<(Option<u32>, QueueState)>, KernelError> {
    let mut found = Vec::new();
    for cpu in kernel.possible_cpus()?.0 {
        let at = kernel.local_queue(kernel.runqueue(cpu)?)?;
        found.extend(queue(kernel, at).map(|queue| (Some(cpu), queue)));
    }
    let others = match kernel.dispatch_queues() {
        Ok(others) => others,
        // No scheduler is loaded.
        Err(e) if e.kind() == ErrorKind::Null => Vec::new(),
        Err(e) => return Err(e),
    };
    found.extend(others.into_iter().filter_map(|at| queue(kernel, at)).map(|queue| (None, queue)));
    Ok(found)
}

/// All BPF programs of the kernel, by ID.
///
/// # Errors
/// [`KernelError`], [`ErrorKind::Absent`] without BPF.
pub fn programs(kernel: &Kernel) -> Result<Vec<ProgramState>, KernelError> {
    let one = |at| {
        let implements = kernel.bpf_program_implements(at).unwrap_or_default();
        program(kernel, &BpfProgram::read(kernel, at), &implements)
    };
    Ok(kernel.bpf_programs()?.into_iter().map(one).collect())
}

/// All BPF maps of the kernel, by ID.
///
/// # Errors
/// As [`programs`].
pub fn maps(kernel: &Kernel) -> Result<Vec<MapState>, KernelError> {
    let loaded = kernel.bpf_scheduler_maps().unwrap_or_default();
    let one = |at| MapState { in_use: loaded.contains(&at), ..map(kernel, at, &mut Budget::default()) };
    Ok(kernel.bpf_maps()?.into_iter().map(one).collect())
}

type Parts = (Vec<ProgramState>, Vec<MapState>);

/// What the maps of kind struct_ops that implement `sched_ext_ops` refer to. Of a scheduler whose program is still
/// there it is found even after the kernel dropped it.
fn scheduler(kernel: &Kernel) -> Result<Parts, KernelError> {
    let maps = kernel.bpf_maps()?;
    let mut implements = BTreeMap::new();
    for map in &maps {
        if kernel.bpf_map_kind(*map).ok() != Some(BpfMapKind::StructOps) {
            continue;
        }
        // One that goes away is as good as gone.
        let Ok(ops) = kernel.bpf_struct_ops(*map) else { continue };
        if ops.interface == "sched_ext_ops" {
            implements.extend(ops.programs.into_iter().map(|(member, id)| (u64::from(id), member)));
        }
    }
    if implements.is_empty() {
        return Ok(Parts::default());
    }
    let (mut programs, mut used) = (Vec::new(), BTreeSet::new());
    for at in kernel.bpf_programs()? {
        let seen = BpfProgram::read(kernel, at);
        let Some(member) = seen.id.as_ref().ok().and_then(|id| implements.get(id)) else { continue };
        programs.push(program(kernel, &seen, member));
        used.extend(kernel.bpf_program_maps(at).unwrap_or_default());
    }
    // Of none that is loaded, all is left over.
    let (loaded, mut budget) = (kernel.bpf_scheduler_maps().unwrap_or_default(), Budget::default());
    // The loaded scheduler's come first to what may be kept.
    let (first, rest): (Vec<_>, Vec<_>) =
        maps.iter().filter(|at| used.contains(at)).partition(|at| loaded.contains(at));
    let one = |at: &VirtAddr| MapState { in_use: loaded.contains(at), ..map(kernel, *at, &mut budget) };
    let mut maps: Vec<MapState> = first.into_iter().chain(rest).map(one).collect();
    maps.sort_by_key(|map| map.id);
    Ok((programs, maps))
}

/// A program; `implements` is the operation that it is.
fn program(kernel: &Kernel, seen: &BpfProgram, implements: &str) -> ProgramState {
    let stats = kernel.bpf_program_stats(seen.address).unwrap_or_default();
    ProgramState {
        id: seen.id.as_ref().copied().unwrap_or_default(),
        name: kernel.bpf_program_name(seen.address).unwrap_or_else(|e| format!("({e})")),
        kind: kernel.bpf_program_kind(seen.address).unwrap_or_default(),
        implements: implements.to_string(),
        verified_insns: seen.verified_insns.as_ref().ok().copied(),
        run_count: stats.run_count,
        run_time_ns: stats.run_time_ns,
        misses: stats.misses,
    }
}

/// The first characters of a text.
pub(crate) fn short(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(short("brief"), "brief");
        let long = short(&"µ".repeat(MAX_TEXT + 1));
        assert!(long.ends_with("µ… (1026 bytes)") && long.chars().count() < MAX_TEXT + 20, "{long}");
    }
}
