//! Does `/dev/kvm` run guest kernel code on the processor? Found out by running some.
//!
//! A host that is itself a virtual machine without nested virtualisation may offer
//! `/dev/kvm` all the same, and interpret guest kernel code one instruction after the
//! other, some not at all: Linux doesn't boot there.

use crate::arch::probe::{PORT, STEPS, WATCHED, prepare, write_guest, write_watched};
use crate::bus::lock;
use crate::{VmError, arch};
use ktstr_vmm_vcpu::arch::{Access, Trap, Watch};
use ktstr_vmm_vcpu::{Address, End, Machine, Vcpu};
use kvm_ioctls::Kvm;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What `/dev/kvm` is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// It runs guest kernel code as hardware does.
    Usable {
        /// How long the guest took.
        took: Duration,
    },
    /// It is there, and Linux won't boot on it.
    Unusable {
        /// What the guest was doing when it got no further.
        failed_at: &'static str,
        /// What KVM said.
        why: String,
    },
}

enum Event {
    Step(u8),
    Trapped,
    Ended(End),
}

struct Recorder(Mutex<Sender<Event>>);

impl Recorder {
    fn send(&self, event: Event) {
        // Whoever asked may have seen enough.
        let _ = lock(&self.0).send(event);
    }
}

impl Machine for Recorder {
    fn read(&self, _address: Address, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, address: Address, data: &[u8]) {
        if let (Address::Port(PORT), [step]) = (address, data) {
            self.send(Event::Step(*step));
        }
    }

    fn trapped(&self, _index: u32, _trap: Trap) {
        self.send(Event::Trapped);
    }

    fn ended(&self, _index: u32, end: End) {
        self.send(Event::Ended(end));
    }
}

/// Runs a guest of some dozen instructions, for at most `patience`; on hardware it
/// takes less than a millisecond beside making the machine.
///
/// # Errors
/// No `/dev/kvm`, no access to it, or one that can't even make a machine.
pub fn probe(patience: Duration) -> Result<Probe, VmError> {
    let kvm = Kvm::new().map_err(|source| VmError::NoKvm { source })?;
    arch::check(&kvm, &ktstr_topology::Topology::DEFAULT)?;
    let (fd, vm, ram) = prepare(&kvm, write_guest)?;
    let (sender, events) = channel();
    let vcpu = Vcpu::start(0, fd, Arc::new(Recorder(Mutex::new(sender))))?;
    let begin = Instant::now();
    vcpu.resume();
    let mut done = 0usize;
    let why = loop {
        match events.recv_timeout(patience.saturating_sub(begin.elapsed())) {
            Ok(Event::Step(step)) if usize::from(step) == STEPS.len() => break None,
            Ok(Event::Step(step)) => done = usize::from(step),
            Ok(Event::Trapped) => break Some("a trap that nobody asked for".to_string()),
            Ok(Event::Ended(end)) => break Some(describe(end)),
            Err(RecvTimeoutError::Timeout) => {
                break Some(format!("nothing more happened within {patience:?}"));
            }
            Err(RecvTimeoutError::Disconnected) => break Some("the vCPU's thread is gone".to_string()),
        }
    };
    let took = begin.elapsed();
    // In this order: the RAM is mapped by the VM, and both are used by the vCPU.
    drop((vcpu, vm, ram));
    Ok(match why {
        None => Probe::Usable { took },
        Some(why) => Probe::Unusable { failed_at: STEPS.get(done).copied().unwrap_or("the last step"), why },
    })
}

/// Whether a vCPU here stops when it writes to watched memory: finds out with a guest that does, for at most `patience`.
/// Where KVM emulates guest kernel code, or is emulated itself, a watchpoint can be set and is never hit.
///
/// # Errors
/// No usable `/dev/kvm`, or a guest that does neither.
pub fn honours_watches(patience: Duration) -> Result<bool, VmError> {
    let kvm = Kvm::new().map_err(|source| VmError::NoKvm { source })?;
    let (fd, vm, ram) = prepare(&kvm, write_watched)?;
    let (sender, events) = channel();
    let vcpu = Vcpu::start(0, fd, Arc::new(Recorder(Mutex::new(sender))))?;
    vcpu.pause(patience)?;
    vcpu.watch(&[Watch { address: WATCHED, bytes: 4, access: Access::Write }])?;
    vcpu.resume();
    let honoured = match events.recv_timeout(patience) {
        Ok(Event::Trapped) => Ok(true),
        Ok(Event::Step(_)) => Ok(false),
        Ok(Event::Ended(end)) => Err(describe(end)),
        Err(_) => Err(format!("nothing happened within {patience:?}")),
    };
    drop((vcpu, vm, ram));
    honoured
        .map_err(|why| VmError::Unsupported { what: format!("a guest that writes to watched memory: {why}") })
}

/// Whether this KVM can have a guest that halts or spins stay on its host CPU
/// ([`Config::rest_in_guest`](crate::Config::rest_in_guest)).
///
/// # Errors
/// No usable `/dev/kvm`.
pub fn rests_in_guest() -> Result<bool, VmError> {
    let kvm = Kvm::new().map_err(|source| VmError::NoKvm { source })?;
    Ok(arch::rests_in_guest(&kvm))
}

/// What emulates the processor that this program itself runs on, where it gives its name.
///
/// A KVM in there (nested virtualisation) runs Linux, if at the pace of an emulator.
#[must_use]
pub fn emulator() -> Option<&'static str> {
    arch::probe::emulator()
}

fn describe(end: End) -> String {
    match end {
        End::Failed { why } => why,
        End::Shutdown => "a triple fault".to_string(),
        other => format!("{other:?}"),
    }
}
