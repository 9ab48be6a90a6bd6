//! virtio block device: a disk whose sectors are a file's (virtio 1.2, 5.2).
//!
//! A request is a chain: a header to read, data to read or to write, a byte to write the outcome to. What a driver
//! asks that can't be done is told there (`VIRTIO_BLK_S_IOERR`, `VIRTIO_BLK_S_UNSUPP`) and counted; only a chain that
//! leaves no place to tell it, or that makes no sense, ends the use of the device until a reset.

mod backing;
mod counters;
mod error;
mod state;

pub use counters::{Counters, DiskCounts};
pub use error::DiskError;
pub use state::BlockState;

use super::chain::{Pieces, chains, pieces, used};
use super::{Device, VirtioError, read_from};
use backing::Backing;
use std::fs::File;
use std::io;
use std::sync::Arc;
use virtio_queue::Queue;
use vm_memory::GuestMemoryMmap;

// include/uapi/linux/virtio_blk.h
const VIRTIO_BLK_F_SIZE_MAX: u32 = 1;
const VIRTIO_BLK_F_SEG_MAX: u32 = 2;
const VIRTIO_BLK_F_RO: u32 = 5;
const VIRTIO_BLK_F_BLK_SIZE: u32 = 6;
const VIRTIO_BLK_F_FLUSH: u32 = 9;
const VIRTIO_BLK_F_DISCARD: u32 = 13;
const VIRTIO_BLK_F_WRITE_ZEROES: u32 = 14;
const VIRTIO_BLK_T_IN: u32 = 0;
const VIRTIO_BLK_T_OUT: u32 = 1;
const VIRTIO_BLK_T_FLUSH: u32 = 4;
const VIRTIO_BLK_T_GET_ID: u32 = 8;
const VIRTIO_BLK_T_DISCARD: u32 = 11;
const VIRTIO_BLK_T_WRITE_ZEROES: u32 = 13;
const VIRTIO_BLK_S_OK: u8 = 0;
const VIRTIO_BLK_S_IOERR: u8 = 1;
const VIRTIO_BLK_S_UNSUPP: u8 = 2;
const VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP: u32 = 1;

/// `VIRTIO_ID_BLOCK` (include/uapi/linux/virtio_ids.h).
const ID: u32 = 2;
const QUEUES: [u16; 1] = [128];
const QUEUE: usize = 0;
/// Bytes of a sector, which every number in a request counts (virtio 1.2, 5.2.4).
pub const SECTOR: u64 = 512;
/// Longest id in bytes (`VIRTIO_BLK_ID_BYTES`).
pub const ID_BYTES: usize = 20;
/// Most pieces of data in a request: header and outcome take a descriptor each.
const MOST_PIECES: u32 = QUEUES[QUEUE] as u32 - 2;
/// Most bytes of a piece.
const MOST_BYTES: u32 = 32 << 10;
/// Most data of a request, so that none keeps us for long: other devices and the machine's end wait meanwhile.
pub const MAX_DATA: usize = MOST_PIECES as usize * MOST_BYTES as usize;
const HEADER_BYTES: usize = 16;
/// Size of `struct virtio_blk_discard_write_zeroes`: sector, count, flags.
const RANGE_BYTES: usize = 16;
/// Most sectors of a range to discard: room is given back quickly.
const MOST_DISCARDED: u32 = 1 << 22;
const MOST_DISCARDED_RANGES: u32 = 16;
/// Most sectors of a range of zeroes, which may have to be written.
const MOST_ZEROED: u32 = 1 << 16;

/// A disk.
pub struct Block {
    backing: Backing,
    id: String,
    counters: Arc<Counters>,
    /// The driver won't flush: each write is flushed before it is done (virtio 1.2, 5.2.6.2).
    write_through: bool,
}

/// An outcome that isn't the wanted one, for the status byte.
#[derive(Debug, Clone, Copy)]
enum Failure {
    Io,
    Unsupported,
}

impl From<io::Error> for Failure {
    fn from(_: io::Error) -> Self {
        Self::Io
    }
}

/// One range of a request to discard or to write zeroes.
struct Range {
    offset: u64,
    bytes: u64,
    flags: u32,
}

