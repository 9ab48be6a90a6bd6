//! The end of a machine, and the last resort for words.

use nix::sys::reboot::{RebootMode, reboot};
use std::io::Write;

/// Powers the machine off, now. File systems are in RAM: there is nothing to sync.
pub fn power_off() -> ! {
    let Err(e) = reboot(RebootMode::RB_POWER_OFF);
    console_line(&format!("ktstr: powering off: {e}"));
    // PID 1 returning is a kernel panic, which resets the machine: it ends anyway.
    std::process::exit(1)
}

/// Writes a line to the console, past standard output.
pub(crate) fn console_line(line: &str) {
    if let Ok(mut console) = std::fs::OpenOptions::new().write(true).open("/dev/console") {
        // Nobody is left to tell.
        let _ = writeln!(console, "{line}");
    }
}
