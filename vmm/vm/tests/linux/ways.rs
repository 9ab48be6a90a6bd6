//! Ways to boot, to talk, to stand still and to end.

use crate::skip::skip;
use crate::{Guest, Kernels, Outcome};
use ktstr_topology::Topology;
use ktstr_vmm::VmEnd;
use std::time::{Duration, Instant};

fn two_cpus() -> Topology {
    Topology::DEFAULT
}

/// Where Linux boots, the probe must not say otherwise.
pub(crate) fn the_probe_finds_this_kvm_usable(_: &Kernels) -> Outcome {
    match ktstr_vmm::probe(crate::patience()) {
        Ok(ktstr_vmm::Probe::Usable { .. }) => Ok(()),
        other => Err(format!("{other:?}")),
    }
}

pub(crate) fn bytes_go_both_ways(kernels: &Kernels) -> Outcome {
    echo(&kernels.bzimage)
}

/// At the terminal that is port 0 of the virtio console: what is typed is shown, as a terminal does, and a line is
/// answered once it is complete.
pub(crate) fn a_line_is_typed_and_answered(kernels: &Kernels) -> Outcome {
    let mut guest = Guest::boot(kernels.quick(), two_cpus(), "terminal")?;
    let mut shown = String::new();
    let mut until = |guest: &Guest, text: &str| -> Outcome {
        while !shown.ends_with(text) {
            match guest.terminal.recv_timeout(crate::patience()) {
                Ok(bytes) => shown.push_str(&String::from_utf8_lossy(&bytes)),
                Err(e) => {
                    return Err(format!("waiting for {text:?}: {e}; shown {shown:?}{}", guest.post_mortem()));
                }
            }
        }
        Ok(())
    };
    until(&guest, "what? ")?;
    for (typed, expected) in [
        ("stressed\r", "what? stressed\r\nno: desserts\r\nwhat? "),
        // The terminal takes back what was typed wrong.
        ("lived\x7f\x7fe\r", "\r\nno: evil\r\nwhat? "),
    ] {
        if guest.vm.send(0, typed.as_bytes()) != typed.len() {
            return Err("the terminal took less than a line".to_string());
        }
        until(&guest, expected)?;
    }
    guest.vm.send(0, b"bye\r");
    guest.expect("bye was said")?;
    guest.expect_end(&VmEnd::PowerOff)
}

pub(crate) fn a_vmlinux_boots_by_pvh(kernels: &Kernels) -> Outcome {
    match &kernels.vmlinux {
        Some(vmlinux) => echo(vmlinux),
        None => {
            skip("a_vmlinux_boots_by_pvh", "KTSTR_VMM_VMLINUX names no kernel");
            Ok(())
        }
    }
}

fn echo(kernel: &std::path::PathBuf) -> Outcome {
    let mut guest = Guest::boot(kernel, two_cpus(), "echo")?;
    let block: String = (0..1u32 << 20).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    guest.expect(&block)?;
    guest.expect("\nready\n")?;
    if guest.vm.send(2, b"stressed\n") != 9 {
        return Err("the port took less than a line".to_string());
    }
    guest.expect("desserts")?;
    guest.expect_end(&VmEnd::PowerOff)
}

pub(crate) fn a_busy_guest_pauses_and_runs_on(kernels: &Kernels) -> Outcome {
    let mut guest = Guest::boot(kernels.quick(), two_cpus(), "spin")?;
    guest.expect("spinning")?;
    let text = |e: ktstr_vmm::VmError| e.to_string();
    let mut seen = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        guest.vm.pause().map_err(text)?;
        let took = begin.elapsed();
        if took > Duration::from_secs(5) {
            return Err(format!("pausing took {took:?}"));
        }
        let first = guest.vm.registers().map_err(text)?;
        if first != guest.vm.registers().map_err(text)? {
            return Err("registers of a paused guest changed".to_string());
        }
        if first.iter().any(|r| r.page_table == 0) {
            return Err(format!("no page tables: {first:?}"));
        }
        seen.push(first);
        guest.vm.resume();
    }
    if guest.vm.registers().is_ok() {
        return Err("registers of a running guest were read".to_string());
    }
    guest.vm.send(2, b"x");
    guest.expect("done")?;
    guest.expect_end(&VmEnd::PowerOff)
}

