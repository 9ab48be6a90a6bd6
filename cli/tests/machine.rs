//! A running machine seen from outside: pause, registers, memory, dump, kill.
//!
//! The kernel boots without an initramfs, panics for want of a root file system and
//! stays there: a guest that is alive and holds still.

#[path = "common/panicked.rs"]
mod panicked;

use ktstr_machine::{VmEvent, VmExit};
use panicked::{PATIENCE, panicked_machine};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Where x86-64 Linux links its text without KASLR (arch/x86/include/asm/page_64_types.h,
/// `__START_KERNEL_map`); modules end far above.
const KERNEL_TEXT: std::ops::Range<u64> = 0xffff_ffff_8000_0000..0xffff_ffff_c000_0000;

#[test]
fn registers_memory_and_dump_agree_on_a_paused_machine() {
    let mut vm = panicked_machine();
    vm.pause().expect("pausing");
    let registers = vm.registers().expect("registers");
    assert_eq!(registers.iter().map(|r| r.cpu).collect::<Vec<_>>(), [0, 1]);
    assert!(registers.iter().any(|r| KERNEL_TEXT.contains(&r.ip)), "{registers:x?}");
    assert!(registers.iter().all(|r| r.page_table != 0 && r.page_table % 4096 == 0), "{registers:x?}");

    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("core");
    vm.dump(&path).expect("dumping");
    let core = File::open(&path).expect("the core");
    let memory = vm.memory();
    let mut compared = 0;
    for (physical, offset, length) in load_segments(&core) {
        // A page here and there of every segment; RAM only, ROMs are not ours.
        for at in (0..length.saturating_sub(4096)).step_by(1 << 20) {
            let (mut ours, mut theirs) = ([0; 4096], [0; 4096]);
            if memory.read(physical + at, &mut ours) {
                core.read_exact_at(&mut theirs, offset + at).expect("reading the core");
                // Video memory and option ROMs shadow RAM between 640 KiB and 1 MiB.
                if physical + at >= 1 << 20 {
                    assert!(ours == theirs, "guest-physical {:#x} differs", physical + at);
                    compared += 1;
                }
            }
        }
    }
    assert!(compared > 100, "only {compared} pages compared");
    vm.resume().expect("resuming");
    vm.kill().expect("killing");
}

#[test]
fn a_killed_machine_says_so_and_nothing_more() {
    let mut vm = panicked_machine();
    vm.kill().expect("killing");
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "no end after a kill");
        if let Some(VmEvent::Exited(exit)) = vm.next_event(Duration::from_secs(1)).expect("an event") {
            assert_eq!(exit, VmExit::Stopped);
            break;
        }
    }
    assert!(vm.next_event(Duration::ZERO).is_err());
    assert!(vm.pause().is_err());
}

#[test]
fn memory_outside_ram_is_refused() {
    let vm = panicked_machine();
    let memory = vm.memory();
    let regions = memory.regions();
    let ram: u64 = regions.iter().map(|(_, length)| length).sum();
    assert_eq!(ram, 256 << 20);
    let end = regions[0].0 + regions[0].1;
    assert!(!memory.read(end - 2, &mut [0; 4]));
    assert!(memory.read(end - 4, &mut [0; 4]));
}

/// `(physical address, file offset, length)` of the program headers of type `PT_LOAD` of
/// a 64-bit little-endian ELF core.
fn load_segments(core: &File) -> Vec<(u64, u64, u64)> {
    let mut header = [0; 64];
    core.read_exact_at(&mut header, 0).expect("the ELF header");
    assert_eq!(&header[..5], b"\x7fELF\x02");
    let number = |bytes: &[u8]| bytes.iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    let (table, size, count) = (number(&header[32..40]), number(&header[54..56]), number(&header[56..58]));
    (0..count)
        .filter_map(|i| {
            let mut entry = [0; 56];
            core.read_exact_at(&mut entry, table + i * size).expect("a program header");
            let is_load = number(&entry[0..4]) == 1;
            is_load.then(|| (number(&entry[24..32]), number(&entry[8..16]), number(&entry[32..40])))
        })
        .collect()
}
