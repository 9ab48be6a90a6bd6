//! A running machine.

use crate::bus::{Bus, Kick, VmEnd, lock};
use crate::devices::{Devices, check_disks};
use crate::events::{Outcome, Service};
use crate::time::Time;
use crate::{Config, OnTrap, VmError, arch};
use ktstr_topology::Topology;
use ktstr_vmm_boot::{Boot, load};
use ktstr_vmm_devices::virtio::Console;
use ktstr_vmm_devices::virtio::block::DiskCounts;
use ktstr_vmm_memory::GuestRam;
use ktstr_vmm_vcpu::arch::Watch;
use ktstr_vmm_vcpu::{Identity, Machine, Registers, Vcpu, pause_all, resume_all};
use kvm_bindings::{KVM_CAP_HALT_POLL, kvm_enable_cap, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use vm_memory::{GuestMemoryBackend, GuestMemoryRegion};

/// How long vCPUs may take to leave the guest when asked; microseconds on an idle host.
const PAUSE_PATIENCE: Duration = Duration::from_secs(10);

/// A part of the time between the request to boot and the guest's first instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetupStep {
    /// What was done.
    pub what: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// A running machine. Dropping it ends it.
pub struct Vm {
    // In this order: vCPUs go before the VM, and all before the RAM that it maps.
    pub(crate) vcpus: Arc<[Vcpu]>,
    pub(crate) bus: Arc<Bus>,
    outcome: Arc<Outcome>,
    events: Option<JoinHandle<()>>,
    setup: Vec<SetupStep>,
    /// What each vCPU was made with.
    pub(crate) identities: Vec<Identity>,
    pub(crate) time: Arc<Time>,
    pub(crate) ram: GuestRam,
}

impl Vm {
    /// Makes a machine and lets it run.
    ///
    /// # Errors
    /// No usable KVM, a machine that makes no sense, or a kernel that can't be loaded.
    pub fn boot(config: Config) -> Result<Self, VmError> {
        let Config {
            mut kernel, initramfs, command_line, topology, memory_mib, ram, realtime, threads, ..
        } = config;
        topology.validate()?;
        let (told, cpus) = (threads.vcpus.len(), topology.total_cpus() as usize);
        if told != 0 && told != cpus {
            let what = format!("host CPUs told for {told} vCPUs, and there are {cpus}");
            return Err(VmError::Unsupported { what });
        }
        check_disks(&config.disks)?;
        let mut clock = Clock::start();
        let (kvm, vm) = open(&topology, config.halt_poll)?;
        clock.step("opening KVM and making the VM");
        let nodes: Vec<u64> = topology.node_memory_mib(memory_mib)?.iter().map(|mib| mib << 20).collect();
        let ram = GuestRam::create(&nodes, ram)?;
        map(&vm, &ram)?;
        clock.step("mapping RAM");
        arch::prepare(&vm)?;
        if config.rest_in_guest {
            arch::rest_in_guest(&kvm, &vm)?;
        }
        clock.step("making interrupt controllers");
        let rsdp = arch::write_acpi(&topology, &ram, 1 + config.disks.len())?;
        clock.step("building ACPI tables");
        let loaded = load(Boot {
            ram: &ram,
            kernel: &mut kernel,
            initramfs: &initramfs,
            command_line: &command_line,
            rsdp,
        })?;
        clock.step("loading kernel and initramfs");
        let serial = [config.console, config.second_serial];
        let (terminal, ports) = (config.terminal, config.ports);
        let (disks, confine) = (config.disks, config.confine);
        let made = Devices { serial, terminal, ports, disks, confine, threads };
        let (bus, kicks) = made.make(&vm, &ram, None)?;
        clock.step("making devices");
        let identities = arch::identities(&kvm, &topology, realtime)?;
        let vcpus = arch::vcpus(&vm, &ram, &identities, loaded.entry)?;
        clock.step("making vCPUs");
        let (on_trap, on_end) = (config.on_trap, config.on_end);
        let time = Time::new(vm, None);
        let parts = Parts { time, ram, vcpus, identities, bus, kicks, on_trap, on_end };
        let vm = parts.start(clock)?;
        vm.resume();
        Ok(vm)
    }

    /// Stops all vCPUs, and with them the guest's time.
    ///
    /// # Errors
    /// One of them still runs after ten seconds, or KVM doesn't tell what the clocks stand at.
    pub fn pause(&self) -> Result<(), VmError> {
        pause_all(&self.vcpus, PAUSE_PATIENCE)?;
        self.time.stop(&self.vcpus)
    }

    /// Lets them run on, as if no time had passed; not while one has hit a watchpoint and [`Config::on_trap`] wasn't told
    /// yet: it is about to be. If KVM doesn't take the clocks back, the machine ends with that as the reason.
    pub fn resume(&self) {
        let traps = self.bus.traps();
        if !traps.is_empty() {
            return;
        }
        match self.time.go_on(&self.vcpus) {
            Ok(()) => resume_all(&self.vcpus),
            Err(e) => self.bus.finish(VmEnd::Failed { why: e.to_string() }),
        }
    }

    /// Replaces the breakpoints and watchpoints of all vCPUs, of a paused machine. A hit stops them all and is told to
    /// [`Config::on_trap`]. Hosts that are virtual machines may never tell of a hit:
    /// [`honours_watches`](crate::honours_watches) finds out.
    ///
    /// # Errors
    /// The machine runs, there are more than [`WATCHES`](crate::WATCHES), or KVM refuses.
    pub fn watch(&self, points: &[Watch]) -> Result<(), VmError> {
        Ok(self.vcpus.iter().try_for_each(|vcpu| vcpu.watch(points))?)
    }

    /// Registers of every vCPU, of a paused machine.
    ///
    /// # Errors
    /// The machine runs.
    pub fn registers(&self) -> Result<Vec<Registers>, VmError> {
        self.vcpus.iter().map(|vcpu| Ok(vcpu.registers()?)).collect()
    }

    /// The time that the host has run each vCPU's thread so far; `None` when one of them has ended.
    #[must_use]
    pub fn vcpu_times(&self) -> Option<Vec<Duration>> {
        self.vcpus.iter().map(Vcpu::cpu_time).collect()
    }

    /// The host's numbers for the vCPUs' threads; `None` once one of them has ended.
    #[must_use]
    pub fn vcpu_threads(&self) -> Option<Vec<u32>> {
        self.vcpus.iter().map(Vcpu::thread_id).collect()
    }

    /// The vCPUs, for watchpoints and the like.
    #[must_use]
    pub fn vcpus(&self) -> &[Vcpu] {
        &self.vcpus
    }

    /// Guest RAM. A clone outlives the machine.
    #[must_use]
    pub fn ram(&self) -> &GuestRam {
        &self.ram
    }

    /// Gives the guest bytes to read on port `port` of the virtio console, from 1, or types
    /// them at its terminal, which is port 0;
    /// returns how many were taken. They wait until the guest opens the port.
    pub fn send(&self, port: usize, bytes: &[u8]) -> usize {
        let mut console = self.bus.console();
        let taken = console.device().input(port, bytes);
        let served = console.serve(Console::receive_queue(port));
        drop(console);
        self.bus.check(served);
        taken
    }

    /// What the guest did to the virtio console that ended its use, if it did.
    #[must_use]
    pub fn console_broken(&self) -> Option<String> {
        self.bus.console().broken().map(ToString::to_string)
    }

    /// What disk number `disk`, from 0, has done so far; `None` when there is no such disk.
    #[must_use]
    pub fn disk_counts(&self, disk: usize) -> Option<DiskCounts> {
        self.bus.disk_counters.get(disk).map(|counters| counters.now())
    }

    /// What the guest did to disk number `disk` that ended its use, if it did.
    #[must_use]
    pub fn disk_broken(&self, disk: usize) -> Option<String> {
        self.bus.disks.get(disk).and_then(|at| lock(&at.device).broken().map(ToString::to_string))
    }

    /// Ends the machine at once; [`wait`](Self::wait) then answers soon.
    pub fn kill(&self) {
        self.bus.finish(VmEnd::Stopped);
    }

    /// Waits for the end; `None` when it didn't come within `patience`.
    #[must_use]
    pub fn wait(&self, patience: Duration) -> Option<VmEnd> {
        self.outcome.wait(patience)
    }

    /// Where the time went between the request to boot and the first instruction.
    #[must_use]
    pub fn setup(&self) -> &[SetupStep] {
        &self.setup
    }
}

/// A machine before it has threads.
pub(crate) struct Parts {
    pub(crate) time: Time,
    pub(crate) ram: GuestRam,
    pub(crate) vcpus: Vec<VcpuFd>,
    pub(crate) identities: Vec<Identity>,
    pub(crate) bus: Bus,
    pub(crate) kicks: Vec<Kick>,
    pub(crate) on_trap: OnTrap,
    pub(crate) on_end: Box<dyn FnOnce(VmEnd) + Send>,
}

impl Parts {
    /// Gives the vCPUs and devices their threads. The vCPUs don't run yet.
    pub(crate) fn start(self, mut clock: Clock) -> Result<Vm, VmError> {
        let Self { time, ram, vcpus, identities, bus, kicks, on_trap, on_end } = self;
        let (bus, time) = (Arc::new(bus), Arc::new(time));
        let machine: Arc<dyn Machine> = bus.clone();
        let vcpus: Arc<[Vcpu]> = vcpus
            .into_iter()
            .zip(0u32..)
            .map(|(fd, index)| Vcpu::start(index, fd, Arc::clone(&machine)))
            .collect::<Result<_, _>>()?;
        let outcome = Arc::new(Outcome::default());
        let service = Service {
            bus: Arc::clone(&bus),
            kicks,
            vcpus: Arc::clone(&vcpus),
            time: Arc::clone(&time),
            outcome: Arc::clone(&outcome),
            on_trap,
            on_end,
        };
        let manager = service.manager().map_err(|why| VmError::Events { why })?;
        let events = std::thread::Builder::new()
            .name("vm-events".to_string())
            .spawn(move || service.run(manager))
            .map_err(VmError::os("starting the thread that serves devices"))?;
        clock.step("starting threads");
        Ok(Vm { vcpus, bus, outcome, events: Some(events), setup: clock.steps, identities, time, ram })
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        self.kill();
        if let Some(events) = self.events.take() {
            // A panic there was printed already.
            let _ = events.join();
        }
    }
}

pub(crate) struct Clock {
    last: Instant,
    steps: Vec<SetupStep>,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { last: Instant::now(), steps: Vec::new() }
    }

    pub(crate) fn step(&mut self, what: &'static str) {
        let now = Instant::now();
        self.steps.push(SetupStep { what, took: now - self.last });
        self.last = now;
    }
}

