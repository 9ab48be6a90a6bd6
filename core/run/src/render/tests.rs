//! The texts that people read.

use super::*;
use crate::drive::tests_support::silent;
use ktstr_assert::AssertResult;
use ktstr_machine::VmExit;
use ktstr_monitor::{KernelState, MonitorLog, assess};

fn facts() -> RunFacts {
    RunFacts {
        test: "my_test".into(),
        topology: "1n1l2c1t".into(),
        mode: "tcg".into(),
        kernel: "6.12.1".into(),
        resumed: false,
        seed: 3,
        duration: Duration::from_millis(2500),
        scheduler: "eevdf".into(),
        sidecar: Some("target/ktstr/x.ktstr.json".into()),
        ..RunFacts::default()
    }
}

#[test]
fn a_broken_run_shows_stage_and_console() {
    let mut seen = silent();
    seen.exit = Some(VmExit::Reset);
    seen.console.push(b"Kernel panic - not syncing\n");
    seen.times.total = Duration::from_millis(1234);
    let case = CaseResult {
        result: AssertResult::fail("the guest kernel panicked while booting"),
        broken: true,
        monitor: None,
    };
    insta::assert_snapshot!(render(&facts(), &case, Some(&seen)));
}

#[test]
fn an_emulated_processor_is_told_beside_the_mode() {
    let case =
        CaseResult { result: AssertResult::fail("stuck 9000ms on cpu1"), broken: false, monitor: None };
    let facts = |emulated_processor| RunFacts { mode: "kvm".into(), emulated_processor, ..facts() };
    let text = render(&facts(true), &case, Some(&silent()));
    assert!(text.contains("mode=kvm kernel=6.12.1 seed=3\non an emulated processor: limits as for tcg\n"));
    assert!(!render(&facts(false), &case, Some(&silent())).contains("emulated"));
}

#[test]
fn a_failed_check_shows_the_timeline_and_what_the_test_printed() {
    let mut seen = silent();
    seen.exit = Some(VmExit::PowerOff);
    seen.output.push(b"from the test\n");
    seen.timeline = vec![
        Stimulus { label: "step 1".into(), ..Stimulus::default() },
        Stimulus {
            elapsed_ms: 1000,
            kind: "SetCpuset".into(),
            detail: "cg_0 0-1".into(),
            iterations: Some(9),
            ..Stimulus::default()
        },
    ];
    let case = CaseResult {
        result: AssertResult::fail("stuck 3500ms on cpu1 at +1200ms"),
        broken: false,
        monitor: None,
    };
    insta::assert_snapshot!(render(&facts(), &case, Some(&seen)));
}

#[test]
fn what_the_monitor_and_a_dump_saw_is_shown() {
    let mut seen = silent();
    seen.kernel_state =
        Some(KernelState { problems: vec!["registers: no answer".into()], ..KernelState::default() });
    let monitor = assess(&MonitorLog::unsampled("not sampled in deterministic mode"), &Assert::NO_OVERRIDES);
    let case = CaseResult { result: AssertResult::fail("hangs"), broken: true, monitor: Some(monitor) };
    let text = render(&facts(), &case, Some(&seen));
    let monitor = "--- monitor ---\nnothing to report: not sampled in deterministic mode\n";
    assert!(text.contains(monitor), "{text}");
    assert!(text.contains("--- kernel state ---\nnot readable: registers: no answer\n"), "{text}");
}

/// A scheduler that repeats itself outside of any verifier's log.
#[test]
fn rounds_of_a_schedulers_log_are_shown_once() {
    let round: String = (0..6).map(|line| format!("  state {line} of a round\n")).collect();
    let mut seen = silent();
    seen.scheduler_log.push(format!("loading\n{}gave up\n", round.repeat(40)).as_bytes());
    let case = CaseResult { result: AssertResult::fail("no"), broken: false, monitor: None };
    let text = render(&facts(), &case, Some(&seen));
    let log = text.split_once("--- scheduler log ---\n").unwrap().1.split("\n---").next().unwrap();
    assert!(log.starts_with("loading\n") && log.contains("gave up"), "{log}");
    assert!(log.lines().count() < 20 && !log.contains("more lines"), "{log}");
    let raw = RunFacts { raw_verifier_log: true, ..facts() };
    assert!(render(&raw, &case, Some(&seen)).matches("state 3 of a round").count() == 40);
}

#[test]
fn a_scheduler_that_writes_too_much_is_told_how_much() {
    let mut seen = silent();
    for number in 0..40_000 {
        seen.scheduler_log.push(format!("line {number} of many, many lines\n").as_bytes());
    }
    let lost = seen.scheduler_log.lost();
    let case = CaseResult { result: AssertResult::fail("no"), broken: false, monitor: None };
    let text = render(&facts(), &case, Some(&seen));
    assert!(
        lost > 0 && text.contains(&format!("(it wrote more than is kept: {lost} bytes were left out)")),
        "{text}"
    );
}

#[test]
fn a_skip_is_one_line() {
    let case = CaseResult { result: AssertResult::skip("needs 2 LLCs"), broken: false, monitor: None };
    assert_eq!(render(&facts(), &case, None), "ktstr: SKIP: needs 2 LLCs\n");
}

#[test]
fn a_long_timeline_keeps_both_ends() {
    let events: Vec<Stimulus> =
        (0..200).map(|i| Stimulus { elapsed_ms: i, label: format!("e{i}"), ..Stimulus::default() }).collect();
    let text = render_timeline(&events);
    assert!(text.contains("e0") && text.contains("e199") && text.contains("140 more"));
}

#[test]
fn a_scheduler_that_was_dropped_is_told_with_its_log_and_the_dump_once() {
    use ktstr_scheduler::{SchedulerReport, ScxDump, ScxExit};
    let rule = "=".repeat(80);
    let dump = "w[34] triggered exit kind 1026:\n  runnable task stall (cg_0[71] failed to run for 2.001s)\n\n\
                CPU 1   : nr_run=1 flags=0x1\n          curr=swapper/1[0] class=idle_sched_class\n\n  \
                R cg_0[71] -2001ms\n      dsq_id=0x7\n      cpus=3\n";
    let mut seen = silent();
    seen.exit = Some(VmExit::PowerOff);
    seen.scheduler_log.push(
        format!("demo: attached\nDEBUG DUMP\n{rule}\n\n{dump}\n{rule}\n\nEXIT: runnable task stall\n")
            .as_bytes(),
    );
    let exit = ScxExit::last_in(
        "sched_ext: BPF scheduler \"demo\" disabled (runnable task stall)\nsched_ext: demo: cg_0[71] failed to run for 2.001s",
    );
    seen.schedulers.push(SchedulerReport {
        name: "scx_demo".into(),
        ops: Some("demo".into()),
        attach_ms: 120,
        failure: Some("the kernel dropped it".into()),
        exit,
        dump_text: dump.into(),
        dump: ScxDump::parse(dump),
        ..SchedulerReport::default()
    });
    let result = AssertResult::fail("scheduler \"scx_demo\" failed: the kernel dropped it");
    let case = CaseResult { result, broken: false, monitor: None };
    insta::assert_snapshot!(render(&facts(), &case, Some(&seen)));
}
