//! The machine as its vCPUs see it: which device answers which address, and how the
//! machine ends.

use crate::confine::{Role, confine, violation};
use crate::{Threads, VmError};
use ktstr_vmm_devices::virtio::block::Counters;
use ktstr_vmm_devices::virtio::mmio::REGION_BYTES;
use ktstr_vmm_devices::virtio::{Block, Console, Device, Mmio, VirtioError};
use ktstr_vmm_devices::{Power, PowerEvent, Serial};
use ktstr_vmm_vcpu::arch::Trap;
use ktstr_vmm_vcpu::{Address, End, Machine};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How a machine ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VmEnd {
    /// The guest powered off.
    PowerOff,
    /// The guest asked for a reset, or a triple fault did.
    Reset,
    /// We ended it.
    Stopped,
    /// KVM or a device could not go on.
    Failed {
        /// What happened.
        why: String,
    },
}

/// A breakpoint or watchpoint that a vCPU hit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// The vCPU.
    pub vcpu: u32,
    /// Where, and which of them.
    pub trap: Trap,
}

/// A serial port and its first I/O port.
pub(crate) struct SerialAt {
    pub(crate) base: u16,
    pub(crate) serial: Mutex<Serial>,
}

/// A virtio device and the address of its registers.
pub(crate) struct MmioAt<D> {
    pub(crate) base: u64,
    pub(crate) device: Mutex<Mmio<D>>,
}

/// A virtio device, whichever it is.
pub(crate) trait Virtio: Send + Sync {
    fn base(&self) -> u64;
    fn read(&self, offset: u64, data: &mut [u8]);
    fn write(&self, offset: u64, data: &[u8]) -> Result<(), VirtioError>;
    fn serve(&self, queue: usize) -> Result<(), VirtioError>;
}

impl<D: Device> Virtio for MmioAt<D> {
    fn base(&self) -> u64 {
        self.base
    }

    fn read(&self, offset: u64, data: &mut [u8]) {
        lock(&self.device).read(offset, data);
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), VirtioError> {
        lock(&self.device).write(offset, data)
    }

    fn serve(&self, queue: usize) -> Result<(), VirtioError> {
        lock(&self.device).serve(queue)
    }
}

/// What a guest kicks a queue with.
pub(crate) struct Kick {
    /// Number of the virtio device: 0 is the console, disks follow.
    pub(crate) device: usize,
    pub(crate) queue: usize,
    pub(crate) event: EventFd,
}

/// Every device of a machine.
pub(crate) struct Bus {
    pub(crate) serial: [SerialAt; 2],
    pub(crate) console: MmioAt<Console>,
    pub(crate) disks: Vec<MmioAt<Block>>,
    /// Of each disk.
    pub(crate) disk_counters: Vec<Arc<Counters>>,
    pub(crate) power: Power,
    /// True when the threads that come here are under a filter each.
    confine: bool,
    threads: Threads,
    end: Mutex<Option<VmEnd>>,
    traps: Mutex<Vec<Hit>>,
    /// Readable once a vCPU has hit a breakpoint or watchpoint.
    pub(crate) trap_event: EventFd,
    /// Readable once the machine is to end.
    pub(crate) end_event: EventFd,
}

const SERIAL_PORTS: u16 = 8;

impl Bus {
    pub(crate) fn new(
        serial: [SerialAt; 2],
        console: MmioAt<Console>,
        disks: Vec<MmioAt<Block>>,
        power: Power,
        confine: bool,
        threads: Threads,
    ) -> Result<Self, VmError> {
        let event = || EventFd::new(EFD_NONBLOCK).map_err(VmError::os("making an eventfd"));
        let (end_event, trap_event) = (event()?, event()?);
        Ok(Self {
            serial,
            console,
            disk_counters: disks.iter().map(|at| lock(&at.device).device().counters()).collect(),
            disks,
            power,
            confine,
            threads,
            end: Mutex::new(None),
            traps: Mutex::default(),
            trap_event,
            end_event,
        })
    }

    /// Ends the machine; the first reason stays.
    pub(crate) fn finish(&self, end: VmEnd) {
        lock(&self.end).get_or_insert(end);
        // Fails only when the counter is full, and then it is readable.
        let _ = self.end_event.write(1);
    }

    /// Why the machine is to end, when it is.
    pub(crate) fn end(&self) -> Option<VmEnd> {
        lock(&self.end).clone()
    }

