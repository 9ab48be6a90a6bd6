//! Loading hand-made images and reading back what the kernel would see.

use super::*;
use crate::Part;
use ktstr_vmm_memory::{GuestRam, RamOptions, layout};
use proptest::prelude::*;
use std::fs::File;
use std::io::Write;
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn ram(bytes: u64) -> GuestRam {
    GuestRam::create(&[bytes], RamOptions::default()).unwrap()
}

fn file(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file
}

/// A bzImage of one setup sector and `payload`; fields by Documentation/arch/x86/boot.rst.
fn bzimage(version: u16, payload: &[u8]) -> Vec<u8> {
    let mut image = vec![0u8; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&version.to_le_bytes());
    image[0x211] = 1;
    image[0x236..0x238].copy_from_slice(&1u16.to_le_bytes());
    image[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes());
    image[0x260..0x264].copy_from_slice(&(4 * MIB as u32).to_le_bytes());
    image.extend_from_slice(payload);
    image
}

/// An ELF file with one PT_LOAD of `payload` at 16 MiB, and a note when `pvh` is set.
fn elf(payload: &[u8], pvh: Option<u32>) -> Vec<u8> {
    let mut image = vec![0u8; 64];
    image[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    image[16..20].copy_from_slice(&[2, 0, 62, 0]);
    image[24..32].copy_from_slice(&(16 * MIB).to_le_bytes());
    image[32..40].copy_from_slice(&64u64.to_le_bytes());
    image[52..58].copy_from_slice(&[64, 0, 56, 0, 2, 0]);
    let note_at = 64 + 2 * 56;
    let mut note = Vec::new();
    if let Some(entry) = pvh {
        for word in [4u32, 4, 18] {
            note.extend_from_slice(&word.to_le_bytes());
        }
        note.extend_from_slice(b"Xen\0");
        note.extend_from_slice(&entry.to_le_bytes());
    }
    let mut header = |kind: u32, offset: u64, address: u64, bytes: u64, align: u64| {
        image.extend_from_slice(&kind.to_le_bytes());
        image.extend_from_slice(&5u32.to_le_bytes());
        for word in [offset, address, address, bytes, bytes, align] {
            image.extend_from_slice(&word.to_le_bytes());
        }
    };
    header(4, note_at, 0, note.len() as u64, 4);
    header(1, note_at + note.len() as u64, 16 * MIB, payload.len() as u64, 4096);
    image.extend_from_slice(&note);
    image.extend_from_slice(payload);
    image
}

fn boot(ram: &GuestRam, image: &[u8], parts: &[Part], line: &str) -> Result<Loaded, BootError> {
    load(Boot { ram, kernel: &mut file(image), initramfs: parts, command_line: line, rsdp: layout::RSDP })
}

fn u32_at(ram: &GuestRam, at: u64) -> u32 {
    ram.memory().read_obj(GuestAddress(at)).unwrap()
}

fn u64_at(ram: &GuestRam, at: u64) -> u64 {
    ram.memory().read_obj(GuestAddress(at)).unwrap()
}

#[test]
fn a_bzimage_is_entered_in_long_mode_with_its_boot_params() {
    let ram = ram(64 * MIB);
    let parts = [Part::Bytes(Arc::new(b"cpio".to_vec()))];
    let loaded = boot(&ram, &bzimage(0x20f, b"kernel"), &parts, "quiet").unwrap();
    assert_eq!(loaded.entry, Entry::Long { ip: 16 * MIB + 0x200, boot_params: layout::BOOT_PARAMS });
    assert_eq!(loaded.kernel, 16 * MIB..20 * MIB);
    assert_eq!(loaded.initramfs, 64 * MIB - 4096..64 * MIB - 4092);
    let mut kernel = [0; 6];
    ram.memory().read_slice(&mut kernel, GuestAddress(16 * MIB)).unwrap();
    assert_eq!(&kernel, b"kernel");
    let params = layout::BOOT_PARAMS;
    assert_eq!(u64_at(&ram, params + 0x70), layout::RSDP);
    assert_eq!(u32_at(&ram, params + 0x218), (64 * MIB - 4096) as u32);
    assert_eq!(u32_at(&ram, params + 0x21c), 4);
    assert_eq!(u32_at(&ram, params + 0x228), layout::COMMAND_LINE as u32);
    assert_eq!(u64_at(&ram, params + 0x2d0 + 8), layout::BELOW_EBDA);
    let mut line = [0xff; 6];
    ram.memory().read_slice(&mut line, GuestAddress(layout::COMMAND_LINE)).unwrap();
    assert_eq!(&line, b"quiet\0");
}

#[test]
fn a_vmlinux_is_entered_by_pvh() {
    let ram = ram(64 * MIB);
    let parts = [Part::Bytes(Arc::new(b"cpio".to_vec()))];
    let loaded = boot(&ram, &elf(&[0x90; 32], Some(0x100_0010)), &parts, "").unwrap();
    assert_eq!(loaded.entry, Entry::Protected { ip: 0x100_0010, start_info: layout::PVH_START_INFO });
    let info = layout::PVH_START_INFO;
    assert_eq!(u32_at(&ram, info), 0x336e_c578);
    assert_eq!(u32_at(&ram, info + 12), 1);
    assert_eq!(u64_at(&ram, info + 24), layout::COMMAND_LINE);
    assert_eq!(u64_at(&ram, info + 32), layout::RSDP);
    assert_eq!(u64_at(&ram, layout::PVH_MODULES), 64 * MIB - 4096);
    assert_eq!(u64_at(&ram, layout::PVH_MODULES + 8), 4);
    assert_eq!(u32_at(&ram, info + 48), memory_map(ram.regions()).len() as u32);
}

#[test]
fn what_is_no_kernel_is_refused_with_a_remedy() {
    let ram = ram(64 * MIB);
    let text = |image: &[u8]| boot(&ram, image, &[], "").unwrap_err().to_string();
    assert!(text(b"#!/bin/sh\n").contains("expected a bzImage"));
    assert!(text(&vec![0; 4096]).contains("expected a bzImage"));
    assert!(text(&bzimage(0x206, b"")).contains("64-bit"));
    assert!(text(&elf(b"kernel", None)).contains("CONFIG_PVH"));
    let long = "x".repeat(2048);
    assert!(boot(&ram, &bzimage(0x20f, b""), &[], &long).unwrap_err().to_string().contains("2047"));
}

#[test]
fn a_machine_too_small_for_the_kernel_is_refused() {
    let ram = ram(18 * MIB);
    let err = boot(&ram, &bzimage(0x20f, b"kernel"), &[], "").unwrap_err();
    assert!(matches!(err, BootError::NoRoom { what: "the kernel", .. }), "{err}");
}

#[test]
fn the_map_keeps_firmware_and_acpi_out_of_ram() {
    let map = memory_map(&ktstr_vmm_memory::regions(&[2 << 30, 2 << 30]).unwrap());
    let seen: Vec<_> = map.iter().map(|e| (e.start, e.bytes, e.kind)).collect();
    assert_eq!(
        seen,
        [
            (0, 0x9_fc00, MapKind::Ram),
            (0x9_fc00, 0x6_0400, MapKind::Reserved),
            (0x10_0000, 0x10_0000, MapKind::Acpi),
            (0x20_0000, 0xc000_0000 - 0x20_0000, MapKind::Ram),
            (1 << 32, 1 << 30, MapKind::Ram),
        ]
    );
}

proptest! {
    #[test]
    fn damaged_images_are_refused_or_loaded_but_never_panic(
        flips in prop::collection::vec((0usize..1400, any::<u8>()), 0..12),
        as_elf in any::<bool>(),
    ) {
        let ram = ram(64 * MIB);
        let mut image = if as_elf { elf(&[1; 512], Some(0x100_0000)) } else { bzimage(0x20f, &[1; 512]) };
        for (at, value) in flips {
            if let Some(byte) = image.get_mut(at) {
                *byte = value;
            }
        }
        if let Ok(loaded) = boot(&ram, &image, &[], "x") {
            prop_assert!(loaded.kernel.end <= ram.low_end());
        }
    }
}