impl Block {
    /// A disk over `file`, from its first byte to its last one. `id` is what the guest reads in
    /// `/sys/block/*/serial`.
    ///
    /// # Errors
    /// A file that isn't a regular one, empty, no multiple of [`SECTOR`] long, or not open for what is wanted; an id
    /// that is longer than [`ID_BYTES`] or not printable ASCII.
    pub fn new(file: File, read_only: bool, id: impl Into<String>) -> Result<Self, DiskError> {
        let id = id.into();
        if id.len() > ID_BYTES || !id.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err(DiskError::Id { id });
        }
        let backing = Backing::new(file, read_only)?;
        Ok(Self { backing, id, counters: Arc::default(), write_through: false })
    }

    /// What it has done so far, to be kept and read from any thread.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Answers one request; the number of bytes written from the beginning of `writable` on.
    fn answer(&self, readable: Pieces<'_>, writable: Pieces<'_>) -> Option<usize> {
        let room = writable.bytes().checked_sub(1)?;
        let (into, outcome) = writable.split(room)?;
        let (written, status) = match self.request(readable, &into) {
            Ok(written) => (written, VIRTIO_BLK_S_OK),
            Err(Failure::Io) => (0, VIRTIO_BLK_S_IOERR),
            Err(Failure::Unsupported) => (0, VIRTIO_BLK_S_UNSUPP),
        };
        if status != VIRTIO_BLK_S_OK {
            self.counters.error();
        }
        outcome.copy_from(&[status]);
        Some(if written == room { room + 1 } else { written })
    }

    /// Does what is asked; returns how many bytes of `into` were written.
    fn request(&self, readable: Pieces<'_>, into: &Pieces<'_>) -> Result<usize, Failure> {
        let (header, from) = readable.split(HEADER_BYTES).ok_or(Failure::Io)?;
        let mut bytes = [0; HEADER_BYTES];
        header.copy_to(&mut bytes);
        let [k0, k1, k2, k3, _, _, _, _, sector @ ..] = bytes;
        let (kind, sector) = (u32::from_le_bytes([k0, k1, k2, k3]), u64::from_le_bytes(sector));
        let offered = |feature: u32| self.features() >> feature & 1 == 1;
        // Data for the other direction, or more than any driver sends, is no such request.
        let expect = |fits: bool| if fits { Ok(()) } else { Err(Failure::Io) };
        let only_from = expect(into.bytes() == 0 && from.bytes() <= MAX_DATA);
        let only_into = expect(from.bytes() == 0 && into.bytes() <= MAX_DATA);
        match kind {
            VIRTIO_BLK_T_IN => only_into.and_then(|()| self.read(sector, into)),
            VIRTIO_BLK_T_GET_ID => only_into.and_then(|()| self.give_id(into)),
            VIRTIO_BLK_T_OUT => only_from.and_then(|()| self.write(sector, &from)),
            VIRTIO_BLK_T_FLUSH if offered(VIRTIO_BLK_F_FLUSH) => {
                only_from.and(only_into).and_then(|()| self.flush())
            }
            VIRTIO_BLK_T_DISCARD if offered(VIRTIO_BLK_F_DISCARD) => {
                only_from.and_then(|()| self.discard(&from))
            }
            VIRTIO_BLK_T_WRITE_ZEROES if offered(VIRTIO_BLK_F_WRITE_ZEROES) => {
                only_from.and_then(|()| self.zero(&from))
            }
            _ => Err(Failure::Unsupported),
        }
    }

    fn read(&self, sector: u64, into: &Pieces<'_>) -> Result<usize, Failure> {
        let offset = self.offset(sector, into.bytes() as u64)?;
        self.backing.read(offset, into)?;
        self.counters.read(into.bytes());
        Ok(into.bytes())
    }

    fn write(&self, sector: u64, from: &Pieces<'_>) -> Result<usize, Failure> {
        if self.backing.read_only {
            return Err(Failure::Io);
        }
        let offset = self.offset(sector, from.bytes() as u64)?;
        self.backing.write(offset, from)?;
        self.settle()?;
        self.counters.write(from.bytes());
        Ok(0)
    }

    fn flush(&self) -> Result<usize, Failure> {
        self.backing.flush()?;
        self.counters.flush();
        Ok(0)
    }

    /// The id, without an end if it takes all of its room.
    fn give_id(&self, into: &Pieces<'_>) -> Result<usize, Failure> {
        let mut id = [0; ID_BYTES];
        id[..self.id.len()].copy_from_slice(self.id.as_bytes());
        if into.bytes() < ID_BYTES {
            return Err(Failure::Io);
        }
        Ok(into.copy_from(&id))
    }

    fn discard(&self, from: &Pieces<'_>) -> Result<usize, Failure> {
        let ranges = self.ranges(from, MOST_DISCARDED_RANGES, MOST_DISCARDED)?;
        if ranges.iter().any(|range| range.flags != 0) {
            return Err(Failure::Unsupported);
        }
        for Range { offset, bytes, .. } in ranges {
            let done = self.backing.discard(offset, bytes);
            done.map_err(|e| if backing::unsupported(&e) { Failure::Unsupported } else { Failure::Io })?;
        }
        self.settle()?;
        self.counters.clear();
        Ok(0)
    }

    fn zero(&self, from: &Pieces<'_>) -> Result<usize, Failure> {
        let ranges = self.ranges(from, 1, MOST_ZEROED)?;
        if ranges.iter().any(|range| range.flags & !VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP != 0) {
            return Err(Failure::Unsupported);
        }
        for Range { offset, bytes, flags } in ranges {
            self.backing.zero(offset, bytes, flags != 0)?;
        }
        self.settle()?;
        self.counters.clear();
        Ok(0)
    }

    /// The ranges that `from` holds, at most so many of at most so many sectors.
    fn ranges(&self, from: &Pieces<'_>, most: u32, most_sectors: u32) -> Result<Vec<Range>, Failure> {
        let mut bytes = vec![0; (most as usize * RANGE_BYTES).min(from.bytes())];
        if !from.bytes().is_multiple_of(RANGE_BYTES) || from.bytes() > bytes.len() || bytes.is_empty() {
            return Err(Failure::Io);
        }
        from.copy_to(&mut bytes);
        let range = |entry: &[u8; RANGE_BYTES]| {
            let [sector @ .., c0, c1, c2, c3, f0, f1, f2, f3] = *entry;
            let sectors = u32::from_le_bytes([c0, c1, c2, c3]);
            let bytes = u64::from(sectors) * SECTOR;
            let offset = self.offset(u64::from_le_bytes(sector), bytes)?;
            if sectors > most_sectors {
                return Err(Failure::Io);
            }
            Ok(Range { offset, bytes, flags: u32::from_le_bytes([f0, f1, f2, f3]) })
        };
        bytes.as_chunks().0.iter().map(range).collect()
    }

    /// Where in the file `bytes` bytes from `sector` on are: whole sectors that the disk has.
    fn offset(&self, sector: u64, bytes: u64) -> Result<u64, Failure> {
        let end = sector.checked_add(bytes / SECTOR);
        if !bytes.is_multiple_of(SECTOR) || end.is_none_or(|end| end > self.backing.capacity) {
            return Err(Failure::Io);
        }
        // A file has fewer bytes than this type can count.
        Ok(sector * SECTOR)
    }

    /// What was written must be stable now, when the driver won't ask for it.
    fn settle(&self) -> Result<(), Failure> {
        if self.write_through { self.flush().map(drop) } else { Ok(()) }
    }
}

