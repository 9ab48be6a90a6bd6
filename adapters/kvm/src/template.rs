//! Saving a booted machine, and resuming copies of it.
//!
//! ```text
//! state, ram0 …   what the monitor saves (`ktstr_vmm::Vm::save`); RAM without the
//!                 mailbox's pages
//! mailbox         where those lie: guest-physical page numbers, in the order of the pages
//! console         what the guest printed until it stopped
//! ```
//!
//! A resumed machine maps RAM privately: what it doesn't touch isn't copied, and what it
//! writes stays its own. No file shows that, so [`Vm::ram_files`](ktstr_machine::Vm::ram_files)
//! leads to this process's memory instead.

use crate::mailbox::{self, MAILBOX};
use crate::memory::Ram;
use crate::queue::Queue;
use crate::vm::{KvmVm, channels, config, halt_poll, sink};
use crate::{command_line, errors};
use ktstr_machine::mailbox::layout::{PAGE, READY, STOP_PORT};
use ktstr_machine::mailbox::marked;
use ktstr_machine::mailbox::places::{Places, PlacesError};
use ktstr_machine::{ConsoleTail, MachineError, MachineSpec, Vm, VmEvent, Wake};
use ktstr_vmm::{Port, Restore};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Version of the files and of what is done to make them.
const LAYOUT: u32 = 1;
const CONSOLE: &str = "console";
const CONSOLE_LINES: usize = 400;
/// How long the guest may take to come to rest once it has asked to be stopped. One that
/// doesn't is saved as it is: nothing of its state is lost.
const REST: Duration = Duration::from_secs(2);

/// Text that differs whenever a template can't be used: the monitor and its files, the
/// guest's processor, the command line, the shape.
pub(crate) fn identity(spec: &MachineSpec) -> Result<String, MachineError> {
    let of_host = ktstr_vmm::saved_identity(&spec.topology).map_err(|e| errors::boot(&spec.kernel, e))?;
    Ok(format!(
        "kvm layout {LAYOUT}\nktstr-vmm {} {of_host}\n{}\n{:?}\n{} MiB\n",
        env!("CARGO_PKG_VERSION"),
        command_line::build(spec)?,
        spec.topology,
        spec.memory_mib
    ))
}

/// Boots `spec` until its init stops it, and saves it in `dir`.
pub(crate) fn prepare(
    spec: &MachineSpec,
    pages: u64,
    dir: &Path,
    limit: Duration,
) -> Result<(), MachineError> {
    let begin = Instant::now();
    let queue = Arc::new(Queue::default());
    let mut config = config(spec, &queue)?;
    config.ports.push(Port::new(STOP_PORT, sink(&queue, |_| VmEvent::Paused)));
    let vm = ktstr_vmm::Vm::boot(config).map_err(|e| errors::boot(&spec.kernel, e))?;
    let mut vm = KvmVm::of(vm, queue, begin);
    let console = wait_until_ready(&mut vm, limit)?;
    come_to_rest(&mut vm)?;
    let mut places = Places::new(pages);
    let mut wrong: Result<(), PlacesError> = Ok(());
    let mut keep = |at: u64, page: &[u8]| match marked(page) {
        Some(mark) => {
            let found = places.found(mark, at / PAGE as u64);
            wrong = std::mem::replace(&mut wrong, Ok(())).and(found);
            false
        }
        None => true,
    };
    let saved = vm.monitor().save(dir, &mut keep);
    saved.map_err(|e| errors::ask("saving a booted machine", &e))?;
    let list = wrong.and_then(|()| places.encode()).map_err(|e| errors::broken(dir, e.to_string()))?;
    for (name, bytes) in [(MAILBOX, list), (CONSOLE, console.last(CONSOLE_LINES).join("\n").into_bytes())] {
        let path = dir.join(name);
        std::fs::write(&path, bytes).map_err(MachineError::os(format!("writing {}", path.display())))?;
    }
    Ok(())
}

