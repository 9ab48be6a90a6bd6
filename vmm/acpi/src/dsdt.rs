//! DSDT: devices without discovery, and the sleep type of power-off.

use crate::table::{bytes_of, with_header};
use crate::{Machine, SerialPort, VirtioMmio};
use acpi_tables::Aml;
use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, ONE, Package, Path, ResourceTemplate, Scope, ZERO,
};

pub(crate) fn build(machine: &Machine<'_>) -> Vec<u8> {
    let mut body = Vec::new();
    let off = machine.power.off_type;
    let s5 = Package::new(vec![&off, &ZERO, &ZERO, &ZERO]);
    body.extend(bytes_of(&Name::new(Path::new("\\_S5_"), &s5)));
    for (index, port) in machine.serial.iter().enumerate() {
        body.extend(scoped(&serial(index, *port)));
    }
    for (index, device) in machine.virtio.iter().enumerate() {
        body.extend(scoped(&virtio(index, *device)));
    }
    with_header(*b"DSDT", 2, &body)
}

fn scoped(device: &[u8]) -> Vec<u8> {
    Scope::raw(Path::new("\\_SB_"), device.to_vec())
}

/// `PNP0501`, a 16550A (drivers/tty/serial/8250/8250_pnp.c).
fn serial(index: usize, port: SerialPort) -> Vec<u8> {
    let io = IO::new(port.port, port.port, 1, 8);
    let irq = Interrupt::new(true, true, false, false, port.irq);
    let hid = EISAName::new("PNP0501");
    device(&format!("COM{}", index + 1), &hid, index, vec![&io, &irq])
}

/// `LNRO0005`, a virtio-mmio transport (drivers/virtio/virtio_mmio.c).
fn virtio(index: usize, device_at: VirtioMmio) -> Vec<u8> {
    let memory = Memory32Fixed::new(true, device_at.address, device_at.bytes);
    let irq = Interrupt::new(true, true, false, false, device_at.irq);
    device(&format!("VR{index:02X}"), &"LNRO0005", index, vec![&memory, &irq])
}

fn device(name: &str, hid: &dyn Aml, uid: usize, resources: Vec<&dyn Aml>) -> Vec<u8> {
    let hid = Name::new(Path::new("_HID"), hid);
    let uid = Name::new(Path::new("_UID"), &uid);
    // Coherent DMA: the kernel refuses to guess on some architectures.
    let cca = Name::new(Path::new("_CCA"), &ONE);
    let crs = Name::new(Path::new("_CRS"), &ResourceTemplate::new(resources));
    bytes_of(&Device::new(Path::new(name), vec![&hid, &uid, &cca, &crs]))
}