/// Every clock of every CPU goes on from where it stood, and so does one whose machine is paused time and again.
pub(crate) fn a_pause_is_no_time_to_the_guest(kernels: &Kernels) -> Outcome {
    let mut guest = Guest::boot(&kernels.bzimage, two_cpus(), "clocks")?;
    guest.expect("up and about\n")?;
    for (times, length) in [(1, Duration::from_secs(2)), (20, Duration::from_millis(100))] {
        let before = clocks(&mut guest)?;
        let (begin, mut paused) = (Instant::now(), Duration::ZERO);
        for _ in 0..times {
            guest.vm.pause().map_err(|e| e.to_string())?;
            let still = Instant::now();
            std::thread::sleep(length);
            paused += still.elapsed();
            guest.vm.resume();
        }
        let after = clocks(&mut guest)?;
        let ran = begin.elapsed() - paused;
        let went = |(first, last): (&i64, &i64)| Duration::from_micros((last - first).max(0) as u64);
        let went: Vec<_> = before.iter().zip(&after).map(went).collect();
        println!("paused {times} times for {length:?}, ran for {ran:?}: clocks went {went:?}");
        // The first clocks were read before `begin`, by as much as an answer takes.
        let most = ran + Duration::from_millis(500);
        if went.iter().any(|went| *went > most || went.is_zero()) {
            return Err(format!("clocks went {went:?}, the guest ran for {ran:?}, paused for {paused:?}"));
        }
    }
    guest.vm.send(2, b".");
    guest.expect_end(&VmEnd::PowerOff)
}

/// Microseconds that each clock of each CPU shows, read in turns: none must be behind the one before.
fn clocks(guest: &mut Guest) -> Result<Vec<i64>, String> {
    guest.vm.send(2, b"?");
    guest.expect("source ")?;
    let line = guest.until(" end of clocks\n")?;
    let of = |name: &str| -> Vec<i64> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = words.windows(2).filter(|pair| pair[0] == name).map(|pair| pair[1]);
        after.filter_map(|word| word.parse().ok()).collect()
    };
    let (monotonic, scheduler) = (of("monotonic"), of("scheduler"));
    if monotonic.len() != 2 || scheduler.len() != 2 || !monotonic.is_sorted() {
        return Err(format!("clocks of two CPUs, in order, expected; seen {line}"));
    }
    println!("clock source {line}");
    Ok([monotonic, scheduler].concat())
}

pub(crate) fn a_reboot_is_a_reset(kernels: &Kernels) -> Outcome {
    let mut guest = Guest::boot(kernels.quick(), two_cpus(), "reboot")?;
    guest.expect("rebooting")?;
    guest.expect_end(&VmEnd::Reset)
}

pub(crate) fn a_triple_fault_is_a_reset(kernels: &Kernels) -> Outcome {
    let mut guest = Guest::boot(kernels.quick(), two_cpus(), "reboot reboot=t")?;
    guest.expect("rebooting")?;
    guest.expect_end(&VmEnd::Reset)
}

pub(crate) fn a_panic_is_a_reset(kernels: &Kernels) -> Outcome {
    let guest = Guest::boot(kernels.quick(), two_cpus(), "panic")?;
    guest.expect_end(&VmEnd::Reset)?;
    let console = guest.post_mortem();
    if console.contains("Kernel panic") { Ok(()) } else { Err(format!("no panic on the console: {console}")) }
}

/// Machines that are dropped at any moment are gone at once, threads and all.
pub(crate) fn dropped_machines_leave_nothing(kernels: &Kernels) -> Outcome {
    let threads = || std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    let before = threads();
    for round in 0..10u64 {
        let guest = Guest::boot(kernels.quick(), two_cpus(), "spin")?;
        let end = guest.vm.wait(Duration::from_millis(round * 97));
        if end.is_some() {
            return Err(format!("round {round}: ended by itself: {end:?}{}", guest.post_mortem()));
        }
        let begin = Instant::now();
        drop(guest);
        if begin.elapsed() > Duration::from_secs(10) {
            return Err(format!("round {round}: dropping took {:?}", begin.elapsed()));
        }
        if threads() != before {
            return Err(format!("round {round}: {} threads, {before} before", threads()));
        }
    }
    Ok(())
}