pub(crate) fn open(topology: &Topology, halt_poll: Option<Duration>) -> Result<(Kvm, VmFd), VmError> {
    let kvm = Kvm::new().map_err(|source| VmError::NoKvm { source })?;
    let (cpus, most) = (topology.total_cpus() as usize, kvm.get_max_vcpus());
    if cpus > most {
        let what = format!("{cpus} vCPUs asked for, at most {most} here; use fewer LLCs or cores");
        return Err(VmError::Unsupported { what });
    }
    arch::check(&kvm, topology)?;
    let vm = kvm.create_vm().map_err(VmError::kvm("making a VM"))?;
    // Only for speed: older kernels have no time of its own for each machine, and go by the host's.
    let can_be_set = || vm.check_extension_raw(KVM_CAP_HALT_POLL.into()) > 0;
    if let Some(halt_poll) = halt_poll.filter(|_| can_be_set()) {
        let mut cap = kvm_enable_cap { cap: KVM_CAP_HALT_POLL, ..Default::default() };
        cap.args[0] = u64::try_from(halt_poll.as_nanos()).unwrap_or(u64::MAX).min(u64::from(u32::MAX));
        vm.enable_cap(&cap).map_err(VmError::kvm("setting the halt-polling time"))?;
    }
    Ok((kvm, vm))
}

/// Before the interrupt controllers are made: those put emulated devices on KVM's buses, and
/// from Linux 6.18 on that begins a grace period (`call_srcu` in `kvm_io_bus_register_dev`),
/// which new memory would wait for, some milliseconds.
pub(crate) fn map(vm: &VmFd, ram: &GuestRam) -> Result<(), VmError> {
    for (slot, region) in (0u32..).zip(ram.memory().iter()) {
        let start = region.start_addr().0;
        let entry = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: start,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // SAFETY: the range is a mapping of `ram`, which `Vm` drops after the VM.
        unsafe { vm.set_user_memory_region(entry) }
            .map_err(VmError::kvm(format!("mapping {} bytes of RAM at {start:#x}", region.len())))?;
    }
    Ok(())
}
