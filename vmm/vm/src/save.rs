//! Saving a machine that stands still.
//!
//! ```text
//! state      everything but RAM (`state_file`)
//! ram0 …     RAM of each NUMA node that has any, sparse
//! ```

use crate::bus::{Bus, lock};
use crate::state_file::{self, DeviceStates, DiskState, MachineState};
use crate::{Vm, VmError};
use ktstr_vmm_devices::virtio::{Device, Mmio};
use ktstr_vmm_vcpu::StateKinds;
use kvm_ioctls::Kvm;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

pub(crate) const STATE: &str = "state";

/// The file of a node's RAM.
pub(crate) fn ram_file(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("ram{node}"))
}

impl Vm {
    /// Saves a paused machine in the directory `dir`, which has none of its files yet. The
    /// machine can run on afterwards.
    ///
    /// `keep` sees the guest-physical address and the bytes of every page that isn't all
    /// zeroes; what it turns down is zeroes in the machines that go on from here.
    ///
    /// # Errors
    /// The machine runs or has ended, a console or disk that the guest has broken, or files that
    /// can't be written.
    pub fn save(&self, dir: &Path, keep: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<(), VmError> {
        if self.bus.end().is_some() {
            return Err(VmError::Ended);
        }
        let clocks = self.time.stood().ok_or(VmError::Runs)?;
        let kvm = Kvm::new().map_err(|source| VmError::NoKvm { source })?;
        let kinds = StateKinds::of(&kvm, self.time.vm())
            .map_err(VmError::kvm("asking what there is of a vCPU's state"))?;
        // Devices first: serving what the guest has kicked writes to its memory and may
        // interrupt it. That interrupt reaches the vCPU at a time of KVM's own; the device's
        // state says that it is due, and it is raised again from there.
        let devices = self.bus.states()?;
        let vcpus = self
            .vcpus
            .iter()
            .zip(&self.identities)
            .map(|(vcpu, identity)| Ok(vcpu.save(&kinds, identity)?))
            .collect::<Result<_, VmError>>()?;
        let platform = crate::arch::save_platform(self.time.vm())?;
        let node_bytes = self.node_bytes();
        for (node, bytes) in node_bytes.iter().enumerate() {
            if *bytes > 0 {
                let path = ram_file(dir, node);
                let file = File::create_new(&path).map_err(file_error("making", &path))?;
                self.ram.save_node(node as u32, &file, keep)?;
            }
        }
        let state = MachineState { node_bytes, vcpus, platform, clocks, devices };
        let bytes =
            state_file::encode(&state).map_err(|why| VmError::Saved { dir: dir.to_path_buf(), why })?;
        let path = dir.join(STATE);
        let written = File::create_new(&path).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.sync_all()
        });
        written.map_err(file_error("writing", &path))
    }

    fn node_bytes(&self) -> Vec<u64> {
        let regions = self.ram.regions();
        let nodes = regions.iter().map(|r| r.node as usize + 1).max().unwrap_or(0);
        let mut bytes = vec![0; nodes];
        for region in regions {
            bytes[region.node as usize] += region.bytes;
        }
        bytes
    }
}

impl Bus {
    /// The devices' states, when all that the guest has asked of them is done.
    fn states(&self) -> Result<DeviceStates, VmError> {
        let mut console = self.console();
        finish(&mut console)?;
        let disks = self.disks.iter().map(|at| {
            let mut disk = lock(&at.device);
            finish(&mut disk)?;
            Ok(DiskState { transport: disk.state()?, disk: disk.device().state() })
        });
        let disks = disks.collect::<Result<_, VmError>>()?;
        self.flush();
        let [first, second] = &self.serial;
        Ok(DeviceStates {
            serial: [lock(&first.serial).state(), lock(&second.serial).state()],
            transport: console.state()?,
            console: console.device().state(),
            disks,
        })
    }
}

/// Serves what the guest has kicked.
fn finish<D: Device>(device: &mut Mmio<D>) -> Result<(), VmError> {
    (0..device.queue_count()).try_for_each(|queue| Ok(device.serve(queue)?))
}

/// A [`VmError::File`], for `map_err`.
pub(crate) fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> VmError {
    let path = path.to_path_buf();
    move |source| VmError::File { doing, path, source }
}
