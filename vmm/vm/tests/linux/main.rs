//! Linux under this monitor: boots a real kernel and compares what the guest finds in
//! its `/sys` with what was declared, moves bytes, pauses, ends in every way.
//!
//! Needs a KVM that runs Linux (see `vmm/LAB.md`), this binary linked statically, as
//! it is `/init` of the guest too, and kernels named by environment variables:
//! `KTSTR_VMM_BZIMAGE`, and `KTSTR_VMM_VMLINUX` for the PVH entry. Without the first it
//! says so and passes; without the second it skips what needs it and says so.
//!
//! Arguments are parts of names; only tests that contain one of them are run.
//! `KTSTR_VMM_REPEAT` runs them that many times, `KTSTR_VMM_PATIENCE` is how many seconds a guest may take to do what is
//! expected of it.

mod cpio;
mod disk;
mod guest;
mod look;
mod saved;
mod shapes;
#[path = "../../../vcpu/tests/skip/mod.rs"]
mod skip;
mod ways;

use ktstr_vmm::{Config, Disk, Part, Port, Restore, Sink, Vm, VmEnd};
use std::fs::File;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a guest may take to do what is expected of it. The lab emulates the host's processor: everything takes its
/// time.
pub(crate) fn patience() -> Duration {
    Duration::from_secs(number("KTSTR_VMM_PATIENCE", 120))
}

/// A number in the environment.
fn number(name: &str, default: u32) -> u64 {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_string());
    let number = text.parse::<u32>();
    number.unwrap_or_else(|e| panic!("{name} is {text:?}, where a number was expected: {e}")).into()
}

