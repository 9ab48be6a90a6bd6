//! schedstat counters, as /proc/schedstat shows them (kernel/sched/stats.c; `CONFIG_SCHEDSTATS`).

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
    /// an idle and a newly idle CPU; which index is which changed in 6.9 (`enum cpu_idle_type`).
    DomainSchedstat, DomainSchedstatPlans, domain_schedstat {
        /// Balancing passes, type 0.
        lb_count_0: u64 = "sched_domain.lb_count[0]";
        /// Balancing passes, type 1.
        lb_count_1: u64 = "sched_domain.lb_count[1]";
        /// Balancing passes, type 2.
        lb_count_2: u64 = "sched_domain.lb_count[2]";
        /// Balancing passes that found nothing to do, type 0.
        lb_balanced_0: u64 = "sched_domain.lb_balanced[0]";
        /// Balancing passes that found nothing to do, type 1.
        lb_balanced_1: u64 = "sched_domain.lb_balanced[1]";
        /// Balancing passes that found nothing to do, type 2.
        lb_balanced_2: u64 = "sched_domain.lb_balanced[2]";
        /// Balancing passes that failed, type 0.
        lb_failed_0: u64 = "sched_domain.lb_failed[0]";
        /// Balancing passes that failed, type 1.
        lb_failed_1: u64 = "sched_domain.lb_failed[1]";
        /// Balancing passes that failed, type 2.
        lb_failed_2: u64 = "sched_domain.lb_failed[2]";
        /// Tasks pulled, type 0.
        lb_gained_0: u64 = "sched_domain.lb_gained[0]";
        /// Tasks pulled, type 1.
        lb_gained_1: u64 = "sched_domain.lb_gained[1]";
        /// Tasks pulled, type 2.
        lb_gained_2: u64 = "sched_domain.lb_gained[2]";
        /// Active balancing attempts.
        alb_count: u64 = "sched_domain.alb_count";
        /// Tasks pushed by it.
        alb_pushed: u64 = "sched_domain.alb_pushed";
        /// Wake-ups from another CPU of the domain.
        ttwu_wake_remote: u64 = "sched_domain.ttwu_wake_remote";
        /// Wake-ups moved for cache affinity.
        ttwu_move_affine: u64 = "sched_domain.ttwu_move_affine";
    }
}
