//! The first PID 1 of a machine that is booted once and resumed for every test.
//!
//! It mounts the file systems, brings the loopback interface up, waits until the kernel's drivers are there,
//! marks the pages of its mailbox, waits until nothing else runs, stops the machine and, when it is resumed, finds
//! in the mailbox what to do: set the clock, feed the random number generator,
//! unpack an archive over the root file system and become the program beside it.
//!
//! No library, no allocation, x86-64 system calls only: a few KB that depend on no
//! test, so that one saved machine serves all of them. `build.sh` makes the
//! committed `boot-init.elf`; a test of the crate compares the two.

#![no_std]
#![no_main]

mod cpio;
#[path = "../../core/machine/src/mailbox/layout.rs"]
#[allow(dead_code)]
mod layout;
#[path = "../src/mounts/table.rs"]
#[allow(dead_code)]
mod mounts;
mod sys;

use core::slice;
use layout::*;

core::arch::global_asm!(
    ".globl _start",
    "_start:",
    "xor ebp, ebp",
    "and rsp, -16",
    "call {main}",
    main = sym main,
);

extern "C" fn main() -> ! {
    sys::umask(0);
    mount_all();
    sys::loopback_up();
    make_cgroup();
    wait_for_ports();
    let (fd, mailbox) = mailbox();
    mark(mailbox);
    wait_for_clock();
    wait_for_rest();
    sys::say(READY);
    sys::say("\n");
    sys::drain();
    stop();
    wait_for_work(mailbox);
    let header = header(mailbox);
    set_clock(header);
    feed_entropy(header);
    cpio::unpack(archive(mailbox, header));
    become_init(fd, mailbox, number(header, PROGRAM_BYTES_AT))
}

/// What every test would do anew. A kernel that lacks one of them is refused later, by
/// the test's own init, with the option it lacks.
fn mount_all() {
    for m in &mounts::MOUNTS {
        sys::mkdir(m.target.as_ptr().cast(), 0o755);
        sys::mount(m.fs, m.target, m.data);
    }
}

/// Makes the cgroup that tests make theirs in, with controllers, which takes long.
fn make_cgroup() {
    enable_controllers(c"/sys/fs/cgroup/cgroup.subtree_control");
    sys::mkdir(c"/sys/fs/cgroup/ktstr".as_ptr().cast(), 0o755);
    enable_controllers(c"/sys/fs/cgroup/ktstr/cgroup.subtree_control");
}

/// One by one: a kernel that lacks one of them would refuse all.
fn enable_controllers(control: &core::ffi::CStr) {
    for controller in [b"+cpuset".as_slice(), b"+cpu", b"+memory", b"+pids", b"+io"] {
        sys::write_file(control, 0, controller);
    }
}

/// Prints why, in the words that the host looks for, and powers off.
fn fail(what: &str) -> ! {
    sys::say("ktstr: init failed: boot init: ");
    sys::say(what);
    sys::say("\n");
    sys::drain();
    sys::power_off()
}

/// The ports to the host appear, and get their names, from work queues. Ten seconds
/// later there are none.
fn wait_for_ports() {
    for port in [c"/sys/class/virtio-ports/vport0p1/name", c"/sys/class/virtio-ports/vport0p2/name"] {
        for _ in 0..5000 {
            let mut name = [0; 16];
            if sys::read_file(port, &mut name) > 1 {
                break;
            }
            sys::sleep_ms(2);
        }
    }
}

/// A second after boot the kernel measures the time stamp counter once more and changes
/// its clock source, with all CPUs stopped (`tsc_refine_calibration_work`,
/// arch/x86/kernel/tsc.c): better once than at the start of every test.
fn wait_for_clock() {
    for _ in 0..1500 {
        let mut name = [0; 16];
        let n =
            sys::read_file(c"/sys/devices/system/clocksource/clocksource0/current_clocksource", &mut name);
        if name.get(..n) != Some(b"tsc-early\n") {
            break;
        }
        sys::sleep_ms(2);
    }
}

