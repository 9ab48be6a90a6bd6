//! What `declare_scheduler!` declares holds in the guest: settings, arguments, files, checks; and a program may be a
//! script, one in C, or a package that does not build.

mod common;

use common::{CaseOutput, assert_says, case, run};
use ktstr::prelude::*;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

declare_scheduler!(FIXTURE, {
    name = "fixture",
    binary = "scx-fixture",
    ops = "fixture",
    verifier = false,
});

// Everything that a declaration can say of its tests' machines.
declare_scheduler!(SCRIPT, {
    name = "script",
    binary_path = "tests/declarations/wraps.sh",
    ops = "scripted",
    topology = (1, 1, 3, 1),
    sched_args = ["--name", "scripted"],
    kargs = ["ktstr_declared=7"],
    sysctls = [Sysctl::new("kernel.sched_schedstats", "1"), Sysctl::new("vm.overcommit_memory", "1")],
    cgroup_parent = "/workload",
    config_file = "tests/declarations/layers.json",
    config_file_def = ("--config={file}", "/etc/scripted.json"),
    assert = Assert { max_gap_ms: Some(4321), max_spread_pct: Some(81.0), ..Assert::NO_OVERRIDES },
    verifier = false,
});

// Each test brings its configuration.
declare_scheduler!(UNCONFIGURED, {
    name = "unconfigured",
    binary_path = "tests/declarations/wraps.sh",
    config_file_def = ("--config={file}", "/etc/unconfigured.json"),
    verifier = false,
});

// For cli/tests/verifier.rs: swept on our own kernel only, and tells what the verifier counted.
declare_scheduler!(LISTED, {
    name = "listed",
    binary = "scx-fixture",
    sched_args = ["--verifier-log", "4"],
    kernels = ["apt:6.12"],
    verifier = false,
});

fn read(path: &str) -> Result<String> {
    Ok(std::fs::read_to_string(path).with_context(|| format!("reading {path}"))?.trim().to_string())
}

