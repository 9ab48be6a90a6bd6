//! Kernel logs of Linux 6.12 in tests/logs; cli/scx-fixture/README.md says how they came.

use super::*;
use proptest::prelude::*;

fn one(log: &str) -> Ejection {
    let mut all = Ejection::all(log);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn task(comm: &str, pid: i32) -> Option<TaskName> {
    Some(TaskName { comm: comm.into(), pid })
}

#[test]
fn a_stall_names_the_task_and_its_wait() {
    let ejection = one(include_str!("../../tests/logs/stall-cpu.log"));
    assert_eq!((ejection.scheduler.as_str(), ejection.kind), ("fixture", ExitKind::Stall));
    assert!(ejection.task.as_ref().unwrap().comm.starts_with("w_cg_"), "{ejection:?}");
    assert!(ejection.waited_ms.unwrap() >= 2000, "{ejection:?}");
    assert_eq!(ejection.functions().next(), Some("scx_watchdog_workfn"));
    assert_eq!(ejection.functions().last(), Some("ret_from_fork_asm"));
}

#[test]
fn an_error_names_task_and_cpu() {
    let ejection = one(include_str!("../../tests/logs/ignore-affinity.log"));
    assert_eq!((ejection.kind, ejection.cpu), (ExitKind::Error, Some(0)), "{ejection:?}");
    assert!(ejection.message.as_ref().unwrap().contains("not allowed for w_cg_"), "{ejection:?}");
    assert!(ejection.task.unwrap().comm.starts_with("w_cg_"));
}

#[test]
fn the_schedulers_own_error_has_its_words_and_its_stack() {
    let ejection = one(include_str!("../../tests/logs/scx-error.log"));
    assert_eq!((ejection.kind, ejection.reason.as_str()), (ExitKind::Error, "scx_bpf_error"));
    assert!(ejection.message.as_ref().unwrap().starts_with("a planted error (CPU "), "{ejection:?}");
    assert!(ejection.cpu.is_some() && ejection.task.is_none());
    assert!(ejection.functions().any(|name| name == "bpf__sched_ext_ops_dispatch"), "{ejection:?}");
}

#[test]
fn an_orderly_end_has_no_message() {
    let log = "[    7.4] sched_ext: BPF scheduler \"fixture\" disabled (unregistered from user space)\n";
    let ejection = one(log);
    assert_eq!((ejection.kind, ejection.message, ejection.stack.len()), (ExitKind::Normal, None, 0));
}

#[test]
fn every_way_of_logging_is_read() {
    let words = "sched_ext: BPF scheduler \"a.b_1\" disabled (runnable task stall)";
    for head in ["", "[    5.324568] ", "<3>[   12.000001] ", "3,1234,5324568,-;"] {
        let log =
            format!("{head}{words}\r\n{head}sched_ext: a.b_1: watchdog failed to check in for 2.040s\r\n");
        let ejection = one(&log);
        assert_eq!((ejection.scheduler.as_str(), ejection.waited_ms), ("a.b_1", Some(2040)), "{head}");
        assert_eq!(ejection.task, None);
    }
}

#[test]
fn each_end_has_its_own_message() {
    let log = "\
sched_ext: BPF scheduler \"a\" disabled (runtime error)
sched_ext: a: SCX_DSQ_LOCAL[_ON] cannot move migration disabled we ird[x][12] from CPU 3 to 1
sched_ext: BPF scheduler \"b\" enabled
sched_ext: b: not of an end
  stray+0x1/0x2
sched_ext: BPF scheduler \"b\" disabled (unregistered from BPF)
";
    let all = Ejection::all(log);
    assert_eq!(all.len(), 2);
    assert_eq!((&all[0].task, all[0].cpu, all[0].stack.len()), (&task("we ird[x]", 12), Some(3), 0));
    assert_eq!((all[1].kind, &all[1].message), (ExitKind::Other, &None));
}

#[test]
fn other_logs_have_none() {
    assert!(Ejection::all("").is_empty());
    assert!(Ejection::all("sched_ext: BPF scheduler \"fixture\" enabled\n").is_empty());
    assert!(Ejection::all("sched_ext: BPF scheduler \"cut").is_empty());
}

proptest! {
    #[test]
    fn any_text_will_do(text in "(\\PC{0,40}\n){0,10}", message in "\\PC{0,60}") {
        Ejection::all(&text);
        let log = format!("sched_ext: BPF scheduler \"x\" disabled (y)\nsched_ext: x: {message}\n{text}");
        prop_assert!(!Ejection::all(&log).is_empty());
    }
}
