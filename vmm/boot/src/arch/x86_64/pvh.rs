//! vmlinux, entered by PVH.

use super::{Entry, MapEntry};
use crate::{Boot, BootError};
use ktstr_vmm_memory::GuestRam;
use ktstr_vmm_memory::layout::{
    COMMAND_LINE, PVH_MEMORY_MAP, PVH_MEMORY_MAP_ENTRIES, PVH_MODULES, PVH_START_INFO,
};
use linux_loader::loader::elf::PvhBootCapability;
use linux_loader::loader::start_info::{hvm_memmap_table_entry, hvm_modlist_entry, hvm_start_info};
use linux_loader::loader::{Elf, KernelLoader};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use vm_memory::{Address, ByteValued, Bytes, GuestAddress};

/// `XEN_HVM_START_MAGIC_VALUE` (include/xen/interface/hvm/start_info.h).
const MAGIC: u32 = 0x336e_c578;
/// The version that has a memory map.
const VERSION: u32 = 1;
/// `PT_LOAD` (include/uapi/linux/elf.h).
const LOADED: u32 = 1;

/// Loads the segments where the ELF file says; the entry point and the kernel's range.
pub(super) fn load(ram: &GuestRam, file: &mut File) -> Result<(u64, Range<u64>), BootError> {
    let start = lowest_segment(file)?;
    let loaded = Elf::load(ram.memory(), None, file, None)
        .map_err(|e| BootError::Load { at: start, why: e.to_string() })?;
    let PvhBootCapability::PvhEntryPresent(ip) = loaded.pvh_boot_cap else {
        return Err(BootError::NoEntry);
    };
    Ok((ip.raw_value(), start..loaded.kernel_end))
}

/// Where the kernel begins, which the loader doesn't tell: `p_paddr` of the lowest segment that is loaded
/// (`Elf64_Ehdr` and `Elf64_Phdr`, include/uapi/linux/elf.h).
fn lowest_segment(file: &mut File) -> Result<u64, BootError> {
    let mut header = [0; 64];
    file.rewind().and_then(|()| file.read_exact(&mut header)).map_err(BootError::Read)?;
    let segments = u64::from_le_bytes(field(&header, 32));
    let (size, count) = (u16::from_le_bytes(field(&header, 54)), u16::from_le_bytes(field(&header, 56)));
    file.seek(SeekFrom::Start(segments)).map_err(BootError::Read)?;
    let mut lowest = u64::MAX;
    // Another size is none that the loader takes.
    for _ in 0..if size == 56 { count } else { 0 } {
        let mut segment = [0; 56];
        file.read_exact(&mut segment).map_err(BootError::Read)?;
        let (kind, at) = (u32::from_le_bytes(field(&segment, 0)), u64::from_le_bytes(field(&segment, 24)));
        if kind == LOADED && u64::from_le_bytes(field(&segment, 32)) > 0 {
            lowest = lowest.min(at);
        }
    }
    Ok(lowest)
}

/// `N` bytes of a header, whose size the caller knows.
fn field<const N: usize, const M: usize>(header: &[u8; M], at: usize) -> [u8; N] {
    std::array::from_fn(|i| header[at + i])
}

/// Writes `hvm_start_info` and what it points to.
pub(super) fn describe(
    boot: &Boot<'_>,
    ip: u64,
    initramfs: &Range<u64>,
    map: &[MapEntry],
) -> Result<Entry, BootError> {
    let entries: Vec<_> = map.iter().take(PVH_MEMORY_MAP_ENTRIES).collect();
    for (at, entry) in (PVH_MEMORY_MAP..).step_by(24).zip(&entries) {
        let (addr, size, type_) = (entry.start, entry.bytes, entry.kind.number());
        let raw = Plain(hvm_memmap_table_entry { addr, size, type_, reserved: 0 });
        write(boot, "the PVH memory map", at, raw)?;
    }
    let module = hvm_modlist_entry {
        paddr: initramfs.start,
        size: initramfs.end - initramfs.start,
        ..Default::default()
    };
    write(boot, "the PVH module list", PVH_MODULES, Plain(module))?;
    let info = hvm_start_info {
        magic: MAGIC,
        version: VERSION,
        nr_modules: u32::from(!initramfs.is_empty()),
        modlist_paddr: PVH_MODULES,
        cmdline_paddr: COMMAND_LINE,
        rsdp_paddr: boot.rsdp,
        memmap_paddr: PVH_MEMORY_MAP,
        memmap_entries: entries.len() as u32,
        ..Default::default()
    };
    write(boot, "hvm_start_info", PVH_START_INFO, Plain(info))?;
    Ok(Entry::Protected { ip, start_info: PVH_START_INFO })
}

#[derive(Clone, Copy, Default)]
#[repr(transparent)]
struct Plain<T>(T);

// SAFETY: `repr(C)` of integers only, without padding (the loader asserts its size).
unsafe impl ByteValued for Plain<hvm_start_info> {}
// SAFETY: as above.
unsafe impl ByteValued for Plain<hvm_modlist_entry> {}
// SAFETY: as above.
unsafe impl ByteValued for Plain<hvm_memmap_table_entry> {}

fn write<T: ByteValued>(boot: &Boot<'_>, what: &'static str, at: u64, value: T) -> Result<(), BootError> {
    boot.ram.memory().write_obj(value, GuestAddress(at)).map_err(BootError::write(what, at))
}
