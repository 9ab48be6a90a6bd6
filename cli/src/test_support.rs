//! What `#[ktstr_test]` expands to, and how a test binary answers its runner.

use crate::{guest, run, sweep};
use ktstr_run::{case_name, test_of_case};
use std::ffi::OsString;
use std::process::{Command, Stdio};

pub use crate::host_check::{HostVerdict, host_check};
pub use crate::registry::{KTSTR_SCHEDULERS, KTSTR_TESTS, KtstrTestEntry};
pub use ktstr_run::TestSpec;
pub use ktstr_topology::ShapeBounds;

/// Set for the child that lists what libtest knows.
const INNER_LIST: &str = "KTSTR_INNER_LIST";

/// Runs a test for its libtest wrapper: returns on a pass or a skip, panics otherwise.
pub fn run_under_libtest(entry: &'static KtstrTestEntry) {
    let case = run::run_case(entry);
    if !case.text.is_empty() {
        eprintln!("{}", case.text.trim_end());
    }
    if case.outcome.exit_code() != 0 {
        // The text says everything; a panic message of our own would only repeat it.
        std::panic::resume_unwind(Box::new("ktstr test failed"));
    }
}

/// Runs before `main`: becomes the guest's init inside a machine, and answers
/// nextest's `--list` and `--exact` for our cases.
#[ctor::ctor(unsafe)]
fn intercept() {
    if guest::in_guest() {
        guest::main();
    }
    if KTSTR_TESTS.is_empty() || std::env::var_os(INNER_LIST).is_some() {
        return;
    }
    let under_nextest = std::env::var_os("NEXTEST").is_some();
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let Some(code) = under_nextest.then(|| answer(&args)).flatten() {
        std::process::exit(code);
    }
}

/// The exit code if the arguments are for us; `None` leaves them to libtest.
fn answer(args: &[OsString]) -> Option<i32> {
    let has = |flag: &str| args.iter().any(|a| a == flag);
    if has("--list") {
        return Some(list(has("--ignored")));
    }
    let exact = has("--exact");
    let mut words = args.iter().filter_map(|a| a.to_str()).filter(|_| exact);
    let entry = match words.clone().find_map(test_of_case) {
        Some(case) => {
            let entry = KTSTR_TESTS.iter().find(|e| e.spec.name == case);
            let Some(entry) = entry else {
                eprintln!("ktstr: no test {case:?} in this binary; list them with --list");
                return Some(1);
            };
            entry
        }
        None => words.find_map(sweep::entry)?,
    };
    let result = run::run_case(entry);
    if !result.text.is_empty() {
        eprintln!("{}", result.text.trim_end());
    }
    Some(result.outcome.exit_code())
}

/// Prints our cases and then what libtest knows besides their wrappers.
fn list(ignored_only: bool) -> i32 {
    let ours = KTSTR_TESTS.iter().filter(|e| !ignored_only || e.spec.is_ignored());
    let mut lines: Vec<String> = ours.map(|e| format!("{}: test", case_name(e.spec.name))).collect();
    if !ignored_only {
        match sweep::cells() {
            Ok(cells) => lines.extend(cells.iter().map(|name| format!("{name}: test"))),
            Err(e) => {
                eprintln!("ktstr: listing the cells of the verifier sweep: {e:#}");
                return 1;
            }
        }
    }
    lines.sort();
    match libtest_list(ignored_only) {
        Ok(theirs) => lines.extend(theirs),
        Err(e) => {
            eprintln!("ktstr: listing the plain tests of this binary: {e}");
            return 1;
        }
    }
    for line in lines {
        println!("{line}");
    }
    0
}

/// What libtest would list, without our wrappers.
fn libtest_list(ignored_only: bool) -> std::io::Result<Vec<String>> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--list", "--format", "terse"]).env(INNER_LIST, "1").stdin(Stdio::null());
    if ignored_only {
        command.arg("--ignored");
    }
    let output = command.stderr(Stdio::inherit()).output()?;
    if !output.status.success() {
        return Err(std::io::Error::other(format!("the binary's own list ended with {}", output.status)));
    }
    let wrappers: Vec<String> =
        KTSTR_TESTS.iter().map(|e| format!("{}: test", e.spec.libtest_path())).collect();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.lines().filter(|l| !wrappers.iter().any(|w| w == l)).map(String::from).collect())
}
