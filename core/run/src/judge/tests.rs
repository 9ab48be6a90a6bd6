//! Each way a run can end, and its verdict.

use super::*;
use crate::drive::{Panic, Signal, tests_support::silent};
use ktstr_wire::Stage;

fn seen(change: impl FnOnce(&mut Observation)) -> Observation {
    let mut seen = silent();
    change(&mut seen);
    seen
}

fn message(seen: &Observation) -> String {
    let case = judge(&TestSpec::DEFAULT, seen);
    assert!(case.result.is_fail(), "{case:?}");
    case.result.details.iter().map(|d| d.message.clone()).collect::<Vec<_>>().join("\n")
}

#[test]
fn a_result_and_a_power_off_are_what_the_test_said() {
    let result = AssertResult::inconclusive("no samples");
    let case = judge(
        &TestSpec::DEFAULT,
        &seen(|s| {
            s.returned = Some(TestReturn::Judged(result.clone()));
            s.exit = Some(VmExit::PowerOff);
        }),
    );
    assert_eq!(case.result, result);
    assert!(!case.broken);
}

#[test]
fn a_kernel_panic_after_the_result_is_still_a_failure() {
    let text = message(&seen(|s| {
        s.returned = Some(TestReturn::Judged(AssertResult::pass()));
        s.stage = Some(Stage::PowerOff);
        s.exit = Some(VmExit::Reset);
        s.console.push(b"[    1.0] Kernel panic - not syncing: Attempted to kill init!\n");
    }));
    assert_eq!(
        text,
        "the guest kernel panicked while powering off: Kernel panic - not syncing: Attempted to kill init!"
    );
}

#[test]
fn only_a_kernel_that_died_of_a_breakpoint_lost_a_code_patch() {
    let died = |line: &str, exit: VmExit| {
        died_of_lost_code_patch(&seen(|s| {
            s.console.push(line.as_bytes());
            s.exit = Some(exit);
        }))
    };
    let oops = "[    2.6] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n";
    assert!(died(oops, VmExit::Reset));
    assert!(!died(oops, VmExit::PowerOff));
    assert!(!died("[    2.6] Oops: general protection fault: 0000 [#1] SMP\n", VmExit::Reset));
}

#[test]
fn a_check_that_nothing_could_make_is_inconclusive() {
    let mut spec = TestSpec::DEFAULT;
    spec.checks.max_imbalance_ratio = Some(2.0);
    let case = judge(
        &spec,
        &seen(|s| {
            s.returned = Some(TestReturn::Judged(AssertResult::pass()));
            s.exit = Some(VmExit::PowerOff);
        }),
    );
    assert!(case.result.is_inconclusive(), "{case:?}");
    let text = &case.result.details[0].message;
    assert!(text.starts_with("`max_imbalance_ratio` could not be checked: no sample"), "{text}");
}

#[test]
fn a_skipped_test_has_nothing_to_monitor() {
    let mut spec = TestSpec::DEFAULT;
    spec.checks.max_imbalance_ratio = Some(2.0);
    let skip = TestReturn::Judged(AssertResult::skip("needs 2 LLCs"));
    let case = judge(&spec, &seen(|s| (s.returned, s.exit) = (Some(skip), Some(VmExit::PowerOff))));
    assert!(case.result.is_skip(), "{case:?}");
}

#[test]
fn a_violation_that_the_test_asked_to_see_fails_it_and_can_be_expected() {
    let cpu = |cpu, nr_running| ktstr_monitor::CpuSample {
        cpu,
        nr_running,
        clock: 1 + u64::from(cpu),
        ..Default::default()
    };
    let sample = |i: u64| ktstr_monitor::Sample {
        at: Duration::from_millis(100 * i),
        cpus: vec![cpu(0, 9), cpu(1, 0)],
        events: None,
        queues: None,
    };
    let piled_up = seen(|s| {
        s.monitor.samples = (0..9).map(sample).collect();
        s.returned = Some(TestReturn::Judged(AssertResult::pass()));
        s.exit = Some(VmExit::PowerOff);
    });
    let mut spec = TestSpec::DEFAULT;
    assert!(judge(&spec, &piled_up).result.is_pass(), "only reported by default");
    spec.checks.max_imbalance_ratio = Some(4.0);
    let case = judge(&spec, &piled_up);
    assert!(case.result.is_fail() && !case.broken, "{case:?}");
    assert!(case.result.details[0].message.contains("cpu0 had 9 runnable tasks"), "{case:?}");
    spec.expect_err = true;
    let case = judge(&spec, &piled_up);
    assert!(case.result.is_pass() && case.monitor.is_some(), "{case:?}");
}

