//! Deterministic mode, proven: ten runs of one test are the same, byte for byte.

mod common;

use common::{case, sidecars};
use ktstr::prelude::*;
use std::process::Child;

/// What is judged is sameness, not fairness: five workers of three kinds on two CPUs for
/// a second may be spread unevenly by rights.
///
/// As much of the guest as can be told: every figure of every worker, interrupts and
/// scheduler statistics of every CPU, random numbers, and the kernel log with its
/// time stamps.
#[ktstr_test(ignore, llcs = 2, cores = 1, duration_s = 1, max_spread_pct = 100.0)]
fn tells_everything(ctx: &Ctx) -> Result<AssertResult> {
    tells_everything_body(ctx)
}

fn tells_everything_body(ctx: &Ctx) -> Result<AssertResult> {
    let result = execute_defs(
        ctx,
        vec![
            CgroupDef::named("spin").workers(2),
            CgroupDef::named("wake").workers(2).work_type(WorkType::futex_ping_pong(1024)),
            CgroupDef::named("burst").workers(1).work_type(WorkType::bursty(
                std::time::Duration::from_millis(5),
                std::time::Duration::from_millis(3),
            )),
        ],
    )?;
    let mut handle = WorkloadHandle::spawn(&WorkloadConfig { num_workers: 3, ..Default::default() })?;
    handle.start();
    std::thread::sleep(ctx.duration / 4);
    println!("{:#?}", handle.stop_and_collect());
    for file in ["interrupts", "schedstat", "uptime", "sys/kernel/random/uuid"] {
        let path = format!("/proc/{file}");
        println!("{}", std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?);
    }
    println!("{result:#?}");
    ktstr::send_kmsg(dmesg()?.as_bytes())?;
    Ok(result)
}

/// The kernel log with time stamps: `/dev/kmsg`, a record a read, until it would block.
fn dmesg() -> Result<String> {
    use std::io::{ErrorKind, Read};
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    let mut all = String::new();
    let mut record = [0; 8192];
    loop {
        match file.read(&mut record) {
            Ok(n) => all.push_str(&String::from_utf8_lossy(&record[..n])),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(all),
            Err(e) => return Err(e).context("reading /dev/kmsg"),
        }
    }
}

/// A run's sidecar without the one field that speaks of host time, and, where it left one, its dump likewise.
fn recorded(child: Child, results: &tempfile::TempDir, code: i32) -> String {
    let output: common::CaseOutput = child.wait_with_output().expect("waiting for the case").into();
    assert_eq!(output.code, Some(code), "{}", output.text);
    let files = sidecars(results);
    assert_eq!(files.len(), 1);
    let text = std::fs::read_to_string(&files[0]).expect("the sidecar");
    let mut sidecar: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let times = sidecar.as_object_mut().and_then(|o| o.remove("host")).expect("host times");
    assert!(times["total_ms"].as_u64().is_some_and(|ms| ms > 0));
    // The monitor saw the run, at instants of the guest's own.
    assert!(times["sample_us"].as_f64().is_some_and(|us| us > 0.0), "{times}");
    assert!(
        sidecar["monitor"]["total"]["samples"].as_u64().is_some_and(|n| n >= 5),
        "{}",
        sidecar["monitor"]
    );
    let mut entries =
        std::fs::read_dir(results.path()).expect("the results").map(|e| e.expect("an entry").path());
    let dump = entries.find(|path| path.to_string_lossy().ends_with(".failure-dump.json")).map(|path| {
        let text = std::fs::read_to_string(path).expect("the dump");
        let mut dump: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert!(dump.as_object_mut().and_then(|o| o.remove("elapsed_ms")).is_some());
        dump
    });
    format!("{sidecar}\n{}", dump.unwrap_or_default())
}

/// A case that has been started: one host CPU is all it keeps busy, so two of them fit beside each other.
fn deterministic(test: &str, env: &[(&str, &str)]) -> (Child, tempfile::TempDir) {
    let (mut command, results) = case(test);
    command.env("KTSTR_ACCEL", "deterministic").envs(env.iter().copied());
    (command.spawn().expect("starting the case"), results)
}

