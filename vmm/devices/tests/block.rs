//! A driver of the virtio block device that keeps the rules, and what it is told when it doesn't. Numbers are those
//! of virtio 1.2, 5.2.6.

mod hostile;

use hostile::driver::{Driver, NEXT, WRITE};
use ktstr_vmm_devices::virtio::block::{DiskCounts, MAX_DATA};
use ktstr_vmm_devices::virtio::{Block, Mmio};
use proptest::prelude::*;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use vm_memory::{Bytes, GuestAddress};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
const NONE: u8 = 0xee;
const SECTORS: usize = 64;
const HEADER: u64 = 0x2_0000;
const DATA: u64 = 0x3_0000;
const STATUS: u64 = 0x2_8000;
const BYTES: usize = SECTORS * 512;

/// Address, length and flag of a descriptor.
type Piece = (u64, u32, u16);

/// A disk, its driver and its file.
struct Disk {
    driver: Driver<Block>,
    file: File,
}

/// A file in memory: `/dev/shm` has no `fallocate` for zeroes, other than most file systems.
fn memfd() -> File {
    use std::os::fd::FromRawFd;
    // SAFETY: the name is a terminated string.
    let fd = unsafe { libc::memfd_create(c"disk".as_ptr(), libc::MFD_CLOEXEC) };
    assert!(fd >= 0, "{}", std::io::Error::last_os_error());
    // SAFETY: the descriptor was just made and is no one else's.
    unsafe { File::from_raw_fd(fd) }
}

fn content() -> Vec<u8> {
    (0..BYTES).map(|at| (at / 512 + at) as u8).collect()
}

impl Disk {
    fn over(file: File, read_only: bool) -> Self {
        file.write_all_at(&content(), 0).unwrap();
        let block = Block::new(file.try_clone().unwrap(), read_only, "a disk for tests").unwrap();
        let mut driver = Driver::new(block);
        driver.start();
        Self { driver, file }
    }

    fn new() -> Self {
        Self::over(tempfile::tempfile().unwrap(), false)
    }

