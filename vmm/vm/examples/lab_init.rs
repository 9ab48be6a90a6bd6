//! PID 1 of the nested lab: loads the modules that it finds, runs commands one after the other,
//! says how each ended and powers off. Linked statically into an initramfs of its own; see
//! `vmm/LAB.md`.
//!
//! It loads `/modules/*.ko` in the order of their names, then runs the commands in the files of
//! `/commands`, in the order of theirs: one word a line, first `NAME=VALUE` for the environment,
//! then the program and its arguments.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// How long a command's processes may take to be gone once it has ended.
const AFTERLIFE: Duration = Duration::from_secs(5);

/// Where tests say that they show nothing here, when `KTSTR_SKIP_LOG` names it.
const SKIP_LOG: &str = "/tmp/skipped";

fn main() {
    if std::process::id() != 1 {
        eprintln!("lab_init is PID 1 of the lab's machine; run elsewhere it would turn this one off");
        std::process::exit(2);
    }
    match run() {
        Ok(()) => println!("lab: done"),
        Err(e) => println!("lab: failed: {e}"),
    }
    // SAFETY: no pointers; PID 1 of a machine of its own.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
}

fn run() -> Outcome<()> {
    for (kind, at) in [(c"proc", c"/proc"), (c"sysfs", c"/sys"), (c"devtmpfs", c"/dev"), (c"tmpfs", c"/tmp")]
    {
        std::fs::create_dir_all(at.to_str()?)?;
        // SAFETY: all pointers are terminated strings, data is none.
        let mounted = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        if mounted != 0 {
            println!("lab: mounting {at:?}: {}", std::io::Error::last_os_error());
        }
    }
    for module in sorted("/modules")? {
        let file = File::open(&module)?;
        // SAFETY: the descriptor is open and the parameters are a terminated string.
        let loaded = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        if loaded != 0 {
            println!("lab: loading {}: {}", module.display(), std::io::Error::last_os_error());
        }
    }
    more_cpus()?;
    for command in sorted("/commands")? {
        perform(&command)?;
    }
    Ok(())
}

/// Brings up the CPUs that the kernel was told to leave aside (`maxcpus=1`), once the places in its code that KVM has it
/// patch for a first vCPU are patched: with other CPUs at work, QEMU before 8.1 runs what was there before
/// (vmm/LAB.md). They stay so while that vCPU lives, which never runs.
fn more_cpus() -> Outcome<()> {
    let cpus = std::fs::read_dir("/sys/devices/system/cpu")?;
    let switches = cpus.filter_map(|entry| Some(entry.ok()?.path().join("online")));
    let asleep = |switch: &PathBuf| std::fs::read_to_string(switch).is_ok_and(|state| state.trim() == "0");
    let asleep: Vec<PathBuf> = switches.filter(asleep).collect();
    if asleep.is_empty() {
        return Ok(());
    }
    let kvm = kvm_ioctls::Kvm::new()?;
    let vm = kvm.create_vm()?;
    vm.create_irq_chip()?;
    let vcpu = vm.create_vcpu(0)?;
    std::mem::forget((vcpu, vm));
    for switch in asleep {
        std::fs::write(&switch, "1")?;
    }
    Ok(())
}

fn perform(command: &Path) -> Outcome<()> {
    let text = std::fs::read_to_string(command)?;
    let mut words = text.lines().peekable();
    let environment: Vec<(&str, &str)> =
        std::iter::from_fn(|| words.next_if(|w| is_setting(w))?.split_once('=')).collect();
    let program = words.next().ok_or_else(|| format!("{} names no program", command.display()))?;
    println!("\nlab: running {program}");
    let begin = Instant::now();
    let status = Command::new(program).args(words).env_clear().envs(environment).status()?;
    for line in std::fs::read_to_string(SKIP_LOG).unwrap_or_default().lines() {
        println!("\nlab: skipped {line}");
    }
    // There is none if no test skipped itself.
    let _ = std::fs::remove_file(SKIP_LOG);
    let left = left_behind();
    if !left.is_empty() {
        println!("\nlab: left behind by {program}: {}", left.join(", "));
    }
    let code = if left.is_empty() { status.code().unwrap_or(-1) } else { -2 };
    println!("\nlab: exit code {code} after {:.1} s", begin.elapsed().as_secs_f64());
    Ok(())
}

/// A name that is an identifier, then `=`.
fn is_setting(word: &str) -> bool {
    let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word.split_once('=').is_some_and(|(name, _)| !name.is_empty() && is_name(name))
}

/// Processes that still run some time after their command's end, and are killed for it.
fn left_behind() -> Vec<String> {
    let deadline = Instant::now() + AFTERLIFE;
    loop {
        // SAFETY: no status is asked for. Orphans are PID 1's children.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
        let found = processes();
        if found.is_empty() || Instant::now() > deadline {
            for (pid, _) in &found {
                // SAFETY: no pointers.
                unsafe { libc::kill(*pid, libc::SIGKILL) };
            }
            return found.into_iter().map(|(pid, line)| format!("{pid} ({line})")).collect();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Programs that run, beside this one; the kernel's own threads have no command line.
fn processes() -> Vec<(i32, String)> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<i32>().ok()).filter(|pid| *pid > 1);
    pids.filter_map(|pid| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
        (!line.is_empty()).then(|| (pid, line.trim_end_matches('\0').replace('\0', " ")))
    })
    .collect()
}

fn sorted(dir: &str) -> Outcome<Vec<PathBuf>> {
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(dir)?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    paths.sort();
    Ok(paths)
}
