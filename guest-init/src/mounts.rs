//! The file systems of a guest.

mod table;

use crate::InitError;
use nix::mount::{MsFlags, mount};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use table::{MOUNTS, Mount};

/// A file system that this kernel does not have; tests that need it will say so.
#[derive(Debug)]
pub struct Skipped {
    fs: &'static str,
    target: &'static str,
    option: &'static str,
    why: String,
}

impl fmt::Display for Skipped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no {} on {} ({}; {})", self.fs, self.target, self.why, self.option)
    }
}

/// Mounts everything that the boot init of a saved machine did not mount before; what is
/// merely wanted and missing comes back.
pub(crate) fn mount_all() -> Result<Vec<Skipped>, InitError> {
    let mut skipped = Vec::new();
    for m in &MOUNTS {
        if let Err(source) = mount_one(m) {
            let (fs, target) = (text(m.fs), text(m.target));
            if m.needed {
                return Err(InitError::Mount { fs, target, option: m.option, source });
            }
            skipped.push(Skipped { fs, target, option: m.option, why: source.to_string() });
        }
    }
    Ok(skipped)
}

fn mount_one(m: &Mount) -> std::io::Result<()> {
    let target = Path::new(OsStr::from_bytes(m.target.to_bytes()));
    if is_mounted(target) {
        return Ok(());
    }
    // Mount points inside sysfs can't be made, they are there when the kernel has
    // the feature; the mount then says so.
    if !target.starts_with("/sys/") {
        std::fs::create_dir_all(target)?;
    }
    match mount(Some(m.fs), m.target, Some(m.fs), MsFlags::MS_NOSUID, m.data) {
        // The kernel mounts devtmpfs by itself where CONFIG_DEVTMPFS_MOUNT says so.
        Ok(()) | Err(nix::errno::Errno::EBUSY) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// As mountpoint(1) tells: another device than the directory that it lies in.
fn is_mounted(target: &Path) -> bool {
    let device = |path: &Path| path.metadata().ok().map(|m| m.dev());
    match (device(target), target.parent().and_then(device)) {
        (Some(here), Some(above)) => here != above,
        _ => false,
    }
}

/// All of the table is ASCII.
fn text(words: &'static std::ffi::CStr) -> &'static str {
    words.to_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_told_from_a_directory() {
        assert!(is_mounted(Path::new("/proc")));
        assert!(!is_mounted(Path::new("/proc/self")));
        assert!(!is_mounted(Path::new("/no/such/directory")));
    }

    #[test]
    fn the_table_is_plain_text() {
        for m in &MOUNTS {
            assert!(
                text(m.fs).len() > 1 && text(m.target).starts_with('/') && m.option.starts_with("CONFIG_")
            );
        }
    }
}
