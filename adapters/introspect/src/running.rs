//! Machines that run on this host, as other processes of the same user find them.
//!
//! A process that runs a machine keeps a file about it in a runtime directory, locked for as
//! long as the machine lives. A file that nobody locks is a dead process's and is removed by
//! whoever sees it.

use crate::process_memory::ProcessMemory;
use ktstr_introspect_memory::{
    ImageError, MapError, Mapping, MemoryFault, PhysAddr, PhysRange, PhysicalMemory, RawImage, Segment,
};
use ktstr_machine::RamFile;
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SUFFIX: &str = "json";
/// The same reads whatever wrote it; raised when a field changes its meaning.
const LAYOUT: u32 = 1;
/// How often an announcement is written anew when others sweep it away.
const SWEPT_AWAY: usize = 10;

/// The directory could not be used.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {source}; set XDG_RUNTIME_DIR to a directory of your own")]
pub struct RunningError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// A machine's memory can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LiveMemoryError {
    /// It is not in files.
    #[error("the memory of the machine of {0} is in no file that other processes can open")]
    NoFiles(String),
    /// It is gone, or another user's.
    #[error("{0}; the machine may just have ended")]
    Map(#[from] MapError),
    /// It is in the memory of its process, which can't be opened.
    #[error("opening {path} to read the machine's memory: {source}; {hint}", path = path.display())]
    Process {
        /// The process's memory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
        /// What to do.
        hint: &'static str,
    },
    /// What was written of it makes no sense.
    #[error(transparent)]
    Image(#[from] ImageError),
}

/// A machine that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    layout: u32,
    /// The process that runs it.
    pub pid: u32,
    /// What it is run for: the test.
    pub name: String,
    /// Its mode and shape, for people.
    pub label: String,
    /// The kernel's ELF file with symbols, where there is one.
    pub vmlinux: Option<PathBuf>,
    ram: Vec<Stretch>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stretch {
    path: PathBuf,
    offset: u64,
    start: u64,
    length: u64,
}

impl Running {
    /// A machine of this process.
    pub fn new(name: &str, label: &str, vmlinux: Option<PathBuf>, ram: Vec<RamFile>) -> Self {
        let stretch =
            |f: RamFile| Stretch { path: f.path, offset: f.offset, start: f.start, length: f.length };
        Self {
            layout: LAYOUT,
            pid: std::process::id(),
            name: name.to_string(),
            label: label.to_string(),
            vmlinux,
            ram: ram.into_iter().map(stretch).collect(),
        }
    }

    /// Its memory, while it runs.
    ///
    /// # Errors
    /// [`LiveMemoryError`]
    pub fn memory(&self) -> Result<Arc<dyn PhysicalMemory>, LiveMemoryError> {
        if self.ram.is_empty() {
            return Err(LiveMemoryError::NoFiles(self.name.clone()));
        }
        let image = |s: &Stretch| -> Result<Box<dyn PhysicalMemory>, LiveMemoryError> {
            let start = PhysAddr(s.start);
            if ProcessMemory::is(&s.path) {
                let range = PhysRange { start, length: s.length };
                return Ok(Box::new(ProcessMemory::open(&s.path, s.offset, range)?));
            }
            let mapping = Arc::new(Mapping::open(&s.path)?);
            let segment = Segment { physical: start, offset: s.offset, length: s.length };
            Ok(Box::new(RawImage::with_segments(mapping, vec![segment])?))
        };
        let images = self.ram.iter().map(image).collect::<Result<Vec<_>, LiveMemoryError>>()?;
        let ranges = images.iter().flat_map(|i| i.ranges().to_vec()).collect();
        Ok(Arc::new(Stretches { images, ranges }))
    }
}

/// Memory in several files.
struct Stretches {
    images: Vec<Box<dyn PhysicalMemory>>,
    ranges: Vec<PhysRange>,
}

impl PhysicalMemory for Stretches {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let mut done = 0;
        while done < into.len() {
            let from = PhysAddr(at.0.wrapping_add(done as u64));
            let fault = MemoryFault { address: from, length: into.len() - done };
            let found = self.ranges.iter().zip(&self.images).find(|(range, _)| range.remaining(from) > 0);
            let (range, image) = found.ok_or(fault)?;
            let part = usize::try_from(range.remaining(from)).unwrap_or(usize::MAX).min(into.len() - done);
            image.read(from, &mut into[done..done + part])?;
            done += part;
        }
        Ok(())
    }

    fn ranges(&self) -> &[PhysRange] {
        &self.ranges
    }
}