/// Two machines at a time, ten in all, resumed from two machines that were saved
/// independently of each other.
#[test]
fn ten_runs_of_one_test_are_the_same() {
    let mut runs = Vec::new();
    let stores = [(); 2].map(|()| tempfile::tempdir().expect("a temporary directory"));
    for round in 0..5 {
        let store = stores[round % 2].path().to_str().expect("a plain path");
        let env = [("KTSTR_NO_TEMPLATE", "0"), ("KTSTR_TEMPLATE_DIR", store)];
        let started = [(); 2].map(|()| deterministic("tells_everything", &env));
        runs.extend(started.map(|(child, results)| recorded(child, &results, 0)));
    }
    let first = &runs[0];
    assert!(
        ["\"accel\":\"deterministic\"", "\"outcome\":\"passed\"", "\"start\":\"resumed\""]
            .iter()
            .all(|part| first.contains(part)),
        "{first}"
    );
    for (number, run) in runs.iter().enumerate() {
        assert_eq!(run, first, "run {number} differs from run 0");
    }
}

/// Another seed is another run: the hashes do tell runs apart.
#[test]
fn another_seed_is_another_run() {
    let started = ["1", "2"].map(|seed| deterministic("tells_everything", &[("KTSTR_SEED", seed)]));
    let hashes = started.map(|(child, results)| {
        let recorded = recorded(child, &results, 0);
        let sidecar = recorded.lines().next().expect("the sidecar, which is before the dump");
        let sidecar: serde_json::Value = serde_json::from_str(sidecar).expect("JSON");
        sidecar["output_hash"].to_string()
    });
    assert_ne!(hashes[0], hashes[1]);
}

// The verifier sweep takes the fixture out of tests/schedulers.rs, once.
declare_scheduler!(FIXTURE, {
    name = "fixture",
    binary = "scx-fixture",
    verifier = false,
});

#[ktstr_test(ignore, scheduler = FIXTURE, duration_s = 1, max_spread_pct = 100.0)]
fn tells_everything_under_a_bpf_scheduler(ctx: &Ctx) -> Result<AssertResult> {
    tells_everything_body(ctx)
}

#[ktstr_test(ignore, scheduler = FIXTURE, duration_s = 4,
             extra_sched_args = ["--stall-cpu", "1", "--timeout-ms", "1000"])]
fn is_stalled(ctx: &Ctx) -> Result<AssertResult> {
    execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(4)])
}

/// A run under a real BPF scheduler, with every figure of its programs; and a run that finds a
/// bug in it: the same task, at the same instant, in the same dump. Both CPUs idle while it stalls, so that a host which
/// dawdles just when a vCPU halts would show.
#[test]
fn runs_under_a_bpf_scheduler_are_the_same() {
    let dawdling = dawdling_host();
    let dawdling = [("LD_PRELOAD", dawdling.path().to_str().expect("a plain path"))];
    for (test, code, parts, hosts) in [
        ("tells_everything_under_a_bpf_scheduler", 0, &["\"run_cnt\""][..], &[&[][..]][..]),
        ("is_stalled", 1, &["\"stuck\":{\"comm\":\"cg_0\"", "\"schema\":\"dual\""], &[&[], &dawdling]),
    ] {
        let mut runs = Vec::new();
        for host in hosts {
            let started = [(); 2].map(|()| deterministic(test, host));
            runs.extend(started.map(|(child, results)| recorded(child, &results, code)));
        }
        assert!(parts.iter().all(|part| runs[0].contains(part)), "{}", runs[0]);
        assert!(runs.iter().all(|run| *run == runs[0]), "{test}: {runs:#?}");
    }
}

/// A library that has its process dawdle at the worst moment for QEMU.
fn dawdling_host() -> tempfile::NamedTempFile {
    let library = tempfile::NamedTempFile::with_suffix(".so").expect("a temporary file");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/determinism/dawdle.c");
    let compiler = std::process::Command::new("cc")
        .args(["-O1", "-shared", "-fPIC", "-o"])
        .args([library.path().as_os_str(), source.as_ref()])
        .output()
        .expect("running cc");
    assert!(compiler.status.success(), "{}", String::from_utf8_lossy(&compiler.stderr));
    library
}
