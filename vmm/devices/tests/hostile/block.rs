//! The virtio block device.

use super::cursor::{Cursor, RAM};
use super::driver::{Driver, NEXT, WRITE, ring};
use ktstr_vmm_devices::virtio::Block;
use ktstr_vmm_devices::virtio::block::{DiskCounts, MAX_DATA, SECTOR};
use std::fs::File;
use std::os::unix::fs::FileExt;
use vm_memory::{Bytes, GuestAddress};

const SECTORS: u64 = 64;
const DATA_AT: u64 = 0x8_0000;
const HEADER_AT: u64 = 0x9_0000;
const STATUS_AT: u64 = 0x9_0100;
/// Kinds that the device knows (virtio 1.2, 5.2.6), and two of which it has never heard.
const KINDS: [u32; 8] = [0, 1, 4, 8, 11, 13, 2, u32::MAX];

/// A guest that mistreats a disk.
pub(crate) fn block(input: &[u8]) {
    let (first, input) = input.split_first().unwrap_or((&0, &[]));
    let read_only = first & 1 == 1;
    let content: Vec<u8> = (0..SECTORS * SECTOR).map(|at| (at / SECTOR) as u8).collect();
    let file = tempfile::tempfile().expect("a file");
    file.write_all_at(&content, 0).expect("it takes that");
    let disk = Block::new(file.try_clone().expect("a copy"), read_only, "hostile").expect("it can be a disk");
    let counters = disk.counters();
    let mut driver = Driver::new(disk);
    let mut before = DiskCounts::default();
    driver.play(input, request, |_| {
        let now = counters.now();
        let moved = now.bytes_read + now.bytes_written - before.bytes_read - before.bytes_written;
        assert!(moved <= 128 * MAX_DATA as u64, "{moved} bytes from one act");
        assert!(answered(&now) - answered(&before) <= 128, "{before:?} and then {now:?} by one act");
        before = now;
    });
    assert_eq!(file.metadata().expect("it is open").len(), SECTORS * SECTOR, "the file has another length");
    if read_only {
        assert!(read(&file, 0, SECTORS) == content, "a read-only disk was written to");
    }
    works_as_new(&mut driver, &file, read_only);
}

fn answered(counts: &DiskCounts) -> u64 {
    counts.reads + counts.writes + counts.flushes + counts.cleared + counts.errors
}

/// One whole request, with something wrong about it or not.
fn request(driver: &mut Driver<Block>, cursor: &mut Cursor<'_>) -> Option<()> {
    let [form, kind, at] = cursor.take()?;
    let kind = KINDS[usize::from(kind) % KINDS.len()];
    let sector = match at % 8 {
        0..=4 => u64::from(at) % SECTORS,
        5 => SECTORS - 1,
        6 => SECTORS,
        _ => u64::MAX - u64::from(at >> 3),
    };
    let mut header = [kind, 0].map(u32::to_le_bytes).concat();
    header.extend(sector.to_le_bytes());
    let (address, bytes) = (cursor.address(ring)?, cursor.length()?);
    // Where that isn't RAM, the device finds no header.
    let header_at = if form & 1 == 0 { HEADER_AT } else { address };
    let _ = driver.memory.write_slice(&header, GuestAddress(header_at));
    let data_at = if form & 2 == 0 { DATA_AT } else { address };
    if kind > 8 && data_at < RAM - 16 {
        // A range of sectors, of which the flags are the last byte's.
        let range = [sector.to_le_bytes(), u64::to_le_bytes(u64::from(bytes) | u64::from(at) << 32)].concat();
        driver.memory.write_slice(&range, GuestAddress(data_at)).expect("in RAM");
    }
    let data_flag = if (kind == 0 || kind == 8) == (form & 4 == 0) { WRITE } else { 0 };
    let length = match form >> 3 & 3 {
        0 => 512,
        1 => 16,
        2 => 0,
        _ => bytes,
    };
    let split = u32::from(form >> 5) * 2;
    let status_at = if form & 3 == 3 { address } else { STATUS_AT };
    let chain = [
        (header_at, split, 0),
        (header_at.wrapping_add(u64::from(split)), 16 - split, 0),
        (data_at, length, data_flag),
        (status_at, 1, WRITE),
    ];
    for (slot, (address, bytes, flag)) in (0u16..).zip(chain) {
        let next = if slot == 3 { 0 } else { NEXT };
        driver.describe(0, slot, (address, bytes, flag | next, slot + 1));
    }
    driver.offer(0, 0);
    driver.kick(0);
    Some(())
}

/// After a reset, whatever was before: writes sector 5 and reads it back.
fn works_as_new(driver: &mut Driver<Block>, file: &File, read_only: bool) {
    driver.start();
    let before = read(file, 5, 1);
    let wanted = if read_only { before } else { vec![0xa5; SECTOR as usize] };
    for (kind, flag) in [(1u32, 0), (0, WRITE)] {
        driver
            .memory
            .write_slice(&[kind, 0, 5, 0].map(u32::to_le_bytes).concat(), GuestAddress(HEADER_AT))
            .expect("in RAM");
        driver.memory.write_slice(&[0xa5; SECTOR as usize], GuestAddress(DATA_AT)).expect("in RAM");
        driver.memory.write_obj(0xffu8, GuestAddress(STATUS_AT)).expect("in RAM");
        driver.describe(0, 0, (HEADER_AT, 16, NEXT, 1));
        driver.describe(0, 1, (DATA_AT, SECTOR as u32, flag | NEXT, 2));
        driver.describe(0, 2, (STATUS_AT, 1, WRITE, 0));
        driver.offer(0, 0);
        driver.kick(0);
        let status: u8 = driver.memory.read_obj(GuestAddress(STATUS_AT)).expect("in RAM");
        assert_eq!(status, u8::from(read_only && kind == 1), "a disk doesn't work after a reset");
    }
    let mut seen = vec![0; SECTOR as usize];
    driver.memory.read_slice(&mut seen, GuestAddress(DATA_AT)).expect("in RAM");
    assert!(seen == wanted && read(file, 5, 1) == wanted);
    assert_eq!(driver.used(0), (0, SECTOR as u32 + 1, 2));
}

fn read(file: &File, sector: u64, count: u64) -> Vec<u8> {
    let mut bytes = vec![0; (count * SECTOR) as usize];
    file.read_exact_at(&mut bytes, sector * SECTOR).expect("it has them");
    bytes
}