pub(crate) type Outcome = Result<(), String>;
type Test = (&'static str, fn(&Kernels) -> Outcome);

const TESTS: [Test; 18] = [
    ("the_probe_finds_this_kvm_usable", ways::the_probe_finds_this_kvm_usable),
    ("bytes_go_both_ways", ways::bytes_go_both_ways),
    ("a_line_is_typed_and_answered", ways::a_line_is_typed_and_answered),
    ("a_vmlinux_boots_by_pvh", ways::a_vmlinux_boots_by_pvh),
    ("a_busy_guest_pauses_and_runs_on", ways::a_busy_guest_pauses_and_runs_on),
    ("a_pause_is_no_time_to_the_guest", ways::a_pause_is_no_time_to_the_guest),
    ("a_reboot_is_a_reset", ways::a_reboot_is_a_reset),
    ("a_triple_fault_is_a_reset", ways::a_triple_fault_is_a_reset),
    ("a_panic_is_a_reset", ways::a_panic_is_a_reset),
    ("dropped_machines_leave_nothing", ways::dropped_machines_leave_nothing),
    ("saved_machines_go_on", saved::saved_machines_go_on),
    ("a_resume_is_a_part_of_a_boot", saved::a_resume_is_a_part_of_a_boot),
    ("a_disk_is_read_and_written", disk::a_disk_is_read_and_written),
    ("a_disk_is_saved_along", disk::a_disk_is_saved_along),
    ("small_shapes_are_seen_as_declared", shapes::small),
    ("uneven_shapes_are_seen_as_declared", shapes::uneven),
    ("declared_speeds_are_seen", shapes::speeds),
    ("large_shapes_are_seen_as_declared", shapes::large),
];

/// Where the kernels are.
pub(crate) struct Kernels {
    pub(crate) bzimage: PathBuf,
    pub(crate) vmlinux: Option<PathBuf>,
}

impl Kernels {
    /// The one that boots sooner, for tests of something else than the way to boot: a bzImage unpacks itself first,
    /// which is half of a boot.
    pub(crate) fn quick(&self) -> &PathBuf {
        self.vmlinux.as_ref().unwrap_or(&self.bzimage)
    }
}

fn main() -> ExitCode {
    if std::process::id() == 1 {
        guest::main();
    }
    if std::env::args().any(|arg| arg == "--list") {
        // A test runner's question; these tests are the lab's to run.
        return ExitCode::SUCCESS;
    }
    let Some(bzimage) = std::env::var_os("KTSTR_VMM_BZIMAGE").map(PathBuf::from) else {
        skip::skip("linux", "KTSTR_VMM_BZIMAGE names no kernel; vmm/LAB.md says how these tests are run");
        return ExitCode::SUCCESS;
    };
    let kernels = Kernels { bzimage, vmlinux: std::env::var_os("KTSTR_VMM_VMLINUX").map(PathBuf::from) };
    let filters: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let chosen = |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let repeat = number("KTSTR_VMM_REPEAT", 1) as usize;
    let mut failed = 0;
    let all = std::iter::repeat_n(TESTS, repeat).flatten();
    for (name, test) in all.filter(|(name, _)| chosen(name)) {
        let begin = Instant::now();
        let outcome = test(&kernels);
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {verdict} in {:.1} s", begin.elapsed().as_secs_f64());
        if let Err(why) = outcome {
            failed += 1;
            println!("{why}");
        }
    }
    println!("{failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// Console, data port, terminal: what they are given, and what they say.
struct Channels {
    console: Arc<Mutex<Vec<u8>>>,
    print: Box<dyn Sink>,
    ports: Vec<Port>,
    data: Receiver<Vec<u8>>,
    show: Box<dyn Sink>,
    terminal: Receiver<Vec<u8>>,
}

fn channels() -> Channels {
    let console = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&console);
    let print = move |bytes: &[u8]| into.lock().unwrap().extend_from_slice(bytes);
    let (sender, data) = channel();
    // The test may have seen enough and gone.
    let take = move |bytes: &[u8]| drop(sender.send(bytes.to_vec()));
    let ports =
        vec![Port::new("ktstr.data", Box::new(take)), Port::new("ktstr.stdio", Box::new(|_: &[u8]| {}))];
    let (sender, terminal) = channel();
    let show = move |bytes: &[u8]| drop(sender.send(bytes.to_vec()));
    Channels { console, print: Box::new(print), ports, data, show: Box::new(show), terminal }
}

/// A booted machine and what it says.
pub(crate) struct Guest {
    pub(crate) vm: Vm,
    pub(crate) data: Receiver<Vec<u8>>,
    /// What its terminal shows.
    pub(crate) terminal: Receiver<Vec<u8>>,
    seen: Vec<u8>,
    console: Arc<Mutex<Vec<u8>>>,
}

impl Guest {
    /// Boots `kernel` with this binary as `/init` in `mode`.
    pub(crate) fn boot(
        kernel: &PathBuf,
        shape: ktstr_topology::Topology,
        mode: &str,
    ) -> Result<Self, String> {
        Self::boot_with(kernel, shape, mode, Vec::new())
    }

    /// The same with disks.
    pub(crate) fn boot_with(
        kernel: &PathBuf,
        shape: ktstr_topology::Topology,
        mode: &str,
        disks: Vec<Disk>,
    ) -> Result<Self, String> {
        let text = |e: &dyn std::fmt::Display| e.to_string();
        let mib = 256 + 32 * u64::from(shape.total_cpus());
        let mut config = Config::new(File::open(kernel).map_err(|e| text(&e))?, shape, mib);
        let me = std::fs::read("/proc/self/exe").map_err(|e| text(&e))?;
        config.initramfs = vec![Part::Bytes(Arc::new(cpio::archive(&me)))];
        // Each character on the serial port is an exit; the warning of vmm/LAB.md, with its dump, was four exits of ten.
        config.command_line = format!(
            "console=ttyS0 earlyprintk=serial rdinit=/init panic=-1 mitigations=off nokaslr no_timer_check \
             loglevel=4 guest_mode={mode}"
        );
        config.confine = true;
        config.disks = disks;
        let Channels { console, print, ports, data, show, terminal } = channels();
        (config.console, config.ports, config.terminal) = (print, ports, Some(show));
        let vm = Vm::boot(config).map_err(|e| text(&e))?;
        Ok(Self { vm, data, terminal, seen: Vec::new(), console })
    }

    /// Goes on from the machine saved in `dir`, which was booted with that shape.
    pub(crate) fn restore(dir: &std::path::Path, shape: ktstr_topology::Topology) -> Result<Self, String> {
        Self::restore_with(dir, shape, Vec::new())
    }

    /// The same with the disks that it had.
    pub(crate) fn restore_with(
        dir: &std::path::Path,
        shape: ktstr_topology::Topology,
        disks: Vec<Disk>,
    ) -> Result<Self, String> {
        let mib = 256 + 32 * u64::from(shape.total_cpus());
        let mut config = Restore::new(dir, shape, mib);
        config.confine = true;
        config.disks = disks;
        let Channels { console, print, ports, data, show, terminal } = channels();
        (config.console, config.ports, config.terminal) = (print, ports, Some(show));
        let vm = Vm::restore(config).map_err(|e| e.to_string())?;
        Ok(Self { vm, data, terminal, seen: Vec::new(), console })
    }

    /// Waits until the guest has sent `text` on the data port.
    pub(crate) fn expect(&mut self, text: &str) -> Outcome {
        self.until(text).map(drop)
    }

    /// What the guest sends on the data port before `text`.
    pub(crate) fn until(&mut self, text: &str) -> Result<String, String> {
        let deadline = Instant::now() + patience();
        loop {
            let seen = String::from_utf8_lossy(&self.seen);
            if let Some(at) = seen.find(text) {
                let before = seen[..at].to_string();
                self.seen.drain(..at + text.len());
                return Ok(before);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.data.recv_timeout(left) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(e) => {
                    let (text, seen) = (ends(text), ends(&seen));
                    return Err(format!("waiting for {text}: {e}; seen {seen}{}", self.post_mortem()));
                }
            }
        }
    }

    /// Waits for the end, which must be this one.
    pub(crate) fn expect_end(&self, wanted: &VmEnd) -> Outcome {
        match self.vm.wait(patience()) {
            Some(end) if end == *wanted => Ok(()),
            other => Err(format!("expected {wanted:?}, got {other:?}{}", self.post_mortem())),
        }
    }

    /// Everything that was sent on the data port, of a machine that has ended.
    pub(crate) fn rest(&mut self) -> String {
        self.seen.extend(self.data.try_iter().flatten());
        String::from_utf8_lossy(&std::mem::take(&mut self.seen)).into_owned()
    }

    pub(crate) fn post_mortem(&self) -> String {
        let end = self.vm.wait(Duration::ZERO);
        let look = if end.is_none() { look::twice(&self.vm) } else { String::new() };
        let console = self.console.lock().unwrap();
        let tail = &console[console.len().saturating_sub(3000)..];
        let disks: Vec<_> =
            (0..).map_while(|disk| Some((self.vm.disk_counts(disk)?, self.vm.disk_broken(disk)))).collect();
        format!(
            "\nconsole port broken: {:?}; end: {end:?}; disks: {disks:?}\n{look}{}",
            self.vm.console_broken(),
            String::from_utf8_lossy(tail)
        )
    }
}

/// A text as it is shown: the middle of a long one, such as the block that an echo begins with, tells nothing.
fn ends(text: &str) -> String {
    const SHOWN: usize = 100;
    let (count, chars) = (text.chars().count(), text.chars());
    if count <= 2 * SHOWN {
        return format!("{text:?}");
    }
    let (first, last): (String, String) =
        (chars.clone().take(SHOWN).collect(), chars.skip(count - SHOWN).collect());
    format!("{first:?} … {last:?} ({count} characters)")
}
