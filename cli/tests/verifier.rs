//! The verifier sweep over the schedulers of cli/tests/schedulers.rs, and of cli/tests/declarations.rs.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

/// Sweeps one scheduler over machines of at most 4 CPUs.
fn sweep(scheduler: &str, more: &[&str]) -> (Output, Option<Value>) {
    let words = ["--scheduler", scheduler, "--max-cpus", "4"];
    let dir = tempfile::tempdir().expect("a temporary directory");
    sweep_of("schedulers", &[&words, more].concat(), &dir.path().join("grid.json"))
}

/// Sweeps schedulers of a test file.
fn sweep_of(file: &str, words: &[&str], result: &Path) -> (Output, Option<Value>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let output = Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"))
        .args(["ktstr", "verifier", "--output"])
        .arg(result)
        .args(words)
        .args(["--", "-p", "ktstr", "--test", file])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("NEXTEST")
        .env("KTSTR_SIDECAR_DIR", dir.path())
        .output()
        .expect("running cargo-ktstr");
    let grid =
        std::fs::read(result).ok().map(|bytes| serde_json::from_slice(&bytes).expect("a grid of JSON"));
    (output, grid)
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

#[test]
fn a_sound_scheduler_passes_on_every_machine() {
    let (output, grid) = sweep("fixture", &[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let grid = grid.expect("a result file");
    let cells = grid["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), 3, "{grid:#}");
    assert_eq!(cells[0]["topology"], "1cpu-1llc-nosmt", "{grid:#}");
    for cell in cells {
        assert_eq!(cell["outcome"], "pass", "{cell:#}");
        // As many programs as cli/scx-fixture/bpf has, each gone through by the verifier.
        let insns = cell["verified_insns"].as_object().expect("programs");
        assert!(insns.len() >= 10 && insns.values().all(|n| n.as_u64() > Some(0)), "{cell:#}");
    }
    assert!(text.contains("fixture    4cpu-2llc-nosmt  PASS"), "{text}");
}

#[test]
fn a_rejected_program_is_told_in_few_lines_or_in_all() {
    let (output, grid) = sweep("unverifiable", &[]);
    let short = text(&output);
    assert_eq!(output.status.code(), Some(1), "{short}");
    let cell = &grid.expect("a result file")["cells"][0];
    assert_eq!(cell["outcome"], "fail");
    // The grid's own account of it, in the file and below the table.
    let log = cell["log"].as_str().expect("the log");
    assert!(log.contains("identical iterations omitted"), "{log}");
    let refused =
        cell["programs"].as_array().expect("programs").iter().find(|p| !p["verdict"]["Rejected"].is_null());
    let reason = refused.and_then(|p| p["verdict"]["Rejected"]["reason"].as_str()).expect("a refusal");
    assert!(
        short.split("\nresult: ").next().is_some_and(|all| all.contains(&format!("): {reason}"))),
        "{short}"
    );
    assert!(short.contains("the verifier rejected its program"), "{short}");
    assert!(short.contains("identical iterations omitted"), "{short}");
    let (output, _) = sweep("unverifiable", &["--raw"]);
    let long = text(&output);
    assert!(!long.contains("identical iterations omitted"), "{long}");
    assert!(long.lines().count() > 2 * short.lines().count(), "{} lines", long.lines().count());
}

#[test]
fn a_scheduler_that_nobody_declares_is_named() {
    let (output, _) = sweep("no-such", &[]);
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("looking for scheduler \"no-such\""), "{text}");
}

/// Two sweeps of one CPU: the same programs under two names, and then the same as in a file.
#[test]
fn two_schedulers_are_compared_program_by_program() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (first, second) = (dir.path().join("first.json"), dir.path().join("second.json"));
    let words = ["--a", "fixture", "--b", "other", "--max-cpus", "1"];
    let (output, grid) = sweep_of("schedulers", &words, &first);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("fixture − other on 1cpu-1llc-nosmt "), "{said}");
    let compared = |grid: &Value, b: &str| {
        let comparisons = grid["comparisons"].as_array().expect("comparisons").clone();
        assert_eq!((comparisons.len(), &comparisons[0]["b"]), (1, &b.into()), "{grid:#}");
        let programs = comparisons[0]["programs"].as_array().expect("programs").clone();
        assert!(programs.len() >= 10, "{grid:#}");
        assert!(programs.iter().all(|p| p["a"].as_u64() > Some(0) && p["a"] == p["b"]), "{grid:#}");
    };
    compared(&grid.expect("a result file"), "other");
    let file = first.to_str().expect("a plain path");
    let words = ["--scheduler", "fixture", "--max-cpus", "1", "--against", file];
    let (output, grid) = sweep_of("schedulers", &words, &second);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    compared(&grid.expect("a result file"), file);
}

/// The kernels of a declaration: what it doesn't list is left out and told, and where nobody names a kernel it is swept on
/// those. The scheduler has the verifier's statistics printed, which the grid sums up.
#[test]
fn a_scheduler_is_swept_on_the_kernels_that_it_lists() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let result = dir.path().join("grid.json");
    let words =
        ["--scheduler", "listed", "--max-cpus", "1", "--kernel", "image:6.12", "--kernel", "apt:6.12"];
    let (output, grid) = sweep_of("declarations", &words, &result);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let grid = grid.expect("a result file");
    let cells = grid["cells"].as_array().expect("cells");
    let of = |outcome: &str| cells.iter().find(|cell| cell["outcome"] == outcome);
    let (Some(swept), Some(_), 2) = (of("pass"), of("skip"), cells.len()) else { panic!("{grid:#}") };
    assert!(said.contains("its declaration has it swept on apt:6.12 only"), "{said}");
    let programs = swept["programs"].as_array().expect("programs");
    let stats = |p: &Value| p["stats"]["processed"].as_u64().zip(p["stats"]["total_states"].as_u64());
    assert!(
        programs.len() >= 10 && programs.iter().all(|p| stats(p).is_some_and(|(n, _)| n > 0)),
        "{grid:#}"
    );
    assert!(said.contains("  peak states  stack bytes\n"), "{said}");
    let (output, grid) = sweep_of("declarations", &words[..4], &result);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let grid = grid.expect("a result file");
    assert_eq!(
        (grid["cells"].as_array().map(Vec::len), &grid["cells"][0]["outcome"]),
        (Some(1), &"pass".into())
    );
}
