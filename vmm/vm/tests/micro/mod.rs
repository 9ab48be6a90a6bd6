//! Kernels of a few instructions, for the tests that run on any `/dev/kvm`.

// Each test program uses some of it.
#![allow(dead_code)]

#[path = "../../../vcpu/tests/skip/mod.rs"]
pub(crate) mod skip;

use std::io::Write;
use std::time::Duration;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
pub(crate) const LOAD: u64 = 16 << 20;
/// out 0x601, 0x34: power off; then wait.
pub(crate) const POWER_OFF: [u8; 10] = [0x66, 0xba, 0x01, 0x06, 0xb0, 0x34, 0xee, 0xf4, 0xeb, 0xfd];

/// True, with the reason printed, where there is no KVM.
pub(crate) fn no_kvm(test: &str) -> bool {
    let opened = std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if let Err(e) = &opened {
        skip::skip(test, &format!("opening /dev/kvm: {e}"));
    }
    opened.is_err()
}

/// Where a kernel with an interrupt has its table, from [`LOAD`] on, and what `lidt` reads.
const IDT: usize = 0x1000;
const IDT_REGISTER: usize = 0x2000;

/// Code with its interrupt table behind it, of one vector with a handler at that offset; `lidt` reads it
/// at 0x100_2000.
pub(crate) fn with_interrupt(code: &[u8], vector: usize, handler: usize) -> Vec<u8> {
    let mut image = code.to_vec();
    let handler = LOAD as u32 + handler as u32;
    image.resize(IDT_REGISTER + 6, 0);
    // A present 32-bit interrupt gate of the code segment.
    let gate = u64::from(handler & 0xffff) | 0x10 << 16 | 0x8e00 << 32 | u64::from(handler >> 16) << 48;
    image[IDT + 8 * vector..][..8].copy_from_slice(&gate.to_le_bytes());
    image[IDT_REGISTER..][..2].copy_from_slice(&(8 * (vector as u16 + 1) - 1).to_le_bytes());
    image[IDT_REGISTER + 2..][..4].copy_from_slice(&(LOAD as u32 + IDT as u32).to_le_bytes());
    image
}

/// An ELF file of `code`, loaded and entered in 32-bit mode at 16 MiB.
pub(crate) fn kernel(code: &[u8]) -> std::fs::File {
    let note: Vec<u8> = [4u32, 4, 18]
        .iter()
        .flat_map(|w| w.to_le_bytes())
        .chain(*b"Xen\0")
        .chain((LOAD as u32).to_le_bytes())
        .collect();
    let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    image.extend(LOAD.to_le_bytes());
    image.extend(64u64.to_le_bytes());
    image.extend([0; 12]);
    image.extend([64, 0, 56, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
    let data = 64 + 2 * 56;
    for (kind, at, address, bytes) in [(4u32, data, 0, note.len()), (1, data + note.len(), LOAD, code.len())]
    {
        image.extend(kind.to_le_bytes());
        image.extend(5u32.to_le_bytes());
        for word in [at as u64, address, address, bytes as u64, bytes as u64, 4] {
            image.extend(word.to_le_bytes());
        }
    }
    image.extend(note);
    image.extend(code);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&image).unwrap();
    file
}
