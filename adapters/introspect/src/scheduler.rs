//! sched_ext as a whole, and the BPF scheduler behind it: its queues, programs, maps and variables.

use crate::groups::named;
use crate::maps::map;
use crate::reasons::Reasons;
use crate::state::code;
use crate::typed::Budget;
use ktstr_introspect_kernel::{
    BpfMapKind, BpfProgram, DispatchQueue, ErrorKind, Field, Kernel, KernelError, SchedExtOps,
};
use ktstr_introspect_memory::VirtAddr;
use ktstr_monitor::{MapState, ProgramState, QueueSample, QueueState, SchedExtState, SchedulerExit};
use std::collections::{BTreeMap, BTreeSet};

/// Dispatch queues that are listed, and tasks of each.
const MAX_QUEUES: usize = 256;
const MAX_QUEUED: usize = 16;
/// `SCX_DSQ_FLAG_BUILTIN` of include/linux/sched/ext.h: the kernel's own.
const BUILTIN: u64 = 1 << 63;
/// Characters of a value, of an exit's message and of its reason.
const MAX_TEXT: usize = 512;

/// `None` where the kernel has no sched_ext.
pub(crate) fn sched_ext(kernel: &Kernel, reasons: &mut Reasons) -> Option<SchedExtState> {
    let seen = kernel.sched_ext();
    let enabled = match seen.state {
        Err(e) if e.kind() == ErrorKind::Absent => {
            reasons.left_out(format!("sched_ext: {e}"));
            return None;
        }
        other => other,
    };
    let mut told = Of(reasons);
    let name = told.value("ops", seen.ops).and_then(|at| {
        // What is left of a scheduler may have no name.
        told.value("name", SchedExtOps::read(kernel, at).name).filter(|name| !name.is_empty())
    });
    let mut state = SchedExtState {
        state: told.value("state", enabled).unwrap_or_else(|| "?".to_string()),
        ops: name,
        exit_kind: told.value("exit kind", seen.exit_kind),
        aborting: told.value("aborting", seen.aborting),
        bypass_depth: told.value("bypass depth", seen.bypass_depth),
        enable_seq: told.value("enable_seq", seen.enable_seq),
        watchdog_timeout: told.value("watchdog timeout", seen.watchdog_timeout),
        nr_rejected: told.value("nr_rejected", seen.nr_rejected),
        // A scheduler that is being unloaded takes queues and exit information along.
        exit: exit(kernel, reasons),
        dsqs: queues(kernel, reasons),
        ..SchedExtState::default()
    };
    let events = Of(reasons).value("event counters", kernel.scx_events());
    state.events = events.unwrap_or_default().into_iter().collect();
    let found = scheduler(kernel, reasons);
    if let Some(found) = reasons.value(&"the scheduler", "BPF programs and maps", found) {
        (state.programs, state.maps) = found;
    }
    Some(state)
}

/// The reasons of sched_ext as a whole.
struct Of<'a>(&'a mut Reasons);

impl Of<'_> {
    fn value<T>(&mut self, what: &str, result: Result<T, KernelError>) -> Option<T> {
        self.0.value(&"the kernel", &format!("sched_ext {what}"), result)
    }
}

