//! The least initramfs: one directory and `/init` (format: `newc`,
//! Documentation/driver-api/early-userspace/buffer-format.rst).

/// An archive of `/dev/console` and `/init`.
pub(crate) fn archive(init: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(init.len() + 4096);
    entry(&mut bytes, "dev", 0o040_755, (0, 0), &[]);
    entry(&mut bytes, "dev/console", 0o020_600, (5, 1), &[]);
    entry(&mut bytes, "init", 0o100_755, (0, 0), init);
    entry(&mut bytes, "TRAILER!!!", 0, (0, 0), &[]);
    bytes
}

fn entry(out: &mut Vec<u8>, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
    let inode = out.len() as u32 + 1;
    let fields = [inode, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, major, minor, name.len() as u32 + 1, 0];
    out.extend_from_slice(b"070701");
    out.extend(fields.iter().flat_map(|f| format!("{f:08x}").into_bytes()));
    out.extend_from_slice(name.as_bytes());
    out.push(0);
    pad(out);
    out.extend_from_slice(data);
    pad(out);
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(4), 0);
}
