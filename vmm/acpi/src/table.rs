//! Table headers, checksums and placement.

use crate::{AcpiError, Place};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

/// OEM id of every table; six characters.
pub(crate) const OEM: [u8; 6] = *b"KTSTR ";
/// OEM table id of every table; eight characters.
pub(crate) const OEM_TABLE: [u8; 8] = *b"KTSTRVMM";
/// OEM revision of every table.
pub(crate) const OEM_REVISION: u32 = 1;
const HEADER: usize = 36;
/// Tables start at multiples of this; the FADT and the kernel want no more.
const ALIGN: u64 = 16;

/// A table and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Signature, such as `APIC`.
    pub signature: &'static str,
    /// Guest-physical address.
    pub address: u64,
    /// The table, header and checksum included.
    pub bytes: Vec<u8>,
}

/// All tables of a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Every table; the RSDP is the last.
    pub placed: Vec<Placed>,
    /// Address of the RSDP.
    pub rsdp: u64,
}

/// Hands out addresses one after the other.
pub(crate) struct Layout {
    place: Place,
    next: u64,
    placed: Vec<Placed>,
}

impl Layout {
    pub(crate) fn new(place: Place) -> Self {
        Self { place, next: place.tables, placed: Vec::new() }
    }

    /// Places a table; its address.
    pub(crate) fn add(&mut self, signature: &'static str, bytes: Vec<u8>) -> Result<u64, AcpiError> {
        let (address, end) = (self.next, self.place.end);
        if address.saturating_add(bytes.len() as u64) > end {
            return Err(AcpiError::NoRoom { table: signature, bytes: bytes.len(), at: address, end });
        }
        self.next = (address + bytes.len() as u64).next_multiple_of(ALIGN);
        self.placed.push(Placed { signature, address, bytes });
        Ok(address)
    }

    /// Adds the XSDT that lists these tables, and the RSDP.
    pub(crate) fn finish(mut self, listed: &[u64]) -> Result<Tables, AcpiError> {
        let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
        for address in listed {
            xsdt.add_entry(*address);
        }
        let xsdt = self.add("XSDT", bytes_of(&xsdt))?;
        let (signature, address) = ("RSD PTR ", self.place.rsdp);
        self.placed.push(Placed { signature, address, bytes: bytes_of(&Rsdp::new(OEM, xsdt)) });
        Ok(Tables { placed: self.placed, rsdp: address })
    }
}

/// A table of this body.
pub(crate) fn with_header(signature: [u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut sdt = Sdt::new(signature, HEADER as u32, revision, OEM, OEM_TABLE, OEM_REVISION);
    sdt.append_slice(body);
    sdt.as_slice().to_vec()
}

struct Bytes(Vec<u8>);

impl AmlSink for Bytes {
    fn byte(&mut self, byte: u8) {
        self.0.push(byte);
    }
}

/// What `aml` serialises to.
pub(crate) fn bytes_of(aml: &dyn Aml) -> Vec<u8> {
    let mut sink = Bytes(Vec::new());
    aml.to_aml_bytes(&mut sink);
    sink.0
}
