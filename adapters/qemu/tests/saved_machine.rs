//! A real kernel under a real QEMU: saved once, resumed as often as one likes, each time
//! with other work. No test binary of ktstr and none of its init are involved; what runs
//! in the guest is assembled here.
//!
//! The kernel is `KTSTR_TEST_KERNEL`, or what `KTSTR_KERNEL` names in the cache.

use ktstr_machine::mailbox::layout::{ENTROPY_BYTES, SIZE_FILE};
use ktstr_machine::mailbox::pages_for;
use ktstr_machine::{
    Accel, Blob, CommandLine, Hypervisor, MachineError, MachineSpec, Template, Vm, VmEvent, VmExit, Wake,
};
use ktstr_qemu::Qemu;
use ktstr_topology::Topology;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const BOOT_INIT: &[u8] = include_bytes!("../../../guest-init/boot-init/boot-init.elf");
const LIMIT: Duration = Duration::from_secs(120);

/// Generous: a machine on a loaded host says nothing for a while.
const SILENCE: Duration = Duration::from_secs(60);

fn kernel() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    if let Some(image) = set("KTSTR_TEST_KERNEL") {
        return image;
    }
    let cache = set("KTSTR_CACHE_DIR")
        .or_else(|| set("XDG_CACHE_HOME").map(|dir| dir.join("ktstr/kernels")))
        .or_else(|| set("HOME").map(|dir| dir.join(".cache/ktstr/kernels")));
    let image = cache.zip(set("KTSTR_KERNEL")).map(|(cache, key)| cache.join(key).join("bzImage"));
    image.filter(|image| image.exists()).expect("KTSTR_KERNEL to be a key of the cache, or KTSTR_TEST_KERNEL")
}

fn qemu() -> Qemu {
    Qemu::find(None, std::env::var("PATH").ok().as_deref()).expect("QEMU")
}

fn spec(accel: Accel, arguments: &[&str]) -> MachineSpec {
    let mut cmdline = CommandLine::new();
    cmdline.extend(arguments.iter().copied()).unwrap();
    MachineSpec {
        kernel: kernel(),
        initramfs: Vec::new(),
        cmdline,
        topology: Topology::uniform(1, 1, 2, 1),
        memory_mib: 256,
        accel,
        seed: 0,
        verbose: false,
        kaslr: false,
        performance: None,
    }
}

fn pages() -> u64 {
    pages_for(4096, 4096)
}

/// A machine with nothing but the boot init in it.
fn bare(accel: Accel, arguments: &[&str]) -> MachineSpec {
    let archive = cpio(&[
        ("dev", 0o040_755, &[], (0, 0)),
        ("dev/console", 0o020_600, &[], (5, 1)),
        ("init", 0o100_755, BOOT_INIT, (0, 0)),
        (SIZE_FILE.trim_start_matches('/'), 0o100_600, &pages().to_le_bytes(), (0, 0)),
    ]);
    MachineSpec { initramfs: vec![bytes(archive)], ..spec(accel, arguments) }
}

fn bytes(content: Vec<u8>) -> Blob {
    Blob::Bytes(Arc::new(content))
}

/// Name, mode, content, device.
type Entry<'a> = (&'a str, u32, &'a [u8], (u32, u32));

/// The `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst).
fn cpio(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    let end: Entry<'_> = ("TRAILER!!!", 0, &[], (0, 0));
    for (number, (name, mode, content, device)) in entries.iter().chain([&end]).enumerate() {
        let fields = [number as u32 + 1, *mode, 0, 0, 1, 0, content.len() as u32, 0, 0, device.0, device.1];
        archive.extend_from_slice(b"070701");
        for field in fields.into_iter().chain([name.len() as u32 + 1, 0]) {
            archive.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        archive.extend_from_slice(name.as_bytes());
        archive.push(0);
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(4), 0);
    }
    archive
}

