//! Kernel images that mean harm, made from bytes: what the fuzz target `kernel` in `vmm/vm/fuzz` and the test beside this
//! folder run.

use ktstr_vmm_boot::{Boot, Entry, Part, load};
use ktstr_vmm_memory::{GuestRam, RamOptions, layout};
use std::io::Write;
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const RAM: u64 = 64 * MIB;

/// Any bytes as a kernel: as they are, or as wounds of an image that would be one. What loads lies in RAM, the parts of
/// it apart from each other and from what the monitor keeps for itself.
pub(crate) fn kernel(input: &[u8]) {
    let [kind, parts, rest @ ..] = input else { return };
    let image = match kind % 4 {
        0 => rest.to_vec(),
        1 => wounded(bzimage(), 0x1f1, 0x80, rest),
        2 => wounded(elf(), 0, 64 + 2 * 56, rest),
        _ => wounded(elf(), 64 + 56, 56 + 20, rest),
    };
    let mut file = tempfile::tempfile().expect("a file of our own");
    file.write_all(&image).expect("room for it");
    let ram = GuestRam::create(&[RAM], RamOptions::default()).expect("RAM");
    let part = Part::Bytes(Arc::new(vec![0x55; usize::from(parts % 16) * 1021]));
    let command_line = "x".repeat(usize::from(*parts));
    let boot = Boot {
        ram: &ram,
        kernel: &mut file,
        initramfs: &[part],
        command_line: &command_line,
        rsdp: layout::RSDP,
    };
    let Ok(loaded) = load(boot) else { return };
    let (kernel, initramfs) = (loaded.kernel.clone(), loaded.initramfs.clone());
    assert!(
        layout::ACPI_END <= kernel.start && kernel.start <= kernel.end && kernel.end <= RAM,
        "{loaded:x?}"
    );
    assert!(initramfs.is_empty() || kernel.end <= initramfs.start && initramfs.end <= RAM, "{loaded:x?}");
    let (Entry::Long { ip, .. } | Entry::Protected { ip, .. }) = loaded.entry;
    assert!(kernel.contains(&ip), "{loaded:x?}");
}

/// Ten bytes a wound: where, how many bytes of the value, the value.
fn wounded(mut image: Vec<u8>, start: usize, length: usize, wounds: &[u8]) -> Vec<u8> {
    for wound in wounds.as_chunks::<10>().0 {
        let at = start + usize::from(wound[0]) % length;
        let count = (usize::from(wound[1]) % 8 + 1).min(image.len() - at);
        image[at..at + count].copy_from_slice(&wound[2..2 + count]);
    }
    image
}

/// One setup sector and a megabyte (Documentation/arch/x86/boot.rst).
fn bzimage() -> Vec<u8> {
    let mut image = vec![0u8; 1024];
    image[0x1f1] = 1;
    image[0x202..0x206].copy_from_slice(b"HdrS");
    image[0x206..0x208].copy_from_slice(&0x20fu16.to_le_bytes());
    image[0x211] = 1;
    image[0x236] = 1;
    image[0x258..0x260].copy_from_slice(&(16 * MIB).to_le_bytes());
    image[0x260..0x264].copy_from_slice(&(4 * MIB as u32).to_le_bytes());
    image.resize(1024 + 4096, 0x90);
    image
}

/// A note that names the PVH entry, and a page of code at 16 MiB.
fn elf() -> Vec<u8> {
    let mut image = vec![0u8; 64];
    image[..8].copy_from_slice(b"\x7fELF\x02\x01\x01\0");
    image[16..20].copy_from_slice(&[2, 0, 62, 0]);
    image[24..32].copy_from_slice(&(16 * MIB).to_le_bytes());
    image[32..40].copy_from_slice(&64u64.to_le_bytes());
    image[52..58].copy_from_slice(&[64, 0, 56, 0, 2, 0]);
    let notes = 64 + 2 * 56u64;
    for (kind, offset, address, bytes) in [(4u32, notes, 0, 20u64), (1, notes + 20, 16 * MIB, 4096)] {
        image.extend(kind.to_le_bytes());
        image.extend(5u32.to_le_bytes());
        for word in [offset, address, address, bytes, bytes, 4] {
            image.extend(word.to_le_bytes());
        }
    }
    for word in [4u32, 4, 18] {
        image.extend(word.to_le_bytes());
    }
    image.extend(b"Xen\0");
    image.extend((16 * MIB as u32).to_le_bytes());
    image.resize(image.len() + 4096, 0x90);
    image
}
