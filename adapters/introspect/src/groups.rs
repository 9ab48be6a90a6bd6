//! What stands around the runqueues: scheduling domains, cgroups.

use ktstr_introspect_kernel::{Cgroup, CgroupNode, Cpus, Kernel, SchedDomain, Task};
use ktstr_introspect_memory::VirtAddr;
use ktstr_monitor::{CgroupState, DomainState};
use std::fmt::Write;

/// cgroups that are listed, and tasks of each.
const MAX_CGROUPS: usize = 256;
const MAX_MEMBERS: usize = 64;

pub(crate) fn domain(kernel: &Kernel, at: VirtAddr) -> DomainState {
    let domain = SchedDomain::read(kernel, at);
    let level = domain.level.unwrap_or(-1);
    DomainState {
        name: kernel.domain_name(at).unwrap_or_else(|_| format!("level {level}")),
        level,
        span: kernel.domain_span(at).map(|cpus| cpulist(&cpus)).unwrap_or_default(),
        flags: domain.flags.unwrap_or_default() as u64,
        balance_interval: domain.balance_interval.unwrap_or_default(),
        nr_balance_failed: domain.nr_balance_failed.unwrap_or_default(),
        max_newidle_lb_cost: domain.max_newidle_lb_cost.unwrap_or_default(),
    }
}

/// The live cgroups with their members. A kernel with fewer than two has no tree to show.
pub(crate) fn cgroups(kernel: &Kernel, problems: &mut Vec<String>) -> Vec<CgroupState> {
    let mut all = kernel.cgroups().unwrap_or_else(|e| {
        problems.push(format!("the cgroup tree: {e}"));
        Vec::new()
    });
    all.retain(|node| node.online);
    if all.len() > MAX_CGROUPS {
        problems.push(format!("the cgroup tree: {} of {} cgroups are listed", MAX_CGROUPS, all.len()));
        all.truncate(MAX_CGROUPS);
    }
    all.iter().map(|node| cgroup(kernel, node, problems)).collect()
}

fn cgroup(kernel: &Kernel, node: &CgroupNode, problems: &mut Vec<String>) -> CgroupState {
    let seen = Cgroup::read(kernel, node.address);
    let tasks = kernel.cgroup_tasks(node.address).unwrap_or_else(|e| {
        problems.push(format!("the tasks of cgroup {}: {e}", node.path));
        Vec::new()
    });
    let member = |at: &VirtAddr| {
        let task = Task::read(kernel, *at);
        (task.pid.unwrap_or(-1), task.comm.unwrap_or_else(|e| format!("({e})")))
    };
    let cpus = kernel.cpuset(node.address).ok().flatten();
    let cpus = cpus.and_then(|set| kernel.cpuset_cpus(set, "effective_cpus").ok());
    CgroupState {
        path: node.path.clone(),
        cpus: cpus.map(|cpus| cpulist(&cpus)),
        frozen: seen.freezer_e_freeze.is_ok_and(|asking| asking > 0),
        more: tasks.len().saturating_sub(MAX_MEMBERS),
        tasks: tasks.iter().take(MAX_MEMBERS).map(member).collect(),
    }
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