    fn counts(&mut self) -> DiskCounts {
        self.driver.mmio.device().counters().now()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; BYTES];
        self.file.read_exact_at(&mut bytes, 0).unwrap();
        bytes
    }

    /// Offers a chain of these pieces.
    fn offer(&mut self, pieces: &[Piece]) {
        let last = pieces.len() - 1;
        for (slot, (address, bytes, flag)) in pieces.iter().enumerate() {
            let next = if slot < last { NEXT } else { 0 };
            self.driver.describe(0, slot as u16, (*address, *bytes, flag | next, slot as u16 + 1));
        }
        self.driver.memory.write_obj(NONE, GuestAddress(STATUS)).unwrap();
        self.driver.offer(0, 0);
    }

    fn header(&self, kind: u32, sector: u64) {
        self.driver.memory.write_obj([kind, 0], GuestAddress(HEADER)).unwrap();
        self.driver.memory.write_obj(sector, GuestAddress(HEADER + 8)).unwrap();
    }

    fn kick(&mut self) -> u8 {
        self.driver.kick(0);
        self.driver.memory.read_obj(GuestAddress(STATUS)).unwrap()
    }

    /// A request with its data in pieces of these lengths; the outcome.
    fn ask(&mut self, kind: u32, sector: u64, pieces: &[u32]) -> u8 {
        self.header(kind, sector);
        let flag = if kind == IN || kind == GET_ID { WRITE } else { 0 };
        let mut chain = vec![(HEADER, 16, 0)];
        let mut at = DATA;
        for bytes in pieces {
            chain.push((at, *bytes, flag));
            at += u64::from(*bytes);
        }
        chain.push((STATUS, 1, WRITE));
        self.offer(&chain);
        self.kick()
    }

    fn data(&self, bytes: usize) -> Vec<u8> {
        let mut data = vec![0; bytes];
        self.driver.memory.read_slice(&mut data, GuestAddress(DATA)).unwrap();
        data
    }

    fn put(&self, data: &[u8]) {
        self.driver.memory.write_slice(data, GuestAddress(DATA)).unwrap();
    }

    /// A request about ranges of (sector, sectors, flags).
    fn ranges(&mut self, kind: u32, ranges: &[(u64, u32, u32)]) -> u8 {
        let range = |(sector, count, flags): &(u64, u32, u32)| {
            [&sector.to_le_bytes()[..], &count.to_le_bytes(), &flags.to_le_bytes()].concat()
        };
        let bytes: Vec<u8> = ranges.iter().flat_map(range).collect();
        self.put(&bytes);
        self.ask(kind, 0, &[bytes.len() as u32])
    }

    fn config(&mut self, offset: u64) -> u32 {
        self.driver.register(0x100 + offset)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Against a model: the same bytes, whatever the pieces that they come and go in.
    #[test]
    fn what_is_written_is_in_the_file_and_is_read(
        acts in prop::collection::vec(
            (any::<bool>(), 0..SECTORS, 1usize..9, any::<u8>(), prop::collection::vec(1u32..700, 0..6)), 1..40),
    ) {
        let mut disk = Disk::new();
        let mut model = content();
        for (writes, sector, sectors, byte, lengths) in acts {
            let sectors = sectors.min(SECTORS - sector);
            let mut left = (sectors * 512) as u32;
            let mut pieces: Vec<u32> = Vec::new();
            for length in lengths {
                pieces.push(length.min(left));
                left -= length.min(left);
            }
            pieces.push(left);
            let range = sector * 512..(sector + sectors) * 512;
            if writes {
                let data: Vec<u8> = range.clone().map(|at| byte.wrapping_add((at % 251) as u8)).collect();
                disk.put(&data);
                model[range].copy_from_slice(&data);
                prop_assert_eq!(disk.ask(OUT, sector as u64, &pieces), OK);
                prop_assert_eq!(disk.driver.used(0).1, 1);
            } else {
                prop_assert_eq!(disk.ask(IN, sector as u64, &pieces), OK);
                prop_assert_eq!(disk.driver.used(0).1 as usize, sectors * 512 + 1);
                prop_assert!(disk.data(sectors * 512) == model[range]);
            }
        }
        prop_assert!(disk.bytes() == model);
    }
}

#[test]
fn a_request_may_be_cut_anywhere() {
    let mut disk = Disk::new();
    for cut in 0..=16 {
        disk.header(IN, 7);
        // The outcome is the last byte, wherever that is.
        let chain = [(HEADER, cut, 0), (HEADER + u64::from(cut), 16 - cut, 0), (STATUS - 512, 513, WRITE)];
        disk.offer(&chain);
        assert_eq!(disk.kick(), OK, "header cut at {cut}");
        let mut seen = vec![0; 512];
        disk.driver.memory.read_slice(&mut seen, GuestAddress(STATUS - 512)).unwrap();
        assert!(seen == content()[7 * 512..8 * 512]);
    }
    assert_eq!(disk.counts(), DiskCounts { reads: 17, bytes_read: 17 * 512, ..DiskCounts::default() });
    // The header and what is written may share a piece, too.
    disk.header(OUT, 1);
    disk.driver.memory.write_slice(&[0x77; 512], GuestAddress(HEADER + 16)).unwrap();
    disk.offer(&[(HEADER, 528, 0), (STATUS, 1, WRITE)]);
    assert_eq!(disk.kick(), OK);
    assert!(disk.bytes()[512..1024] == [0x77; 512]);
}

#[test]
fn several_requests_come_with_one_kick_and_one_interrupt() {
    let mut disk = Disk::new();
    let irq = disk.driver.irq.try_clone().unwrap();
    disk.header(IN, 3);
    disk.offer(&[(HEADER, 16, 0), (DATA, 512, WRITE), (STATUS, 1, WRITE)]);
    for _ in 0..7 {
        disk.driver.offer(0, 0);
    }
    let mut counter = disk.driver.mmio.device().counters().now().reads;
    assert!((counter, irq.read().is_err()) == (0, true));
    let kick = 0u32.to_le_bytes();
    disk.driver.mmio.write(ktstr_vmm_devices::virtio::mmio::QUEUE_NOTIFY, &kick).unwrap();
    counter = disk.counts().reads;
    assert_eq!((counter, irq.read().unwrap(), disk.driver.register(0x60)), (8, 1, 1));
}