impl Device for Block {
    fn id(&self) -> u32 {
        ID
    }

    fn features(&self) -> u64 {
        let always = 1 << VIRTIO_BLK_F_SIZE_MAX | 1 << VIRTIO_BLK_F_SEG_MAX | 1 << VIRTIO_BLK_F_BLK_SIZE;
        let written = 1 << VIRTIO_BLK_F_FLUSH | 1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES;
        always | if self.backing.read_only { 1 << VIRTIO_BLK_F_RO } else { written }
    }

    fn queue_sizes(&self) -> &[u16] {
        &QUEUES
    }

    /// `struct virtio_blk_config`, up to `unused1`; what no offered feature speaks of is zero.
    fn read_config(&self, offset: u64, data: &mut [u8]) {
        let mut config = [0u8; 60];
        let mut put = |at: usize, value: u32| config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        put(0, self.backing.capacity as u32);
        put(4, (self.backing.capacity >> 32) as u32);
        put(8, MOST_BYTES);
        put(12, MOST_PIECES);
        put(20, SECTOR as u32);
        if !self.backing.read_only {
            put(36, MOST_DISCARDED);
            put(40, MOST_DISCARDED_RANGES);
            // Whole pages of a file can be given back.
            put(44, 8);
            put(48, MOST_ZEROED);
            put(52, 1);
            // `write_zeroes_may_unmap`
            put(56, 1);
        }
        read_from(&config, offset, data);
    }

    /// Nothing there can be written: `writeback` is of a feature that isn't offered.
    fn write_config(&mut self, _offset: u64, _data: &[u8]) {}

    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError> {
        for chain in chains(queue, queues, memory)? {
            let head = chain.head_index();
            let (readable, writable) = pieces(queue, chain, memory, usize::from(QUEUES[QUEUE]))?;
            let Some(written) = self.answer(readable, writable) else {
                return Err(VirtioError::Chain { queue, why: "no byte to write the outcome to".to_string() });
            };
            used(queue, queues, memory, head, written)?;
        }
        Ok(())
    }

    fn begin(&mut self, features: u64) {
        self.write_through = features >> VIRTIO_BLK_F_FLUSH & 1 == 0;
    }

    /// A driver that resets gives up what it hasn't heard of (virtio 1.2, 2.4), and whoever carries out the reset may
    /// not be one who may touch the file.
    fn finishes_before_reset(&self) -> bool {
        false
    }

    fn reset(&mut self) {
        self.write_through = false;
    }
}
