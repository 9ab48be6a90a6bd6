//! Drills with the hypervisor's own process: none where the machine runs in the test's.

use crate::common::{assert_says, case, fails, hypervisor_of, sidecars};
use crate::{fails_as, wait_for};
use std::io::Read;
use std::os::unix::process::ExitStatusExt;

#[test]
fn a_missing_hypervisor() {
    let text = fails("drill_healthy", &[("KTSTR_QEMU", "/no/such/qemu")]);
    assert_says(&text, &["/no/such/qemu", "KTSTR_QEMU", "apt-get install"]);
    let text = fails("drill_healthy", &[("PATH", "/no/such/dir"), ("KTSTR_QEMU", "")]);
    assert_says(&text, &["qemu-system-x86_64", "apt-get install"]);
}

fn alive(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

fn kill(pid: i32) {
    // SAFETY: kill(2) takes no pointers.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0, "killing {pid}");
}

#[test]
fn a_hypervisor_killed_mid_run() {
    let (mut command, _results) = case("drill_long");
    // One that is killed while it takes up a saved machine is followed by one that boots.
    let mut child = command.env("KTSTR_NO_TEMPLATE", "1").spawn().unwrap();
    kill(wait_for("QEMU to start", || hypervisor_of(&child)));
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1), "{text}");
    assert_says(&text, &["the hypervisor was killed by signal 9 (SIGKILL)"]);
}

/// The mode in which ten seconds of waiting for a port are none of the host's.
const DETERMINISTIC: (&str, &str) = ("KTSTR_ACCEL", "deterministic");

#[test]
fn a_guest_without_ports_says_so() {
    let text = fails_as("booted", "drill_never_a_port", &[DETERMINISTIC, ("KTSTR_NO_TEMPLATE", "1")]);
    let why = "the guest could not be brought up: opening the port ktstr.data to the host: no such virtio-console \
               port after 10s";
    assert_says(&text, &[why, "CONFIG_VIRTIO_CONSOLE=y"]);
}

#[test]
fn last_words_are_the_same_every_time() {
    let words = || {
        let text = fails_as("resumed", "drill_panic_without_ports", &[DETERMINISTIC]);
        assert_says(&text, &["the guest's last words, over its second serial port:"]);
        // Indented, unlike what the host says of its own.
        let words: Vec<&str> =
            text.lines().filter(|line| line.starts_with("  ") && line.contains("ktstr: ")).collect();
        words.join("\n")
    };
    let first = words();
    assert!(first.contains("the answer was 42, and nobody hears it"), "{first}");
    assert_eq!(words(), first);
}

#[test]
fn no_machine_outlives_its_test() {
    let (mut command, results) = case("drill_long");
    let mut child = command.spawn().unwrap();
    let qemu = wait_for("QEMU to start", || hypervisor_of(&child));
    kill(child.id() as i32);
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    wait_for("QEMU to die with its parent", || (!alive(qemu)).then_some(()));
    assert!(sidecars(&results).is_empty());
}
