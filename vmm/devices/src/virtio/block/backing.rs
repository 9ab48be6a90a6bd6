//! The file behind a disk: positioned input and output, straight from and to guest memory.

use super::{DiskError, SECTOR};
use crate::virtio::chain::Pieces;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, FileTypeExt};

/// Written where the file system has no zeroes of its own.
static ZEROES: [u8; 64 << 10] = [0; 64 << 10];
/// Most pieces of one call (`UIO_MAXIOV`, include/uapi/linux/uio.h).
const MOST_PIECES: usize = 1024;

pub(super) struct Backing {
    file: File,
    pub(super) read_only: bool,
    /// In sectors.
    pub(super) capacity: u64,
}

impl Backing {
    /// Checks what later could only be told to the guest, as an error of its disk.
    pub(super) fn new(file: File, read_only: bool) -> Result<Self, DiskError> {
        let metadata =
            file.metadata().map_err(|source| DiskError::Os { doing: "looking at its file", source })?;
        let kind = metadata.file_type();
        if !kind.is_file() {
            let device = if kind.is_block_device() { "block device" } else { "special file" };
            return Err(DiskError::NoFile { kind: if kind.is_dir() { "directory" } else { device } });
        }
        let bytes = metadata.len();
        if bytes == 0 || !bytes.is_multiple_of(SECTOR) {
            return Err(DiskError::Size { bytes });
        }
        // SAFETY: no pointers.
        let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
        if flags < 0 {
            let source = io::Error::last_os_error();
            return Err(DiskError::Os { doing: "asking how its file was opened", source });
        }
        let how = match flags & libc::O_ACCMODE {
            libc::O_WRONLY => "for writing only",
            libc::O_RDONLY if !read_only => "for reading only",
            // Linux then writes at the end, wherever it is told to (pwrite(2), BUGS).
            _ if !read_only && flags & libc::O_APPEND != 0 => "for appending",
            _ => return Ok(Self { file, read_only, capacity: bytes / SECTOR }),
        };
        Err(DiskError::Opened { how })
    }

    /// Fills `into` from byte `offset` on.
    pub(super) fn read(&self, offset: u64, into: &Pieces<'_>) -> io::Result<()> {
        let fd = self.file.as_raw_fd();
        // SAFETY: the kernel writes to these pieces, which are mapped guest memory and no one's reference.
        transfer(offset, into, |pieces, count, at| unsafe { libc::preadv(fd, pieces, count, at) })
    }

    /// Writes `from` at byte `offset`.
    pub(super) fn write(&self, offset: u64, from: &Pieces<'_>) -> io::Result<()> {
        let fd = self.file.as_raw_fd();
        // SAFETY: the kernel reads these pieces, which are mapped guest memory.
        transfer(offset, from, |pieces, count, at| unsafe { libc::pwritev(fd, pieces, count, at) })
    }

    /// Waits until what was written is where it survives the host.
    pub(super) fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Gives the room of these bytes back; they are zeroes then. [`unsupported`] where the file system can't.
    pub(super) fn discard(&self, offset: u64, bytes: u64) -> io::Result<()> {
        self.allocate(libc::FALLOC_FL_PUNCH_HOLE, offset, bytes)
    }

    /// Makes these bytes zeroes, with or without room behind them.
    pub(super) fn zero(&self, offset: u64, bytes: u64, may_discard: bool) -> io::Result<()> {
        let how = if may_discard { libc::FALLOC_FL_PUNCH_HOLE } else { libc::FALLOC_FL_ZERO_RANGE };
        match self.allocate(how, offset, bytes) {
            Err(e) if unsupported(&e) => {}
            done => return done,
        }
        let end = offset + bytes;
        for at in (offset..end).step_by(ZEROES.len()) {
            let count = (end - at).min(ZEROES.len() as u64) as usize;
            self.file.write_all_at(&ZEROES[..count], at)?;
        }
        Ok(())
    }

    fn allocate(&self, how: libc::c_int, offset: u64, bytes: u64) -> io::Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let (offset, bytes) = (position(offset)?, position(bytes)?);
        let how = how | libc::FALLOC_FL_KEEP_SIZE;
        loop {
            // SAFETY: no pointers.
            if unsafe { libc::fallocate(self.file.as_raw_fd(), how, offset, bytes) } == 0 {
                return Ok(());
            }
            let e = io::Error::last_os_error();
            if e.kind() != io::ErrorKind::Interrupted {
                return Err(e);
            }
        }
    }
}

/// Whether this is the file system's answer that it has no such operation.
pub(super) fn unsupported(e: &io::Error) -> bool {
    matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS))
}

fn position(offset: u64) -> io::Result<libc::off_t> {
    libc::off_t::try_from(offset).map_err(io::Error::other)
}

/// Has `call` move all of `pieces`, whatever it takes at a time; an end of the file before that is an error.
fn transfer(
    mut offset: u64,
    pieces: &Pieces<'_>,
    call: impl Fn(*const libc::iovec, libc::c_int, libc::off_t) -> isize,
) -> io::Result<()> {
    let guards: Vec<_> = pieces.slices().iter().map(vm_memory::VolatileSlice::ptr_guard_mut).collect();
    let piece = |guard: &vm_memory::volatile_memory::PtrGuardMut| libc::iovec {
        iov_base: guard.as_ptr().cast(),
        iov_len: guard.len(),
    };
    let mut pieces: Vec<libc::iovec> = guards.iter().map(piece).collect();
    let mut begin = 0;
    while let Some(first) = pieces.get(begin) {
        if first.iov_len == 0 {
            begin += 1;
            continue;
        }
        let rest = &mut pieces[begin..];
        let count = rest.len().min(MOST_PIECES) as libc::c_int;
        let Ok(mut done) = usize::try_from(call(rest.as_ptr(), count, position(offset)?)) else {
            match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => continue,
                e => return Err(e),
            }
        };
        if done == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        offset += done as u64;
        for piece in rest {
            let part = piece.iov_len.min(done);
            piece.iov_base = piece.iov_base.wrapping_byte_add(part);
            piece.iov_len -= part;
            done -= part;
        }
    }
    Ok(())
}
