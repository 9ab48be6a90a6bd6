//! `dump CORE [VMLINUX]`: the scheduler state in an ELF core as JSON, each field by its member path. What
//! `oracle/compare.py` checks against drgn.

mod bpf;
mod variables;

use std::path::Path;
use std::sync::Arc;

use ktstr_introspect_kernel::{
    Cgroup, CpuGroup, Cpuset, DispatchQueue, DomainSchedstat, DomainShared, ErrorKind, ExitInfo, Kernel,
    KernelError, NamedField, Pids, Runqueue, RunqueueSchedstat, SchedDomain, SchedExtOps, SchedGroup, Task,
    Value,
};
use ktstr_introspect_memory::{ElfCore, VirtAddr};
use ktstr_introspect_symbols::Vmlinux;
use serde_json::{Map, Value as Json, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let core = ElfCore::open(Path::new(&arguments.next().ok_or("usage: dump CORE [VMLINUX]")?))?;
    let vmlinux = arguments.next().map(|path| Vmlinux::open(Path::new(&path))).transpose()?;
    let kernel = Kernel::open(Arc::new(core), vmlinux.as_ref())?;
    let tasks = kernel.tasks()?;
    let tasks: Vec<Json> = tasks.into_iter().map(|at| task(&kernel, at)).collect();
    let cpus = kernel.possible_cpus()?.0;
    let rqs: Vec<Json> = cpus.into_iter().map(|cpu| runqueue(&kernel, cpu)).collect::<Result<_, _>>()?;
    let cgroups: Vec<Json> = kernel.cgroups()?.into_iter().map(|node| cgroup(&kernel, node)).collect();
    let all = json!({
        "kaslr": kernel.placement().kaslr.0, "image_offset": kernel.placement().image_offset,
        "by_pid": outcome(kernel.tasks_by_pid(), |found| found.iter().map(|(pid, at)| json!([pid, at.0])).collect::<Vec<_>>()),
        "tasks": tasks, "rqs": rqs, "cgroups": cgroups, "scx": sched_ext(&kernel),
        "bpf": bpf::all(&kernel), "around": around(&kernel),
        "variables": vmlinux.as_ref().map(|vmlinux| variables::all(&kernel, vmlinux)).transpose()?,
    });
    println!("{all}");
    Ok(())
}

macro_rules! object {
    ($kernel:expr, $kind:ident, $at:expr) => {{
        let record = $kind::read($kernel, $at);
        $crate::fields_of($at, stringify!($kind), record.fields($kernel))
    }};
}
pub(crate) use object;

pub(crate) fn fields_of(at: VirtAddr, kind: &str, fields: Vec<NamedField<'_>>) -> Json {
    let fields: Map<String, Json> = fields
        .into_iter()
        .map(|field| {
            let value = match field.value {
                Ok(Value::Unsigned(number)) => json!(number),
                Ok(Value::Signed(number)) => json!(number),
                Ok(Value::Flag(flag)) => json!(u8::from(flag)),
                Ok(Value::Text(text)) => json!(text),
                Ok(Value::Pointer(pointer)) => json!(pointer.0),
                Ok(Value::Cpus(cpus)) => json!({ "bits": cpus.0 }),
                Err(error) => fault(error),
            };
            (field.path.to_owned(), value)
        })
        .collect();
    json!({ "address": at.0, "kind": kind, "fields": fields })
}

pub(crate) fn fault(error: &KernelError) -> Json {
    json!({ "error": format!("{:?}", error.kind()), "text": error.to_string() })
}

pub(crate) fn outcome<T, J: Into<Json>>(result: Result<T, KernelError>, show: impl Fn(T) -> J) -> Json {
    result.map_or_else(|error| fault(&error), |value| show(value).into())
}

pub(crate) fn addresses(result: Result<Vec<VirtAddr>, KernelError>) -> Json {
    outcome(result, |found| found.into_iter().map(|at| at.0).collect::<Vec<_>>())
}