/// Follows the machine to where it asks to be stopped; returns what it printed.
fn wait_until_ready(vm: &mut KvmVm, limit: Duration) -> Result<ConsoleTail, MachineError> {
    let deadline = Instant::now() + limit;
    let mut console = ConsoleTail::new(CONSOLE_LINES);
    loop {
        match vm.next_event(deadline.saturating_duration_since(Instant::now()))? {
            Some(VmEvent::Console(bytes)) => console.push(&bytes),
            Some(VmEvent::Paused) => break,
            Some(VmEvent::Exited(exit)) => return Err(MachineError::ended_before_ready(&exit, &console)),
            Some(VmEvent::Data(_) | VmEvent::Output(_) | VmEvent::LastWords(_) | VmEvent::Written { .. }) => {
            }
            None => {
                return Err(MachineError::not_ready(format!("it was not ready within {limit:?}"), &console));
            }
        }
    }
    match console.find_last(READY) {
        Some(_) => Ok(console),
        None => Err(MachineError::not_ready("it stopped before it was ready".to_string(), &console)),
    }
}

/// Pauses the machine, if possible while all its vCPUs are halted.
fn come_to_rest(vm: &mut KvmVm) -> Result<(), MachineError> {
    let deadline = Instant::now() + REST;
    loop {
        std::thread::sleep(Duration::from_millis(2));
        vm.pause()?;
        if Instant::now() > deadline || vm.registers()?.iter().all(|r| r.halted) {
            return Ok(());
        }
        vm.resume()?;
    }
}

/// Resumes a private copy of what `dir` holds.
pub(crate) fn resume(dir: &Path, spec: &MachineSpec, wake: &Wake) -> Result<KvmVm, MachineError> {
    let begin = Instant::now();
    let queue = Arc::new(Queue::default());
    let channels = channels(&queue);
    let mut restore = Restore::new(dir, spec.topology.clone(), spec.memory_mib);
    restore.halt_poll = Some(halt_poll(spec.topology.total_cpus()));
    restore.confine = true;
    restore.console = channels.console;
    restore.second_serial = channels.last_words;
    restore.ports = channels.ports;
    restore.ports.push(Port::new(STOP_PORT, Box::new(|_: &[u8]| {})));
    restore.on_trap = channels.on_trap;
    restore.on_end = channels.on_end;
    let vm = ktstr_vmm::Vm::restore(restore).map_err(|e| errors::restore(dir, e))?;
    mailbox::fill(&Ram(vm.ram().clone()), &spec.initramfs, wake, dir)?;
    vm.resume();
    Ok(KvmVm::of(vm, queue, begin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_machine::{Accel, CommandLine};

    fn spec(shape: &str, mib: u64) -> MachineSpec {
        MachineSpec {
            kernel: "/k".into(),
            initramfs: Vec::new(),
            cmdline: CommandLine::new(),
            topology: shape.parse().unwrap(),
            memory_mib: mib,
            accel: Accel::Kvm,
            seed: 0,
            verbose: false,
            kaslr: false,
            performance: None,
        }
    }

    #[test]
    fn machines_that_differ_have_other_identities() {
        if let Err(e) = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
            crate::skip::skip(
                "machines_that_differ_have_other_identities",
                &format!("opening /dev/kvm: {e}"),
            );
            return;
        }
        let same = identity(&spec("1n1l2c1t", 256)).unwrap();
        for other in [spec("1n2l1c1t", 256), spec("1n1l2c1t", 512), {
            let mut spec = spec("1n1l2c1t", 256);
            spec.cmdline.push("x").unwrap();
            spec
        }] {
            assert_ne!(identity(&other).unwrap(), same);
        }
        // Whichever of the host's processors says what it supports.
        for _ in 0..50 {
            assert_eq!(identity(&spec("1n1l2c1t", 256)).unwrap(), same);
            std::thread::yield_now();
        }
    }

    #[test]
    fn an_empty_directory_is_a_broken_template_and_not_a_broken_host() {
        let dir = tempfile::tempdir().unwrap();
        let wake = Wake { init: Vec::new(), clock: None, entropy: [0; 32] };
        let error = resume(dir.path(), &spec("1n1l2c1t", 256), &wake).err().unwrap();
        assert!(matches!(error, MachineError::Template { .. }), "{error}");
    }
}