/// Lets whatever else boot has begun come to its end, such as a distribution kernel's
/// self-tests of its ciphers: what is still at work when the machine is saved would run
/// beside every test, and no two saved machines would be the same.
///
/// At rest is a machine whose only runnable task looked in on ten occasions is this one.
/// One that is never at rest is saved as it is after 20 seconds.
///
/// Looking keeps a machine awake: each look may have the kernel's RCU threads run in the very
/// tick that ends the next sleep, and where vCPUs wait for their host, they are runnable still
/// when this looks. So it looks less often where that goes on.
fn wait_for_rest() {
    const OFTEN: u32 = 50;
    sys::sleep_ms(100);
    let (mut in_a_row, mut busy, mut slept_ms) = (0, 0_u32, 0);
    while slept_ms < 20_000 {
        if runnable_tasks() > 1 {
            (in_a_row, busy) = (0, busy + 1);
        } else {
            in_a_row += 1;
        }
        if in_a_row == 10 {
            return;
        }
        let pause_ms = if busy < OFTEN { 2 } else { 20 };
        sys::sleep_ms(pause_ms);
        slept_ms += pause_ms;
    }
}

/// Of all CPUs, this one included: the fourth field of `/proc/loadavg` up to its slash
/// (proc_loadavg(5)); 0 if there is no such file.
fn runnable_tasks() -> u64 {
    let mut text = [0; 64];
    let n = sys::read_file(c"/proc/loadavg", &mut text);
    let field = text[..n.min(text.len())].split(|b| *b == b' ').nth(3).unwrap_or_default();
    let digits = field.iter().take_while(|b| b.is_ascii_digit());
    digits.fold(0, |number, digit| number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
}

/// A file in the root file system, mapped: what is written to its pages is its content.
fn mailbox() -> (sys::Fd, &'static mut [u8]) {
    let mut pages = [0; 8];
    if sys::read_file(c"/ktstr-mailbox", &mut pages) != 8 {
        fail("reading /ktstr-mailbox: expected eight bytes");
    }
    sys::unlink(c"/ktstr-mailbox".as_ptr().cast());
    let bytes = u64::from_le_bytes(pages) as usize * PAGE;
    let memory = sys::Fd::create(c"/ktstr-init".as_ptr().cast(), 0o755)
        .and_then(|fd| sys::mapped_file(&fd, bytes).map(|address| (fd, address)));
    match memory {
        // SAFETY: a fresh mapping of that many bytes that nothing else uses.
        Some((fd, address)) => (fd, unsafe { slice::from_raw_parts_mut(address, bytes) }),
        None => fail("reserving the mailbox: out of memory; give the test more memory_mib"),
    }
}

fn mark(mailbox: &mut [u8]) {
    for (index, page) in mailbox.chunks_exact_mut(PAGE).enumerate() {
        let index = index as u64;
        page[..16].copy_from_slice(&MARK);
        page[16..24].copy_from_slice(&index.to_le_bytes());
        page[24..32].copy_from_slice(&(!index).to_le_bytes());
    }
}

/// By the machine's watchdog, or, if it has none, by a port to the host.
fn stop() {
    let mut resource = [0; 18];
    if sys::read_file(c"/sys/bus/pci/devices/0000:00:10.0/resource", &mut resource) == 18 {
        stop_by_watchdog(&resource);
    } else if !stop_by_port() {
        fail("finding the device that stops the machine (CONFIG_PCI, CONFIG_SYSFS)");
    }
}

/// The host hears of it while this waits for the port to take the byte, and stops the
/// machine a moment later, when it sleeps. False if there is no such port.
fn stop_by_port() -> bool {
    for _ in 0..5000 {
        let mut name = [0; 16];
        let n = sys::read_file(c"/sys/class/virtio-ports/vport0p3/name", &mut name);
        if name.get(..n).is_some_and(|name| name.strip_suffix(b"\n") == Some(STOP_PORT.as_bytes())) {
            return sys::send(c"/dev/vport0p3", b"!");
        }
        sys::sleep_ms(2);
    }
    false
}

/// Has the `i6300esb` watchdog run out in ten milliseconds, upon which the host stops
/// the machine: while it sleeps, with nothing under way on any vCPU.
fn stop_by_watchdog(resource: &[u8; 18]) {
    // The first line begins with the start of BAR 0, `0x` and 16 digits.
    let start = cpio::hex(&resource[2..]).unwrap_or(0) as usize;
    sys::write_file(c"/sys/bus/pci/devices/0000:00:10.0/enable", 0, b"1");
    let Some(page) = sys::map_device(c"/sys/bus/pci/devices/0000:00:10.0/resource0") else {
        fail("mapping the device that stops the machine");
    };
    let write = |register: usize, value: u32| {
        // SAFETY: the 16 bytes of registers lie within the page that was mapped.
        unsafe { page.add(start % PAGE + register).cast::<u32>().write_volatile(value) };
    };
    // Both stages, each after the device's unlocking sequence (Intel 6300ESB datasheet,
    // "Watchdog Timer").
    for preload in [WDT_PRELOAD_1, WDT_PRELOAD_2] {
        write(WDT_RELOAD, 0x80);
        write(WDT_RELOAD, 0x86);
        write(preload, WDT_STAGE);
    }
    let config = c"/sys/bus/pci/devices/0000:00:10.0/config";
    sys::write_file(config, WDT_CONFIG, &WDT_FAST_NO_INTERRUPT.to_le_bytes());
    sys::write_file(config, WDT_LOCK, &[WDT_ENABLE]);
}

const WDT_PRELOAD_1: usize = 0;
const WDT_PRELOAD_2: usize = 4;
const WDT_RELOAD: usize = 12;
/// Five milliseconds, in units of 32 PCI clocks of 30 ns.
const WDT_STAGE: u32 = 5_000_000 / 960;
const WDT_CONFIG: usize = 0x60;
/// The unit above, no interrupt after the first stage, a "reboot" after the second.
const WDT_FAST_NO_INTERRUPT: u16 = 0x15;
const WDT_LOCK: usize = 0x68;
const WDT_ENABLE: u8 = 2;

/// Sleeps through the stop until there is work. The emulator may be late with the stop.
fn wait_for_work(mailbox: &[u8]) {
    sys::sleep_ms(15);
    let magic = mailbox.as_ptr().wrapping_add(mailbox.len() - PAGE).cast::<u64>();
    for _ in 0..30_000 {
        // SAFETY: within the mailbox and aligned to its page; volatile, because the
        // host writes it.
        if unsafe { magic.read_volatile() } == MAGIC {
            return;
        }
        sys::sleep_ms(1);
    }
}

/// The last page, after a look at what it begins with.
fn header(mailbox: &[u8]) -> &[u8] {
    let header = mailbox.get(mailbox.len().saturating_sub(PAGE)..).unwrap_or_default();
    if number(header, 0) != MAGIC {
        fail("opening the mailbox: it is empty");
    }
    header
}

fn archive<'a>(mailbox: &'a [u8], header: &[u8]) -> &'a [u8] {
    let at = number(header, ARCHIVE_AT) as usize;
    let bytes = number(header, ARCHIVE_BYTES_AT) as usize;
    let Some(archive) = mailbox.get(at..).and_then(|rest| rest.get(..bytes)) else {
        fail("opening the mailbox: its content is longer than it");
    };
    if sum(archive) != number(header, SUM_AT) {
        fail("opening the mailbox: pages are lost or out of order");
    }
    archive
}

