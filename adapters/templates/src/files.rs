//! Marks of files: enough to tell one that was truncated, damaged or altered.

use crate::TemplateError;
use crate::stamp::Stamp;
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

const PAGE: usize = 4096;
const CHUNK: usize = 1 << 20;
static ZEROES: [u8; PAGE] = [0; PAGE];

/// A file as it was when the machine was saved.
///
/// Summing up RAM takes a tenth of a second or more, a look at the stamp none: only a file
/// whose stamp is another is summed up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileMark {
    name: String,
    bytes: u64,
    /// [`sum`] of its content.
    sum: u32,
    stamp: Stamp,
}

impl FileMark {
    fn of(dir: &Path, name: &str) -> io::Result<Self> {
        let file = File::open(dir.join(name))?;
        // Before it is read: what is written meanwhile shows in the stamp.
        let stamp = Stamp::of(&file.metadata()?);
        let bytes = file.metadata()?.len();
        Ok(Self { name: name.to_string(), bytes, sum: sum(&file, bytes)?, stamp })
    }

    /// True if the file is as it was but its stamp was another, and is known now.
    pub(crate) fn check(&mut self, dir: &Path) -> Result<bool, String> {
        let path = dir.join(&self.name);
        let found = fs::metadata(&path).map_err(|e| format!("looking at {}: {e}", self.name))?;
        if found.len() != self.bytes {
            return Err(format!("{} has {} bytes, {} were written", self.name, found.len(), self.bytes));
        }
        if Stamp::of(&found) == self.stamp {
            return Ok(false);
        }
        let now = Self::of(dir, &self.name).map_err(|e| format!("reading {}: {e}", self.name))?;
        if now.sum != self.sum {
            return Err(format!("{} was changed", self.name));
        }
        self.stamp = now.stamp;
        Ok(true)
    }
}

/// CRC-32 over the pages that hold anything, each after its number: where the holes of a
/// sparse file are does not matter, since copies may have others.
fn sum(file: &File, bytes: u64) -> io::Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut buffer = vec![0; CHUNK];
    let mut at = 0;
    while let Some(start) = seek(file, at, Whence::SeekData)? {
        let end = seek(file, start, Whence::SeekHole)?.unwrap_or(bytes);
        at = start / PAGE as u64 * PAGE as u64;
        while at < end {
            let chunk = &mut buffer[..CHUNK.min((bytes - at) as usize)];
            file.read_exact_at(chunk, at)?;
            for (page, number) in chunk.chunks(PAGE).zip(at / PAGE as u64..) {
                if page != &ZEROES[..page.len()] {
                    hasher.update(&number.to_le_bytes());
                    hasher.update(page);
                }
            }
            at += chunk.len() as u64;
        }
    }
    Ok(hasher.finalize())
}

/// `None` past the last data.
fn seek(file: &File, at: u64, whence: Whence) -> io::Result<Option<u64>> {
    match lseek(file, at as i64, whence) {
        Ok(found) => Ok(Some(found as u64)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Marks of all files in a directory, by name.
pub(crate) fn mark_all(dir: &Path) -> Result<Vec<FileMark>, TemplateError> {
    let mut marks = Vec::new();
    for entry in fs::read_dir(dir).map_err(TemplateError::io("reading", dir))? {
        let name = entry.map_err(TemplateError::io("reading", dir))?.file_name();
        let name = name.to_string_lossy();
        marks.push(FileMark::of(dir, &name).map_err(TemplateError::io("reading", &dir.join(&*name)))?);
    }
    marks.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(marks)
}

/// Bytes on disk of a directory's files; what vanishes meanwhile counts nothing.
pub(crate) fn bytes_on_disk(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.filter_map(|e| Some(e.ok()?.metadata().ok()?.blocks() * 512)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summed(pieces: &[(u64, &[u8])], bytes: u64) -> u32 {
        let file = tempfile::tempfile().unwrap();
        file.set_len(bytes).unwrap();
        for (at, piece) in pieces {
            file.write_all_at(piece, *at).unwrap();
        }
        sum(&file, bytes).unwrap()
    }

    #[test]
    fn holes_are_as_good_as_zeroes_and_places_count() {
        let bytes = 3 * CHUNK as u64 + 5;
        let sparse = summed(&[(9 * PAGE as u64, b"data"), (bytes - 1, b"x")], bytes);
        let zeroes = vec![0; bytes as usize];
        let dense = summed(&[(0, &zeroes), (9 * PAGE as u64, b"data"), (bytes - 1, b"x")], bytes);
        assert_eq!(sparse, dense);
        assert_ne!(sparse, summed(&[(8 * PAGE as u64, b"data"), (bytes - 1, b"x")], bytes));
        assert_ne!(sparse, summed(&[(9 * PAGE as u64, b"dath"), (bytes - 1, b"x")], bytes));
        assert_eq!(summed(&[], 0), summed(&[], bytes));
    }
}
