//! What the probes of a real run saw (6.12, cli/scx-fixture with `--stall-cpu 1`), told.

use ktstr_scheduler::SchedulerReport;
use ktstr_scheduler::repro::{AtTheEnd, ProbeTrace, Rerun, Selection, choose, render};
use std::time::Duration;

fn report() -> SchedulerReport {
    serde_json::from_str(include_str!("probes/stall.json")).expect("a report")
}

#[test]
fn a_stall_is_told_to_the_queue_that_nobody_serves() {
    let report = report();
    let exit = report.exit.as_ref().expect("an end");
    let lines = [("dispatch_enqueue".to_string(), "kernel/sched/ext.c:1811".to_string())].into();
    let rerun =
        Rerun { report: Some(&report), outcome: "fail", took: Duration::from_millis(2890), lines: &lines };
    insta::assert_snapshot!(render(exit, &choose(exit).expect("functions"), &rerun));
}

#[test]
fn the_kernels_own_lines_are_selected_again() {
    let trace = report().probes.expect("a trace");
    let pid = trace.task.as_ref().expect("a task").pid;
    let (mut selection, mut end) = (Selection::new(&trace.probes, pid), AtTheEnd::new(&trace.probes));
    for line in &trace.lines {
        selection.push(&format!("     {line}"));
        end.push(line);
    }
    let mut again = ProbeTrace::default();
    selection.finish(&mut again);
    assert_eq!(again.seen, trace.lines.len() as u64, "every line is one of a probe");
    assert!(again.of_task > 20, "{} events of the task", again.of_task);
    assert_eq!(end.finish(), None, "the watchdog ended it, not the task");
}
