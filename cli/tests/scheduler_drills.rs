//! What can go wrong with a scheduler's program before the kernel ever sees it: each ends
//! soon, with a message that says what to do.

mod common;

use common::{assert_says, case, fails};
use ktstr::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

declare_scheduler!(NOWHERE, { name = "nowhere", binary = "scx_no_such_program", verifier = false });
declare_scheduler!(ENDS_AT_ONCE, { name = "ends_at_once", binary_path = "/bin/true", verifier = false });
declare_scheduler!(FAILS_AT_ONCE, { name = "fails_at_once", binary_path = "/bin/false", verifier = false });
declare_scheduler!(SCRIPT, { name = "script", binary_path = "tests/schedulers/says_why.sh", verifier = false });
declare_scheduler!(SLEEPER, { name = "sleeper", binary_path = "/bin/sleep", sched_args = ["100000"], verifier = false });
declare_scheduler!(SWITCHED, {
    name = "switched",
    kernel_builtin_enable = ["echo 1 > /proc/sys/kernel/sched_schedstats"],
    kernel_builtin_disable = ["echo 0 > /proc/sys/kernel/sched_schedstats"],
});
declare_scheduler!(SWITCHED_FOR_NOTHING, {
    name = "switched_for_nothing",
    ops = "demo",
    kernel_builtin_enable = ["true"],
    kernel_builtin_disable = ["true"],
    verifier = false,
});
declare_scheduler!(SWITCH_BROKEN, {
    name = "switch_broken",
    kernel_builtin_enable = ["echo 1 > /proc/sys/kernel/no_such_setting"],
    kernel_builtin_disable = ["true"],
    verifier = false,
});

#[ktstr_test(ignore, scheduler = NOWHERE)]
fn drill_nowhere(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = ENDS_AT_ONCE)]
fn drill_ends_at_once(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = FAILS_AT_ONCE)]
fn drill_fails_at_once(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = SCRIPT, extra_sched_args = ["by order"])]
fn drill_script(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = SLEEPER)]
fn drill_never_attaches(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, expect_err, scheduler = ENDS_AT_ONCE)]
fn drill_expects_another_failure(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = SWITCH_BROKEN)]
fn drill_switch_broken(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[ktstr_test(ignore, scheduler = SWITCHED_FOR_NOTHING)]
fn drill_switched_for_nothing(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// The kernel is asked for the declared name, and has none.
#[test]
fn a_builtin_one_that_does_not_come_is_noticed() {
    let text = fails("drill_switched_for_nothing", &[("KTSTR_ACCEL", "deterministic")]);
    assert_says(
        &text,
        &["did not attach: not enabled 60.0 s of guest time after it was switched on", "disabled"],
    );
}

#[ktstr_test(ignore, scheduler = SWITCHED, watchdog_timeout_s = 4)]
fn drill_has_nothing_to_watch(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

#[test]
fn a_timeout_without_a_scheduler_that_could_have_it_is_refused() {
    let text = fails("drill_has_nothing_to_watch", &[]);
    assert_says(&text, &["watchdog_timeout_s of scheduler \"switched\"", "this one has none"]);
}

/// A scheduler that is part of the kernel is switched on around the test.
#[ktstr_test(duration_s = 1, scheduler = SWITCHED, post_vm = nobody_confirmed_it)]
fn a_builtin_one_is_switched_on(ctx: &Ctx) -> Result<AssertResult> {
    let setting = std::fs::read_to_string("/proc/sys/kernel/sched_schedstats")?;
    ensure!(setting.trim() == "1", "it is not on: {setting:?}");
    scenarios::steady(ctx)
}

/// Without a declared name nobody knows what the kernel is to be asked.
fn nobody_confirmed_it(vm: &VmResult<'_>) -> Result<AssertResult> {
    let report = vm.schedulers().first().context("no report")?;
    let outcome = serde_json::to_value(&report.outcome)?;
    ensure!(outcome == "unconfirmed", "{report:?}");
    Ok(AssertResult::pass())
}

#[test]
fn no_such_program() {
    let text = fails("drill_nowhere", &[]);
    assert_says(&text, &["\"scx_no_such_program\"", "$PATH", "KTSTR_SCHEDULER_BIN_SCX_NO_SUCH_PROGRAM"]);
    let text = fails("drill_nowhere", &[("KTSTR_SCHEDULER", "/etc/passwd")]);
    assert_says(&text, &["KTSTR_SCHEDULER=/etc/passwd is no executable file"]);
}

#[test]
fn one_that_ends_at_once() {
    let text = fails("drill_ends_at_once", &[]);
    assert_says(
        &text,
        &["scheduler \"ends_at_once\" did not attach", "exit code 0", "runs until told to stop"],
    );
    let text = fails("drill_fails_at_once", &[]);
    assert_says(&text, &["did not attach: its program ended with exit code 1"]);
}

#[test]
fn a_script_runs_and_is_heard() {
    let text = fails("drill_script", &[]);
    assert_says(&text, &["exit code 7", "--- scheduler log ---", "no scheduling today, by order"]);
}

#[test]
fn one_that_never_attaches_is_not_waited_for_forever() {
    // Guest time that nobody uses costs nothing in this mode.
    let text = fails("drill_never_attaches", &[("KTSTR_ACCEL", "deterministic")]);
    assert_says(
        &text,
        &["not attached after 60.0 s of guest time, though its program runs", "sched_ext is disabled"],
    );
}

#[test]
fn a_failure_to_attach_is_not_the_failure_that_was_expected() {
    let text = fails("drill_expects_another_failure", &[]);
    assert_says(&text, &["meant to fail (`expect_err`), but not by a scheduler that never attached"]);
}

#[test]
fn a_switch_that_is_not_there_is_named() {
    let text = fails("drill_switch_broken", &[]);
    assert_says(
        &text,
        &["did not attach: running \"echo 1 > /proc/sys/kernel/no_such_setting\"", "no_such_setting"],
    );
}

#[test]
fn a_program_for_another_machine() {
    // e_machine of the ELF header: 183 is EM_AARCH64.
    let program = altered(|bytes| bytes[18..20].copy_from_slice(&183u16.to_le_bytes()));
    let text = with_program(&program);
    assert_says(&text, &["is no program for this machine", "another architecture"]);
}

#[test]
fn a_library_that_is_not_there() {
    let program = altered(|bytes| {
        let name = b"libc.so.6\0";
        let at = bytes.windows(name.len()).position(|w| w == name).expect("it needs libc");
        bytes[at..at + name.len()].copy_from_slice(b"libc.so.9\0");
    });
    let text = with_program(&program);
    assert_says(&text, &["finding library libc.so.9", "LD_LIBRARY_PATH"]);
}

/// A copy of a real program, changed.
fn altered(change: impl FnOnce(&mut Vec<u8>)) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("scheduler");
    let mut bytes = std::fs::read("/bin/true").unwrap();
    change(&mut bytes);
    std::fs::write(&path, bytes).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    (dir, path)
}

fn with_program((_dir, path): &(tempfile::TempDir, PathBuf)) -> String {
    let (mut command, _results) = case("drill_nowhere");
    command.env("KTSTR_SCHEDULER_BIN_SCX_NO_SUCH_PROGRAM", Path::new(path));
    let output: common::CaseOutput = command.output().unwrap().into();
    assert_eq!(output.code, Some(1), "{}", output.text);
    output.text
}