/// Why the scheduler ends, from the kernel; where that has forgotten already, from the scheduler.
fn exit(kernel: &Kernel, reasons: &mut Reasons) -> Option<SchedulerExit> {
    let of_kernel = Of(reasons).value("exit information", kernel.scx_exit_report()).flatten();
    if let Some(report) = of_kernel.filter(|report| report.kind != "none") {
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
    let records = reasons.value(&"the scheduler", "own exit record", kernel.bpf_exit_records());
    let record = records.unwrap_or_default().into_iter().find(|record| record.kind != 0)?;
    Some(SchedulerExit {
        kind: kernel.scx_exit_kind_name(record.kind),
        exit_code: Some(record.exit_code),
        reason: short(&record.reason),
        message: short(&record.message),
        trace: Vec::new(),
    })
}

/// How long the dispatch queues are that the loaded scheduler made; `None` without one, and where they can't be read.
pub(crate) fn queue_depths(kernel: &Kernel) -> Option<Vec<QueueSample>> {
    kernel.sched_ext().state.ok().filter(|state| state == "enabled")?;
    let one = |at| {
        let queue = DispatchQueue::read(kernel, at);
        Some(QueueSample { id: queue.id.ok()?, nr: u32::try_from(queue.nr.ok()?).ok()? })
    };
    let queues = kernel.dispatch_queues().ok()?.into_iter().filter_map(one);
    Some(queues.filter(|queue| queue.id & BUILTIN == 0).take(MAX_QUEUES).collect())
}

/// All dispatch queues: the local one of each CPU and the one for bypass mode, then those of nodes and the scheduler's.
fn queues(kernel: &Kernel, reasons: &mut Reasons) -> Vec<QueueState> {
    let mut found = Vec::new();
    let cpus = reasons.value(&"the kernel", "possible CPUs", kernel.possible_cpus());
    for cpu in cpus.unwrap_or_default().0 {
        let of = format!("cpu{cpu}");
        let local = kernel.runqueue(cpu).and_then(|rq| kernel.local_queue(rq));
        for (what, at) in [("local DSQ", local), ("bypass DSQ", kernel.bypass_queue(cpu))] {
            if let Some(at) = reasons.value(&of, what, at) {
                found.extend(queue(kernel, at, format!("cpu {cpu}"), reasons));
            }
        }
    }
    let mut others = Of(reasons).value("dispatch queues", kernel.dispatch_queues()).unwrap_or_default();
    reasons.cut(&"the dispatch queues of nodes and of the scheduler", &mut others, MAX_QUEUES);
    let mut nodes = 0..;
    for at in others {
        let Some(mut state) = queue(kernel, at, String::new(), reasons) else { continue };
        // Those of nodes come first, in their order.
        if state.name == "global" {
            state.origin = nodes.next().map(|node: u32| format!("node {node}")).unwrap_or_default();
        }
        found.push(state);
    }
    found
}

/// A dispatch queue with the first of its tasks.
fn queue(kernel: &Kernel, at: VirtAddr, origin: String, reasons: &mut Reasons) -> Option<QueueState> {
    let seen = DispatchQueue::read(kernel, at);
    let of = format!("the dispatch queue at {at}");
    let id = reasons.value(&of, "id", seen.id)?;
    let name = kernel.queue_name(id);
    let of = format!("dispatch queue {name}{}{origin}", if origin.is_empty() { "" } else { " of " });
    let nr = reasons.value(&of, "length", seen.nr)?;
    let mut state = QueueState { id, name, origin, nr, ..QueueState::default() };
    state.seq = reasons.value(&of, "DSQ seq", seen.seq);
    if nr > 0 {
        let tasks = reasons.value(&of, "tasks", kernel.queued_tasks(at)).unwrap_or_default();
        state.tasks = tasks.iter().take(MAX_QUEUED).map(|at| named(kernel, *at)).collect();
        let ordered = reasons.value(&of, "order", kernel.queued_by_vtime(at));
        state.by_vtime = ordered.is_some_and(|tasks| !tasks.is_empty());
    }
    Some(state)
}

/// All dispatch queues as a dump has them, and what could not be read of them or is left out.
///
/// # Errors
/// [`KernelError`], [`ErrorKind::Absent`] without sched_ext.
pub fn dispatch_queues(kernel: &Kernel) -> Result<(Vec<QueueState>, Vec<String>), KernelError> {
    for cpu in kernel.possible_cpus()?.0 {
        kernel.local_queue(kernel.runqueue(cpu)?)?;
    }
    let mut reasons = Reasons::default();
    let found = queues(kernel, &mut reasons);
    let (problems, left_out) = reasons.into_lists();
    Ok((found, [problems, left_out].concat()))
}

/// All BPF programs of the kernel, by ID.
///
/// # Errors
/// [`KernelError`], [`ErrorKind::Absent`] without BPF.
pub fn programs(kernel: &Kernel) -> Result<Vec<ProgramState>, KernelError> {
    let one = |at| {
        // Others than those of struct_ops implement nothing.
        let implements = kernel.bpf_program_implements(at).unwrap_or_default();
        program(kernel, &BpfProgram::read(kernel, at), &implements, &mut Reasons::default())
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
fn scheduler(kernel: &Kernel, reasons: &mut Reasons) -> Result<Parts, KernelError> {
    let maps = kernel.bpf_maps()?;
    let mut implements = BTreeMap::new();
    for map in &maps {
        if kernel.bpf_map_kind(*map).ok() != Some(BpfMapKind::StructOps) {
            continue;
        }
        let ops = reasons.value(&format!("the BPF map at {map}"), "struct_ops", kernel.bpf_struct_ops(*map));
        let Some(ops) = ops else { continue };
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
        programs.push(program(kernel, &seen, member, reasons));
        let of = format!("BPF program {member}");
        used.extend(reasons.value(&of, "maps", kernel.bpf_program_maps(at)).unwrap_or_default());
    }
    if kernel.bpf_stats_enabled().is_ok_and(|enabled| !enabled) {
        let why = "runs of BPF programs: the kernel doesn't count them while kernel.bpf_stats_enabled is 0";
        reasons.left_out(why.to_string());
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
fn program(kernel: &Kernel, seen: &BpfProgram, implements: &str, reasons: &mut Reasons) -> ProgramState {
    let at = seen.address;
    let of = format!("the BPF program at {at}");
    let copied = |field: &Field<u64>| field.as_ref().ok().copied();
    let stats = reasons.value(&of, "statistics", kernel.bpf_program_stats(at)).unwrap_or_default();
    let kind = reasons.value(&of, "kind", kernel.bpf_program_kind(at)).unwrap_or_else(|| "?".to_string());
    if let Err(e) = &seen.id {
        reasons.problem(format!("{of}'s ID: {e}"));
    }
    ProgramState {
        id: copied(&seen.id).unwrap_or_default(),
        name: kernel.bpf_program_name(at).unwrap_or_else(|e| format!("({e})")),
        kind,
        implements: implements.to_string(),
        verified_insns: copied(&seen.verified_insns),
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
