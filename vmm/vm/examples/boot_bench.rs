//! How soon a guest's init runs, and what the monitor's process takes beyond guest RAM: this
//! monitor beside QEMU's microvm, same kernel, initramfs, RAM and KVM, in turn.
//!
//! usage: boot_bench ROUNDS KERNEL QEMU [QEMU ARGUMENT...]
//!
//! One program in three parts: the driver, the process that runs this monitor, and the guest's
//! init. It needs a KVM that runs Linux, and to be linked statically. Each machine is one line
//! of output that starts with `bench:`.

#[path = "../tests/linux/cpio.rs"]
mod cpio;

use ktstr_vmm::{Config, Part, Vm};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const MIB: u64 = 512;
const INITRAMFS: &str = "/tmp/boot-bench.cpio";
const COMMAND_LINE: &str = "console=ttyS0 rdinit=/init panic=-1 quiet nokaslr mitigations=off";
/// What the guest's init has the kernel say, which puts its clock before it.
const MARKER: &str = "boot-bench: init";
/// A guest that says nothing for so long hangs.
const PATIENCE: Duration = Duration::from_secs(120);

fn main() -> Outcome<()> {
    if std::process::id() == 1 {
        return guest();
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["monitor", began, kernel] => monitor(began.parse()?, kernel),
        [rounds, kernel, qemu, options @ ..] => drive(rounds.parse()?, kernel, qemu, options),
        _ => Err("usage: boot_bench ROUNDS KERNEL QEMU [QEMU ARGUMENT...]".into()),
    }
}

/// Boots each in turn.
fn drive(rounds: u32, kernel: &str, qemu: &str, options: &[&str]) -> Outcome<()> {
    std::fs::write(INITRAMFS, cpio::archive(&std::fs::read("/proc/self/exe")?))?;
    for round in 0..=rounds {
        // The first of each fills the page cache.
        let name = |name: &str| if round == 0 { format!("warm-up-{name}") } else { name.to_string() };
        let mut ours = Command::new(std::env::current_exe()?);
        ours.args(["monitor", &now().as_nanos().to_string(), kernel]);
        measure(&name("ktstr"), ours)?;
        let mut theirs = Command::new(qemu);
        theirs
            .args(options)
            .args(["-accel", "kvm", "-cpu", "host", "-smp", "1", "-m", &format!("{MIB}M")])
            .args(["-object", &format!("memory-backend-memfd,id=ram,size={MIB}M,share=on")])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot"])
            .args(["-kernel", kernel, "-initrd", INITRAMFS, "-append", COMMAND_LINE]);
        measure(&name("qemu"), theirs)?;
    }
    Ok(())
}

/// Starts a monitor, waits for its guest's init, looks at its memory and ends it.
fn measure(name: &str, mut command: Command) -> Outcome<()> {
    let begin = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let seen = wait_for_init(&mut child, begin);
    let memory = wait_for_rest(child.id()).and_then(|()| memory(child.id()));
    child.kill()?;
    child.wait()?;
    let ((took, kernel_us, setup), (beyond_kib, ram_kib)) = (seen?, memory?);
    let us = took.as_micros();
    println!("bench: {name} init_us={us} kernel_us={kernel_us} beyond_kib={beyond_kib} ram_kib={ram_kib}");
    for line in setup {
        println!("bench: {name} {line}");
    }
    Ok(())
}

/// When the guest's init spoke, what its kernel's clock said, and what the monitor said.
fn wait_for_init(child: &mut Child, begin: Instant) -> Outcome<(Duration, u64, Vec<String>)> {
    let (sender, lines) = std::sync::mpsc::channel();
    let output = child.stdout.take().ok_or("no standard output")?;
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            // Whoever waits may have seen enough.
            let _ = sender.send((Instant::now(), String::from_utf8_lossy(&line).trim().to_string()));
        }
    });
    let mut seen = Vec::new();
    loop {
        let (at, line) = lines
            .recv_timeout(PATIENCE)
            .map_err(|e| format!("waiting for the guest's init: {e}; seen:\n{}", seen.join("\n")))?;
        if let Some(us) = marked(&line) {
            let setup = seen.into_iter().filter(|line: &String| line.starts_with("setup")).collect();
            return Ok((at - begin, us, setup));
        }
        seen.push(line);
    }
}

