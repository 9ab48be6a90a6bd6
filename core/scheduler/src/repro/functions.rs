//! Which functions are probed.

use crate::{ExitKind, ScxExit};

/// Of the back-trace, innermost first.
const MOST: usize = 12;

/// Where every scheduler passes: what `kernel/sched/ext.c` (6.12) calls around the callbacks of a BPF scheduler, and
/// the kfuncs by which those act (the later name of a kfunc beside the earlier). A kernel lacks some of them.
const AROUND: [&str; 15] = [
    "select_task_rq_scx",
    "enqueue_task_scx",
    "do_enqueue_task",
    "dispatch_enqueue",
    "dequeue_task_scx",
    "balance_one",
    "set_next_task_scx",
    "put_prev_task_scx",
    "scx_bpf_dispatch",
    "scx_bpf_dsq_insert",
    "scx_bpf_dispatch_vtime",
    "scx_bpf_dsq_insert_vtime",
    "scx_bpf_consume",
    "scx_bpf_dsq_move_to_local",
    "scx_bpf_kick_cpu",
];

/// What ends a scheduler, in the context of the task that was at fault: 6.12's name, then later ones.
const ENDS: [&str; 3] = ["scx_ops_exit_kind", "scx_exit", "scx_vexit"];

/// From here outwards a stack tells how the CPU came to schedule at all, which is the same for every scheduler.
const OUTSIDE: [&str; 17] = [
    "schedule",
    "__schedule",
    "preempt_schedule",
    "do_syscall_64",
    "ret_from_fork",
    "kthread",
    "worker_thread",
    "process_one_work",
    "cpu_stopper_thread",
    "smpboot_thread_fn",
    "do_idle",
    "cpu_startup_entry",
    "irq_work_single",
    "hrtimer_interrupt",
    "__hrtimer_run_queues",
    "handle_softirqs",
    "tick_nohz_handler",
];
const OUTSIDE_PREFIXES: [&str; 9] = [
    "asm_",
    "entry_",
    "sysvec_",
    "__sysvec_",
    "irq_",
    "__irq_",
    "schedule_",
    "preempt_schedule_",
    "ret_from_fork_",
];

/// What is probed, and what can't be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// Kernel functions: those of the back-trace first.
    pub functions: Vec<String>,
    /// How many of them are of the back-trace.
    pub of_backtrace: usize,
    /// BPF callbacks of the back-trace; a kprobe can't be put on them.
    pub bpf: Vec<String>,
}

/// The functions that tell most about this end; `None` when the scheduler did not fail by the kernel's word.
pub fn choose(exit: &ScxExit) -> Option<Choice> {
    if !matches!(exit.kind, ExitKind::Error | ExitKind::BpfError | ExitKind::Stall) {
        return None;
    }
    let mut choice = Choice::default();
    // A stall's stack is the watchdog's.
    let stack = if exit.kind == ExitKind::Stall { &[] } else { exit.backtrace.as_slice() };
    for function in stack.iter().take_while(|f| !is_outside(f)) {
        if let Some(callback) = bpf_callback(function) {
            choice.bpf.extend(callback);
        } else if choice.functions.len() < MOST && !choice.functions.contains(function) {
            choice.functions.push(function.clone());
        }
    }
    choice.of_backtrace = choice.functions.len();
    for function in AROUND.into_iter().chain(ENDS) {
        if !choice.functions.iter().any(|f| f == function) {
            choice.functions.push(function.to_string());
        }
    }
    Some(choice)
}

/// True of a function that ends a scheduler.
pub(super) fn is_end(function: &str) -> bool {
    ENDS.contains(&function) || function.starts_with("scx_bpf_error")
}

fn is_outside(function: &str) -> bool {
    OUTSIDE.contains(&function) || OUTSIDE_PREFIXES.iter().any(|p| function.starts_with(p))
}

/// `bpf_prog_<16 hex digits>_<name>` is a program, `bpf__<struct>_<member>` the trampoline to it (without a name of
/// its own here); anything else is none of BPF's (`bpf_prog_ksym_set_name()`, `bpf_struct_ops_ksym_init()`).
fn bpf_callback(function: &str) -> Option<Option<String>> {
    if function.starts_with("bpf__") || function.starts_with("bpf_trampoline_") {
        return Some(None);
    }
    let rest = function.strip_prefix("bpf_prog_")?;
    let tag = rest.get(..16).is_some_and(|tag| tag.bytes().all(|b| b.is_ascii_hexdigit()));
    let name = if tag { rest.get(17..) } else { None };
    Some(Some(name.filter(|name| !name.is_empty()).unwrap_or(rest).to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chosen(log: &str) -> Choice {
        choose(&ScxExit::last_in(log).unwrap()).unwrap()
    }

    #[test]
    fn an_error_of_the_schedulers_own_is_probed_up_to_schedule() {
        let choice = chosen(include_str!("../../tests/logs/scx-error.log"));
        let stack = &choice.functions[..choice.of_backtrace];
        assert_eq!(
            stack,
            ["scx_bpf_error_bstr", "balance_one", "balance_scx", "prev_balance", "__pick_next_task"]
        );
        assert_eq!(choice.bpf, ["fixture_dispatch"]);
        assert_eq!(choice.functions.iter().filter(|f| *f == "balance_one").count(), 1);
        assert!(choice.functions.iter().any(|f| f == "dispatch_enqueue"));
    }

    #[test]
    fn a_broken_rule_is_probed_where_the_kernel_saw_it() {
        let choice = chosen(include_str!("../../tests/logs/ignore-affinity.log"));
        let stack = &choice.functions[..choice.of_backtrace];
        let expected = [
            "task_can_run_on_remote_rq",
            "dispatch_to_local_dsq",
            "process_ddsp_deferred_locals",
            "deferred_irq_workfn",
        ];
        assert_eq!(stack, expected);
    }

    #[test]
    fn the_watchdogs_stack_is_no_clue() {
        let choice = chosen(include_str!("../../tests/logs/stall-cpu.log"));
        assert_eq!((choice.of_backtrace, choice.functions.len()), (0, AROUND.len() + ENDS.len()));
    }

    #[test]
    fn a_scheduler_that_left_is_not_probed() {
        let log = "sched_ext: BPF scheduler \"a\" disabled (unregistered from user space)";
        assert_eq!(choose(&ScxExit::last_in(log).unwrap()), None);
    }

    proptest! {
        #[test]
        fn any_stack_gives_few_functions(backtrace in prop::collection::vec("[a-z_0-9.]{0,30}", 0..40)) {
            let log = "sched_ext: BPF scheduler \"a\" disabled (runtime error)";
            let exit = ScxExit { backtrace, ..ScxExit::last_in(log).unwrap() };
            let choice = choose(&exit).unwrap();
            prop_assert!(choice.functions.len() <= MOST + AROUND.len() + ENDS.len());
            let mut once = choice.functions.clone();
            once.sort();
            once.dedup();
            prop_assert_eq!(once.len(), choice.functions.len());
        }
    }
}
