//! The second machine: the same test with probes, after a crash of its scheduler.

use super::machine::Machine;
use crate::settings::Settings;
use anyhow::Result;
use ktstr_live_kernel::function_lines;
use ktstr_machine::{Blob, MachineSpec};
use ktstr_run::{Crash, Repro};

/// Runs the test again, once, with probes on the crash's functions; `guest` makes the test's part of the machine with
/// those. It never fails: what went wrong is part of what it tells.
pub(super) fn again(
    first: &Machine<'_>,
    settings: &Settings,
    crash: &Crash,
    guest: impl FnOnce(Vec<String>) -> Result<Blob>,
) -> Repro {
    eprintln!(
        "ktstr: the scheduler crashed; running the test once more, with probes (`auto_repro = false` turns it off)"
    );
    let played = guest(crash.functions().to_vec()).and_then(|guest| {
        let spec = MachineSpec { initramfs: vec![guest], ..first.spec.clone() };
        // Nobody waits for its beginning.
        let (begun, _waiting) = std::sync::mpsc::channel();
        Machine { spec: &spec, ..first.clone() }.run(settings, begun)
    });
    match played {
        Ok(played) => {
            let vmlinux = first.kernel.vmlinux.as_deref();
            let probed = crash.probed(&played.seen);
            let lines = vmlinux.map(|vmlinux| function_lines(vmlinux, &probed)).unwrap_or_default();
            crash.told(&played.seen, &lines)
        }
        Err(e) => Repro::not_made(&format!("{e:#}")),
    }
}
