//! Making the devices, as new or as they were saved, and giving each its addresses and its interrupt line.

use crate::bus::{Bus, Kick, MmioAt, SerialAt};
use crate::config::Disk;
use crate::state_file::{DeviceStates, DiskState};
use crate::{Threads, VmError, arch};
use ktstr_vmm_devices::virtio::mmio::QUEUE_NOTIFY;
use ktstr_vmm_devices::virtio::{Block, Console, Device, Mmio, MmioState, Port};
use ktstr_vmm_devices::{Power, Serial, SerialState, Sink};
use ktstr_vmm_memory::{GuestRam, layout};
use kvm_ioctls::{IoEventAddress, VmFd};
use vmm_sys_util::eventfd::{EFD_CLOEXEC, EFD_NONBLOCK, EventFd};

/// Disks that have an interrupt line; the first one is the console's.
const MOST_DISKS: usize = layout::VIRTIO_MMIO_MAX - 1;

/// Address and interrupt line of virtio device `index`; 0 is the console, disks follow.
pub(crate) fn place(index: usize) -> (u64, u32) {
    let index = index as u32;
    (layout::VIRTIO_MMIO + u64::from(index) * layout::VIRTIO_MMIO_STRIDE, layout::VIRTIO_MMIO_IRQ + index)
}

/// Refuses more disks than there are interrupt lines for.
pub(crate) fn check_disks(disks: &[Disk]) -> Result<(), VmError> {
    if disks.len() <= MOST_DISKS {
        return Ok(());
    }
    let why = format!("{} of them asked for, at most {MOST_DISKS} have an interrupt line", disks.len());
    Err(VmError::Disks { why })
}

/// What devices are made of.
pub(crate) struct Devices {
    pub(crate) serial: [Box<dyn Sink>; 2],
    pub(crate) terminal: Option<Box<dyn Sink>>,
    pub(crate) ports: Vec<Port>,
    pub(crate) disks: Vec<Disk>,
    /// True to put each of the machine's threads under a filter.
    pub(crate) confine: bool,
    pub(crate) threads: Threads,
}

impl Devices {
    /// Makes them, as new or as they were saved.
    pub(crate) fn make(
        self,
        vm: &VmFd,
        ram: &GuestRam,
        saved: Option<DeviceStates>,
    ) -> Result<(Bus, Vec<Kick>), VmError> {
        let (serial_states, console_state, disk_states) = match saved {
            Some(DeviceStates { serial, transport, console, disks }) => {
                (serial.map(Some), Some((console, transport)), Some(disks))
            }
            None => ([None, None], None, None),
        };
        let ([first, second], [first_state, second_state]) = (self.serial, serial_states);
        let [first_at, second_at] = arch::SERIAL;
        let serial = [
            make_serial(vm, first_at, first, first_state)?,
            make_serial(vm, second_at, second, second_state)?,
        ];
        let mut console = Console::new(self.ports);
        if let Some(sink) = self.terminal {
            console = console.with_terminal(sink);
        }
        let (state, transport) = console_state.unzip();
        state.map_or(Ok(()), |state| console.restore(state))?;
        let mut kicks = Vec::new();
        let console = virtio(vm, ram, 0, console, transport.as_ref(), &mut kicks)?;
        let disks = disks(vm, ram, self.disks, disk_states.as_deref(), &mut kicks)?;
        let power = Power::new(arch::POWER_PORTS);
        Ok((Bus::new(serial, console, disks, power, self.confine, self.threads)?, kicks))
    }
}

fn make_serial(
    vm: &VmFd,
    (base, irq): (u16, u32),
    sink: Box<dyn Sink>,
    saved: Option<SerialState>,
) -> Result<SerialAt, VmError> {
    let irq = interrupt(vm, irq)?;
    let serial = match saved {
        Some(saved) => Serial::restored(&saved, irq, sink)?,
        None => Serial::new(irq, sink),
    };
    Ok(SerialAt { base, serial: serial.into() })
}

fn disks(
    vm: &VmFd,
    ram: &GuestRam,
    disks: Vec<Disk>,
    saved: Option<&[DiskState]>,
    kicks: &mut Vec<Kick>,
) -> Result<Vec<MmioAt<Block>>, VmError> {
    if let Some(saved) = saved
        && saved.len() != disks.len()
    {
        let why = format!("the machine was saved with {} of them, here are {}", saved.len(), disks.len());
        return Err(VmError::Disks { why });
    }
    let mut made = Vec::with_capacity(disks.len());
    for (index, Disk { file, read_only, id }) in disks.into_iter().enumerate() {
        let state = saved.and_then(|saved| saved.get(index));
        let block = Block::new(file, read_only, id).map_err(|source| VmError::Disk { index, source })?;
        if let Some(state) = state {
            block.restore(&state.disk)?;
        }
        made.push(virtio(vm, ram, index + 1, block, state.map(|state| &state.transport), kicks)?);
    }
    Ok(made)
}

/// Puts a device behind a transport, with an interrupt line and an eventfd for each queue.
fn virtio<D: Device>(
    vm: &VmFd,
    ram: &GuestRam,
    index: usize,
    device: D,
    saved: Option<&MmioState>,
    kicks: &mut Vec<Kick>,
) -> Result<MmioAt<D>, VmError> {
    let (base, irq) = place(index);
    let mut mmio = Mmio::new(device, ram.memory().clone(), interrupt(vm, irq)?)?;
    if let Some(saved) = saved {
        mmio.restore(saved)?;
    }
    for queue in 0..mmio.queue_count() {
        let event = eventfd()?;
        vm.register_ioevent(&event, &IoEventAddress::Mmio(base + QUEUE_NOTIFY), queue as u32).map_err(
            VmError::kvm(format!("registering the ioeventfd of queue {queue} of virtio device {index}")),
        )?;
        kicks.push(Kick { device: index, queue, event });
    }
    Ok(MmioAt { base, device: mmio.into() })
}

fn interrupt(vm: &VmFd, line: u32) -> Result<EventFd, VmError> {
    let fd = eventfd()?;
    vm.register_irqfd(&fd, line).map_err(VmError::kvm(format!("registering the irqfd of line {line}")))?;
    Ok(fd)
}

fn eventfd() -> Result<EventFd, VmError> {
    EventFd::new(EFD_NONBLOCK | EFD_CLOEXEC).map_err(VmError::os("making an eventfd"))
}