#[test]
fn silence_is_never_a_pass() {
    assert!(message(&seen(|s| s.exit = Some(VmExit::PowerOff))).contains("before its init said a word"));
    let text = message(&seen(|s| {
        s.exit = Some(VmExit::PowerOff);
        s.stage = Some(Stage::TestStart);
    }));
    assert!(text.contains("without a result, while running the test"), "{text}");
}

#[test]
fn an_init_that_gave_up_says_why() {
    let text = message(&seen(|s| {
        s.exit = Some(VmExit::PowerOff);
        s.console.push(b"ktstr: init failed: mounting proc on /proc: No such device\n");
    }));
    assert_eq!(text, "the guest could not be brought up: mounting proc on /proc: No such device");
}

#[test]
fn a_panic_names_its_place() {
    let text = message(&seen(|s| {
        s.returned = Some(TestReturn::Panicked("boom".to_string()));
        s.panic = Some(Panic {
            message: "boom".into(),
            location: Some("a.rs:3:5".into()),
            backtrace: String::new(),
        });
        s.exit = Some(VmExit::PowerOff);
    }));
    assert_eq!(text, "the test function panicked at a.rs:3:5: boom");
}

#[test]
fn a_time_out_and_a_signal_are_told() {
    let text = message(&seen(|s| {
        s.timed_out = Some((Duration::from_millis(2500), "running (cpu0)".to_string()));
        s.exit = Some(VmExit::PowerOff);
    }));
    assert!(text.contains("within 2.5 s of guest time") && text.contains("running (cpu0)"), "{text}");
    let text = message(&seen(|s| {
        s.signal = Some(Signal { signo: 11, address: 0x10, ip: 0x20, thread: "main".into() });
        s.exit = Some(VmExit::PowerOff);
    }));
    assert!(text.contains("11 (SIGSEGV)") && text.contains("0x20"), "{text}");
}

#[test]
fn a_dead_hypervisor_is_not_the_guests_fault() {
    let text = message(&seen(|s| s.exit = Some(VmExit::Killed { signal: 9, stderr: String::new() })));
    assert!(text.contains("the hypervisor was killed by signal 9 (SIGKILL) while booting"), "{text}");
    let text = message(&seen(|s| s.exit = Some(VmExit::Failed { code: 1, stderr: "no memory".into() })));
    assert!(text.contains("exit code 1") && text.contains("no memory"), "{text}");
}

#[test]
fn running_out_of_memory_names_the_remedy() {
    let text = message(&seen(|s| {
        s.returned = Some(TestReturn::Judged(AssertResult::fail("worker 1 was killed by signal 9")));
        s.exit = Some(VmExit::PowerOff);
        s.kernel_log = b"x\nOut of memory: Killed process 31 (t) total-vm:9kB\n".to_vec();
    }));
    assert!(text.contains("Killed process 31") && text.contains("memory_mib"), "{text}");
}

#[test]
fn an_expected_failure_inverts_pass_and_fail_only() {
    let spec = TestSpec { expect_err: true, ..TestSpec::DEFAULT };
    let with = |result: AssertResult| {
        judge(
            &spec,
            &seen(|s| {
                s.returned = Some(TestReturn::Judged(result));
                s.exit = Some(VmExit::PowerOff);
            }),
        )
        .result
        .outcome
    };
    assert_eq!(with(AssertResult::pass()), Outcome::Fail);
    assert_eq!(with(AssertResult::fail("x")), Outcome::Pass);
    assert_eq!(with(AssertResult::skip("x")), Outcome::Fail);
    assert_eq!(with(AssertResult::inconclusive("x")), Outcome::Inconclusive);
}
