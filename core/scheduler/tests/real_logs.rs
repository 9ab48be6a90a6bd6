//! Logs of a real kernel (6.12, cli/scx-fixture with a fault planted), read.

use ktstr_scheduler::{ExitKind, ScxDump, ScxExit};

#[test]
fn every_end_is_understood() {
    let of = |log: &str| ScxExit::last_in(log).expect("an end");
    let error = of(include_str!("logs/scx-error.log"));
    assert_eq!((error.kind, error.message.as_str()), (ExitKind::BpfError, "a planted error (CPU 3)"));
    assert_eq!(error.backtrace.first().map(String::as_str), Some("scx_bpf_error_bstr"));
    let affinity = of(include_str!("logs/ignore-affinity.log"));
    assert_eq!(affinity.kind, ExitKind::Error);
    assert!(affinity.message.ends_with("target CPU 0 not allowed for w_cg_0_0[53]"), "{affinity}");
    for (log, comm, pid, ms) in [
        (include_str!("logs/stall-cpu.log"), "w_cg_0_2", 56, 2505),
        (include_str!("logs/drop-task.log"), "w_cg_1_1", 58, 2457),
    ] {
        let exit = of(log);
        let stuck = exit.stuck.expect("a task");
        assert_eq!(
            (exit.kind, stuck.comm.as_str(), stuck.pid, stuck.waited_ms),
            (ExitKind::Stall, comm, pid, ms)
        );
    }
}

#[test]
fn the_dump_has_the_task_that_starved() {
    let dump = ScxDump::parse(include_str!("logs/stall-cpu.log")).expect("a dump");
    assert!(dump.trigger.ends_with("triggered exit kind 1026"), "{}", dump.trigger);
    let task = dump.task(56).expect("the task");
    assert!(task.runnable_ms >= 2505 && !task.current && task.state == 'R', "{task:?}");
    let waiting = dump.cpus.iter().flat_map(|cpu| &cpu.tasks).map(|t| t.runnable_ms).max();
    assert_eq!(waiting, Some(task.runnable_ms), "nobody waited longer");
    assert!(dump.cpu_of(56).is_some());
}