/// A static program that prints the file `/greeting` on the console and powers off.
fn program() -> Vec<u8> {
    const BASE: u32 = 0x40_0000;
    const HEADERS: u32 = 64 + 56;
    // Where the path and, behind the file, a buffer lie.
    const PATH: u32 = BASE + 0x200;
    const BUFFER: u32 = BASE + 0x1000;
    let mut code = Vec::new();
    // mov eax/edi/esi/edx, imm32; syscall. `None` leaves a register as it is.
    let mut call = |number: u32, args: [Option<u32>; 3], before: &[u8]| {
        code.extend_from_slice(before);
        for (opcode, value) in [(0xb8, Some(number)), (0xbf, args[0]), (0xbe, args[1]), (0xba, args[2])] {
            if let Some(value) = value {
                code.push(opcode);
                code.extend_from_slice(&value.to_le_bytes());
            }
        }
        code.extend_from_slice(&[0x0f, 0x05]);
    };
    let (to_edi, to_edx): (&[u8], &[u8]) = (&[0x89, 0xc7], &[0x89, 0xc2]);
    call(2, [Some(PATH), Some(0), Some(0)], &[]); // open(2)
    call(0, [None, Some(BUFFER), Some(256)], to_edi); // read(2) from it
    call(1, [Some(1), Some(BUFFER), None], to_edx); // write(2) of what was read
    call(16, [Some(1), Some(0x5409), Some(1)], &[]); // tcdrain(3): ioctl(2), TCSBRK
    call(169, [Some(0xfee1_dead), Some(0x2812_1969), Some(0x4321_fedc)], &[]); // reboot(2): power off
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for value in [u64::from(BASE + HEADERS), 64, 0] {
        elf.extend_from_slice(&value.to_le_bytes());
    }
    // Flags, sizes and numbers of headers: one program header, no section.
    elf.extend_from_slice(&[0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable, writable and executable.
    elf.extend_from_slice(&[1, 0, 0, 0, 7, 0, 0, 0]);
    for value in [0, u64::from(BASE), u64::from(BASE), 0x220, 0x2000, 0x1000] {
        elf.extend_from_slice(&value.to_le_bytes());
    }
    assert_eq!(elf.len(), HEADERS as usize);
    elf.extend_from_slice(&code);
    elf.resize(0x200, 0);
    elf.extend_from_slice(b"/greeting\0");
    elf.resize(0x220, 0);
    elf
}

fn saved(accel: Accel, dir: &Path) -> Template {
    qemu().prepare(&bare(accel, &[]), pages(), dir, LIMIT).expect("saving a machine");
    Template { key: "of a test".to_string(), dir: dir.to_path_buf() }
}

fn resumed(template: &Template, accel: Accel, greeting: &str) -> Result<Box<dyn Vm>, MachineError> {
    let work = cpio(&[("greeting", 0o100_600, greeting.as_bytes(), (0, 0))]);
    let spec = MachineSpec { initramfs: vec![bytes(work)], ..spec(accel, &[]) };
    let program = program();
    let init = vec![bytes(program[..64].to_vec()), bytes(program[64..].to_vec())];
    qemu().resume(template, &spec, &Wake { init, clock: None, entropy: [7; ENTROPY_BYTES] })
}

/// What the machine prints until it powers off.
fn console(mut vm: Box<dyn Vm>) -> String {
    let mut printed = Vec::new();
    loop {
        match vm.next_event(SILENCE).unwrap() {
            Some(VmEvent::Console(bytes)) => printed.extend_from_slice(&bytes),
            Some(VmEvent::Exited(exit)) => {
                let text = String::from_utf8_lossy(&printed).into_owned();
                assert_eq!(exit, VmExit::PowerOff, "{text}");
                return text;
            }
            Some(_) => {}
            None => panic!("silence after {:?}", String::from_utf8_lossy(&printed)),
        }
    }
}

/// What changes of a template's files when somebody writes to them.
fn stamps(dir: &Path) -> Vec<(PathBuf, u64, i64, i64)> {
    use std::os::unix::fs::MetadataExt;
    let mut all: Vec<_> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let found = std::fs::metadata(&path).unwrap();
            (path, found.blocks(), found.ctime(), found.ctime_nsec())
        })
        .collect();
    all.sort();
    all
}

