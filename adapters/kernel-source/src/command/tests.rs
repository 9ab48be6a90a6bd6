//! Tests of running programs.

use std::time::{Duration, Instant};

use super::*;

fn shell(script: &str) -> Command {
    let mut command = Commands::default().command("sh");
    command.args(["-c", script]);
    command
}

#[test]
fn output_is_returned_and_messages_are_in_english() {
    let text = run("asking", &mut shell("echo $LC_ALL; cat")).expect("ran");
    assert_eq!(text, "C\n");
}

#[test]
fn a_failure_shows_command_status_and_the_end_of_its_messages() {
    let script = "for i in $(seq 30); do echo line $i >&2; done; exit 3";
    let error = run("counting", &mut shell(script)).expect_err("failed");
    let text = error.to_string();
    assert!(text.starts_with("counting: `sh -c"), "{text}");
    assert!(text.contains("exit status: 3"), "{text}");
    assert!(text.contains("line 30") && !text.contains("line 18\n"), "{text}");
}

#[test]
fn a_missing_program_is_told_from_a_failing_one() {
    let commands = Commands::searching("/nonexistent".into());
    let error = commands.run("looking", "sh", &["-c", ":"]).expect_err("absent");
    assert!(matches!(error, CommandError::NotInstalled { .. }), "{error}");
}

#[test]
fn a_dropped_program_is_killed() {
    let mut command = shell("exec sleep 1000");
    let running = start("sleeping", &mut command).expect("started");
    let pid = running.child.as_ref().expect("a child").id();
    drop(running);
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
}

#[test]
fn programs_end_with_the_thread_that_started_them() {
    let pid = std::thread::spawn(|| {
        let mut command = shell("exec sleep 1000");
        let mut running = start("sleeping", &mut command).expect("started");
        // Neither waited for nor killed by us.
        running.child.take().expect("a child").id()
    })
    .join()
    .expect("no panic");
    let stat = format!("/proc/{pid}/stat");
    let start = Instant::now();
    while std::fs::read_to_string(&stat).is_ok_and(|s| !s.contains(") Z")) {
        assert!(start.elapsed() < Duration::from_secs(20), "still alive");
        std::thread::yield_now();
    }
}
