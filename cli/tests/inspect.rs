//! `ktstr inspect` on the core of a machine that was just taken.

#[path = "common/panicked.rs"]
mod panicked;

use panicked::panicked_machine;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The core of a kernel that found no root file system, panicked and stays there.
fn core_of_a_panicked_machine(path: &Path) -> PathBuf {
    let kernel = ktstr::find_kernel().expect("looking for a kernel").expect("a kernel");
    let mut vm = panicked_machine();
    vm.pause().expect("pausing");
    vm.dump(path).expect("a core");
    kernel
}

fn inspect(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_ktstr"))
        .arg("inspect")
        .args(arguments)
        .output()
        .expect("running ktstr");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn tables_and_expressions_with_and_without_a_vmlinux() {
    let dir = tempfile::tempdir().expect("a directory");
    let core = dir.path().join("core");
    let image = core_of_a_panicked_machine(&core);
    let core = core.to_str().expect("UTF-8");
    let vmlinux = image.with_file_name("vmlinux");
    let symbols: Vec<&str> = match vmlinux.exists() {
        true => vec!["--vmlinux", vmlinux.to_str().expect("UTF-8")],
        false => Vec::new(),
    };
    for symbols in [&symbols[..], &[]] {
        let ask = |wishes: &[&str]| inspect(&[&[core], symbols, wishes].concat());
        let (done, text) = ask(&["init_task.comm", "runqueues[1].cpu", "init_task.sched_class", "init_task"]);
        assert!(done, "{text}");
        for part in
            ["init_task.comm = \"swapper/0\"", "runqueues[1].cpu = 1", "(idle_sched_class)", "  pid = 0"]
        {
            assert!(text.contains(part), "expected {part:?} in:\n{text}");
        }
        let (done, text) = ask(&["--tasks", "--runqueues", "--domains", "--cgroups"]);
        assert!(done, "{text}");
        for part in ["kthreadd", "LOCAL DSQ", "swapper/0", "CGROUP"] {
            assert!(text.contains(part), "expected {part:?} in:\n{text}");
        }
    }
    let (done, text) = inspect(&[core, "no_such_variable", "runqueues.cpu", "init_task.no_such_member"]);
    assert!(!done);
    for part in [
        "this kernel has no symbol no_such_variable",
        "write runqueues[0].cpu",
        "has no member no_such_member",
    ] {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
}
