//! schedstat counters, as /proc/schedstat shows them (kernel/sched/stats.c; `CONFIG_SCHEDSTATS`).

use crate::Kernel;
use crate::record::record;

record! {
    /// Counters of a runqueue; read at the address of its `rq`.
    RunqueueSchedstat, RunqueueSchedstatPlans, rq_schedstat {
        /// `sched_yield` calls.
        yld_count: u64 = "rq.yld_count";
        /// `schedule` calls.
        sched_count: u64 = "rq.sched_count";
        /// Of those, into idle.
        sched_goidle: u64 = "rq.sched_goidle";
        /// Wake-ups.
        ttwu_count: u64 = "rq.ttwu_count";
        /// Of those, on the local CPU.
        ttwu_local: u64 = "rq.ttwu_local";
        /// Time run by tasks, nanoseconds.
        rq_cpu_time: u64 = "rq.rq_cpu_time";
        /// Time waited by tasks, nanoseconds.
        run_delay: u64 = "rq.rq_sched_info.run_delay";
        /// Time slices run.
        pcount: u64 = "rq.rq_sched_info.pcount";
    }
}

record! {
    /// Counters of a scheduling domain; read at the address of its `sched_domain`. Balancing counters are for a busy,
    /// an idle and a newly idle CPU; which index is which changed in 6.9 ([`Kernel::idle_types`]).
    DomainSchedstat, DomainSchedstatPlans, domain_schedstat {
        /// Balancing passes; type 0.
        lb_count_0: u64 = "sched_domain.lb_count[0]";
        /// Balancing passes; type 1.
        lb_count_1: u64 = "sched_domain.lb_count[1]";
        /// Balancing passes; type 2.
        lb_count_2: u64 = "sched_domain.lb_count[2]";
        /// Balancing passes that found nothing to do; type 0.
        lb_balanced_0: u64 = "sched_domain.lb_balanced[0]";
        /// Balancing passes that found nothing to do; type 1.
        lb_balanced_1: u64 = "sched_domain.lb_balanced[1]";
        /// Balancing passes that found nothing to do; type 2.
        lb_balanced_2: u64 = "sched_domain.lb_balanced[2]";
        /// Balancing passes that failed; type 0.
        lb_failed_0: u64 = "sched_domain.lb_failed[0]";
        /// Balancing passes that failed; type 1.
        lb_failed_1: u64 = "sched_domain.lb_failed[1]";
        /// Balancing passes that failed; type 2.
        lb_failed_2: u64 = "sched_domain.lb_failed[2]";
        /// Imbalance found: one number until version 17 of schedstat; type 0.
        lb_imbalance_0: u64 = "sched_domain.lb_imbalance[0]";
        /// Imbalance found: one number until version 17 of schedstat; type 1.
        lb_imbalance_1: u64 = "sched_domain.lb_imbalance[1]";
        /// Imbalance found: one number until version 17 of schedstat; type 2.
        lb_imbalance_2: u64 = "sched_domain.lb_imbalance[2]";
        /// Imbalance found by load, since version 17; type 0.
        lb_imbalance_load_0: u64 = "sched_domain.lb_imbalance_load[0]";
        /// Imbalance found by load, since version 17; type 1.
        lb_imbalance_load_1: u64 = "sched_domain.lb_imbalance_load[1]";
        /// Imbalance found by load, since version 17; type 2.
        lb_imbalance_load_2: u64 = "sched_domain.lb_imbalance_load[2]";
        /// Imbalance found by utilization, likewise; type 0.
        lb_imbalance_util_0: u64 = "sched_domain.lb_imbalance_util[0]";
        /// Imbalance found by utilization, likewise; type 1.
        lb_imbalance_util_1: u64 = "sched_domain.lb_imbalance_util[1]";
        /// Imbalance found by utilization, likewise; type 2.
        lb_imbalance_util_2: u64 = "sched_domain.lb_imbalance_util[2]";
        /// Imbalance found by number of tasks, likewise; type 0.
        lb_imbalance_task_0: u64 = "sched_domain.lb_imbalance_task[0]";
        /// Imbalance found by number of tasks, likewise; type 1.
        lb_imbalance_task_1: u64 = "sched_domain.lb_imbalance_task[1]";
        /// Imbalance found by number of tasks, likewise; type 2.
        lb_imbalance_task_2: u64 = "sched_domain.lb_imbalance_task[2]";
        /// Imbalance found by tasks that fit no CPU of theirs, likewise; type 0.
        lb_imbalance_misfit_0: u64 = "sched_domain.lb_imbalance_misfit[0]";
        /// Imbalance found by tasks that fit no CPU of theirs, likewise; type 1.
        lb_imbalance_misfit_1: u64 = "sched_domain.lb_imbalance_misfit[1]";
        /// Imbalance found by tasks that fit no CPU of theirs, likewise; type 2.
        lb_imbalance_misfit_2: u64 = "sched_domain.lb_imbalance_misfit[2]";
        /// Tasks pulled; type 0.
        lb_gained_0: u64 = "sched_domain.lb_gained[0]";
        /// Tasks pulled; type 1.
        lb_gained_1: u64 = "sched_domain.lb_gained[1]";
        /// Tasks pulled; type 2.
        lb_gained_2: u64 = "sched_domain.lb_gained[2]";
        /// Tasks pulled though their cache was warm; type 0.
        lb_hot_gained_0: u64 = "sched_domain.lb_hot_gained[0]";
        /// Tasks pulled though their cache was warm; type 1.
        lb_hot_gained_1: u64 = "sched_domain.lb_hot_gained[1]";
        /// Tasks pulled though their cache was warm; type 2.
        lb_hot_gained_2: u64 = "sched_domain.lb_hot_gained[2]";
        /// Balancing passes that found no busy group; type 0.
        lb_nobusyg_0: u64 = "sched_domain.lb_nobusyg[0]";
        /// Balancing passes that found no busy group; type 1.
        lb_nobusyg_1: u64 = "sched_domain.lb_nobusyg[1]";
        /// Balancing passes that found no busy group; type 2.
        lb_nobusyg_2: u64 = "sched_domain.lb_nobusyg[2]";
        /// Balancing passes that found no busy queue; type 0.
        lb_nobusyq_0: u64 = "sched_domain.lb_nobusyq[0]";
        /// Balancing passes that found no busy queue; type 1.
        lb_nobusyq_1: u64 = "sched_domain.lb_nobusyq[1]";
        /// Balancing passes that found no busy queue; type 2.
        lb_nobusyq_2: u64 = "sched_domain.lb_nobusyq[2]";
        /// Active balancing attempts.
        alb_count: u64 = "sched_domain.alb_count";
        /// Those that moved nothing.
        alb_failed: u64 = "sched_domain.alb_failed";
        /// Tasks pushed by it.
        alb_pushed: u64 = "sched_domain.alb_pushed";
        /// Balancing at `exec`: attempts. Counted by no kernel yet.
        sbe_count: u64 = "sched_domain.sbe_count";
        /// As above.
        sbe_balanced: u64 = "sched_domain.sbe_balanced";
        /// As above.
        sbe_pushed: u64 = "sched_domain.sbe_pushed";
        /// Balancing at `fork`: attempts. Counted by no kernel yet.
        sbf_count: u64 = "sched_domain.sbf_count";
        /// As above.
        sbf_balanced: u64 = "sched_domain.sbf_balanced";
        /// As above.
        sbf_pushed: u64 = "sched_domain.sbf_pushed";
        /// Wake-ups from another CPU of the domain.
        ttwu_wake_remote: u64 = "sched_domain.ttwu_wake_remote";
        /// Wake-ups moved for cache affinity.
        ttwu_move_affine: u64 = "sched_domain.ttwu_move_affine";
        /// Wake-ups moved to balance. Counted by no kernel yet.
        ttwu_move_balance: u64 = "sched_domain.ttwu_move_balance";
    }
}

impl Kernel {
    /// What the CPU is doing for which the balancing counters of index 0, 1 and 2 are: `not_idle`, `idle` and
    /// `newly_idle` in this kernel's order (`enum cpu_idle_type`).
    #[must_use]
    pub fn idle_types(&self) -> [String; 3] {
        [0, 1, 2].map(|index| {
            let name = self.btf().enumerator("cpu_idle_type", index);
            let short =
                name.map(|name| name.trim_start_matches('_').trim_start_matches("CPU_").to_lowercase());
            short.unwrap_or_else(|| index.to_string())
        })
    }
}