#[test]
fn what_cant_be_done_is_told_by_the_outcome() {
    let mut disk = Disk::new();
    let last = SECTORS as u64 - 1;
    let zero: &[u32] = &[];
    let cases = [
        ("the last sector", IN, last, &[512][..], OK),
        ("past the last sector", IN, last, &[1024], IOERR),
        ("past the last sector", OUT, last, &[1024], IOERR),
        ("at the end", OUT, last + 1, &[512], IOERR),
        ("nothing at the end", IN, last + 1, zero, OK),
        ("nothing past the end", IN, last + 2, zero, IOERR),
        ("where numbers end", IN, u64::MAX, &[512], IOERR),
        ("where numbers end", OUT, u64::MAX - 1, &[1024], IOERR),
        ("half a sector", IN, 0, &[256], IOERR),
        ("a sector and a byte", OUT, 0, &[513], IOERR),
        ("a flush", FLUSH, 0, zero, OK),
        ("a flush with data", FLUSH, 0, &[512], IOERR),
        ("an id", GET_ID, 0, &[20], OK),
        ("an id with too little room", GET_ID, 0, &[19], IOERR),
        ("a kind that there isn't", 2, 0, &[512], UNSUPP),
        ("the lifetime of no flash", 10, 0, &[512], UNSUPP),
        ("ranges of nothing", DISCARD, 0, zero, IOERR),
        ("half a range", DISCARD, 0, &[24], IOERR),
    ];
    let mut errors = 0;
    for (what, kind, sector, pieces, outcome) in cases {
        disk.put(&[0; 1024]);
        assert_eq!(disk.ask(kind, sector, pieces), outcome, "{what}: kind {kind} at {sector}");
        errors += u64::from(outcome != OK);
        assert_eq!(disk.counts().errors, errors, "{what}");
    }
    assert!(disk.bytes() == content(), "a request that was refused has written");
    assert!(disk.driver.mmio.broken().is_none());
    // Data for the wrong direction.
    for (kind, flag) in [(IN, 0), (GET_ID, 0), (OUT, WRITE), (FLUSH, WRITE), (DISCARD, WRITE)] {
        disk.header(kind, 0);
        disk.offer(&[(HEADER, 16, 0), (DATA, 512, flag), (STATUS, 1, WRITE)]);
        assert_eq!(disk.kick(), IOERR, "kind {kind}");
    }
    // Less than a header, and none.
    for chain in [&[(HEADER, 15, 0), (STATUS, 1, WRITE)][..], &[(STATUS, 1, WRITE)]] {
        disk.offer(chain);
        assert_eq!(disk.kick(), IOERR);
    }
}

#[test]
fn a_request_is_no_longer_than_was_told() {
    let mut disk = Disk::new();
    let (most, pieces) = (disk.config(8), disk.config(12));
    assert_eq!(most as usize * pieces as usize, MAX_DATA);
    // All of RAM, several times over.
    let piece = (0, 1 << 20, WRITE);
    disk.header(IN, 0);
    let chain: Vec<_> =
        std::iter::once((HEADER, 16, 0)).chain([piece; 5]).chain([(STATUS, 1, WRITE)]).collect();
    disk.offer(&chain);
    assert_eq!((disk.kick(), disk.counts().errors), (IOERR, 1));
}