/// Cuts the mailbox's file after the program, makes it `/init` and runs it.
fn become_init(fd: sys::Fd, mailbox: &'static mut [u8], program_bytes: u64) -> ! {
    sys::unmap(mailbox);
    sys::truncate(&fd, program_bytes as usize);
    // A file that is open for writing can't be run.
    drop(fd);
    sys::rename(c"/ktstr-init", c"/init");
    sys::exec(c"/init");
    fail("starting /init of the payload")
}

fn set_clock(header: &[u8]) {
    if number(header, FLAGS_AT) & SET_CLOCK != 0 {
        sys::set_clock(number(header, SECONDS_AT), number(header, NANOS_AT));
    }
}

fn feed_entropy(header: &[u8]) {
    let mut pool = [0; 8 + ENTROPY_BYTES];
    // struct rand_pool_info (include/uapi/linux/random.h): bits, bytes, buffer.
    pool[..4].copy_from_slice(&(ENTROPY_BYTES as u32 * 8).to_le_bytes());
    pool[4..8].copy_from_slice(&(ENTROPY_BYTES as u32).to_le_bytes());
    if let Some(entropy) = header.get(ENTROPY_AT..ENTROPY_AT + ENTROPY_BYTES) {
        pool[8..].copy_from_slice(entropy);
    }
    sys::reseed(&pool);
}

fn number(header: &[u8], at: usize) -> u64 {
    let mut bytes = [0; 8];
    if let Some(field) = header.get(at..at + 8) {
        bytes.copy_from_slice(field);
    }
    u64::from_le_bytes(bytes)
}

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    fail("a bug: it panicked")
}
