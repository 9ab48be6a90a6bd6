//! x86-64: local APICs and one IOAPIC.

use crate::Machine;
use crate::table::with_header;

/// The machine's interrupt controllers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interrupts {
    /// Guest-physical address of the local APICs.
    pub local_apic: u32,
    /// Guest-physical address of the IOAPIC.
    pub ioapic: u32,
}

/// Largest APIC id that fits the 8-bit structures; 255 is the broadcast id.
const MAX_XAPIC: u32 = 254;
const ENABLED: u32 = 1;
const IOAPIC_ID: u8 = 0;
/// Every CPU: the NMI of all local APICs.
const ALL_CPUS: u8 = 0xff;

/// MADT (ACPI 6.5, 5.2.12): CPUs in the order of their numbers, so that Linux
/// numbers them alike.
pub(crate) fn madt(machine: &Machine<'_>) -> Vec<u8> {
    let mut body = machine.interrupts.local_apic.to_le_bytes().to_vec();
    // No PC-AT 8259 pair.
    body.extend([0; 4]);
    for (cpu, &id) in (0u32..).zip(machine.cpu_ids) {
        if id <= MAX_XAPIC {
            body.extend([0, 8, cpu as u8, id as u8]);
        } else {
            body.extend([9, 16, 0, 0]);
            body.extend(id.to_le_bytes());
        }
        body.extend(ENABLED.to_le_bytes());
        if id > MAX_XAPIC {
            body.extend(cpu.to_le_bytes());
        }
    }
    body.extend([1, 12, IOAPIC_ID, 0]);
    body.extend(machine.interrupts.ioapic.to_le_bytes());
    body.extend([0; 4]);
    // Local APIC NMI: LINT1 of all.
    body.extend([4, 6, ALL_CPUS, 0, 0, 1]);
    with_header(*b"APIC", 5, &body)
}

/// A CPU's node in the SRAT (ACPI 6.5, 5.2.16.1 and 5.2.16.3).
pub(crate) fn cpu_affinity(_cpu: u32, id: u32, node: u32) -> Vec<u8> {
    let [low, high @ ..] = node.to_le_bytes();
    let mut bytes;
    if id <= MAX_XAPIC {
        bytes = vec![0, 16, low, id as u8];
        bytes.extend(ENABLED.to_le_bytes());
        bytes.push(0);
        bytes.extend(high);
        bytes.extend([0; 4]);
    } else {
        bytes = vec![2, 24, 0, 0];
        bytes.extend(node.to_le_bytes());
        bytes.extend(id.to_le_bytes());
        bytes.extend(ENABLED.to_le_bytes());
        bytes.extend([0; 8]);
    }
    bytes
}