#[test]
fn chains_that_make_no_sense_need_a_reset_which_helps() {
    let outside = 1 << 20;
    let header = (HEADER, 16, 0);
    let status = (STATUS, 1, WRITE);
    let cases: [(&str, &[Piece]); 7] = [
        ("no byte to write the outcome", &[header]),
        ("no byte to write the outcome", &[header, (STATUS, 0, WRITE)]),
        ("something to read behind", &[header, status, (DATA, 512, 0)]),
        ("at 0x100000", &[header, (outside, 512, WRITE), status]),
        ("at 0xffff0", &[header, (outside - 16, 512, WRITE), status]),
        ("at 0xffffffffffffff00", &[(u64::MAX - 255, 512, 0), status]),
        // Together with what follows, more than a chain may have.
        ("no end", &[header, (0, u32::MAX, WRITE), status]),
    ];
    let mut disk = Disk::new();
    for (part, chain) in cases {
        disk.offer(chain);
        disk.kick();
        let why = disk.driver.mmio.broken().map(ToString::to_string).unwrap_or_default();
        // A piece of 4 GiB is found to lie outside before the chain is found to be too long.
        assert!(
            why.contains(part) || part == "no end" && why.contains("4294967295 bytes"),
            "{part}: {why:?}"
        );
        assert_eq!(disk.driver.register(0x70) & 0x40, 0x40);
        // It is of no use until then.
        assert_eq!(disk.ask(IN, 0, &[512]), NONE);
        disk.driver.start();
        assert_eq!(disk.ask(IN, 0, &[512]), OK);
    }
    // A loop, and one that goes nowhere.
    for next in [0, 200] {
        disk.header(IN, 0);
        disk.driver.describe(0, 0, (HEADER, 16, NEXT, 1));
        disk.driver.describe(0, 1, (DATA, 512, NEXT | WRITE, next));
        disk.driver.offer(0, 0);
        disk.driver.kick(0);
        let why = disk.driver.mmio.broken().unwrap().to_string();
        assert!(why.contains("no end") || why.contains("behind something to write"), "{why}");
        disk.driver.start();
    }
    assert!(disk.bytes() == content());
}

#[test]
fn a_read_only_disk_is_never_written() {
    let mut disk = Disk::over(tempfile::tempfile().unwrap(), true);
    assert_eq!(disk.driver.mmio.device().counters().now(), DiskCounts::default());
    assert_eq!((disk.ask(OUT, 0, &[512]), disk.ask(IN, 0, &[512])), (IOERR, OK));
    assert!(disk.data(512) == content()[..512]);
    for kind in [DISCARD, WRITE_ZEROES] {
        assert_eq!(disk.ranges(kind, &[(0, 1, 0)]), UNSUPP);
    }
    assert_eq!(disk.ask(FLUSH, 0, &[]), UNSUPP);
    assert!(disk.bytes() == content());
    assert_eq!(disk.counts(), DiskCounts { reads: 1, bytes_read: 512, errors: 4, ..DiskCounts::default() });
    // VIRTIO_BLK_F_RO, and nothing of what only a writable disk offers.
    assert_eq!((disk.driver.features & (1 << 5 | 1 << 9 | 1 << 13 | 1 << 14), disk.config(36)), (1 << 5, 0));
    // A file that can only be read will do.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [7; 1024]).unwrap();
    let mut driver = Driver::new(Block::new(File::open(&path).unwrap(), true, "").unwrap());
    driver.start();
    assert_eq!(driver.register(0x100), 2);
}

#[test]
fn the_guest_is_told_what_the_disk_is() {
    let mut disk = Disk::new();
    assert_eq!(disk.driver.register(8), 2);
    let told = [0, 4, 20, 36, 40, 44, 48, 52, 56].map(|offset| disk.config(offset));
    assert_eq!(told, [SECTORS as u32, 0, 512, 1 << 22, 16, 8, 1 << 16, 1, 1]);
    // No more descriptors than a queue of that size has, header and outcome included.
    assert_eq!((disk.config(12) + 2, disk.driver.register(0x34)), (128, 128));
    assert_eq!([60, 64, 0xf00].map(|offset| disk.config(offset)), [0; 3]);
    disk.put(&[0xff; 32]);
    assert_eq!(disk.ask(GET_ID, 0, &[9, 13]), OK);
    assert!(disk.data(22) == *b"a disk for tests\0\0\0\0\xff\xff");
    assert_eq!(disk.driver.used(0).1, 20);
}

