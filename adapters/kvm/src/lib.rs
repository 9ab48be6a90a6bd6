//! The hypervisor port over our own virtual machine monitor: the mode `kvm`.
//!
//! The machine runs in this process, on threads of its own; when the process ends,
//! however it does, nothing is left of it. The guest has the same channels as under
//! QEMU: the console on `ttyS0`, last words on `ttyS1`, and virtio console ports named
//! `ktstr.data` and `ktstr.stdio`.
//!
//! May touch: `/dev/kvm`, threads, memfds, the kernel and initramfs files, the directories
//! that machines are saved in. Knows
//! nothing of tests.

mod arch;
mod command_line;
mod core_file;
mod errors;
mod mailbox;
mod memory;
mod performance;
mod queue;
#[cfg(test)]
#[path = "../../../vmm/vcpu/tests/skip/mod.rs"]
mod skip;
mod template;
mod vm;
mod watches;

use ktstr_machine::{Accel, Hypervisor, MachineError, MachineSpec, Missing, Pace, Template, Vm, Wake};
use ktstr_vmm::Probe;
use std::path::Path;
use std::time::Duration;

/// How long the probing guest may take; milliseconds on an idle host.
const PROBE_PATIENCE: Duration = Duration::from_secs(5);

/// Boots machines under KVM.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kvm;

impl Kvm {
    /// A hypervisor that opens `/dev/kvm` for each machine.
    #[must_use]
    pub const fn new() -> Self {
        Self
    }

    /// Whether machines can run here, found out by running a tiny guest.
    ///
    /// # Errors
    /// What is missing, in words for whoever asked for this mode.
    pub fn probe() -> Result<(), MachineError> {
        let unusable = |what: String| Err(MachineError::Unsupported { accel: Accel::Kvm, what });
        match ktstr_vmm::probe(PROBE_PATIENCE) {
            Ok(Probe::Usable { .. }) => Ok(()),
            Ok(Probe::Unusable { failed_at, why }) => unusable(format!(
                "/dev/kvm is there, but a guest got no further than {failed_at} ({why}): this host emulates guest \
                 kernel code, on which Linux can't boot; use --accel tcg, or a host with hardware virtualization"
            )),
            Err(e) => unusable(format!("{e}; or use --accel tcg")),
        }
    }
}

impl Kvm {
    /// Whether watched memory stops a machine here; or why not, in words.
    ///
    /// # Errors
    /// Why not.
    pub fn honours_watches() -> Result<(), String> {
        watches::honoured()
    }
}

impl Hypervisor for Kvm {
    fn describe(&self) -> Result<String, MachineError> {
        Ok(describe(ktstr_vmm::emulator()))
    }

    fn pace(&self, accel: Accel) -> Pace {
        pace(accel, ktstr_vmm::emulator())
    }

    fn performance(&self, accel: Accel) -> Option<Vec<Missing>> {
        (accel == Accel::Kvm).then(performance::lacks)
    }

    fn boot(&self, spec: &MachineSpec) -> Result<Box<dyn Vm>, MachineError> {
        check_mode(spec)?;
        Ok(Box::new(vm::KvmVm::start(spec)?))
    }

    fn template_identity(&self, spec: &MachineSpec) -> Result<Option<String>, MachineError> {
        // What is resumed has RAM of small pages, and was told that it shares its CPUs.
        if spec.accel == Accel::Kvm && spec.performance.is_none() {
            return template::identity(spec).map(Some);
        }
        Ok(None)
    }

    fn prepare(
        &self,
        spec: &MachineSpec,
        mailbox_pages: u64,
        dir: &Path,
        limit: Duration,
    ) -> Result<(), MachineError> {
        check_mode(spec)?;
        template::prepare(spec, mailbox_pages, dir, limit)
    }

    fn resume(
        &self,
        template: &Template,
        spec: &MachineSpec,
        wake: &Wake,
    ) -> Result<Box<dyn Vm>, MachineError> {
        check_mode(spec)?;
        Ok(Box::new(template::resume(&template.dir, spec, wake)?))
    }
}

fn check_mode(spec: &MachineSpec) -> Result<(), MachineError> {
    if spec.accel == Accel::Kvm {
        return Ok(());
    }
    let what = "this hypervisor runs guest code on the processor itself; use QEMU for this mode".to_string();
    Err(MachineError::Unsupported { accel: spec.accel, what })
}

fn describe(emulator: Option<&str>) -> String {
    let name = format!("ktstr-vmm {} on KVM", env!("CARGO_PKG_VERSION"));
    match emulator {
        Some(emulator) => format!("{name}, on a processor that {emulator} emulates"),
        None => name,
    }
}

/// KVM on an emulated processor is emulation, whatever the mode was made for.
fn pace(accel: Accel, emulator: Option<&str>) -> Pace {
    if emulator.is_some() { accel.pace().max(Pace::Emulated) } else { accel.pace() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_emulated_processor_is_as_slow_as_emulation() {
        assert_eq!(pace(Accel::Kvm, None), Pace::Hardware);
        assert_eq!(pace(Accel::Kvm, Some("QEMU's TCG")), Pace::Emulated);
        assert_eq!(pace(Accel::Deterministic, Some("QEMU's TCG")), Pace::Counted);
    }

    #[test]
    fn whoever_reads_a_result_learns_what_emulated_the_processor() {
        assert!(describe(None).ends_with(" on KVM"));
        assert!(describe(Some("QEMU's TCG")).ends_with("on a processor that QEMU's TCG emulates"));
    }
}
