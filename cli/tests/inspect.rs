//! `ktstr inspect` on the core of a machine that was just taken.

use ktstr_machine::{Accel, CommandLine, ConsoleTail, Hypervisor, MachineSpec, VmEvent};
use ktstr_qemu::Qemu;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);

/// The core of a kernel that found no root file system, panicked and stays there.
fn core_of_a_panicked_machine(path: &Path) -> PathBuf {
    let kernel = ktstr::find_kernel().expect("looking for a kernel").expect("a kernel");
    let mut cmdline = CommandLine::new();
    cmdline.extend(["panic=0", "root=/dev/none"]).expect("kernel arguments");
    let spec = MachineSpec {
        kernel: kernel.clone(),
        initramfs: Vec::new(),
        cmdline,
        topology: ktstr::topology::Topology::uniform(1, 1, 2, 1),
        memory_mib: 256,
        accel: Accel::Tcg,
        seed: 0,
        verbose: false,
    };
    let qemu = Qemu::find(None, std::env::var("PATH").ok().as_deref()).expect("QEMU");
    let mut vm = qemu.boot(&spec).expect("a machine");
    let mut console = ConsoleTail::new(100);
    let begin = Instant::now();
    while console.find_last("Kernel panic").is_none() {
        assert!(begin.elapsed() < PATIENCE, "no panic: {:?}", console.last(20));
        if let Some(VmEvent::Console(bytes)) = vm.next_event(Duration::from_secs(1)).expect("the machine") {
            console.push(&bytes);
        }
    }
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