#[test]
fn ranges_are_discarded_and_zeroed() {
    for file in [memfd(), tempfile::tempfile().unwrap()] {
        let mut disk = Disk::over(file, false);
        let mut model = content();
        let room = disk.file.metadata().unwrap().blocks();
        assert_eq!(disk.ranges(DISCARD, &[(0, 16, 0), (32, 8, 0)]), OK);
        model[..16 * 512].fill(0);
        model[32 * 512..40 * 512].fill(0);
        assert!(disk.bytes() == model);
        let left = disk.file.metadata().unwrap().blocks();
        assert!(left < room, "{left} blocks after a discard, {room} before");
        for (sector, count, unmap) in [(20, 3, 0), (41, 1, 1), (48, 16, 1), (24, 8, 0)] {
            assert_eq!(disk.ranges(WRITE_ZEROES, &[(sector, count, unmap)]), OK);
            model[sector as usize * 512..(sector as usize + count as usize) * 512].fill(0);
            assert!(disk.bytes() == model, "{sector} {count} {unmap}");
        }
        assert_eq!(disk.file.metadata().unwrap().len(), BYTES as u64);
        let counts = disk.counts();
        assert_eq!((counts.cleared, counts.errors), (5, 0));
        for (kind, range, outcome) in [
            (DISCARD, (0, 1, 1), UNSUPP),
            (WRITE_ZEROES, (0, 1, 2), UNSUPP),
            (DISCARD, (0, 65, 0), IOERR),
            (DISCARD, (65, 0, 0), IOERR),
            (WRITE_ZEROES, (63, 2, 0), IOERR),
            (WRITE_ZEROES, (u64::MAX, 1, 0), IOERR),
            (WRITE_ZEROES, (0, u32::MAX, 1), IOERR),
        ] {
            assert_eq!(disk.ranges(kind, &[range]), outcome, "{kind} {range:?}");
        }
        // Of which one is wrong: nothing is done.
        assert_eq!(disk.ranges(DISCARD, &[(42, 2, 0), (64, 1, 0)]), IOERR);
        assert_eq!(disk.ranges(DISCARD, &[(0, 0, 0); 17]), IOERR);
        assert_eq!(disk.ranges(WRITE_ZEROES, &[(0, 0, 0); 2]), IOERR);
        assert!(disk.bytes() == model);
    }
}

#[test]
fn more_zeroes_than_a_range_may_have_are_refused() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(1 << 30).unwrap();
    let mut driver = Driver::new(Block::new(file.try_clone().unwrap(), false, "").unwrap());
    driver.start();
    let mut disk = Disk { driver, file };
    assert_eq!(disk.ranges(WRITE_ZEROES, &[(0, (1 << 16) + 1, 0)]), IOERR);
    assert_eq!(disk.ranges(WRITE_ZEROES, &[(0, 1 << 16, 1)]), OK);
    assert_eq!(disk.ranges(DISCARD, &[(0, 1 << 21, 0)]), OK);
}

#[test]
fn a_driver_that_never_flushes_has_every_write_flushed() {
    let mut disk = Disk::new();
    assert_eq!((disk.ask(OUT, 0, &[512]), disk.counts().flushes), (OK, 0));
    // Without VIRTIO_BLK_F_FLUSH.
    disk.driver.features &= !(1 << 9);
    disk.driver.start();
    assert_eq!((disk.ask(OUT, 0, &[512]), disk.counts().flushes), (OK, 1));
    assert_eq!((disk.ranges(WRITE_ZEROES, &[(9, 1, 1)]), disk.counts().flushes), (OK, 2));
    disk.driver.features |= 1 << 9;
    disk.driver.start();
    assert_eq!((disk.ask(OUT, 0, &[512]), disk.counts().flushes), (OK, 2));
}

#[test]
fn a_reset_leaves_what_was_not_kicked_undone() {
    let mut disk = Disk::new();
    disk.header(OUT, 0);
    disk.offer(&[(HEADER, 16, 0), (DATA, 512, 0), (STATUS, 1, WRITE)]);
    disk.driver.set(0x70, 0);
    assert!(disk.bytes() == content());
    assert_eq!(disk.counts(), DiskCounts::default());
}

