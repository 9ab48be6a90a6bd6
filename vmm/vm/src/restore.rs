//! Going on from a saved machine.

use crate::devices::{Devices, check_disks};
use crate::save::{STATE, file_error, ram_file};
use crate::state_file::{self, MachineState};
use crate::time::Time;
use crate::vm::{Clock, Parts, map, open};
use crate::{Disk, OnTrap, Threads, Vm, VmEnd, VmError, arch};
use ktstr_topology::Topology;
use ktstr_vmm_devices::Sink;
use ktstr_vmm_devices::virtio::Port;
use ktstr_vmm_memory::GuestRam;
use ktstr_vmm_vcpu::{StateKinds, arch as vcpu};
use kvm_ioctls::Kvm;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A machine to go on with. What isn't told here is as it was saved.
pub struct Restore {
    /// Where [`Vm::save`] has put it.
    pub dir: PathBuf,
    /// CPUs and NUMA nodes, as it was booted with.
    pub topology: Topology,
    /// RAM in MiB, as it was booted with.
    pub memory_mib: u64,
    /// See [`Config::realtime`](crate::Config::realtime); as it was booted with.
    pub realtime: bool,
    /// See [`Config::halt_poll`](crate::Config::halt_poll).
    pub halt_poll: Option<Duration>,
    /// See [`Config::confine`](crate::Config::confine).
    pub confine: bool,
    /// Where the first serial port, `ttyS0`, goes.
    pub console: Box<dyn Sink>,
    /// Where the second serial port, `ttyS1`, goes.
    pub second_serial: Box<dyn Sink>,
    /// See [`Config::terminal`](crate::Config::terminal); there if the machine was saved with one.
    pub terminal: Option<Box<dyn Sink>>,
    /// The ports of the virtio console, with the names that they were saved with.
    pub ports: Vec<Port>,
    /// Disks of the capacities and ids that it was saved with; what is on them may differ, where the guest has not
    /// read it yet.
    pub disks: Vec<Disk>,
    /// See [`Config::on_trap`](crate::Config::on_trap).
    pub on_trap: OnTrap,
    /// Told once how the machine ended.
    pub on_end: Box<dyn FnOnce(VmEnd) + Send>,
}

impl Restore {
    /// The machine in `dir`, of this shape and RAM, without ports and disks, that says nothing to no one.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>, topology: Topology, memory_mib: u64) -> Self {
        Self {
            dir: dir.into(),
            topology,
            memory_mib,
            realtime: false,
            halt_poll: None,
            confine: false,
            console: Box::new(|_: &[u8]| {}),
            second_serial: Box::new(|_: &[u8]| {}),
            terminal: None,
            ports: Vec::new(),
            disks: Vec::new(),
            on_trap: Box::new(|_| {}),
            on_end: Box::new(|_| {}),
        }
    }
}

