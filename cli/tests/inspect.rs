//! `ktstr inspect` on the core of a machine that was just taken, and on one that runs.

mod common;
#[path = "common/panicked.rs"]
mod panicked;

use common::case;
use ktstr::prelude::*;
use panicked::panicked_machine;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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
    let other = dir.path().join("other");
    let mut bytes = vec![0; 1 << 16];
    std::io::Read::read_exact(&mut std::fs::File::open(core).expect("the core"), &mut bytes)
        .expect("its head");
    // `e_machine`: EM_RISCV. What its segments hold is not looked at before that.
    bytes[18..20].copy_from_slice(&243u16.to_le_bytes());
    std::fs::copy(core, &other).expect("a copy");
    let mut file = std::fs::OpenOptions::new().write(true).open(&other).expect("the copy");
    std::io::Write::write_all(&mut file, &bytes).expect("its head");
    let (done, text) = inspect(&[other.to_str().expect("UTF-8")]);
    assert!(!done && text.contains("architecture ELF machine 243: expected x86-64 or aarch64"), "{text}");
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

/// As `inspect`, with a cache of its own.
fn inspect_with(cache: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktstr"));
    let output = command.arg("inspect").args(arguments).env("KTSTR_CACHE_DIR", cache).output();
    let output = output.expect("running ktstr");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[test]
fn variables_have_the_types_of_the_vmlinux_which_are_kept() {
    let dir = tempfile::tempdir().expect("a directory");
    let (core, cache) = (dir.path().join("core"), dir.path().join("cache"));
    let vmlinux = core_of_a_panicked_machine(&core).with_file_name("vmlinux");
    let core = core.to_str().expect("UTF-8");
    let ask = ["init_uts_ns.name.sysname", "slab_caches.next", "panic_timeout", "system_state"];
    let (done, text) = inspect_with(&cache, &[&[core], &ask[..]].concat());
    assert!(
        !done && text.contains("no vmlinux with debug information is given; or write (its type)"),
        "{text}"
    );
    // Of a name alone the bytes are told all the same, if not what they mean.
    assert!(text.contains("as 32 bits 0"), "{text}");
    if !vmlinux.exists() {
        return;
    }
    let file = ["--vmlinux", vmlinux.to_str().expect("UTF-8")];
    for by in [&file[..], &[]] {
        let (done, text) = inspect_with(&cache, &[&[core], by, &ask[..]].concat());
        assert!(done, "{text}");
        for part in ["sysname = \"Linux\"", "next = 0xff", "panic_timeout = 0\n", "system_state = SYSTEM_"] {
            assert!(text.contains(part), "expected {part:?} in:\n{text}");
        }
    }
    let (done, text) = inspect_with(&cache, &[core, "_text.x"]);
    assert!(!done && text.contains("but not of this one"), "{text}");
}

/// Runs long enough to be looked at; it waits to be asked.
#[ktstr_test(ignore, duration_s = 300)]
fn runs_for_long(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("busy").workers(3).comm("looked_at")])
}

// The verifier sweep takes the fixture out of tests/schedulers.rs, once.
declare_scheduler!(FIXTURE, {
    name = "fixture",
    binary = "scx-fixture",
    ops = "fixture",
    verifier = false,
});

/// The same under a scheduler that stalls CPU 1.
#[ktstr_test(ignore, scheduler = FIXTURE, extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "30000"], duration_s = 300)]
fn stalls_for_long(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("busy").workers(3).comm("looked_at")])
}

