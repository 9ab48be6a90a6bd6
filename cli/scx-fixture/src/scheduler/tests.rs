//! The committed object: what its source compiles to, and laid out as the loader thinks.

use super::*;
use clap::Parser;
use std::process::Command;

/// The compiler that the committed object was built with; another one makes other code
/// of the same source.
const CLANG: &str = "19.1.7";

#[test]
fn the_committed_object_is_what_its_source_compiles_to() {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang-19".to_string());
    let version = Command::new(&clang).arg("--version").output();
    let version = version.map(|out| String::from_utf8_lossy(&out.stdout).into_owned());
    let version = version.unwrap_or_else(|error| error.to_string());
    let advice = format!(
        "that takes clang {CLANG} ({clang} says {:?}): `cargo xtask setup` installs it (packages clang-19 and \
         llvm-19), or let CLANG and LLVM_STRIP name it",
        version.lines().next().unwrap_or_default()
    );
    let dir = tempfile::tempdir().unwrap();
    let built = dir.path().join("fixture.bpf.o");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("bpf/build.sh");
    let output = Command::new(&script).arg(&built).env("CLANG", &clang).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the BPF object can't be checked against its source; {advice}\n{said}");
    assert!(
        std::fs::read(&built).unwrap() == OBJECT,
        "fixture.bpf.o is not what its source compiles to; run {}; {advice}",
        script.display()
    );
}

#[test]
fn the_object_is_laid_out_as_the_loader_thinks() {
    for words in ["", "--fail-verify", "--verify-loop", "--stall-cpu 1 --timeout-ms 2000 --name x"] {
        let words = std::iter::once("scx-fixture").chain(words.split_whitespace());
        let args = Args::try_parse_from(words).unwrap();
        let mut open = open().unwrap();
        configure(&mut open, &args).unwrap();
        let map = |name: &str| open.maps().find(|map| map.name() == name).unwrap();
        let made: Vec<_> = Ops::ALL.into_iter().filter(|ops| map(ops.map()).autocreate()).collect();
        assert_eq!(made, [args.ops()]);
        assert_eq!(map(".data.control").value_size(), 4);
        assert_eq!(map(".data.victim").value_size(), 28);
        assert_eq!(map(".data.ended").value_size(), 1104);
        assert_eq!(map(".bss.dump").value_size(), 32768);
        let ops = map(args.ops().map()).initial_value().unwrap().to_vec();
        assert_eq!(string(&ops[ops_head::NAME]), args.name);
        let flags = if args.kernel_fault() == Fault::StallCpu { ops_head::ENQ_LAST } else { 0 };
        assert_eq!(ops[ops_head::FLAGS], flags.to_ne_bytes());
        assert_eq!(ops[ops_head::TIMEOUT_MS], args.timeout_ms.unwrap_or(0).to_ne_bytes());
    }
}

#[test]
fn an_end_reads_like_the_kernels_words() {
    let mut bytes = vec![0; 1104];
    assert_eq!(Ended::parse(&bytes), None);
    bytes[8..12].copy_from_slice(&1026i32.to_ne_bytes());
    bytes[12..33].copy_from_slice(b"runnable task stall\0\0");
    bytes[76..82].copy_from_slice(b"spin[7");
    let ended = Ended::parse(&bytes).unwrap();
    assert_eq!(ended.to_string(), "runnable task stall (spin[7) [kind 1026]");
    assert!(!ended.by_user());
    assert_eq!(Ended::parse(&bytes[..50]), None);
}

#[test]
fn a_victim_has_a_name_and_a_place() {
    let mut bytes = vec![0; 28];
    assert_eq!(Victim::parse(&bytes), None);
    bytes[0] = 57;
    bytes[4] = 1;
    bytes[12..16].copy_from_slice(b"spin");
    assert_eq!(Victim::parse(&bytes).unwrap().to_string(), "spin[57] on CPU 1");
}
