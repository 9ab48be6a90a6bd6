//! bzImage, entered at its 64-bit entry point.

use super::{Entry, MapEntry};
use crate::{Boot, BootError};
use ktstr_vmm_memory::GuestRam;
use ktstr_vmm_memory::layout::{BOOT_PARAMS, COMMAND_LINE};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params, setup_header};
use linux_loader::loader::{BzImage, KernelLoader};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use vm_memory::{ByteValued, Bytes, GuestAddress};

/// Offset of the setup header in the image.
const SETUP_HEADER: u64 = 0x1f1;
/// `HdrS`.
const MAGIC: u32 = 0x5372_6448;
/// Protocol 2.12 (Linux 3.8) brought `xloadflags`.
const VERSION: u16 = 0x20c;
/// `XLF_KERNEL_64`: there is a 64-bit entry point at 0x200.
const KERNEL_64: u16 = 1;
/// Offset of the 64-bit entry point from where the kernel is loaded.
pub(super) const ENTRY_64: u64 = 0x200;
/// `type_of_loader` of a boot loader without a number of its own.
const UNDEFINED_LOADER: u8 = 0xff;
/// `E820_MAX_ENTRIES_ZEROPAGE`.
const E820_MAX: usize = 128;

/// A loaded bzImage.
pub(super) struct Image {
    header: setup_header,
    pub(super) range: Range<u64>,
}

/// Reads the header, then the kernel to where it prefers to be.
pub(super) fn load(ram: &GuestRam, file: &mut File, start: [u8; 4]) -> Result<Image, BootError> {
    let header = read_header(file, start)?;
    let at = header.pref_address;
    let loaded = BzImage::load(ram.memory(), Some(GuestAddress(at)), file, None)
        .map_err(|e| BootError::Load { at, why: e.to_string() })?;
    let needed = at.saturating_add(u64::from(header.init_size));
    Ok(Image { header, range: at..loaded.kernel_end.max(needed) })
}

fn read_header(file: &mut File, start: [u8; 4]) -> Result<setup_header, BootError> {
    let mut header = setup_header::default();
    file.seek(SeekFrom::Start(SETUP_HEADER)).map_err(BootError::Read)?;
    file.read_exact(header.as_mut_slice()).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => BootError::Format { start },
        _ => BootError::Read(e),
    })?;
    let (magic, version, flags) = (header.header, header.version, header.xloadflags);
    if magic != MAGIC {
        return Err(BootError::Format { start });
    }
    if version < VERSION || flags & KERNEL_64 == 0 {
        let what = format!("boot protocol {version:#x} with load flags {flags:#x} has no 64-bit entry point");
        return Err(BootError::Protocol { what });
    }
    Ok(header)
}

/// Writes `boot_params`.
pub(super) fn describe(
    boot: &Boot<'_>,
    image: &Image,
    initramfs: &Range<u64>,
    map: &[MapEntry],
) -> Result<Entry, BootError> {
    let mut params = boot_params { hdr: image.header, acpi_rsdp_addr: boot.rsdp, ..Default::default() };
    params.hdr.type_of_loader = UNDEFINED_LOADER;
    params.hdr.cmd_line_ptr = COMMAND_LINE as u32;
    params.hdr.ramdisk_image = initramfs.start as u32;
    params.ext_ramdisk_image = (initramfs.start >> 32) as u32;
    let bytes = initramfs.end - initramfs.start;
    params.hdr.ramdisk_size = bytes as u32;
    params.ext_ramdisk_size = (bytes >> 32) as u32;
    params.e820_entries = map.len().min(E820_MAX) as u8;
    for (slot, entry) in map.iter().take(E820_MAX).enumerate() {
        params.e820_table[slot] =
            boot_e820_entry { addr: entry.start, size: entry.bytes, r#type: entry.kind.number() };
    }
    boot.ram
        .memory()
        .write_obj(params, GuestAddress(BOOT_PARAMS))
        .map_err(BootError::write("boot_params", BOOT_PARAMS))?;
    Ok(Entry::Long { ip: image.range.start + ENTRY_64, boot_params: BOOT_PARAMS })
}
