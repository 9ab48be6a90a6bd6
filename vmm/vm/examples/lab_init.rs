//! PID 1 of the nested lab: loads the modules that it finds, runs one command, says
//! how it ended and powers off. Linked statically into an initramfs of its own; see
//! `vmm/LAB.md`.
//!
//! It loads `/modules/*.ko` in the order of their names, then runs the command of
//! `/command`, one argument a line.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() {
    if std::process::id() != 1 {
        eprintln!("lab_init is PID 1 of the lab's machine; run elsewhere it would turn this one off");
        std::process::exit(2);
    }
    match run() {
        Ok(code) => println!("lab: exit code {code}"),
        Err(e) => println!("lab: failed: {e}"),
    }
    // SAFETY: no pointers; PID 1 of a machine of its own.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
}

fn run() -> Outcome<i32> {
    for (kind, at) in [(c"proc", c"/proc"), (c"sysfs", c"/sys"), (c"devtmpfs", c"/dev"), (c"tmpfs", c"/tmp")]
    {
        std::fs::create_dir_all(at.to_str()?)?;
        // SAFETY: all pointers are terminated strings, data is none.
        let mounted = unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        if mounted != 0 {
            println!("lab: mounting {at:?}: {}", std::io::Error::last_os_error());
        }
    }
    let mut modules: Vec<PathBuf> =
        std::fs::read_dir("/modules")?.map(|e| Ok(e?.path())).collect::<std::io::Result<_>>()?;
    modules.sort();
    for module in modules {
        let file = File::open(&module)?;
        // SAFETY: the descriptor is open and the parameters are a terminated string.
        let loaded = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
        if loaded != 0 {
            println!("lab: loading {}: {}", module.display(), std::io::Error::last_os_error());
        }
    }
    let command = std::fs::read_to_string("/command")?;
    let mut words = command.lines();
    let program = words.next().ok_or("/command is empty")?;
    println!("lab: running {program}");
    let status = Command::new(program).args(words).status()?;
    Ok(status.code().unwrap_or(-1))
}
