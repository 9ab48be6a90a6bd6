//! Tests of running, logging and ending a process group.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tempfile::TempDir;

use super::*;

fn steps() -> (TempDir, Steps) {
    let dir = tempfile::tempdir().expect("a directory");
    let log = dir.path().join("log");
    let steps = Steps::new(Path::new("/src/linux"), log).expect("a log");
    (dir, steps)
}

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z"))
}

fn await_end(pid: &str) {
    let start = Instant::now();
    while alive(pid) {
        assert!(start.elapsed() < Duration::from_secs(20), "{pid} still runs");
        std::thread::yield_now();
    }
}

#[test]
fn both_outputs_are_logged_in_order_and_lines_are_counted() {
    let (_dir, mut steps) = steps();
    let mut seen = Vec::new();
    let script = "echo one; echo two >&2; printf '\\377three'";
    let lines = steps.run(shell(script), &mut |n| seen.push(n)).expect("success");
    assert_eq!(lines, 3);
    assert_eq!(seen, [1, 2, 3]);
    let log = fs::read(steps.log_path()).expect("readable");
    assert!(log.ends_with(b"one\ntwo\n\xffthree"));
    assert!(log.starts_with(b"+ sh -c "));
}

#[test]
fn a_failure_shows_the_first_complaints_and_the_end() {
    let (_dir, mut steps) = steps();
    let script = "echo 'a.c:1: error: bad'; for i in $(seq 50); do echo line $i; done; exit 2";
    let error = steps.run(shell(script), &mut |_| {}).expect_err("failed");
    let BuildError::StepFailed { status, tail, log, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(status, "exit status: 2");
    assert!(tail.starts_with("a.c:1: error: bad\n...\nline 21\n"), "{tail}");
    assert!(tail.ends_with("line 50"), "{tail}");
    assert_eq!(log, steps.log_path());
    assert!(error.to_string().contains("/src/linux"), "{error}");
}

#[test]
fn a_short_failure_is_shown_once() {
    let (_dir, mut steps) = steps();
    let error = steps.run(shell("echo 'x: error: bad'; exit 1"), &mut |_| {}).expect_err("failed");
    let BuildError::StepFailed { tail, .. } = error else {
        panic!("{error}");
    };
    assert_eq!(tail, "x: error: bad");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let (_dir, mut steps) = steps();
    let error = steps.run(Command::new("/nonexistent/make"), &mut |_| {}).expect_err("absent");
    assert!(error.to_string().contains("/nonexistent/make"), "{error}");
}

/// A script that writes its own and its child's process ids, then waits.
fn long_family(dir: &TempDir, trap: &str) -> (Command, impl Fn() -> Vec<String> + use<>) {
    let script = dir.path().join("family");
    let pids = dir.path().join("pids");
    let text = format!(
        "#!/bin/sh\n{trap}\nsleep 1000 &\necho $$ $! > {pids}\necho started\nwait\nwait\n",
        pids = pids.display()
    );
    fs::write(&script, text).expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("set");
    let read = move || {
        let text = fs::read_to_string(&pids).expect("written by the script");
        text.split_whitespace().map(str::to_owned).collect()
    };
    (Command::new(script), read)
}

#[test]
fn when_we_stop_reading_the_whole_group_is_ended() {
    for trap in ["", "trap '' TERM"] {
        let (dir, mut steps) = steps();
        let (command, pids) = long_family(&dir, trap);
        let stopped =
            catch_unwind(AssertUnwindSafe(|| steps.run(command, &mut |_| panic!("the reader gives up"))));
        assert!(stopped.is_err());
        let pids = pids();
        assert_eq!(pids.len(), 2);
        for pid in &pids {
            await_end(pid);
        }
    }
}

/// A real make, a recipe with a child, and the thread that runs them ends.
#[test]
fn make_and_its_children_stop_when_the_starter_ends() {
    let dir = tempfile::tempdir().expect("a directory");
    let makefile = "all:\n\t@sh -c 'echo $$$$ > pid; echo started; exec sleep 1000'\n";
    fs::write(dir.path().join("Makefile"), makefile).expect("written");
    let path = dir.path().to_owned();
    let make = std::thread::spawn(move || {
        let mut command = Command::new("make");
        command.arg("-C").arg(&path).arg("all");
        let (group, output) = Group::start(&mut command).expect("started");
        drop(command);
        for line in BufReader::new(output).lines() {
            if line.expect("readable").contains("started") {
                break;
            }
        }
        let id = group.child.id();
        // As if we were killed: nothing is tidied up.
        std::mem::forget(group);
        id
    })
    .join()
    .expect("no panic");
    let recipe = fs::read_to_string(dir.path().join("pid")).expect("written");
    await_end(&make.to_string());
    await_end(recipe.trim());
}