impl Vm {
    /// Makes a machine that goes on from a saved one, paused: its memory can be written
    /// before [`resume`](Self::resume) lets it run. RAM is mapped privately, so that what is
    /// saved stays as it is, for any number of machines; its files may be deleted meanwhile.
    ///
    /// # Errors
    /// No usable KVM; [`VmError::Saved`] and others when what is saved is broken, of another
    /// version, of another machine, or of a host with another processor.
    pub fn restore(config: Restore) -> Result<Self, VmError> {
        let Restore { dir, topology, memory_mib, .. } = &config;
        topology.validate()?;
        check_disks(&config.disks)?;
        let mut clock = Clock::start();
        let nodes: Vec<u64> = topology.node_memory_mib(*memory_mib)?.iter().map(|mib| mib << 20).collect();
        let MachineState { node_bytes, vcpus: states, platform, clocks, devices: device_states } =
            read_state(dir)?;
        check(&nodes, &node_bytes, states.len(), topology)
            .map_err(|why| VmError::Saved { dir: dir.clone(), why })?;
        clock.step("reading the state");
        let (kvm, vm) = open(topology, config.halt_poll)?;
        clock.step("opening KVM and making the VM");
        let ram = map_ram(dir, &nodes)?;
        map(&vm, &ram)?;
        clock.step("mapping RAM");
        arch::prepare(&vm)?;
        clock.step("making interrupt controllers");
        let kinds =
            StateKinds::of(&kvm, &vm).map_err(VmError::kvm("asking what there is of a vCPU's state"))?;
        let identities = arch::identities(&kvm, topology, config.realtime)?;
        let vcpus =
            identities.iter().map(|identity| arch::new_vcpu(&vm, identity)).collect::<Result<Vec<_>, _>>()?;
        clock.step("making vCPUs");
        for (index, ((fd, identity), state)) in (0..).zip(vcpus.iter().zip(&identities).zip(&states)) {
            // What KVM doesn't take is the fault of what was saved.
            vcpu::restore(index, fd, &kinds, identity, state)
                .map_err(|e| VmError::Saved { dir: dir.clone(), why: e.to_string() })?;
        }
        arch::restore_platform(&vm, &platform)?;
        clock.step("restoring vCPUs and interrupt controllers");
        // Now that there is who gets their interrupts.
        let serial = [config.console, config.second_serial];
        let (terminal, ports) = (config.terminal, config.ports);
        let (disks, confine) = (config.disks, config.confine);
        let made = Devices { serial, terminal, ports, disks, confine, threads: Threads::default() };
        let (bus, kicks) = made.make(&vm, &ram, Some(device_states))?;
        clock.step("restoring devices");
        let (on_trap, on_end) = (config.on_trap, config.on_end);
        let time = Time::new(vm, Some(clocks));
        Parts { time, ram, vcpus, identities, bus, kicks, on_trap, on_end }.start(clock)
    }
}

/// Text that differs between hosts, and versions of this crate, that can't go on with each
/// other's machines of this shape: what is known of it without a saved machine.
///
/// # Errors
/// No usable KVM.
pub fn saved_identity(topology: &Topology) -> Result<String, VmError> {
    topology.validate()?;
    let kvm = Kvm::new().map_err(|source| VmError::NoKvm { source })?;
    let identities = arch::identities(&kvm, topology, false)?;
    // Encoding into memory can't fail; if it did, all hosts would be alike, and a machine of
    // another one refused when it is restored.
    let digest = crc32fast::hash(&postcard::to_allocvec(&identities).unwrap_or_default());
    Ok(format!("state {}, processor {digest:08x}", state_file::VERSION))
}

fn read_state(dir: &Path) -> Result<MachineState, VmError> {
    let path = dir.join(STATE);
    let length = std::fs::metadata(&path).map_err(file_error("looking at", &path))?.len();
    let saved = |why| VmError::Saved { dir: dir.to_path_buf(), why };
    if length > state_file::MOST {
        return Err(saved(format!("its state has {length} bytes, at most {} expected", state_file::MOST)));
    }
    let bytes = std::fs::read(&path).map_err(file_error("reading", &path))?;
    state_file::decode(&bytes).map_err(saved)
}

fn check(nodes: &[u64], saved: &[u64], vcpus: usize, topology: &Topology) -> Result<(), String> {
    let without_last = |nodes: &[u64]| {
        let last = nodes.iter().rposition(|bytes| *bytes > 0).map_or(0, |n| n + 1);
        nodes.get(..last).unwrap_or_default().to_vec()
    };
    if without_last(nodes) != without_last(saved) {
        return Err(format!("its nodes have {saved:?} bytes, expected {nodes:?}"));
    }
    let expected = topology.total_cpus() as usize;
    if vcpus != expected {
        return Err(format!("it has {vcpus} vCPUs, expected {expected}"));
    }
    Ok(())
}

fn map_ram(dir: &Path, nodes: &[u64]) -> Result<GuestRam, VmError> {
    let file = |(node, bytes): (usize, &u64)| {
        let path = ram_file(dir, node);
        let open = || File::open(&path).map(Arc::new).map_err(file_error("opening", &path));
        if *bytes > 0 { open().map(Some) } else { Ok(None) }
    };
    let files = nodes.iter().enumerate().map(file).collect::<Result<Vec<_>, _>>()?;
    Ok(GuestRam::map_saved(nodes, &files)?)
}

#[cfg(test)]
mod tests;
