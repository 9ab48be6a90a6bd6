//! What stands around the runqueues: scheduling domains, cgroups.

use crate::around::PressureReader;
use crate::reasons::Reasons;
use ktstr_introspect_kernel::{
    Cgroup, CgroupNode, Cpus, DomainSchedstat, ErrorKind, Kernel, SchedDomain, Task, Value,
};
use ktstr_introspect_memory::VirtAddr;
use ktstr_monitor::{CgroupState, DomainState};
use std::collections::BTreeMap;
use std::fmt::{Display, Write};

/// cgroups that are listed, and tasks of each.
const MAX_CGROUPS: usize = 1024;
const MAX_MEMBERS: usize = 64;

/// A domain of a CPU with its balancing counters.
pub(crate) fn domain(kernel: &Kernel, cpu: u32, at: VirtAddr, reasons: &mut Reasons) -> DomainState {
    let seen = SchedDomain::read(kernel, at);
    let of = format!("a domain of cpu{cpu}");
    let level = reasons.value(&of, "level", seen.level).unwrap_or(-1);
    let name = reasons.quiet(&of, "name", kernel.domain_name(at));
    let span = reasons.value(&of, "span", kernel.domain_span(at));
    DomainState {
        name: name.unwrap_or_else(|| format!("level {level}")),
        level,
        span: span.map(|cpus| cpulist(&cpus)).unwrap_or_default(),
        span_weight: reasons.value(&of, "span_weight", seen.span_weight).unwrap_or_default(),
        flags: reasons.value(&of, "flags", seen.flags).unwrap_or_default() as u64,
        balance_interval: reasons.value(&of, "interval", seen.balance_interval).unwrap_or_default(),
        nr_balance_failed: reasons.value(&of, "failures", seen.nr_balance_failed).unwrap_or_default(),
        max_newidle_lb_cost: reasons.value(&of, "cost", seen.max_newidle_lb_cost).unwrap_or_default(),
        schedstat: domain_counters(kernel, at, &of, reasons),
    }
}

/// A domain's balancing counters as [`DomainState`] names them; none on kernels without.
pub(crate) fn domain_counters(
    kernel: &Kernel,
    at: VirtAddr,
    of: &dyn Display,
    reasons: &mut Reasons,
) -> BTreeMap<String, u64> {
    let seen = DomainSchedstat::read(kernel, at);
    let types = kernel.idle_types();
    let mut found = BTreeMap::new();
    for field in seen.fields(kernel) {
        match field.value {
            Ok(Value::Unsigned(count)) => {
                let by_type = field.name.rsplit_once('_').and_then(|(name, index)| {
                    let index: usize = index.parse().ok()?;
                    Some(format!("{name}.{}", types.get(index)?))
                });
                found.insert(by_type.unwrap_or_else(|| field.name.to_string()), count);
            }
            Ok(_) => {}
            // Which of them there are is the kernel's version; that there are none is told below.
            Err(e) if matches!(e.kind(), ErrorKind::Absent | ErrorKind::Null) => {}
            Err(e) => reasons.problem(format!("{of}'s {}: {e}", field.name)),
        }
    }
    if found.is_empty() {
        reasons.left_out("balancing counters of domains: this kernel has no CONFIG_SCHEDSTATS".to_string());
    }
    found
}

/// The live cgroups with their members and what held those up. A kernel with fewer than two has no tree to show.
pub(crate) fn cgroups(
    kernel: &Kernel,
    pressure: Option<&PressureReader<'_>>,
    reasons: &mut Reasons,
) -> Vec<CgroupState> {
    let mut all = reasons.value(&"the kernel", "cgroup tree", kernel.cgroups()).unwrap_or_default();
    all.retain(|node| node.online);
    reasons.cut(&"the cgroups", &mut all, MAX_CGROUPS);
    all.iter().map(|node| cgroup(kernel, node, pressure, reasons)).collect()
}

fn cgroup(
    kernel: &Kernel,
    node: &CgroupNode,
    pressure: Option<&PressureReader<'_>>,
    reasons: &mut Reasons,
) -> CgroupState {
    let seen = Cgroup::read(kernel, node.address);
    let of = format!("cgroup {}", node.path);
    let tasks = reasons.value(&of, "tasks", kernel.cgroup_tasks(node.address)).unwrap_or_default();
    let asking = reasons.value(&of, "freezer", seen.freezer_e_freeze);
    let set = reasons.value(&of, "cpuset", kernel.cpuset(node.address)).flatten();
    let cpus = set.and_then(|set| reasons.value(&of, "CPUs", kernel.cpuset_cpus(set, "effective_cpus")));
    CgroupState {
        path: node.path.clone(),
        cpus: cpus.map(|cpus| cpulist(&cpus)),
        frozen: asking.is_some_and(|asking| asking > 0),
        more: tasks.len().saturating_sub(MAX_MEMBERS),
        tasks: tasks.iter().take(MAX_MEMBERS).map(|at| named(kernel, *at)).collect(),
        pressure: pressure
            .map(|pressure| pressure.of_cgroup(node.address, &node.path, reasons))
            .unwrap_or_default(),
    }
}

/// A task by pid and name; what stands for a name that can't be read says why.
pub(crate) fn named(kernel: &Kernel, at: VirtAddr) -> (i64, String) {
    let task = Task::read(kernel, at);
    (task.pid.unwrap_or(-1), task.comm.unwrap_or_else(|e| format!("({e})")))
}

/// CPUs as a list, such as `0-3,8`.
fn cpulist(cpus: &Cpus) -> String {
    let mut text = String::new();
    let mut rest = cpus.0.as_slice();
    while let Some(first) = rest.first() {
        let run = (*first..).zip(rest).take_while(|(expected, cpu)| expected == *cpu).count();
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string can't fail.
        let _ = match run {
            1 => write!(text, "{comma}{first}"),
            _ => write!(text, "{comma}{first}-{}", rest[run - 1]),
        };
        rest = &rest[run..];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_short() {
        let list = |cpus: &[u32]| cpulist(&Cpus(cpus.to_vec()));
        assert_eq!(list(&[]), "");
        assert_eq!(list(&[0]), "0");
        assert_eq!(list(&[0, 1, 2, 3, 8, 10, 11]), "0-3,8,10-11");
    }
}
