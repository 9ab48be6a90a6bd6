//! What stands around the scheduler: CPU times, softirqs, pressure, NUMA counters, modules, locks that tasks wait for.

use ktstr_introspect_kernel::{Kernel, KernelError, Stall, Task};
use ktstr_introspect_memory::VirtAddr;
use serde_json::{Value as Json, json};

use crate::outcome;

/// Distances from the start of a module's code whose symbols are told.
const IN_CODE: [u64; 6] = [0, 1, 0x33, 0x100, 0x777, 0x1fff];

pub(crate) fn all(kernel: &Kernel) -> Json {
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
    json!({
        "times": outcome(times, Json::from), "softirqs": outcome(softirqs, |all| json!(all)),
        "nodes": outcome(nodes, Json::from), "pressure": pressure(kernel, kernel.system_psi_group()),
        "clock": outcome(kernel.newest_clock(), Json::from),
        "irq_pressure": outcome(kernel.irq_pressure(), Json::from),
        "modules": outcome(modules(kernel), Json::from),
    })
}

/// A group's pressure: of each resource the totals and averages of some and of all tasks.
pub(crate) fn pressure(kernel: &Kernel, group: Result<VirtAddr, KernelError>) -> Json {
    let stall = |stall: Option<Stall>| {
        stall.map(|stall| json!({ "total_us": stall.total_us, "averages": stall.averages }))
    };
    let all = group.and_then(|group| kernel.pressure(group, kernel.newest_clock()?));
    outcome(all, |all| {
        all.into_iter().map(|p| json!([p.resource, stall(p.some), stall(p.full)])).collect::<Vec<_>>()
    })
}

/// The lock that a task sleeps for, by the function that it sleeps in; `"awake"` for one that doesn't sleep.
pub(crate) fn lock(kernel: &Kernel, at: VirtAddr) -> Json {
    let seen = Task::read(kernel, at);
    match (&seen.state, &seen.on_cpu) {
        (Ok(state), Ok(0)) if *state != 0 => {
            outcome(kernel.lock_slow_path(&seen), |path| path.map_or(Json::Null, Json::from))
        }
        _ => json!("awake"),
    }
}

/// Modules with the symbols of some places in their code.
fn modules(kernel: &Kernel) -> Result<Vec<Json>, KernelError> {
    let name = kernel.plan("module.name")?;
    let code = kernel.plan("module.mem[0].base").or_else(|_| kernel.plan("module.core_layout.base"))?;
    let one = |at: VirtAddr| {
        let start = VirtAddr(code.read(kernel.memory(), at)?);
        let symbols = IN_CODE.iter().map(|distance| {
            let place = start.wrapping_add(*distance);
            json!([
                place.0,
                outcome(kernel.module_symbol(place), |symbol| symbol.map_or(Json::Null, Json::from))
            ])
        });
        let name = name.read_text(kernel.memory(), at)?;
        Ok(json!({ "address": at.0, "name": name, "symbols": symbols.collect::<Vec<_>>() }))
    };
    kernel.modules()?.into_iter().map(one).collect()
}