#[ktstr_test(scheduler = SCRIPT, staged_schedulers = [FIXTURE], duration_s = 1, max_spread_pct = 82)]
fn a_declaration_holds_in_the_guest(ctx: &Ctx) -> Result<AssertResult> {
    ensure!(read("/sys/kernel/sched_ext/root/ops")? == "scripted", "the script's scheduler is not attached");
    ensure!(ctx.topo.total_cpus() == 3, "{} CPUs", ctx.topo.total_cpus());
    let line = read("/proc/cmdline")?;
    ensure!(line.split(' ').any(|word| word == "ktstr_declared=7"), "kernel arguments: {line}");
    for setting in ["kernel/sched_schedstats", "vm/overcommit_memory"] {
        ensure!(read(&format!("/proc/sys/{setting}"))? == "1", "{setting} is not set");
    }
    ensure!(read("/etc/scripted.json")? == r#"{"layers": "of the declaration"}"#);
    ensure!(
        read("/tmp/configured")? == r#"{"layers": "of the declaration"}"#,
        "{:?}",
        read("/tmp/configured")
    );
    // The scheduler's checks, with the test's own on top, on top of the defaults.
    let checks = (ctx.assert.max_gap_ms, ctx.assert.max_spread_pct, ctx.assert.not_starved);
    ensure!(checks == (Some(4321), Some(82.0), Assert::default_checks().not_starved), "{checks:?}");
    let mut group = CgroupGroup::new(ctx.cgroups);
    group.add_cgroup_no_cpuset("probe")?;
    ensure!(Path::new("/sys/fs/cgroup/workload/ktstr/probe").is_dir(), "not below the scheduler's cgroup");
    drop(group);
    scenarios::steady(ctx)
}

const LAYERS: &str = json!({"layers": ["of", "the", "test"]});

#[ktstr_test(scheduler = SCRIPT, staged_schedulers = [FIXTURE], duration_s = 1, config = LAYERS)]
fn a_test_has_a_configuration_of_its_own(ctx: &Ctx) -> Result<AssertResult> {
    ensure!(read("/etc/scripted.json")? == r#"{"layers":["of","the","test"]}"#);
    ensure!(read("/tmp/configured")? == r#"{"layers":["of","the","test"]}"#, "{:?}", read("/tmp/configured"));
    scenarios::steady(ctx)
}

#[ktstr_test(scheduler = UNCONFIGURED, staged_schedulers = [FIXTURE], duration_s = 1)]
fn without_a_configuration_there_is_no_argument(ctx: &Ctx) -> Result<AssertResult> {
    ensure!(read("/tmp/configured")? == "nothing", "{:?}", read("/tmp/configured"));
    ensure!(!Path::new("/etc/unconfigured.json").exists());
    scenarios::steady(ctx)
}

/// The program of a user of C: linked against libc, it goes on as the fixture.
const IN_C: &str = r#"
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	fprintf(stderr, "in C with %d arguments\n", argc - 1);
	execv("/ktstr/schedulers/fixture/scx-fixture", argv);
	perror("execv");
	return 1;
}
"#;

declare_scheduler!(C, {
    name = "in_c",
    binary = "in-c",
    ops = "compiled",
    sched_args = ["--name", "compiled"],
    verifier = false,
});

#[ktstr_test(ignore, scheduler = C, staged_schedulers = [FIXTURE], duration_s = 1)]
fn drill_in_c(ctx: &Ctx) -> Result<AssertResult> {
    ensure!(read("/sys/kernel/sched_ext/root/ops")? == "compiled");
    scenarios::steady(ctx)
}

#[test]
fn a_scheduler_may_be_written_in_c() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let (source, program) = (dir.path().join("in-c.c"), dir.path().join("in-c"));
    std::fs::write(&source, IN_C).expect("writing the source");
    let made = Command::new("cc").arg("-o").arg(&program).arg(&source).status().expect("running cc");
    assert!(made.success(), "cc ended with {made}");
    let program = program.to_str().expect("a plain path");
    let output = run("drill_in_c", &[("KTSTR_SCHEDULER_BIN_IN_C", program)]);
    assert_eq!(output.code, Some(0), "{}", output.text);
}

/// A workspace that [`broken_workspace`] makes.
const WORKSPACE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/broken_workspace");
const BROKEN: Scheduler = Scheduler { declared_in: WORKSPACE, ..Scheduler::named("scx-broken") };

#[ktstr_test(ignore, scheduler = BROKEN, duration_s = 1)]
fn drill_does_not_build(ctx: &Ctx) -> Result<AssertResult> {
    scenarios::steady(ctx)
}

/// A package that doesn't compile, with a program of an earlier build that would run.
fn broken_workspace() {
    let root = PathBuf::from(WORKSPACE);
    let write = |path: &str, text: &str| {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("making a directory");
        std::fs::write(path, text).expect("writing a file");
    };
    write(
        "Cargo.toml",
        "[package]\nname = \"scx-broken\"\nversion = \"0.1.0\"\nedition = \"2024\"\n[workspace]\n",
    );
    write("src/main.rs", "fn main() { no_such_function() }\n");
    write("target/release/scx-broken", "#!/bin/sh\nexit 9\n");
    let stale = root.join("target/release/scx-broken");
    std::fs::set_permissions(stale, std::fs::Permissions::from_mode(0o755)).expect("making it a program");
}

/// The test fails on what the compiler says, before any machine starts; what an earlier build left is taken only by who
/// asks for that, with a warning.
#[test]
fn a_package_that_does_not_build_fails_its_test() {
    broken_workspace();
    let built = |stale: &[(&str, &str)]| {
        let (mut command, _results) = case("drill_does_not_build");
        // Another directory for what is built would hide the program of before.
        command.env_remove("CARGO_TARGET_DIR").envs(stale.iter().copied());
        let output: CaseOutput = command.output().expect("running the case").into();
        assert_eq!(output.code, Some(1), "{}", output.text);
        output.text
    };
    let text = built(&[]);
    assert_says(
        &text,
        &["building package", "could not compile", "no_such_function", "an older program is not used unless"],
    );
    assert!(!text.contains("exit code 9") && text.contains("not started"), "{text}");
    let text = built(&[("KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK", "1")]);
    assert_says(
        &text,
        &["warning: scheduler \"scx-broken\": an older ", "its program ended with exit code 9"],
    );
}

/// The kernel's own word on where its functions are is what `/proc/kallsyms` has.
#[ktstr_test(duration_s = 1)]
fn a_kernel_function_has_an_address(ctx: &Ctx) -> Result<AssertResult> {
    let address = ktstr_procfs::resolve_func_ip("schedule")?;
    let line = format!("{address:016x} T schedule");
    ensure!(read("/proc/kallsyms")?.lines().any(|it| it == line), "no line {line:?}");
    ensure!(address >> 63 == 1, "{address:#x} is none of the kernel's half");
    let Err(error) = ktstr_procfs::resolve_func_ip("no_such_function") else { bail!("it is there") };
    ensure!(error.to_string().contains("\"no_such_function\""), "{error}");
    #[cfg(feature = "integration")]
    ensure!(ktstr::resolve_func_ip("schedule")? == address);
    scenarios::steady(ctx)
}
