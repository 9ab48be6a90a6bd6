//! Is this file a kernel that QEMU can boot?

use ktstr_machine::MachineError;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::Path;

const REMEDY: &str =
    "name a bzImage, for instance with KTSTR_TEST_KERNEL, or build one: `cargo ktstr kernel build`";

/// Checks for the boot protocol's magic `HdrS` at offset 0x202
/// (Documentation/arch/x86/boot.rst) or an ELF header.
pub(crate) fn check(path: &Path) -> Result<(), MachineError> {
    let bad =
        |why: String| MachineError::Kernel { path: path.to_path_buf(), why, remedy: REMEDY.to_string() };
    let mut file = File::open(path).map_err(|e| match e.kind() {
        ErrorKind::NotFound => bad("no such file".to_string()),
        _ => bad(e.to_string()),
    })?;
    let mut head = Vec::new();
    file.by_ref().take(0x206).read_to_end(&mut head).map_err(|e| bad(e.to_string()))?;
    let bzimage = head.get(0x202..0x206) == Some(b"HdrS");
    let elf = head.starts_with(b"\x7fELF");
    if bzimage || elf {
        return Ok(());
    }
    Err(bad(format!(
        "expected an x86 bzImage (\"HdrS\" at offset 0x202) or an ELF vmlinux, got a file that starts with {:02x?}",
        &head[..head.len().min(8)]
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_kernel_is_refused_with_what_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        std::fs::write(&path, "just text").unwrap();
        let text = check(&path).unwrap_err().to_string();
        assert!(text.contains("HdrS") && text.contains("6a, 75"), "{text}");
        assert!(check(&dir.path().join("none")).unwrap_err().to_string().contains("no such file"));
    }

    #[test]
    fn both_image_kinds_are_known_by_their_magic() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        let mut bytes = vec![0; 0x202];
        bytes.extend(b"HdrS");
        std::fs::write(&path, &bytes).unwrap();
        check(&path).unwrap();
        std::fs::write(&path, b"\x7fELF\x02").unwrap();
        check(&path).unwrap();
    }
}
