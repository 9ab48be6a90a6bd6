//! FADT: hardware-reduced ACPI, where the DSDT is, and how to turn the machine off.

use crate::Machine;
use crate::table::{OEM, OEM_REVISION, OEM_TABLE, bytes_of};
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};

/// `iapc_boot_arch` (ACPI 6.5, table 5.10): no VGA to probe, no CMOS clock.
const NO_VGA: u16 = 1 << 2;
const NO_CMOS_RTC: u16 = 1 << 5;

pub(crate) fn build(machine: &Machine<'_>, dsdt: u64) -> Vec<u8> {
    let power = machine.power;
    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton);
    fadt.iapc_boot_arch = (NO_VGA | NO_CMOS_RTC).into();
    fadt.reset_reg = port(power.reset);
    fadt.reset_value = power.reset_value;
    fadt.sleep_control_reg = port(power.sleep_control);
    fadt.sleep_status_reg = port(power.sleep_status);
    fadt.hypervisor_vendor_identity = u64::from_le_bytes(*b"KTSTRVMM").into();
    bytes_of(&fadt.finalize())
}

fn port(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port))
}
