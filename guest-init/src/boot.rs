//! The boot init: what runs as PID 1 of a machine before it is saved.

/// A static x86-64 program of a few KB, `guest-init/boot-init/` compiled. It waits in a
/// mailbox and then becomes the `/init` that it finds there.
pub const BOOT_INIT: &[u8] = include_bytes!("../boot-init/boot-init.elf");

#[cfg(test)]
mod tests {
    use super::BOOT_INIT;
    use std::path::Path;
    use std::process::Command;

    /// The toolchain that the committed program was built with; another one makes
    /// other code of the same source.
    const TOOLCHAIN: &str = "rustc 1.95.0 (59807616e 2026-04-14)";

    #[test]
    fn the_committed_program_is_what_its_source_compiles_to() {
        let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_string());
        let version = Command::new(&rustc).arg("--version").output().unwrap();
        if String::from_utf8_lossy(&version.stdout).trim() != TOOLCHAIN {
            eprintln!("not compared: it takes {TOOLCHAIN}");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("boot-init.elf");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("boot-init/build.sh");
        let output = Command::new(&script).arg(&built).env("RUSTC", &rustc).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(
            std::fs::read(&built).unwrap() == BOOT_INIT,
            "boot-init.elf is not what its source compiles to; run {}",
            script.display()
        );
    }

    #[test]
    fn it_is_small_and_needs_no_library() {
        assert!(BOOT_INIT.len() < 16 << 10, "{} bytes", BOOT_INIT.len());
        // EI_CLASS 64-bit, EI_DATA little-endian, ET_EXEC, EM_X86_64.
        assert_eq!(BOOT_INIT[..6], *b"\x7fELF\x02\x01");
        assert_eq!(BOOT_INIT[16..20], [2, 0, 62, 0]);
    }
}
