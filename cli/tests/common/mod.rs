//! Runs a case of the calling test binary as its runner would, in a process of its
//! own, so that a test can look at how another one fails.

use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

/// How a case ended.
#[derive(Debug)]
pub(crate) struct CaseOutput {
    /// Exit code; `None` if a signal ended it.
    pub(crate) code: Option<i32>,
    /// What it printed on standard error.
    pub(crate) text: String,
}

impl From<Output> for CaseOutput {
    fn from(output: Output) -> Self {
        Self { code: output.status.code(), text: String::from_utf8_lossy(&output.stderr).into_owned() }
    }
}

/// The command that runs `ktstr/<test>` of this binary, with results in a directory
/// of its own.
pub(crate) fn case(test: &str) -> (Command, tempfile::TempDir) {
    let results = tempfile::tempdir().expect("a temporary directory");
    let mut command = Command::new(std::env::current_exe().expect("our own path"));
    command
        .args(["--exact", &format!("ktstr/{test}"), "--nocapture"])
        .env("NEXTEST", "1")
        .env("KTSTR_SIDECAR_DIR", results.path())
        .env_remove("KTSTR_LOG_PASSES")
        .env_remove("RUST_BACKTRACE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    (command, results)
}

/// Runs a case to its end.
#[allow(dead_code, reason = "each test binary uses a part of this module")]
pub(crate) fn run(test: &str, env: &[(&str, &str)]) -> CaseOutput {
    let (mut command, _results) = case(test);
    command.envs(env.iter().copied()).output().expect("running the case").into()
}

/// Runs a case, expects it to fail and returns what it said.
#[allow(dead_code, reason = "each test binary uses a part of this module")]
pub(crate) fn fails(test: &str, env: &[(&str, &str)]) -> String {
    let output = run(test, env);
    assert_eq!(output.code, Some(1), "{}", output.text);
    output.text
}

/// The sidecars that a case left.
#[allow(dead_code, reason = "each test binary uses a part of this module")]
pub(crate) fn sidecars(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(dir.path())
        .expect("the results directory")
        .map(|e| e.expect("an entry").path())
        .filter(|p| p.to_string_lossy().ends_with(".ktstr.json"))
        .collect();
    files.sort();
    files
}

/// The failure dump that a case left, all of which could be read.
#[allow(dead_code, reason = "each test binary uses a part of this module")]
pub(crate) fn failure_dump(dir: &tempfile::TempDir) -> serde_json::Value {
    let mut files = std::fs::read_dir(dir.path()).expect("the results").map(|e| e.expect("an entry").path());
    let dump = files.find(|path| path.to_string_lossy().ends_with(".failure-dump.json"));
    let dump = std::fs::read(dump.expect("a dump beside the sidecar")).expect("the dump");
    let dump: serde_json::Value = serde_json::from_slice(&dump).expect("JSON");
    assert_eq!(dump["problems"], serde_json::json!([]), "{dump:#}");
    dump
}

/// The hypervisor that a running case has started, once it has.
#[allow(dead_code, reason = "each test binary uses a part of this module")]
pub(crate) fn hypervisor_of(child: &Child) -> Option<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", child.id())).ok()?;
    let children = tasks
        .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("children")).ok())
        .flat_map(|c| c.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>());
    // A case also asks QEMU for its version; only a machine is given a kernel.
    children.into_iter().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.contains("qemu-system") && line.contains("\0-kernel\0"))
    })
}

/// Has the command see a tmpfs of its own, mounted with `options`, at `target`.
#[allow(dead_code, reason = "each test binary uses a part of this module")]
pub(crate) fn small_disk_at(
    command: &mut Command,
    target: &std::path::Path,
    options: &'static std::ffi::CStr,
) {
    use std::os::unix::process::CommandExt;
    let target = std::ffi::CString::new(target.to_str().expect("a plain path")).expect("no zero byte");
    // SAFETY: between fork and exec only async-signal-safe system calls are made.
    unsafe { command.pre_exec(move || mount_tmpfs(&target, options)) };
}

/// In a mount namespace of the calling process.
fn mount_tmpfs(target: &std::ffi::CStr, options: &std::ffi::CStr) -> std::io::Result<()> {
    let check = |result: i32| if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) };
    // SAFETY: system calls on strings that outlive them.
    unsafe {
        let user = if libc::geteuid() == 0 { 0 } else { libc::CLONE_NEWUSER };
        check(libc::unshare(user | libc::CLONE_NEWNS))?;
        let none = std::ptr::null();
        check(libc::mount(none, c"/".as_ptr(), none, libc::MS_REC | libc::MS_PRIVATE, none.cast()))?;
        let tmpfs = c"tmpfs".as_ptr();
        check(libc::mount(tmpfs, target.as_ptr(), tmpfs, 0, options.as_ptr().cast()))
    }
}

/// Every part must be in the text.
#[allow(dead_code, reason = "each test binary uses a part of this module")]
pub(crate) fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
}

/// The stock image of the distribution, stripped: its symbols and types are read out of
/// its own memory.
#[allow(dead_code, reason = "each test binary uses a part of this module")]
pub(crate) fn stock_image() -> String {
    let program = env!("CARGO_BIN_EXE_ktstr");
    let output = std::process::Command::new(program).args(["kernel", "path", "image:6.12"]).output();
    let output = output.expect("running ktstr");
    assert!(output.status.success(), "no stock image: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_string()
}