/// Waits until a process is at rest, as it is once its guest sleeps: for some looks in a row each of its threads waits
/// and none has used processor time. A guest that sleeps still ticks now and then, so it is a few looks, not a second.
fn wait_for_rest(pid: u32) -> Outcome<()> {
    const LOOKS: u32 = 5;
    const APART: Duration = Duration::from_millis(10);
    let (begin, mut before, mut quiet) = (Instant::now(), None, 0);
    while quiet < LOOKS {
        if begin.elapsed() > PATIENCE {
            return Err(format!("waiting for process {pid} to come to rest: threads are {before:?}").into());
        }
        std::thread::sleep(APART);
        let now = threads(pid)?;
        let at_rest = now.iter().all(|thread| thread.0 == "S") && before.as_ref() == Some(&now);
        quiet = if at_rest { quiet + 1 } else { 0 };
        before = Some(now);
    }
    Ok(())
}

/// State of each thread, and its user and system time in clock ticks (proc(5)).
fn threads(pid: u32) -> Outcome<Vec<(String, String, String)>> {
    let mut threads = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = std::fs::read_to_string(task?.path().join("stat"))?;
        // The name before may hold blanks and brackets.
        let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
        let field = |at: usize| fields.get(at).map_or_else(String::new, |field| (*field).to_string());
        threads.push((field(0), field(11), field(12)));
    }
    Ok(threads)
}

/// Resident memory of a process, KiB: beyond guest RAM, and guest RAM, which is a memfd.
fn memory(pid: u32) -> Outcome<(u64, u64)> {
    let (mut beyond, mut ram, mut is_ram) = (0, 0, false);
    for line in std::fs::read_to_string(format!("/proc/{pid}/smaps"))?.lines() {
        match line.strip_prefix("Rss:") {
            Some(size) => {
                let kib: u64 = size.trim().trim_end_matches(" kB").parse()?;
                *(if is_ram { &mut ram } else { &mut beyond }) += kib;
            }
            // A line of a mapping's own starts with its addresses.
            None if line.split_once(' ').is_some_and(|(range, _)| range.contains('-')) => {
                is_ram = line.contains("/memfd:");
            }
            None => {}
        }
    }
    Ok((beyond, ram))
}

/// CLOCK_MONOTONIC, which processes share.
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the structure outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn monitor(began: u64, kernel: &str) -> Outcome<()> {
    let to_main = now() - Duration::from_nanos(began);
    let mut config = Config::new(File::open(kernel)?, "1n1l1c1t".parse()?, MIB);
    config.initramfs = vec![Part::File(Arc::new(File::open(INITRAMFS)?))];
    config.command_line = COMMAND_LINE.to_string();
    config.console = Box::new(|bytes: &[u8]| {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush()).expect("writing to standard output");
    });
    let vm = Vm::boot(config)?;
    println!("setup_us={} starting the process", to_main.as_micros());
    for step in vm.setup() {
        println!("setup_us={} {}", step.took.as_micros(), step.what);
    }
    println!("{:?}", vm.wait(PATIENCE));
    Ok(())
}

/// Has the kernel say when this runs, then sleeps for ever.
fn guest() -> Outcome<()> {
    let path = CString::new("/dev/kmsg")?;
    // Device 1:11 is the kernel log (Documentation/admin-guide/devices.txt).
    // SAFETY: the path is a terminated string.
    unsafe { libc::mknod(path.as_ptr(), libc::S_IFCHR | 0o600, libc::makedev(1, 11)) };
    OpenOptions::new().write(true).open("/dev/kmsg")?.write_all(format!("<1>{MARKER}\n").as_bytes())?;
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// Microseconds of the kernel's clock in a line of its log, `[    1.234567] text`, if it is the
/// marker's.
fn marked(line: &str) -> Option<u64> {
    let (clock, text) = line.strip_prefix('[')?.split_once("] ")?;
    let (seconds, micros) = clock.trim().split_once('.')?;
    (text == MARKER).then_some(seconds.parse::<u64>().ok()? * 1_000_000 + micros.parse::<u64>().ok()?)
}