fn task(kernel: &Kernel, at: VirtAddr) -> Json {
    let mut json = object!(kernel, Task, at);
    json["scx_state"] = outcome(Task::read(kernel, at).scx_flags, |flags| kernel.scx_task_state(flags));
    json["scx_ops_state"] =
        outcome(Task::read(kernel, at).scx_ops_state, |word| json!(kernel.scx_ops_state(word as u64)));
    json["class"] = outcome(kernel.class_of(&Task::read(kernel, at)), Json::from);
    json
}

fn runqueue(kernel: &Kernel, cpu: u32) -> Result<Json, KernelError> {
    let rq = kernel.runqueue(cpu)?;
    let mut json = object!(kernel, Runqueue, rq);
    json["schedstat"] = object!(kernel, RunqueueSchedstat, rq);
    json["cfs_tasks"] = addresses(kernel.cfs_tasks(rq));
    json["cfs_timeline"] = addresses(kernel.cfs_timeline(rq));
    json["rt_tasks"] = addresses(kernel.rt_tasks(rq));
    json["dl_entities"] = addresses(kernel.dl_entities(rq));
    json["dl_tasks"] = addresses(kernel.dl_tasks(rq));
    json["scx_runnable"] = addresses(kernel.scx_runnable(rq));
    json["local_dsq_by_vtime"] =
        addresses(kernel.local_queue(rq).and_then(|queue| kernel.queued_by_vtime(queue)));
    json["local_dsq_tasks"] = addresses(kernel.local_queue(rq).and_then(|queue| kernel.queued_tasks(queue)));
    json["domains"] = kernel.domains(rq)?.into_iter().map(|at| domain(kernel, at)).collect();
    Ok(json)
}

fn domain(kernel: &Kernel, at: VirtAddr) -> Json {
    let mut json = object!(kernel, SchedDomain, at);
    json["schedstat"] = object!(kernel, DomainSchedstat, at);
    json["name"] = outcome(kernel.domain_name(at), Json::from);
    json["span"] = outcome(kernel.domain_span(at), |cpus| cpus.0);
    if let Some(shared) = SchedDomain::read(kernel, at).shared.ok().filter(|shared| !shared.is_null()) {
        json["shared"] = object!(kernel, DomainShared, shared);
    }
    json["groups"] = outcome(kernel.domain_groups(at), |groups| {
        groups
            .into_iter()
            .map(|(group, cpus)| {
                let mut json = object!(kernel, SchedGroup, group);
                json["cpus"] = cpus.0.into();
                json
            })
            .collect::<Vec<_>>()
    });
    json
}

fn cgroup(kernel: &Kernel, node: ktstr_introspect_kernel::CgroupNode) -> Json {
    let at = node.address;
    let mut json = object!(kernel, Cgroup, at);
    json["path"] = node.path.into();
    json["online"] = node.online.into();
    json["tasks"] = addresses(kernel.cgroup_tasks(at));
    json["populated"] = outcome(kernel.cgroup_populated(at), Json::from);
    json["frozen"] = outcome(kernel.cgroup_frozen(at), Json::from);
    json["weight"] = outcome(kernel.cpu_weight(at), Json::from);
    if let Ok(Some(group)) = kernel.task_group(at) {
        json["cpu"] = object!(kernel, CpuGroup, group);
    }
    if let Ok(Some(set)) = kernel.cpuset(at) {
        json["cpuset"] = object!(kernel, Cpuset, set);
        for mask in ["cpus_allowed", "effective_cpus"] {
            json["cpuset"][mask] = outcome(kernel.cpuset_cpus(set, mask), |cpus| cpus.0);
        }
    }
    if let Ok(Some(pids)) = kernel.pids(at) {
        json["pids"] = object!(kernel, Pids, pids);
    }
    json
}