/// As `inspect`, among the machines of that runtime directory.
fn inspect_in(runtime: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ktstr"));
    let output = command.arg("inspect").args(arguments).env("XDG_RUNTIME_DIR", runtime).output();
    let output = output.expect("running ktstr");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

/// The text once it satisfies `enough`, which it must in good time.
fn inspect_until(runtime: &Path, arguments: &[&str], enough: impl Fn(&str) -> bool) -> String {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let (done, text) = inspect_in(runtime, arguments);
        if done && enough(&text) {
            return text;
        }
        assert!(Instant::now() < deadline, "{arguments:?} still says:\n{text}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_running_machine_is_found_and_read_and_gone_when_it_is() {
    let runtime = tempfile::tempdir().expect("a directory");
    let (mut command, _results) = case("runs_for_long");
    let mut child = command.env("XDG_RUNTIME_DIR", runtime.path()).spawn().expect("starting the case");
    let pid = child.id().to_string();
    let list = inspect_until(runtime.path(), &["--list"], |text| text.contains("runs_for_long"));
    assert!(list.contains(&pid) && list.contains("tcg 1n1l2c1t"), "{list}");
    // A busy runqueue by its table, then single values by expressions, live.
    let text =
        inspect_until(runtime.path(), &["runs_for_long"], |text| text.matches("looked_at").count() >= 3);
    assert!(text.contains("CURRENT"), "{text}");
    let jiffies = |text: &str| -> u64 {
        let line = text.lines().find(|l| l.starts_with("jiffies = ")).unwrap_or_else(|| panic!("{text}"));
        line.split_whitespace().nth(2).and_then(|n| n.parse().ok()).expect("a number")
    };
    let (done, first) =
        inspect_in(runtime.path(), &[pid.as_str(), "jiffies", "init_task.comm", "runqueues[1].nr_running"]);
    assert!(done && first.contains("init_task.comm = \"swapper/0\""), "{first}");
    let then = jiffies(&first);
    inspect_until(runtime.path(), &["runs_for_long", "jiffies"], |text| jiffies(text) > then);
    let tasks = inspect_in(runtime.path(), &["runs_for_long", "--tasks", "--cgroups"]);
    assert!(tasks.0 && tasks.1.contains("ktstr-watchdog") && tasks.1.contains("/ktstr/busy"), "{}", tasks.1);
    child.kill().expect("killing the case");
    child.wait().expect("its end");
    let (done, text) = inspect_in(runtime.path(), &["runs_for_long"]);
    assert!(!done && text.contains("running: none"), "{text}");
    assert_eq!(std::fs::read_dir(runtime.path().join("ktstr/machines")).expect("the directory").count(), 0);
}

#[test]
fn a_running_scheduler_is_read_with_queues_programs_and_variables() {
    let runtime = tempfile::tempdir().expect("a directory");
    let (mut command, _results) = case("stalls_for_long");
    let mut child = command.env("XDG_RUNTIME_DIR", runtime.path()).spawn().expect("starting the case");
    let ask = ["stalls_for_long", "bpf:victim.pid", "bpf:.data.victim/victim.comm"];
    let text = inspect_until(runtime.path(), &ask, |text| text.contains("victim.comm = \"looked_at\""));
    let pid = text.lines().find_map(|line| line.strip_prefix("bpf:victim.pid = ")).expect("the victim's pid");
    assert!(pid.parse::<u32>().is_ok_and(|pid| pid > 1), "{text}");
    let all = ["stalls_for_long", "--dsqs", "--programs", "--maps"];
    let text = inspect_until(runtime.path(), &all, |text| {
        let stalled = text.lines().find(|line| line.contains("0x57a11"));
        stalled.is_some_and(|line| line.contains("looked_at ("))
    });
    for part in [
        "fixture_enqueue",
        "struct_ops",
        "victim = {pid = ",
        "task_storage",
        "[looked_at (",
        "sched_ext_ops, ready",
    ] {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
    let (done, text) = inspect_in(runtime.path(), &["stalls_for_long", "bpf:no_such_counter", "bpf:"]);
    assert!(!done, "{text}");
    for part in ["no_such_counter (variable of a BPF map", "expected a variable of a BPF program"] {
        assert!(text.contains(part), "expected {part:?} in:\n{text}");
    }
    child.kill().expect("killing the case");
    child.wait().expect("its end");
}