    pub(crate) fn console(&self) -> MutexGuard<'_, Mmio<Console>> {
        lock(&self.console.device)
    }

    /// Serves the queue that was kicked.
    pub(crate) fn serve(&self, kick: &Kick) {
        let device = self.virtio().nth(kick.device);
        self.check(device.map_or(Ok(()), |device| device.serve(kick.queue)));
    }

    /// Ends the machine if the monitor itself could not do its work.
    pub(crate) fn check(&self, served: Result<(), VirtioError>) {
        if let Err(e) = served {
            self.finish(VmEnd::Failed { why: e.to_string() });
        }
    }

    /// Has the calling thread, which serves devices, be as the machine's are to be.
    pub(crate) fn enter_events(&self) -> Result<(), String> {
        self.threads.enter_events()?;
        self.confine(Role::Events { disks: !self.disks.is_empty() })
    }

    fn confine(&self, role: Role) -> Result<(), String> {
        if self.confine { confine(role) } else { Ok(()) }
    }

    /// Ends the machine if the calling thread did what it may not.
    pub(crate) fn check_thread(&self) {
        if let Some(why) = violation() {
            self.finish(VmEnd::Failed { why });
        }
    }

    /// What vCPUs have hit and nobody was told of yet; while it isn't empty, the machine must not run on.
    pub(crate) fn traps(&self) -> MutexGuard<'_, Vec<Hit>> {
        lock(&self.traps)
    }

    /// Hands on everything that devices still hold.
    pub(crate) fn flush(&self) {
        self.serial.iter().for_each(|at| lock(&at.serial).flush());
    }

    fn serial(&self, port: u16) -> Option<(&Mutex<Serial>, u8)> {
        self.serial.iter().find_map(|at| {
            let offset = port.checked_sub(at.base).filter(|offset| *offset < SERIAL_PORTS)?;
            Some((&at.serial, offset as u8))
        })
    }

    /// The virtio devices, by number.
    fn virtio(&self) -> impl Iterator<Item = &dyn Virtio> {
        let disks = self.disks.iter().map(|disk| disk as &dyn Virtio);
        std::iter::once(&self.console as &dyn Virtio).chain(disks)
    }

    /// The virtio device with registers at `address`, and which.
    fn virtio_at(&self, address: u64) -> Option<(&dyn Virtio, u64)> {
        self.virtio().find_map(|device| {
            let offset = address.checked_sub(device.base()).filter(|offset| *offset < REGION_BYTES)?;
            Some((device, offset))
        })
    }
}

impl Machine for Bus {
    fn starting(&self, index: u32) -> Result<(), String> {
        self.threads.enter_vcpu(index)?;
        self.confine(Role::Vcpu)
    }

    fn read(&self, address: Address, data: &mut [u8]) {
        match address {
            Address::Port(port) => match self.serial(port) {
                Some((serial, offset)) => lock(serial).read(offset, data),
                None if self.power.owns(port) => data.fill(self.power.read()),
                None => data.fill(0xff),
            },
            Address::Memory(address) => match self.virtio_at(address) {
                Some((device, offset)) => device.read(offset, data),
                None => data.fill(0xff),
            },
        }
    }

    fn write(&self, address: Address, data: &[u8]) {
        match address {
            Address::Port(port) => {
                if let Some((serial, offset)) = self.serial(port) {
                    if let Err(e) = lock(serial).write(offset, data) {
                        self.finish(VmEnd::Failed { why: e.to_string() });
                    }
                } else if let [value] = data {
                    match self.power.write(port, *value) {
                        Some(PowerEvent::Off) => self.finish(VmEnd::PowerOff),
                        Some(PowerEvent::Reset) => self.finish(VmEnd::Reset),
                        None => {}
                    }
                }
            }
            Address::Memory(address) => {
                if let Some((device, offset)) = self.virtio_at(address) {
                    self.check(device.write(offset, data));
                }
            }
        }
        self.check_thread();
    }

    fn trapped(&self, index: u32, trap: Trap) {
        self.traps().push(Hit { vcpu: index, trap });
        // Fails only when the counter is full, and then it is readable.
        let _ = self.trap_event.write(1);
    }

    fn ended(&self, index: u32, end: End) {
        // In this order: the first reason stays, and this one explains the other.
        self.check_thread();
        match end {
            End::Stopped => {}
            End::Shutdown => self.finish(VmEnd::Reset),
            End::Halted => self.finish(VmEnd::Failed { why: format!("vCPU {index} halted outside of KVM") }),
            End::Failed { why } => self.finish(VmEnd::Failed { why: format!("vCPU {index}: {why}") }),
        }
    }
}

/// A device that a panic left half done is still a device.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
