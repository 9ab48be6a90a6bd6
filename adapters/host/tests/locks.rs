//! Locks between processes.

use ktstr_host::{Locks, Taken, Wanted};
use ktstr_machine::Placement;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Where this program, run by itself, takes locks and holds them.
const HOLD_IN: &str = "KTSTR_HOST_TEST_HOLD_IN";

fn placement(llcs: &[u32], shared_llc: Option<u32>, vcpus: &[u32], rest: u32) -> Placement {
    Placement { vcpus: vcpus.to_vec(), rest, llcs: llcs.to_vec(), shared_llc, memory: Vec::new() }
}

fn busy(locks: &Locks, placement: &Placement) -> Option<Wanted> {
    match locks.try_take(placement).unwrap() {
        Taken::All(_) => None,
        Taken::Busy(wanted) => Some(wanted),
    }
}

/// This test in a process of its own, which holds LLC 0 and CPUs 0 and 1 once it has said so.
fn holder(dir: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_lock_keeps_other_processes_out_and_dies_with_its_holder", "--nocapture"])
        .env(HOLD_IN, dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("held")), "the other process took no lock");
    child
}

#[test]
fn a_lock_keeps_other_processes_out_and_dies_with_its_holder() {
    let first = placement(&[0], None, &[0], 1);
    if let Some(dir) = std::env::var_os(HOLD_IN) {
        let Ok(Taken::All(_lease)) = Locks::new(dir).try_take(&first) else { panic!("not to be had") };
        println!("held");
        // Until this process is killed, or its parent has ended.
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let locks = Locks::new(dir.path());
    for _ in 0..3 {
        let mut other = holder(dir.path());
        assert_eq!(busy(&locks, &first), Some(Wanted::Llc(0)));
        assert_eq!(busy(&locks, &placement(&[1], Some(0), &[4], 2)), Some(Wanted::PartOfLlc(0)));
        assert_eq!(busy(&locks, &placement(&[1], None, &[4, 1], 5)), Some(Wanted::Cpu(1)));
        assert_eq!(busy(&locks, &placement(&[1], None, &[4], 5)), None, "what nobody holds");
        // An attempt that failed holds nothing of what it had.
        assert_eq!(busy(&locks, &placement(&[1], None, &[4], 5)), None);
        other.kill().unwrap();
        other.wait().unwrap();
        assert_eq!(busy(&locks, &first), None, "the holder is gone");
    }
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let cpus = [0, 1, 2, 4, 5].map(|cpu| format!("ktstr-cpu-{cpu}.lock"));
    let expected: Vec<String> = cpus
        .into_iter()
        .filter(|name| !name.contains("-2."))
        .chain([0, 1].map(|llc| format!("ktstr-llc-{llc}.lock")))
        .collect();
    assert_eq!(names, expected);
}

#[test]
fn parts_of_an_llc_are_shared_and_all_of_it_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let locks = Locks::new(dir.path());
    let Taken::All(one) = locks.try_take(&placement(&[0], Some(2), &[0], 8)).unwrap() else { panic!("busy") };
    let Taken::All(two) = locks.try_take(&placement(&[1], Some(2), &[4], 9)).unwrap() else { panic!("busy") };
    assert_eq!(busy(&locks, &placement(&[2], None, &[10], 11)), Some(Wanted::Llc(2)));
    drop(one);
    assert_eq!(busy(&locks, &placement(&[2], None, &[10], 11)), Some(Wanted::Llc(2)));
    drop(two);
    assert_eq!(busy(&locks, &placement(&[2], None, &[10], 11)), None);
}

#[test]
fn a_directory_that_is_none_and_a_link_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = placement(&[0], None, &[0], 1);
    let why = Locks::new(dir.path().join("none")).try_take(&wanted).unwrap_err().to_string();
    assert!(why.contains("ktstr-llc-0.lock") && why.contains("KTSTR_LOCK_DIR"), "{why}");
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("ktstr-llc-0.lock")).unwrap();
    assert!(Locks::new(dir.path()).try_take(&wanted).is_err());
}
