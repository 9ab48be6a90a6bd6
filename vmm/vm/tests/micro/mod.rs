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