#[test]
fn each_resume_has_its_own_work_and_leaves_the_saved_machine_alone() {
    let dir = tempfile::tempdir().unwrap();
    let template = saved(Accel::Tcg, dir.path());
    let before = stamps(dir.path());
    // Two at once, then one more.
    let (one, two) = (resumed(&template, Accel::Tcg, "one\n"), resumed(&template, Accel::Tcg, "two\n"));
    let (one, two) = (console(one.unwrap()), console(two.unwrap()));
    assert!(one.contains("one\r\n") && !one.contains("two"), "{one:?}");
    assert!(two.contains("two\r\n") && !two.contains("one"), "{two:?}");
    assert!(!one.contains("waiting in its mailbox"), "the boot's console is kept apart: {one:?}");
    let kept = std::fs::read_to_string(dir.path().join("console")).unwrap();
    assert!(kept.contains("waiting in its mailbox"), "{kept:?}");
    assert!(console(resumed(&template, Accel::Tcg, "three\n").unwrap()).contains("three\r\n"));
    assert_eq!(before, stamps(dir.path()));
}

#[test]
fn a_machine_saved_where_the_counter_runs_at_another_rate_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let template = saved(Accel::Tcg, dir.path());
    std::fs::write(dir.path().join("tsc"), "1000").unwrap();
    let error = resumed(&template, Accel::Tcg, "").err().expect("a refusal");
    assert!(matches!(error, MachineError::Template { .. }), "{error}");
    assert!(error.to_string().contains("told of a time stamp counter of 1000 kHz"), "{error}");
}

/// With its time stamps, the console tells how many instructions were executed before.
#[test]
fn deterministic_machines_say_the_same_however_often_they_are_saved_and_resumed() {
    let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let templates = dirs.each_ref().map(|dir| saved(Accel::Deterministic, dir.path()));
    let said: Vec<String> = (0..4)
        .map(|n| console(resumed(&templates[n % 2], Accel::Deterministic, "hello\n").unwrap()))
        .collect();
    assert!(said[0].contains("hello\r\n") && said[0].contains("] reboot: Power down"), "{:?}", said[0]);
    assert!(said.iter().all(|text| *text == said[0]), "{said:#?}");
}

#[test]
fn a_guest_that_dies_is_told_from_a_hypervisor_that_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let dead = bare(Accel::Tcg, &["rdinit=/nowhere"]);
    let error = qemu().prepare(&dead, pages(), dir.path(), LIMIT).unwrap_err();
    assert!(matches!(error, MachineError::NotReady { .. }), "{error}");
    assert!(error.to_string().contains("it panicked or reset itself"), "{error}");
    let dir = tempfile::tempdir().unwrap();
    let error = std::thread::scope(|scope| {
        let maker = scope.spawn(|| qemu().prepare(&bare(Accel::Tcg, &[]), pages(), dir.path(), LIMIT));
        let of_maker = format!("{}", dir.path().display());
        kill_the_machine_that_is_made(&of_maker);
        maker.join().unwrap().unwrap_err()
    });
    assert!(matches!(error, MachineError::Killed { signal: 9, .. }), "{error}");
}

/// Kills the one child of ours that boots a kernel; `what` names it if there is none.
fn kill_the_machine_that_is_made(what: &str) {
    let deadline = Instant::now() + SILENCE;
    loop {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let children = tasks
            .filter_map(|t| std::fs::read_to_string(t.ok()?.path().join("children")).ok())
            .flat_map(|c| c.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<i32>>());
        for pid in children {
            let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            if line.contains("watchdog=pause") {
                // SAFETY: kill(2) takes no pointers; the child is ours and not yet reaped.
                assert_eq!(unsafe { libc::kill(pid, libc::SIGKILL) }, 0);
                return;
            }
        }
        assert!(Instant::now() < deadline, "no machine was started in {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
