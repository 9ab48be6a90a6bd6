//! The end of a machine.

use crate::last_words;
use nix::sys::reboot::{RebootMode, reboot};

/// Powers the machine off, now. File systems are in RAM: there is nothing to sync.
pub fn power_off() -> ! {
    let Err(e) = reboot(RebootMode::RB_POWER_OFF);
    last_words(&format!("ktstr: powering off: {e}"));
    // PID 1 returning is a kernel panic, which resets the machine: it ends anyway.
    std::process::exit(1)
}
