//! A child's output, end and failure as the caller sees them.

use super::*;
use std::cell::RefCell;
use tempfile::TempDir;

fn shell(script: &str) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command
}

fn logs() -> TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn both_streams_reach_the_log_and_stdout_can_be_kept_apart() {
    let logs = logs();
    let ended = Child::new(logs.path(), "two streams", shell("echo key; echo progress >&2"))
        .keep_stdout()
        .check()
        .unwrap();
    assert_eq!(ended.stdout, "key\n");
    let log = std::fs::read_to_string(logs.path().join("two-streams.log")).unwrap();
    assert!(log.contains("key\n") && log.contains("progress\n"), "{log}");
}

#[test]
fn a_failure_says_the_status_the_log_and_its_last_lines_only() {
    let error =
        Child::new(logs().path(), "long fall", shell("seq 100; echo at last; exit 3")).check().unwrap_err();
    let text = error.to_string();
    assert!(text.contains("exit status: 3"), "{text}");
    assert!(text.contains("long-fall.log"), "{text}");
    assert!(text.contains("at last") && text.contains("| 100"), "{text}");
    assert!(!text.contains("| 10\n"), "{text}");
}

#[test]
fn carriage_returns_and_line_feeds_both_end_lines() {
    let seen = RefCell::new(Vec::new());
    let script = r"printf '10%%\r20%%\r\ndone\n\nlast'";
    Child::new(logs().path(), "redraw", shell(script))
        .show(|line| {
            seen.borrow_mut().push(line.to_owned());
            false
        })
        .check()
        .unwrap();
    assert_eq!(seen.into_inner(), ["10%", "20%", "done", "", "last"]);
}

#[test]
fn a_grandchild_that_keeps_the_pipe_does_not_keep_us() {
    let started = Instant::now();
    let ended = Child::new(logs().path(), "orphan", shell("sleep 20 & echo gone")).check().unwrap();
    assert!(ended.output.contains("gone"));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
}

#[test]
fn standard_input_is_empty() {
    let ended = Child::new(logs().path(), "stdin", shell("cat; echo read")).check().unwrap();
    assert_eq!(ended.output, "read\n");
}

#[test]
fn a_missing_program_is_named() {
    let error = Child::new(logs().path(), "missing", Command::new("no-such-program-here")).run().unwrap_err();
    assert!(format!("{error:#}").contains("no-such-program-here"), "{error:#}");
}
