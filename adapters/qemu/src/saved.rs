//! What a saved machine consists of, as files, and how it is filled again.
//!
//! ```text
//! state      QEMU's device state (a migration stream without RAM)
//! ram0 …     RAM of each NUMA node, sparse
//! mailbox    where the mailbox's pages lie: a little-endian number each, in the order
//!            of the pages, node << 48 | page within the node
//! tsc        the rate of the time stamp counter that its kernel was told, kHz; 0 if none
//! console    what the guest printed until it stopped
//! ```

use crate::fds::{self, NodeRam};
use ktstr_machine::MachineError;
use ktstr_machine::mailbox::layout::PAGE;
use ktstr_machine::mailbox::places::Places;
use ktstr_machine::mailbox::{self, Addressee, marked};
use ktstr_machine::{Blob, Wake};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(crate) const STATE: &str = "state";
pub(crate) const MAILBOX: &str = "mailbox";
pub(crate) const TSC: &str = "tsc";
pub(crate) const CONSOLE: &str = "console";

const NODE_SHIFT: u32 = 48;
const CHUNK: usize = 1 << 20;
static ZEROES: [u8; PAGE] = [0; PAGE];

/// The file of a node's RAM.
pub(crate) fn ram_file(dir: &Path, node: usize) -> PathBuf {
    dir.join(format!("ram{node}"))
}

/// Writes the RAM of all nodes, without pages of zeroes, and the map of the mailbox,
/// whose pages are left out as well.
pub(crate) fn save_ram(nodes: &[NodeRam], pages: u64, dir: &Path) -> Result<(), MachineError> {
    let mut map = Places::new(pages);
    for (number, node) in nodes.iter().enumerate() {
        let path = ram_file(dir, number);
        let file = File::create_new(&path).map_err(os("making", &path))?;
        file.set_len(node.bytes).map_err(os("making", &path))?;
        save_node(node, number, &file, &mut map).map_err(|error| match error {
            Copy::Io(source) => os("writing RAM to", &path)(source),
            Copy::Mailbox(why) => broken(dir, why),
        })?;
        file.sync_all().map_err(os("writing RAM to", &path))?;
    }
    let path = dir.join(MAILBOX);
    let bytes = map.encode().map_err(|e| broken(dir, e.to_string()))?;
    std::fs::write(&path, bytes).map_err(os("writing", &path))
}

enum Copy {
    Io(std::io::Error),
    Mailbox(String),
}

impl From<std::io::Error> for Copy {
    fn from(error: std::io::Error) -> Self {
        Self::Io(error)
    }
}

fn save_node(node: &NodeRam, number: usize, to: &File, map: &mut Places) -> Result<(), Copy> {
    let mut buffer = vec![0; CHUNK];
    for_data(&node.file, node.bytes, |start, end| {
        let mut at = start;
        while at < end {
            let chunk = &mut buffer[..CHUNK.min((end - at) as usize)];
            node.file.read_exact_at(chunk, at)?;
            save_chunk(chunk, at, number, to, map)?;
            at += chunk.len() as u64;
        }
        Ok(())
    })
}

/// Writes each run of pages worth keeping.
fn save_chunk(chunk: &[u8], at: u64, node: usize, to: &File, map: &mut Places) -> Result<(), Copy> {
    let mut run = 0..0;
    let flush = |run: &std::ops::Range<usize>| {
        if run.is_empty() { Ok(()) } else { to.write_all_at(&chunk[run.clone()], at + run.start as u64) }
    };
    for (index, page) in chunk.chunks(PAGE).enumerate() {
        let begin = index * PAGE;
        let kept = match marked(page) {
            Some(mark) => {
                let page_number = (at + begin as u64) / PAGE as u64;
                let place = (node as u64) << NODE_SHIFT | page_number;
                map.found(mark, place).map_err(|e| Copy::Mailbox(e.to_string()))?;
                false
            }
            None => page != &ZEROES[..page.len()],
        };
        if kept && run.end == begin {
            run.end = begin + page.len();
        } else {
            flush(&run)?;
            run = if kept { begin..begin + page.len() } else { begin + page.len()..begin + page.len() };
        }
    }
    flush(&run)?;
    Ok(())
}

