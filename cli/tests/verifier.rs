//! The verifier sweep over the schedulers of cli/tests/schedulers.rs.

use serde_json::Value;
use std::process::{Command, Output};

/// Sweeps one scheduler over machines of at most 4 CPUs.
fn sweep(scheduler: &str, more: &[&str]) -> (Output, Option<Value>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let result = dir.path().join("grid.json");
    let output = Command::new(env!("CARGO_BIN_EXE_cargo-ktstr"))
        .args(["ktstr", "verifier", "--scheduler", scheduler, "--max-cpus", "4", "--output"])
        .arg(&result)
        .args(more)
        .args(["--", "-p", "ktstr", "--test", "schedulers"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env_remove("NEXTEST")
        .env("KTSTR_SIDECAR_DIR", dir.path())
        .output()
        .expect("running cargo-ktstr");
    let grid =
        std::fs::read(&result).ok().map(|bytes| serde_json::from_slice(&bytes).expect("a grid of JSON"));
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
    assert_eq!(cells.len(), 2, "{grid:#}");
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
    assert_eq!(grid.expect("a result file")["cells"][0]["outcome"], "fail");
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