#[test]
fn a_file_that_shrinks_is_an_error_of_the_disk() {
    let mut disk = Disk::new();
    disk.file.set_len(8 * 512 + 100).unwrap();
    assert_eq!(
        (disk.ask(IN, 7, &[512]), disk.ask(IN, 8, &[512]), disk.ask(IN, 9, &[512])),
        (OK, IOERR, IOERR)
    );
    assert!(disk.driver.mmio.broken().is_none());
}

#[test]
fn files_and_ids_that_are_none_are_refused() {
    let refused = |file: File, read_only, id: &str| match Block::new(file, read_only, id) {
        Ok(_) => panic!("it was made a disk"),
        Err(e) => e.to_string(),
    };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    std::fs::write(&path, [0; 512]).unwrap();
    let open = |options: &mut std::fs::OpenOptions| options.open(&path).unwrap();
    let mut options = File::options();
    assert!(refused(File::open(&path).unwrap(), false, "").contains("open for reading only"));
    assert!(refused(open(options.write(true)), true, "").contains("open for writing only"));
    assert!(
        refused(open(options.read(true).custom_flags(libc::O_APPEND)), false, "").contains("for appending")
    );
    assert!(refused(File::open(dir.path()).unwrap(), true, "").contains("a directory"));
    assert!(refused(File::open("/dev/null").unwrap(), true, "").contains("a special file"));
    assert!(refused(tempfile::tempfile().unwrap(), false, "").contains("0 bytes"));
    let file = tempfile::tempfile().unwrap();
    file.set_len(1000).unwrap();
    assert!(refused(file, false, "").contains("1000 bytes, expected a multiple of 512"));
    assert!(refused(File::open(&path).unwrap(), true, &"x".repeat(21)).contains("21 bytes, expected 20"));
    assert!(refused(File::open(&path).unwrap(), true, "é").contains("printable ASCII"));
    assert!(Block::new(File::open(&path).unwrap(), true, "x".repeat(20)).is_ok());
}

#[test]
fn a_saved_disk_goes_on_with_another_file() {
    let mut disk = Disk::new();
    assert_eq!(disk.ask(IN, 1, &[512]), OK);
    let (state, transport) = (disk.driver.mmio.device().state(), disk.driver.mmio.state().unwrap());
    let file = tempfile::tempfile().unwrap();
    let other: Vec<u8> = content().iter().map(|byte| !byte).collect();
    file.write_all_at(&other, 0).unwrap();
    let block =
        |file: &File, read_only, id: &str| Block::new(file.try_clone().unwrap(), read_only, id).unwrap();
    let again = block(&file, false, "a disk for tests");
    again.restore(&state).unwrap();
    let irq = EventFd::new(EFD_NONBLOCK).unwrap();
    let mut mmio = Mmio::new(again, disk.driver.memory.clone(), irq.try_clone().unwrap()).unwrap();
    mmio.restore(&transport).unwrap();
    assert!(irq.read().is_ok(), "the interrupt that wasn't acknowledged is not raised again");
    disk.driver.mmio = mmio;
    assert_eq!(disk.ask(IN, 1, &[512]), OK);
    assert!(disk.data(512) == other[512..1024]);
    // Still with flushes of its own, as agreed.
    assert_eq!((disk.ask(OUT, 1, &[512]), disk.counts().flushes), (OK, 0));
    for (block, part) in
        [(block(&file, true, "a disk for tests"), "read-only"), (block(&file, false, "b"), "\"b\"")]
    {
        let why = block.restore(&state).unwrap_err().to_string();
        assert!(
            why.contains(part) && why.contains("saved with id \"a disk for tests\", 64 sectors"),
            "{why}"
        );
    }
    file.set_len(512 * 65).unwrap();
    assert!(
        block(&file, false, "a disk for tests")
            .restore(&state)
            .unwrap_err()
            .to_string()
            .contains("65 sectors")
    );
}
