//! What the guest is told of its memory: the E820 map.

use ktstr_vmm_memory::{Region, layout};

/// What a run of memory is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MapKind {
    /// Free to use; `E820_TYPE_RAM`.
    Ram,
    /// Not to be touched; `E820_TYPE_RESERVED`.
    Reserved,
    /// ACPI tables; `E820_TYPE_ACPI`.
    Acpi,
}

impl MapKind {
    /// The number that E820 and PVH's memory map use (arch/x86/include/asm/e820/types.h,
    /// `XEN_HVM_MEMMAP_TYPE_*`).
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
            Self::Acpi => 3,
        }
    }
}

/// A run of guest-physical memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapEntry {
    /// Address of the first byte.
    pub start: u64,
    /// Length in bytes.
    pub bytes: u64,
    /// What it is for.
    pub kind: MapKind,
}

/// The map for RAM in these regions, ascending: usable memory around what firmware
/// keeps below 2 MiB, neighbouring regions joined (the SRAT tells nodes apart).
#[must_use]
pub fn memory_map(regions: &[Region]) -> Vec<MapEntry> {
    let fixed = [
        MapEntry {
            start: layout::BELOW_EBDA,
            bytes: layout::ACPI - layout::BELOW_EBDA,
            kind: MapKind::Reserved,
        },
        MapEntry { start: layout::ACPI, bytes: layout::ACPI_END - layout::ACPI, kind: MapKind::Acpi },
    ];
    let mut map = Vec::new();
    for region in joined(regions) {
        let (start, end) = region;
        let mut at = start;
        for entry in fixed.iter().filter(|e| e.start < end && e.start + e.bytes > start) {
            push(&mut map, at, entry.start.max(at), MapKind::Ram);
            let stop = (entry.start + entry.bytes).min(end);
            push(&mut map, entry.start.max(at), stop, entry.kind);
            at = stop;
        }
        push(&mut map, at, end, MapKind::Ram);
    }
    map
}

fn push(map: &mut Vec<MapEntry>, start: u64, end: u64, kind: MapKind) {
    if start < end {
        map.push(MapEntry { start, bytes: end - start, kind });
    }
}

fn joined(regions: &[Region]) -> Vec<(u64, u64)> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for region in regions {
        match runs.last_mut() {
            Some((_, end)) if *end == region.start => *end = region.end(),
            _ => runs.push((region.start, region.end())),
        }
    }
    runs
}