/// Copies a node's RAM from its file into fresh, empty memory.
pub(crate) fn load_node(node: &NodeRam, number: usize, dir: &Path) -> Result<(), MachineError> {
    let path = ram_file(dir, number);
    let from = File::open(&path).map_err(os("opening", &path))?;
    let bytes = from.metadata().map_err(os("reading", &path))?.len();
    if bytes != node.bytes {
        return Err(broken(dir, format!("ram{number} has {bytes} bytes, expected {}", node.bytes)));
    }
    let mut buffer = vec![0; CHUNK];
    let copied = for_data(&from, bytes, |start, end| {
        let mut at = start;
        while at < end {
            let chunk = &mut buffer[..CHUNK.min((end - at) as usize)];
            from.read_exact_at(chunk, at)?;
            node.file.write_all_at(chunk, at)?;
            at += chunk.len() as u64;
        }
        Ok(())
    });
    copied.map_err(|error: std::io::Error| os("copying RAM from", &path)(error))
}

/// Calls `each` for every part of a sparse file that holds data.
fn for_data<E: From<std::io::Error>>(
    file: &File,
    bytes: u64,
    mut each: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<(), E> {
    let seek = |at: u64, whence| match lseek(file, at as i64, whence) {
        Ok(found) => Ok(Some(found as u64)),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(E::from(error.into())),
    };
    let mut at = 0;
    while let Some(start) = seek(at, Whence::SeekData)? {
        let end = seek(start, Whence::SeekHole)?.unwrap_or(bytes).min(bytes);
        if end <= start {
            break;
        }
        each(start, end)?;
        at = end;
    }
    Ok(())
}

/// Puts the work of a resumed machine into its mailbox.
pub(crate) fn fill_mailbox(
    nodes: &[NodeRam],
    archive: &[Blob],
    wake: &Wake,
    dir: &Path,
) -> Result<(), MachineError> {
    let path = dir.join(MAILBOX);
    let list = std::fs::read(&path).map_err(os("reading", &path))?;
    mailbox::fill(&Machine { nodes, dir }, &list, archive, wake)
}

struct Machine<'a> {
    nodes: &'a [NodeRam],
    dir: &'a Path,
}

impl Addressee for Machine<'_> {
    fn open<'a>(&self, part: &'a Blob) -> std::io::Result<Box<dyn Read + 'a>> {
        fds::content(part)
    }

    fn write(&self, place: u64, bytes: &[u8]) -> Result<(), MachineError> {
        let (number, page) = ((place >> NODE_SHIFT) as usize, place & ((1 << NODE_SHIFT) - 1));
        let at = page * PAGE as u64;
        let node = self
            .nodes
            .get(number)
            .filter(|n| at + bytes.len() as u64 <= n.bytes)
            .ok_or_else(|| self.broken(format!("a page of the mailbox at {at:#x} of node {number}")))?;
        node.file.write_all_at(bytes, at).map_err(MachineError::os("filling the mailbox"))
    }

    fn broken(&self, why: String) -> MachineError {
        broken(self.dir, why)
    }
}

/// An error about one of the files. One that is missing or too short means a broken
/// template; anything else is the system's.
fn os(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> MachineError {
    let path = path.to_path_buf();
    move |error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::UnexpectedEof => {
            broken(path.parent().unwrap_or(&path), format!("{doing} {}: {error}", path.display()))
        }
        _ => MachineError::os(format!("{doing} {}", path.display()))(error),
    }
}

pub(crate) fn broken(dir: &Path, why: String) -> MachineError {
    MachineError::Template { dir: dir.to_path_buf(), why }
}

#[cfg(test)]
mod tests;
