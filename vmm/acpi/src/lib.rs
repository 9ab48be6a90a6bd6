//! ACPI tables for a declared machine shape: what Linux reads to learn of CPUs,
//! interrupt controllers, NUMA nodes, their distances and their performance, and of
//! the devices that can't be discovered.
//!
//! A pure function from [`Machine`] to bytes. Hardware-reduced ACPI (ACPI 6.5, 4.1):
//! no SCI, no PM timer; power-off by the sleep control register, reset by the reset
//! register.

pub mod arch;
mod dsdt;
mod error;
mod fadt;
mod hmat;
mod srat;
mod table;

pub use error::AcpiError;
pub use table::{Placed, Tables};

use ktstr_topology::Topology;
use table::Layout;

/// RAM of one node, as the SRAT lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeRam {
    /// NUMA node.
    pub node: u32,
    /// Guest-physical address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
}

/// A serial port that the DSDT names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SerialPort {
    /// First of its eight I/O ports.
    pub port: u16,
    /// Interrupt line.
    pub irq: u32,
}

/// A virtio-mmio device that the DSDT names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VirtioMmio {
    /// Guest-physical address of its registers, below 4 GiB.
    pub address: u32,
    /// Length of its registers in bytes.
    pub bytes: u32,
    /// Interrupt line.
    pub irq: u32,
}

/// I/O ports of the power registers, one byte each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerPorts {
    /// Reset register.
    pub reset: u16,
    /// What is written there to reset.
    pub reset_value: u8,
    /// Sleep control register (ACPI 6.5, 4.8.3.7).
    pub sleep_control: u16,
    /// Sleep status register.
    pub sleep_status: u16,
    /// `SLP_TYP` of S5, soft off.
    pub off_type: u8,
}

/// Everything that the tables tell.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// CPUs and nodes.
    pub topology: &'a Topology,
    /// Interrupt controller id of each CPU, by CPU number (x86: APIC id).
    pub cpu_ids: &'a [u32],
    /// RAM by node.
    pub ram: &'a [NodeRam],
    /// Interrupt controllers of the architecture.
    pub interrupts: arch::Interrupts,
    /// Serial ports, `ttyS0` first.
    pub serial: &'a [SerialPort],
    /// virtio-mmio devices.
    pub virtio: &'a [VirtioMmio],
    /// Power registers.
    pub power: PowerPorts,
}

/// Where the tables go.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Address of the RSDP.
    pub rsdp: u64,
    /// Address of the other tables.
    pub tables: u64,
    /// Address after the last byte that they may take.
    pub end: u64,
}

/// Builds the tables: DSDT, FADT, MADT, XSDT, RSDP always; SRAT and SLIT from two
/// nodes on, HMAT when a node says how fast it is.
///
/// # Errors
/// A description that doesn't fit itself, or tables that don't fit their place.
pub fn build(machine: &Machine<'_>, place: Place) -> Result<Tables, AcpiError> {
    check(machine)?;
    let mut layout = Layout::new(place);
    let dsdt = layout.add("DSDT", dsdt::build(machine))?;
    let mut listed = vec![layout.add("FACP", fadt::build(machine, dsdt))?];
    listed.push(layout.add("APIC", arch::madt(machine))?);
    if machine.topology.num_numa_nodes() > 1 {
        listed.push(layout.add("SRAT", srat::build(machine))?);
        listed.push(layout.add("SLIT", srat::slit(machine.topology))?);
    }
    if let Some(hmat) = hmat::build(machine.topology) {
        listed.push(layout.add("HMAT", hmat)?);
    }
    layout.finish(&listed)
}

fn check(machine: &Machine<'_>) -> Result<(), AcpiError> {
    machine.topology.validate()?;
    let (cpus, ids) = (machine.topology.total_cpus() as usize, machine.cpu_ids.len());
    if cpus != ids {
        return Err(AcpiError::CpuIds { cpus, ids });
    }
    let nodes = machine.topology.num_numa_nodes();
    match machine.ram.iter().find(|ram| ram.node >= nodes) {
        Some(ram) => Err(AcpiError::NoSuchNode { node: ram.node, nodes }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
