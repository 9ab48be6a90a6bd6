//! What a cgroup was made of, in words: its settings and its workers.

use crate::engine::plan::Action;
use crate::ports::CgroupLimit;
use ktstr_workload::{AffinityIntent, CloneMode, MemPolicy, SchedPolicy, WorkloadConfig};

/// Settings and workers among the actions that make a cgroup, such as `cpuset.cpus 0-1; 4 workers of SpinWait`.
pub(crate) fn layout(actions: &[Action]) -> String {
    let parts: Vec<String> = actions.iter().filter_map(part).collect();
    if parts.is_empty() { "no settings and no workers".to_owned() } else { parts.join("; ") }
}

fn part(action: &Action) -> Option<String> {
    Some(match action {
        Action::SetCpuset(_, cpus) => format!("cpuset.cpus {cpus}"),
        Action::SetMems(_, nodes) => format!("cpuset.mems {nodes}"),
        Action::SetLimit(_, limit) => of_limit(*limit),
        Action::Spawn(plan) => of_workers(&plan.config),
        _ => return None,
    })
}

/// As the files of cgroup v2 have it.
fn of_limit(limit: CgroupLimit) -> String {
    let or_max = |limit: Option<u64>| limit.map_or("max".to_owned(), |limit| limit.to_string());
    match limit {
        CgroupLimit::CpuMax { quota_us, period_us } => format!("cpu.max {} {period_us}", or_max(quota_us)),
        CgroupLimit::CpuWeight(weight) => format!("cpu.weight {weight}"),
        CgroupLimit::MemoryMax(bytes) => format!("memory.max {}", or_max(bytes)),
        CgroupLimit::MemoryHigh(bytes) => format!("memory.high {}", or_max(bytes)),
        CgroupLimit::MemoryLow(bytes) => format!("memory.low {}", or_max(bytes)),
        CgroupLimit::MemorySwapMax(bytes) => format!("memory.swap.max {}", or_max(bytes)),
        CgroupLimit::IoWeight(weight) => format!("io.weight {weight}"),
        CgroupLimit::PidsMax(pids) => format!("pids.max {}", or_max(pids)),
    }
}

/// How many workers of what kind, and what of them isn't as usual.
fn of_workers(config: &WorkloadConfig) -> String {
    let workers = if config.num_workers == 1 { "worker" } else { "workers" };
    let mut text = format!("{} {workers} of {}", config.num_workers, config.work_type.name());
    let mut add = |unusual: bool, what: String| {
        if unusual {
            text.push_str(", ");
            text.push_str(&what);
        }
    };
    add(config.sched_policy != SchedPolicy::Normal, format!("policy {:?}", config.sched_policy));
    add(config.nice.is_some(), format!("nice {}", config.nice.unwrap_or_default()));
    add(config.affinity != AffinityIntent::Inherit, format!("affinity {:?}", config.affinity));
    add(config.mem_policy != MemPolicy::Default, format!("memory policy {:?}", config.mem_policy));
    add(config.clone_mode != CloneMode::default(), format!("{:?}", config.clone_mode));
    for (what, id) in [("uid", config.uid), ("gid", config.gid)] {
        add(id.is_some(), format!("{what} {}", id.unwrap_or_default()));
    }
    text
}
