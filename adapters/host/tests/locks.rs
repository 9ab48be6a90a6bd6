//! Locks between processes.

use ktstr_host::{Locks, Part, Shared, Taken, Wanted};
use ktstr_machine::{Placement, Share};
use ktstr_topology::{CpuSet, TestTopology};
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

/// A host of two LLCs of four CPUs.
fn host() -> TestTopology {
    TestTopology::from_vm_topology(&"1n2l4c1t".parse().unwrap()).unwrap()
}

fn share(locks: &Locks, share: Share) -> Result<Part, Vec<Wanted>> {
    let host = host();
    match locks.try_share(share, &host, &host.all_cpuset(), 0).unwrap().unwrap() {
        Shared::Got(part) => Ok(part),
        Shared::Busy(busy) => Err(busy),
    }
}

fn cpus(part: &Part) -> String {
    format!("{} of {:?}{}", part.budget.cpus, part.budget.llcs, if part.own { "" } else { ", shared" })
}

#[test]
fn windows_are_apart_while_there_is_room_and_then_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let locks = Locks::new(dir.path());
    let window = || share(&locks, Share::Window(3)).unwrap();
    let (one, two, three) = (window(), window(), window());
    assert_eq!([&one, &two, &three].map(cpus), ["0-2 of [0]", "4-6 of [1]", "0-7 of [0, 1], shared"]);
    // A smaller one finds room still.
    assert_eq!(cpus(&share(&locks, Share::Window(2)).unwrap()), "3,7 of [0, 1]");
    drop(one);
    assert_eq!(cpus(&window()), "0-2 of [0]");
}

#[test]
fn an_llc_that_somebody_has_is_nobody_elses() {
    let dir = tempfile::tempdir().unwrap();
    let locks = Locks::new(dir.path());
    let whole = placement(&[0], None, &[0, 1], 2);
    let Ok(Taken::All(lease)) = locks.try_take(&whole) else { panic!("busy") };
    assert_eq!(cpus(&share(&locks, Share::Window(6)).unwrap()), "4-7 of [1], shared");
    assert_eq!(cpus(&share(&locks, Share::Budget(4)).unwrap()), "4-7 of [1]");
    // A budget is kept to.
    assert_eq!(share(&locks, Share::Budget(5)).unwrap_err(), [Wanted::Llc(0)]);
    drop(lease);
    let part = share(&locks, Share::Budget(5)).unwrap();
    assert_eq!(cpus(&part), "0-4 of [0, 1]");
    assert_eq!(busy(&locks, &whole), Some(Wanted::Llc(0)), "parts keep out who wants all of it");
    let everything = placement(&[0, 1], None, &[0, 1], 2);
    let second = share(&locks, Share::Budget(5)).unwrap();
    assert_eq!(cpus(&second), "0-4 of [0, 1], shared");
    drop((part, second));
    assert_eq!(busy(&locks, &everything), None);
    let Ok(Taken::All(_lease)) = locks.try_take(&everything) else { panic!("busy") };
    assert_eq!(share(&locks, Share::Window(1)).unwrap_err(), [Wanted::Llc(0), Wanted::Llc(1)]);
}

#[test]
fn a_budget_that_no_host_gives_is_refused_whoever_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let locks = Locks::new(dir.path());
    let host = host();
    let some = CpuSet::from([1, 5]);
    let ask =
        |cpus| locks.try_share(Share::Budget(cpus), &host, &some, 0).unwrap().err().unwrap().to_string();
    assert!(ask(3).contains("2 may be used") && ask(0).contains("0 CPUs"), "{} {}", ask(3), ask(0));
}

#[test]
fn one_at_a_time_looks_for_a_place() {
    let dir = tempfile::tempdir().unwrap();
    let locks = Locks::new(dir.path());
    let turn = locks.try_turn().unwrap();
    assert!(turn.is_some() && locks.try_turn().unwrap().is_none());
    drop(turn);
    assert!(locks.try_turn().unwrap().is_some());
}
