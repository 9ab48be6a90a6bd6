//! A test's process that is killed at any instant leaves nothing behind, and the next run works.

use crate::common::{CaseOutput, case, sidecars};
use crate::{is_kvm, wait_for};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

#[test]
fn four_kills_leave_nothing() {
    kill_and_run(4, 1);
}

/// Takes minutes where the processor is emulated.
#[test]
#[ignore = "the long form of four_kills_leave_nothing"]
fn twenty_kills_leave_nothing() {
    kill_and_run(20, 2);
}

/// Kills `count` runs of a test that would go on for a minute, at instants that follow from
/// `seed`, then runs one to its end.
fn kill_and_run(count: u32, seed: u64) {
    let home = tempfile::tempdir().unwrap();
    // From before the program's first instruction to well into the test; machines boot more
    // slowly where the processor is emulated than they are resumed here.
    let span = if is_kvm() { Duration::from_secs(12) } else { Duration::from_secs(2) };
    let mut random = seed;
    for round in 1..=count {
        random = next(random);
        let after = span.mul_f64((random >> 11) as f64 / (1u64 << 53) as f64);
        let (mut command, results) = at_home("drill_long", home.path());
        let mut child = command.spawn().unwrap();
        std::thread::sleep(after);
        child.kill().unwrap();
        let ended = child.wait().unwrap();
        assert_eq!(ended.signal(), Some(9), "round {round}: killed after {after:?}, it had ended by itself");
        wait_for("its processes to be gone", || processes_of(home.path()).is_empty().then_some(()));
        assert_eq!(files_below(results.path()), [] as [PathBuf; 0], "round {round}, killed after {after:?}");
        assert_eq!(files_below(&home.path().join("tmp")), [] as [PathBuf; 0], "round {round}, {after:?}");
    }
    let (mut command, results) = at_home("drill_healthy", home.path());
    let output: CaseOutput = command.output().unwrap().into();
    assert_eq!(output.code, Some(0), "after {count} kills: {}", output.text);
    assert_eq!(sidecars(&results).len(), 1);
    assert_eq!(files_below(results.path()).len(), 1, "{:?}", files_below(results.path()));
    // What the killed ones had announced is removed by the first that comes after.
    assert_eq!(files_below(home.path()), [] as [PathBuf; 0]);
    assert!(processes_of(home.path()).is_empty());
}

/// xorshift64 (Marsaglia, "Xorshift RNGs", 2003).
fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

/// A case whose temporary and runtime files are below `home`.
fn at_home(test: &str, home: &Path) -> (Command, tempfile::TempDir) {
    let (mut command, results) = case(test);
    for (name, below) in [("TMPDIR", "tmp"), ("XDG_RUNTIME_DIR", "run")] {
        let dir = home.join(below);
        std::fs::create_dir_all(&dir).unwrap();
        command.env(name, dir);
    }
    (command, results)
}

/// Processes that were started with this home in their environment and have not ended.
fn processes_of(home: &Path) -> Vec<String> {
    let marker = home.to_str().unwrap();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let names = entries.filter_map(|e| e.file_name().to_str().map(str::to_owned));
    let pids = names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()));
    // One that has ended has no environment, nor one of another user's, which is none of ours.
    let environment = |pid: &String| std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    pids.filter(|pid| String::from_utf8_lossy(&environment(pid)).contains(marker)).collect()
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        match entry.file_type().unwrap().is_dir() {
            true => found.extend(files_below(&entry.path())),
            false => found.push(entry.path()),
        }
    }
    found
}
