//! The mailbox of a machine that goes on: where its pages are, and filling them.

use crate::errors::broken;
use crate::memory::Ram;
use ktstr_machine::mailbox::layout::PAGE;
use ktstr_machine::mailbox::{self, Addressee};
use ktstr_machine::{Blob, MachineError, Wake};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// The file of the places: guest-physical page numbers.
pub(crate) const MAILBOX: &str = "mailbox";

/// Puts the work of a machine that stands still into its mailbox.
pub(crate) fn fill(ram: &Ram, work: &[Blob], wake: &Wake, dir: &Path) -> Result<(), MachineError> {
    let list =
        std::fs::read(dir.join(MAILBOX)).map_err(|e| broken(dir, format!("reading {MAILBOX}: {e}")))?;
    mailbox::fill(&Machine { ram, dir }, &list, work, wake)
}

struct Machine<'a> {
    ram: &'a Ram,
    dir: &'a Path,
}

impl Addressee for Machine<'_> {
    fn open<'a>(&self, part: &'a Blob) -> io::Result<Box<dyn Read + 'a>> {
        content(part)
    }

    fn write(&self, place: u64, bytes: &[u8]) -> Result<(), MachineError> {
        let written = place.checked_mul(PAGE as u64).map(|at| self.ram.write(at, bytes));
        written
            .and_then(Result::ok)
            .ok_or_else(|| self.broken(format!("page {place:#x} of its mailbox lies outside RAM")))
    }

    fn broken(&self, why: String) -> MachineError {
        broken(self.dir, why)
    }
}

/// What a part holds.
fn content(part: &Blob) -> io::Result<Box<dyn Read + '_>> {
    Ok(match part {
        Blob::Bytes(bytes) => Box::new(bytes.as_slice()),
        Blob::File(path) => Box::new(File::open(path)?),
        Blob::Range { path, from, bytes } => {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(*from))?;
            Box::new(file.take(*bytes))
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_machine::PhysicalMemory;
    use ktstr_machine::mailbox::layout::{ARCHIVE_BYTES_AT, MAGIC};
    use ktstr_machine::mailbox::places::Places;
    use ktstr_vmm::{GuestRam, RamOptions};
    use std::sync::Arc;

    fn ram() -> Ram {
        Ram(GuestRam::create(&[64 * PAGE as u64, 64 * PAGE as u64], RamOptions::default()).unwrap())
    }

    fn places(dir: &Path, pages: &[u64]) {
        let mut places = Places::new(pages.len() as u64);
        (0..).zip(pages).for_each(|(mark, place)| places.found(mark, *place).unwrap());
        std::fs::write(dir.join(MAILBOX), places.encode().unwrap()).unwrap();
    }

    fn wake(bytes: &[&[u8]]) -> Wake {
        let init = bytes.iter().map(|b| Blob::Bytes(Arc::new(b.to_vec()))).collect();
        Wake { init, clock: None, entropy: [1; 32] }
    }

    #[test]
    fn program_archive_and_header_go_where_the_pages_are() {
        let (dir, ram) = (tempfile::tempdir().unwrap(), ram());
        // Scattered over both nodes.
        places(dir.path(), &[30, 31, 100, 5]);
        let file = dir.path().join("part");
        std::fs::write(&file, b"..two..").unwrap();
        let mut wake = wake(&[&[7; PAGE]]);
        wake.init.push(Blob::Range { path: file.clone(), from: 2, bytes: 3 });
        fill(&ram, &[Blob::File(file)], &wake, dir.path()).unwrap();
        let page = |number: u64| {
            let mut bytes = vec![0; PAGE];
            assert!(ram.read(number * PAGE as u64, &mut bytes));
            bytes
        };
        assert_eq!((page(30), &page(31)[..4]), (vec![7; PAGE], &b"two\0"[..]));
        assert_eq!(page(100)[..8], *b"..two..\0");
        let number = |at: usize| u64::from_le_bytes(page(5)[at..at + 8].try_into().unwrap());
        assert_eq!((number(0), number(ARCHIVE_BYTES_AT)), (MAGIC, 7));
    }

    #[test]
    fn a_mailbox_that_is_too_small_torn_or_elsewhere_is_refused() {
        let (dir, ram) = (tempfile::tempdir().unwrap(), ram());
        let why = |wake: &Wake| match fill(&ram, &[], wake, dir.path()) {
            Err(MachineError::Template { why, .. }) => why,
            other => panic!("{other:?}"),
        };
        assert!(why(&wake(&[])).contains("reading mailbox"));
        places(dir.path(), &[3, 4]);
        assert!(why(&wake(&[&[1; PAGE + 1]])).contains("4096 bytes for 8192 bytes of work"));
        std::fs::write(dir.path().join(MAILBOX), [0; 12]).unwrap();
        assert!(why(&wake(&[])).contains("12 bytes"));
        for place in [1 << 40, u64::MAX] {
            places(dir.path(), &[place, 4]);
            assert!(why(&wake(&[b"x"])).contains("outside RAM"));
        }
    }
}
