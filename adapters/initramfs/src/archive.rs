//! The `newc` cpio format that the kernel unpacks
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use crate::InitramfsError;
use std::collections::BTreeSet;

const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFCHR: u32 = 0o020_000;

/// A cpio archive in the making.
///
/// Times are zero and inode numbers count up, so that equal content gives equal
/// bytes. Parent directories are added by themselves. Several finished archives
/// may be concatenated.
#[derive(Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    seen: BTreeSet<String>,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a directory (mode 0755) and those above it; one that is there is fine.
    pub fn dir(&mut self, path: &str) -> Result<(), InitramfsError> {
        let path = relative(path)?;
        self.parents(path);
        if self.seen.insert(path.to_string()) {
            self.entry(path, S_IFDIR | 0o755, &[], (0, 0));
        }
        Ok(())
    }

    /// Adds a regular file with these permission bits.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) -> Result<(), InitramfsError> {
        let path = self.claim(path)?;
        if u32::try_from(content.len()).is_err() {
            return Err(InitramfsError::TooBig { path, bytes: content.len() });
        }
        self.entry(&path, S_IFREG | (permissions & 0o7777), content, (0, 0));
        Ok(())
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<(), InitramfsError> {
        let path = self.claim(path)?;
        self.entry(&path, S_IFLNK | 0o777, target.as_bytes(), (0, 0));
        Ok(())
    }

    /// Adds a character device (mode 0600).
    pub fn char_device(&mut self, path: &str, major: u32, minor: u32) -> Result<(), InitramfsError> {
        let path = self.claim(path)?;
        self.entry(&path, S_IFCHR | 0o600, &[], (major, minor));
        Ok(())
    }

    /// True if that path was added.
    pub fn contains(&self, path: &str) -> bool {
        relative(path).is_ok_and(|p| self.seen.contains(p))
    }

    /// The archive, with its trailer.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[], (0, 0));
        // The kernel looks for a following archive at any multiple of 4; 512 is cpio's own block.
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn claim(&mut self, path: &str) -> Result<String, InitramfsError> {
        let path = relative(path)?;
        self.parents(path);
        if self.seen.insert(path.to_string()) {
            Ok(path.to_string())
        } else {
            Err(InitramfsError::Twice { path: path.to_string() })
        }
    }

    fn parents(&mut self, path: &str) {
        for (slash, _) in path.match_indices('/') {
            let parent = &path[..slash];
            if self.seen.insert(parent.to_string()) {
                self.entry(parent, S_IFDIR | 0o755, &[], (0, 0));
            }
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8], device: (u32, u32)) {
        self.inode += 1;
        let links = if mode & S_IFDIR == S_IFDIR { 2 } else { 1 };
        let name_size = path.len() + 1;
        let fields: [usize; 13] = [
            self.inode as usize,
            mode as usize,
            0,
            0,
            links,
            0,
            content.len(),
            0,
            0,
            device.0 as usize,
            device.1 as usize,
            name_size,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn relative(path: &str) -> Result<&str, InitramfsError> {
    let bad = |why| Err(InitramfsError::Path { path: path.to_string(), why });
    let plain = path.trim_start_matches('/').trim_end_matches('/');
    if plain.is_empty() {
        return bad("an empty path");
    }
    if plain.contains('\0') {
        return bad("a zero byte in the path");
    }
    if plain.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return bad("expected plain parts without `.`, `..` or `//`");
    }
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// Unpacks with cpio(1), which we did not write; `None` where it is missing.
    fn unpack(bytes: &[u8]) -> Option<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new("cpio")
            .args(["--extract", "--quiet", "--make-directories", "--nonmatching", "dev/*"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .ok()?;
        child.stdin.take().unwrap().write_all(bytes).unwrap();
        assert!(child.wait().unwrap().success());
        Some(dir)
    }

    #[test]
    fn cpio_unpacks_what_we_packed() {
        let mut archive = Archive::new();
        archive.char_device("/dev/console", 5, 1).unwrap();
        archive.file("/init", 0o755, b"hello").unwrap();
        archive.file("etc/deep/er/file", 0o644, &[7; 1001]).unwrap();
        archive.symlink("lib", "usr/lib").unwrap();
        archive.dir("proc").unwrap();
        let Some(dir) = unpack(&archive.finish()) else { return };
        assert_eq!(std::fs::read(dir.path().join("init")).unwrap(), b"hello");
        assert_eq!(std::fs::read(dir.path().join("etc/deep/er/file")).unwrap(), [7; 1001]);
        assert_eq!(std::fs::read_link(dir.path().join("lib")).unwrap().to_str(), Some("usr/lib"));
        assert!(dir.path().join("proc").is_dir());
    }

    #[test]
    fn a_second_file_of_the_same_name_is_refused() {
        let mut archive = Archive::new();
        archive.file("a", 0o644, b"1").unwrap();
        assert!(matches!(archive.file("/a", 0o644, b"2"), Err(InitramfsError::Twice { .. })));
        archive.dir("d").unwrap();
        archive.dir("d").unwrap();
    }

    #[test]
    fn paths_stay_inside() {
        for bad in ["", "/", "../x", "a/../b", "a//b", "a\0b", "./a"] {
            assert!(Archive::new().file(bad, 0o644, b"").is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn archives_are_aligned_and_repeatable(files in prop::collection::btree_map("[a-z]{1,9}", prop::collection::vec(any::<u8>(), 0..100), 0..8)) {
            let build = || {
                let mut archive = Archive::new();
                for (name, content) in &files { archive.file(name, 0o644, content).unwrap(); }
                archive.finish()
            };
            let bytes = build();
            prop_assert_eq!(bytes.len() % 512, 0);
            prop_assert_eq!(bytes, build());
        }
    }
}
