//! Tests with directories of stand-in programs.

use std::fs;

use tempfile::TempDir;

use super::*;

fn install(dir: &TempDir, program: &str, script: &str) {
    let path = dir.path().join(program);
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
}

/// Everything, with a compiler that knows `headers`.
fn complete(headers: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    for (program, _) in PROGRAMS {
        install(&dir, program, ":");
    }
    let script = format!("while read -r line; do case $line in {headers}) exit 0;; esac; done; exit 1");
    install(&dir, "gcc", &script);
    dir
}

fn error(dir: &TempDir) -> (Vec<String>, String) {
    match check(dir.path().as_os_str()) {
        Err(BuildError::MissingTools { missing, remedy }) => (missing, remedy),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_is_missing_where_all_is_there() {
    let dir = complete("*gelf*|*openssl*");
    check(dir.path().as_os_str()).expect("complete");
}

#[test]
fn all_that_is_missing_is_named_with_one_command() {
    let dir = complete("*gelf*");
    fs::remove_file(dir.path().join("pahole")).expect("removed");
    fs::remove_file(dir.path().join("flex")).expect("removed");
    let (missing, remedy) = error(&dir);
    assert_eq!(missing, ["flex", "pahole", "<openssl/opensslv.h>"]);
    assert!(remedy.contains("Debian calls flex dwarves libssl-dev"), "{remedy}");
    install(&dir, "apt-get", ":");
    let (_, remedy) = error(&dir);
    assert_eq!(remedy, "install them: apt-get install -y --no-install-recommends flex dwarves libssl-dev");
}

#[test]
fn without_a_compiler_headers_count_as_missing() {
    let dir = complete("*");
    fs::remove_file(dir.path().join("gcc")).expect("removed");
    let (missing, _) = error(&dir);
    assert_eq!(missing, ["gcc", "<gelf.h>", "<openssl/opensslv.h>"]);
}

#[test]
fn a_file_that_can_not_be_run_is_no_program() {
    let dir = complete("*");
    let bc = dir.path().join("bc");
    fs::set_permissions(&bc, fs::Permissions::from_mode(0o644)).expect("set");
    assert_eq!(error(&dir).0, ["bc"]);
    fs::remove_file(&bc).expect("removed");
    fs::create_dir(&bc).expect("made");
    assert_eq!(error(&dir).0, ["bc"]);
}
