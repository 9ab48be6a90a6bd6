//! Filling the mailbox of a machine that stands still, wherever its pages lie.

use super::layout::PAGE;
use super::places::{decode, runs};
use super::{Wake, archive_page, header};
use crate::{Blob, MachineError};
use std::io::{self, Read};

/// Bytes that are read together, whole pages.
const CHUNK: usize = 1 << 20;

/// A machine with a mailbox, to whoever fills that.
pub trait Addressee {
    /// A reader of what a part holds.
    ///
    /// # Errors
    /// Its file can't be opened.
    fn open<'a>(&self, part: &'a Blob) -> io::Result<Box<dyn Read + 'a>>;

    /// Writes bytes to the page at `place`, and on into those behind it.
    ///
    /// # Errors
    /// It isn't RAM of the machine, or can't be written.
    fn write(&self, place: u64, bytes: &[u8]) -> Result<(), MachineError>;

    /// What is wrong with the saved machine.
    fn broken(&self, why: String) -> MachineError;
}

/// Puts the program, the archive (`work`) and the header where `list`, as [`Places::encode`](super::places::Places::encode)
/// wrote it, says that the pages are.
///
/// # Errors
/// A list that is none, a mailbox that is too small, parts that can't be read, and what [`Addressee::write`] fails with.
pub fn fill(to: &dyn Addressee, list: &[u8], work: &[Blob], wake: &Wake) -> Result<(), MachineError> {
    let places = decode(list).map_err(|e| to.broken(e.to_string()))?;
    let mailbox = Mailbox { to, places };
    let program = mailbox.pour(0, &wake.init)?;
    let mut archive = Vec::new();
    for part in work {
        let read = to.open(part).and_then(|mut source| source.read_to_end(&mut archive));
        read.map_err(MachineError::os(reading(part)))?;
    }
    let begin = archive_page(program);
    mailbox.write(begin, &archive)?;
    // Last, and over what is too long: then there is no header.
    let last = (mailbox.places.len() as u64).saturating_sub(1);
    let taken = begin + (archive.len() as u64).div_ceil(PAGE as u64);
    if taken > last {
        let (room, bytes) = (last * PAGE as u64, taken * PAGE as u64);
        return Err(to.broken(format!("a mailbox of {room} bytes for {bytes} bytes of work")));
    }
    mailbox.write(last, &header(program, &archive, wake))
}

struct Mailbox<'a> {
    to: &'a dyn Addressee,
    places: Vec<u64>,
}

impl Mailbox<'_> {
    /// Writes parts one after the other from a page on; returns their bytes.
    fn pour(&self, first: u64, parts: &[Blob]) -> Result<u64, MachineError> {
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut done = 0;
        for part in parts {
            let mut source = self.to.open(part).map_err(MachineError::os(reading(part)))?;
            loop {
                let room = (CHUNK - chunk.len()) as u64;
                let read = source.by_ref().take(room).read_to_end(&mut chunk);
                if read.map_err(MachineError::os(reading(part)))? == 0 {
                    break;
                }
                if chunk.len() == CHUNK {
                    self.write(first + done / PAGE as u64, &chunk)?;
                    done += chunk.len() as u64;
                    chunk.clear();
                }
            }
        }
        self.write(first + done / PAGE as u64, &chunk)?;
        Ok(done + chunk.len() as u64)
    }

    /// Writes from a page on; what is adjacent in RAM goes there at once.
    fn write(&self, first: u64, bytes: &[u8]) -> Result<(), MachineError> {
        runs(&self.places, first, bytes.len())
            .into_iter()
            .try_for_each(|(place, part)| self.to.write(place, &bytes[part]))
    }
}

fn reading(part: &Blob) -> String {
    format!("reading {part} for the mailbox")
}