/// Keeps the file about a machine until it is dropped.
#[derive(Debug)]
pub struct Announcement {
    path: PathBuf,
    /// Its lock says that the machine lives.
    _file: File,
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // Whoever sees it later finds it unlocked, and removes it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Lets others find a machine of this process, in `dir`, which is made if need be. What dead
/// processes left there is removed.
///
/// # Errors
/// [`RunningError`] when the directory can't be made or is another user's.
pub fn announce(dir: &Path, machine: &Running) -> Result<Announcement, RunningError> {
    make_private(dir).map_err(|source| failed("making", dir, source))?;
    sweep(dir);
    // Several of one process are told apart by where their memory is.
    let of_ram = machine.ram.first().map_or_else(String::new, |s| {
        format!("{}-{:x}", s.path.file_name().unwrap_or_default().to_string_lossy(), s.offset)
    });
    let name = format!("{}-{of_ram}", machine.pid);
    let path = dir.join(format!("{name}.{SUFFIX}"));
    let staged = dir.join(format!(".{name}"));
    let write = || -> io::Result<File> {
        let mut file = File::create(&staged)?;
        // Nobody sees it before it is locked.
        file.lock()?;
        file.write_all(&serde_json::to_vec(machine)?)?;
        std::fs::rename(&staged, &path)?;
        Ok(file)
    };
    // Who sweeps just before it is locked takes it for a dead one's.
    let mut file = write();
    for _ in 0..SWEPT_AWAY {
        match &file {
            Err(e) if e.kind() == io::ErrorKind::NotFound => file = write(),
            _ => break,
        }
    }
    let file = file.map_err(|source| failed("writing", &path, source))?;
    Ok(Announcement { path, _file: file })
}

/// Removes what dead processes left. What can't be looked at stays, as if it lived.
fn sweep(dir: &Path) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && File::open(entry.path()).is_ok_and(|file| file.try_lock_shared().is_ok()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// The machines that run, as told in `dir`; a directory that is not there tells of none.
///
/// # Errors
/// [`RunningError`] when the directory can't be read.
pub fn running(dir: &Path) -> Result<Vec<Running>, RunningError> {
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed("listing", dir, source)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(|source| failed("listing", dir, source))?.path();
        if path.extension().is_some_and(|e| e == SUFFIX) {
            found.extend(look_at(&path));
        }
    }
    found.sort_by(|a, b| (&a.name, a.pid).cmp(&(&b.name, b.pid)));
    Ok(found)
}

/// The machine that a file tells of, if it still lives.
fn look_at(path: &Path) -> Option<Running> {
    // One that has just gone is none.
    let file = File::open(path).ok()?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let machine: Running = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
            (machine.layout == LAYOUT).then_some(machine)
        }
        Ok(()) => {
            let _ = std::fs::remove_file(path);
            None
        }
        Err(TryLockError::Error(_)) => None,
    }
}

/// Makes a directory that only this user can use, or checks that it is one.
fn make_private(dir: &Path) -> io::Result<()> {
    if let Some(parent) = dir.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
    }
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let (owner, us) = (std::fs::metadata(dir)?.uid(), std::fs::metadata("/proc/self")?.uid());
    if owner == us {
        return Ok(());
    }
    Err(io::Error::other(format!("it belongs to user {owner}, expected {us}")))
}

fn failed(doing: &'static str, path: &Path, source: io::Error) -> RunningError {
    RunningError { doing, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    fn machine(ram: Vec<RamFile>) -> Running {
        Running::new("a_test", "tcg 1n1l2c1t", None, ram)
    }

    #[test]
    fn a_machine_is_found_while_it_is_announced_and_not_after() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("ktstr/machines");
        assert!(running(&place).unwrap().is_empty());
        let announced = announce(&place, &machine(Vec::new())).unwrap();
        assert_eq!(running(&place).unwrap(), [machine(Vec::new())]);
        drop(announced);
        assert!(running(&place).unwrap().is_empty());
    }

    #[test]
    fn what_a_dead_process_left_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let left = dir.path().join("1-7.json");
        std::fs::write(&left, serde_json::to_vec(&machine(Vec::new())).unwrap()).unwrap();
        assert!(running(dir.path()).unwrap().is_empty());
        assert!(!left.exists());
    }

    #[test]
    fn whoever_announces_sweeps_before() {
        let dir = tempfile::tempdir().unwrap();
        let lives = announce(dir.path(), &machine(Vec::new())).unwrap();
        let left = ["1-7.json", ".1-8"].map(|name| dir.path().join(name));
        left.iter().for_each(|path| std::fs::write(path, "{}").unwrap());
        let other = Running { pid: 3, ..machine(Vec::new()) };
        let _other = announce(dir.path(), &other).unwrap();
        assert!(left.iter().all(|path| !path.exists()));
        assert_eq!(running(dir.path()).unwrap().len(), 2);
        drop(lives);
    }

    #[test]
    fn memory_of_a_process_is_read_where_it_is_mapped() {
        let bytes = vec![b'x'; 64].into_boxed_slice();
        let (path, offset) = (PathBuf::from("/proc/self/mem"), bytes.as_ptr() as u64);
        let part = |start, offset| RamFile { path: path.clone(), offset, start, length: 32 };
        let memory = machine(vec![part(0, offset), part(1 << 32, offset + 32)]).memory().unwrap();
        let mut seen = [0; 8];
        memory.read(PhysAddr((1 << 32) + 24), &mut seen).unwrap();
        assert_eq!(&seen, b"xxxxxxxx");
        assert!(memory.read(PhysAddr((1 << 32) + 25), &mut seen).is_err());
        // Nothing is mapped there.
        let memory = machine(vec![part(0, 0)]).memory().unwrap();
        assert!(memory.read(PhysAddr(0), &mut seen).is_err());
        drop(bytes);
    }

    #[test]
    fn memory_lies_where_the_machine_says() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(3 << 12).unwrap();
        file.as_file().write_all_at(b"abcd", (1 << 12) - 2).unwrap();
        let part = |offset, start| RamFile { path: file.path().into(), offset, start, length: 1 << 12 };
        let memory =
            machine(vec![part(0, 0), part(1 << 12, 1 << 12), part(2 << 12, 1 << 32)]).memory().unwrap();
        let mut seen = [0; 4];
        memory.read(PhysAddr((1 << 12) - 2), &mut seen).unwrap();
        assert_eq!(&seen, b"abcd");
        assert!(memory.read(PhysAddr((2 << 12) - 2), &mut seen).is_err());
        assert!(memory.read(PhysAddr(1 << 32), &mut seen).is_ok());
        assert!(matches!(machine(Vec::new()).memory(), Err(LiveMemoryError::NoFiles(_))));
    }
}
