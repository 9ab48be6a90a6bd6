//! Linux with disks: one that it reads and writes, and one that it can only read.

use crate::saved::Dir;
use crate::{Guest, Kernels, Outcome};
use ktstr_topology::Topology;
use ktstr_vmm::{Disk, VmEnd};
use std::fs::File;
use std::io::{Read, Write};
use std::ops::Range;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

const KIB: usize = 1 << 10;
const SECTOR: usize = 512;
/// What is on a disk at first.
const BYTES: usize = 4096 * KIB;
/// Where the guest writes, and what it then gives back and has zeroed.
const WRITTEN: Range<usize> = 1000 * KIB..3000 * KIB;
const DISCARDED: Range<usize> = 1024 * KIB..1280 * KIB;
const ZEROED: Range<usize> = 2000 * KIB..2064 * KIB;
/// `_IO(0x12, 119)` and `_IO(0x12, 127)` (include/uapi/linux/fs.h).
const BLKDISCARD: libc::c_ulong = 0x1277;
const BLKZEROOUT: libc::c_ulong = 0x127f;

/// No two sectors are alike. Few instructions a byte: the guest is emulated twice over.
fn pattern(seed: u32, range: Range<usize>) -> Vec<u8> {
    let mut bytes = vec![0; range.len()];
    for (at, sector) in range.step_by(SECTOR).zip(bytes.chunks_exact_mut(SECTOR)) {
        let word = ((at / SECTOR) as u32).wrapping_mul(0x9e37_79b1) ^ seed;
        sector.fill(word as u8);
        sector[..4].copy_from_slice(&word.to_le_bytes());
    }
    bytes
}

/// The guest's side.
pub(crate) fn guest(data: &mut File, stdio: &mut File) {
    let mut told = String::new();
    for disk in ["vda", "vdb"] {
        let read = |what| std::fs::read_to_string(format!("/sys/block/{disk}/{what}")).unwrap_or_default();
        let [size, ro, serial, sector] = ["size", "ro", "serial", "queue/logical_block_size"].map(read);
        let told_by = [size.trim(), ro.trim(), serial.trim(), sector.trim()].join(" ");
        told.push_str(&format!("{disk} {told_by}\n"));
    }
    data.write_all(told.as_bytes()).unwrap();
    for (disk, seed) in [("/dev/vda", 1), ("/dev/vdb", 2)] {
        let mut content = Vec::new();
        File::open(disk).unwrap().read_to_end(&mut content).unwrap();
        assert!(content == pattern(seed, 0..BYTES), "{disk} has other bytes");
    }
    data.write_all(b"as expected\n").unwrap();
    stdio.read_exact(&mut [0]).unwrap();
    let disk = File::options().read(true).write(true).open("/dev/vda").unwrap();
    disk.write_all_at(&pattern(3, WRITTEN), WRITTEN.start as u64).unwrap();
    disk.sync_all().unwrap();
    for (request, range) in [(BLKDISCARD, DISCARDED), (BLKZEROOUT, ZEROED)] {
        let range = [range.start as u64, range.len() as u64];
        // SAFETY: both read two numbers there.
        let done = unsafe { libc::ioctl(disk.as_raw_fd(), request as _, range.as_ptr()) };
        assert_eq!(done, 0, "{request:#x}: {}", std::io::Error::last_os_error());
    }
    disk.sync_all().unwrap();
    let refused = File::options().write(true).open("/dev/vdb").and_then(|disk| {
        disk.write_all_at(&[0xff; 4096], 0)?;
        disk.sync_all()
    });
    data.write_all(format!("vdb: {:?}\n", refused.map_err(|e| e.kind())).as_bytes()).unwrap();
}

/// Two files, as the guest finds them.
fn files() -> Result<[File; 2], String> {
    let file = |seed| {
        let file = tempfile::tempfile()?;
        file.write_all_at(&pattern(seed, 0..BYTES), 0)?;
        Ok::<_, std::io::Error>(file)
    };
    let text = |e: std::io::Error| format!("making a disk's file: {e}");
    Ok([file(1).map_err(text)?, file(2).map_err(text)?])
}

fn disks([first, second]: &[File; 2]) -> Result<Vec<Disk>, String> {
    let disk = |file: &File, read_only, id: &str| {
        let file = file.try_clone().map_err(|e| format!("duplicating a file: {e}"))?;
        Ok::<_, String>(Disk { file, read_only, id: id.to_string() })
    };
    Ok(vec![disk(first, false, "a-disk-for-tests")?, disk(second, true, "read-only")?])
}

fn boot(kernels: &Kernels, files: &[File; 2]) -> Result<Guest, String> {
    let mut guest = Guest::boot_with(&kernels.bzimage, Topology::DEFAULT, "disk", disks(files)?)?;
    let told = guest.until("as expected\n")?;
    let expected = "vda 8192 0 a-disk-for-tests 512\nvdb 8192 1 read-only 512\n";
    if told != expected {
        return Err(format!("the guest has found {told:?}, expected {expected:?}"));
    }
    Ok(guest)
}

/// Lets the guest write, and looks for that in the files.
fn finish(mut guest: Guest, [first, second]: &[File; 2]) -> Outcome {
    guest.vm.send(2, b".");
    guest.expect("vdb: Err(PermissionDenied)\n")?;
    guest.expect_end(&VmEnd::PowerOff)?;
    let read = |file: &File| {
        let mut bytes = vec![0; BYTES];
        file.read_exact_at(&mut bytes, 0).map_err(|e| format!("reading a disk's file: {e}"))?;
        Ok::<_, String>(bytes)
    };
    let mut expected = pattern(1, 0..BYTES);
    expected[WRITTEN].copy_from_slice(&pattern(3, WRITTEN));
    expected[DISCARDED].fill(0);
    expected[ZEROED].fill(0);
    let bytes = read(first)?;
    if let Some(at) = bytes.iter().zip(&expected).position(|(found, expected)| found != expected) {
        return Err(format!(
            "byte {at:#x} of the first disk is {:#x}, expected {:#x}",
            bytes[at], expected[at]
        ));
    }
    if read(second)? != pattern(2, 0..BYTES) {
        return Err("the read-only disk was written to".to_string());
    }
    let [counts, other] = [0, 1].map(|disk| guest.vm.disk_counts(disk).unwrap_or_default());
    println!("first disk: {counts:?}; second: {other:?}");
    let enough = counts.bytes_written >= WRITTEN.len() as u64 && counts.flushes >= 1 && counts.cleared >= 2;
    if !enough || counts.errors > 0 || other.writes > 0 {
        return Err(format!("the disks have counted {counts:?} and {other:?}"));
    }
    Ok(())
}

pub(crate) fn a_disk_is_read_and_written(kernels: &Kernels) -> Outcome {
    let files = files()?;
    finish(boot(kernels, &files)?, &files)
}

/// A machine with disks is saved between their being read and written, and goes on.
pub(crate) fn a_disk_is_saved_along(kernels: &Kernels) -> Outcome {
    let files = files()?;
    let guest = boot(kernels, &files)?;
    let dir = Dir::make()?;
    guest.vm.pause().map_err(|e| e.to_string())?;
    guest.vm.save(&dir.0, &mut |_, _| true).map_err(|e| e.to_string())?;
    drop(guest);
    let guest = Guest::restore_with(&dir.0, Topology::DEFAULT, disks(&files)?)?;
    guest.vm.resume();
    finish(guest, &files)
}
