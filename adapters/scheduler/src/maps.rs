//! Maps of loaded BPF programs, pinned in bpffs so that they outlive whoever made them.

use crate::bpf::{bpf, object_info, open};
use crate::program::first_value;
use std::ffi::CString;
use std::io::Error;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `enum bpf_cmd` of include/uapi/linux/bpf.h.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_MAP_GET_NEXT_ID: libc::c_long = 12;
const BPF_MAP_GET_FD_BY_ID: libc::c_long = 14;

/// Where guest-init mounts bpffs.
pub(crate) const BPFFS: &str = "/sys/fs/bpf";
/// More would mean that ids are handed out faster than they are read.
const MAX_MAPS: usize = 4096;
/// Names that a message lists.
const MOST_NAMES: usize = 40;

/// The part of `struct bpf_map_info` up to its value's type; `sizes` are those of keys and values, and the most entries.
#[repr(C)]
struct MapInfo {
    kind: u32,
    id: u32,
    sizes: [u32; 3],
    flags: u32,
    name: [u8; 16],
    ifindex: u32,
    value_type: u32,
}

/// `BPF_MAP_TYPE_STRUCT_OPS`.
const STRUCT_OPS: u32 = 26;

/// What the struct_ops map holds whose value is of that type, of several the one made last; `None` without one.
pub(crate) fn struct_ops_value(value_type: u32) -> std::io::Result<Option<Vec<u8>>> {
    let (mut id, mut seen, mut found) = (0, 0, None);
    while let Some(next) = next_id(id)?.filter(|_| seen < MAX_MAPS) {
        (id, seen) = (next, seen + 1);
        // One that went away between the two calls is none.
        let Ok(map) = open(BPF_MAP_GET_FD_BY_ID, id) else { continue };
        let info = info_of(&map)?;
        if (info.kind, info.value_type) == (STRUCT_OPS, value_type) {
            let mut value = vec![0; info.sizes[1] as usize];
            first_value(&map, &mut value)?;
            found = Some(value);
        }
    }
    Ok(found)
}

/// Pins the map whose name ends so at that path below [`BPFFS`]; of several the one made last.
pub(crate) fn pin(suffix: &str, path: &str) -> Result<(), String> {
    let (mut found, mut names) = (None, Vec::new());
    let mut id = 0;
    let failed = |e: Error| format!("asking the kernel for its BPF maps: {e}");
    while let Some(next) = next_id(id).map_err(failed)? {
        id = next;
        let map = match open(BPF_MAP_GET_FD_BY_ID, id) {
            Ok(map) => map,
            // It went away between the two calls.
            Err(e) if e.raw_os_error() == Some(libc::ENOENT) => continue,
            Err(e) => return Err(failed(e)),
        };
        let name = name_of(&map).map_err(failed)?;
        if name.ends_with(suffix) {
            found = Some(map);
        }
        names.push(name);
        if names.len() == MAX_MAPS {
            break;
        }
    }
    match found {
        Some(map) => pin_at(&map, path),
        None => {
            names.sort();
            names.dedup();
            names.truncate(MOST_NAMES);
            Err(format!("no BPF map's name ends in {suffix:?}; there are: {}", names.join(", ")))
        }
    }
}

fn pin_at(map: &OwnedFd, path: &str) -> Result<(), String> {
    let whole = Path::new(BPFFS).join(path);
    let failed = |e: Error| {
        let hint = match e.raw_os_error() {
            Some(libc::EEXIST) => "; something is pinned there already: use another name",
            Some(libc::EPERM | libc::EINVAL) => "; expected bpffs at /sys/fs/bpf (CONFIG_BPF_SYSCALL)",
            _ => "",
        };
        format!("pinning it at {}: {e}{hint}", whole.display())
    };
    if let Some(folder) = whole.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let name = CString::new(whole.as_os_str().as_bytes()).map_err(|e| failed(e.into()))?;
    let at = name.as_ptr() as u64;
    // pathname (64 bits), bpf_fd, file_flags
    let mut attr = [at as u32, (at >> 32) as u32, map.as_raw_fd() as u32, 0];
    bpf(BPF_OBJ_PIN, &mut attr).map(drop).map_err(failed)
}

/// As far as the kernel keeps it: 15 bytes.
fn name_of(map: &OwnedFd) -> std::io::Result<String> {
    let info = info_of(map)?;
    let end = info.name.iter().position(|b| *b == 0).unwrap_or(info.name.len());
    Ok(String::from_utf8_lossy(&info.name[..end]).into_owned())
}

fn info_of(map: &OwnedFd) -> std::io::Result<MapInfo> {
    let mut info =
        MapInfo { kind: 0, id: 0, sizes: [0; 3], flags: 0, name: [0; 16], ifindex: 0, value_type: 0 };
    object_info(map, &mut info)?;
    Ok(info)
}

fn next_id(after: u32) -> std::io::Result<Option<u32>> {
    // start_id, next_id, open_flags
    let mut attr = [after, 0, 0, 0];
    match bpf(BPF_MAP_GET_NEXT_ID, &mut attr) {
        Ok(_) => Ok(Some(attr[1])),
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!(
            (std::mem::offset_of!(MapInfo, name), std::mem::offset_of!(MapInfo, value_type)),
            (24, 44)
        );
    }
}
