//! The guest's time, which stands still while the machine does.

use crate::bus::lock;
use crate::{VmError, arch};
use ktstr_vmm_vcpu::Vcpu;
use kvm_ioctls::VmFd;
use std::sync::Mutex;

/// The VM, and what its clocks stood at when it was stopped. KVM's go on with the host's, so they are taken back
/// before the vCPUs run again.
pub(crate) struct Time {
    vm: VmFd,
    stood: Mutex<Option<arch::Clocks>>,
}

impl Time {
    /// That of a new machine, or of one that goes on from `stood`.
    pub(crate) fn new(vm: VmFd, stood: Option<arch::Clocks>) -> Self {
        Self { vm, stood: Mutex::new(stood) }
    }

    pub(crate) fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// From here on nothing passes. All vCPUs stand still; stopping twice changes nothing.
    pub(crate) fn stop(&self, vcpus: &[Vcpu]) -> Result<(), VmError> {
        let mut stood = lock(&self.stood);
        if stood.is_none() {
            *stood = Some(arch::clocks(&self.vm, vcpus)?);
        }
        Ok(())
    }

    /// What the clocks stand at, while they do.
    pub(crate) fn stood(&self) -> Option<arch::Clocks> {
        lock(&self.stood).clone()
    }

    /// Time goes on, and the vCPUs are about to.
    pub(crate) fn go_on(&self, vcpus: &[Vcpu]) -> Result<(), VmError> {
        match lock(&self.stood).take() {
            Some(stood) => arch::set_clocks(&self.vm, vcpus, &stood),
            None => Ok(()),
        }
    }
}