/// CPU times, softirqs, NUMA counters and the system's pressure.
fn around(kernel: &Kernel) -> Json {
    let times = kernel.cpu_times().map(|all| {
        let one = |(cpu, t): (u32, ktstr_introspect_kernel::CpuTimes)| {
            json!({
                "cpu": cpu, "USER": t.user, "NICE": t.nice, "SYSTEM": t.system, "IRQ": t.irq, "SOFTIRQ": t.softirq,
                "STEAL": t.steal, "GUEST": t.guest, "GUEST_NICE": t.guest_nice, "idle": t.idle, "iowait": t.iowait,
            })
        };
        all.into_iter().map(one).collect::<Vec<_>>()
    });
    let softirqs = kernel.softirqs().map(|all| {
        let counts =
            |(_, counts): (u32, Vec<(&str, u64)>)| counts.into_iter().map(|(_, n)| n).collect::<Vec<_>>();
        all.into_iter().map(counts).collect::<Vec<_>>()
    });
    let nodes = kernel.numa_counters().map(|all| {
        let counts = |(node, counts): (u32, Vec<(&str, u64)>)| {
            json!([node, counts.into_iter().map(|(_, n)| n).collect::<Vec<_>>()])
        };
        all.into_iter().map(counts).collect::<Vec<_>>()
    });
    let group = kernel.system_psi_group();
    let pressure = group.and_then(|group| kernel.pressure(group, kernel.newest_clock()?)).map(|all| {
        let total = |stall: Option<ktstr_introspect_kernel::Stall>| stall.map(|stall| stall.total_us);
        all.into_iter().map(|p| json!([p.resource, total(p.some), total(p.full)])).collect::<Vec<_>>()
    });
    json!({
        "times": outcome(times, Json::from), "softirqs": outcome(softirqs, |all| json!(all)),
        "nodes": outcome(nodes, Json::from), "pressure": outcome(pressure, Json::from),
    })
}

fn sched_ext(kernel: &Kernel) -> Json {
    let state = kernel.sched_ext();
    let queues = kernel.dispatch_queues().map(|found| {
        found
            .into_iter()
            .map(|at| {
                let mut json = object!(kernel, DispatchQueue, at);
                json["tasks"] = addresses(kernel.queued_tasks(at));
                json["by_vtime"] = addresses(kernel.queued_by_vtime(at));
                json["name"] =
                    outcome(DispatchQueue::read(kernel, at).id, |id| Json::from(kernel.queue_name(id)));
                json
            })
            .collect::<Vec<_>>()
    });
    json!({
        "ops": outcome(state.ops, |at| object!(kernel, SchedExtOps, at)),
        "exit_info": outcome(state.exit_info, |at| {
            if at.is_null() { Json::Null } else { object!(kernel, ExitInfo, at) }
        }),
        "exit_kind": outcome(state.exit_kind, Json::from),
        "exit_report": outcome(kernel.scx_exit_report(), |report| match report {
            None => Json::Null,
            Some(report) => json!({
                "kind": report.kind, "exit_code": report.exit_code, "reason": report.reason,
                "message": report.message, "dump": report.dump, "trace": report.trace.iter().map(|at| at.0).collect::<Vec<_>>(),
            }),
        }),
        "operations": outcome(kernel.scx_operations(), |found| {
            found.into_iter().map(|(name, at)| json!([name, at.0])).collect::<Vec<_>>()
        }),
        "state": outcome(state.state, Json::from),
        "switch_all": outcome(state.switch_all, Json::from),
        "nr_rejected": outcome(state.nr_rejected, Json::from),
        "hotplug_seq": outcome(state.hotplug_seq, Json::from),
        "enable_seq": outcome(state.enable_seq, Json::from),
        "bypass_depth": outcome(state.bypass_depth, Json::from),
        "aborting": outcome(state.aborting, Json::from),
        "watchdog_timestamp": outcome(state.watchdog_timestamp, Json::from),
        "watchdog_timeout": outcome(state.watchdog_timeout, Json::from),
        "queues": outcome(queues, Json::from),
        "events": match kernel.scx_events() {
            Ok(events) => events.into_iter().map(|(name, sum)| (name, json!(sum))).collect::<Map<_, _>>().into(),
            Err(error) if error.kind() == ErrorKind::Absent => json!("absent"),
            Err(error) => fault(&error),
        },
    })
}
