//! The memory of the kernel that runs here: `/proc/kcore`, an ELF core that is made as it is read (fs/proc/kcore.c).

use ktstr_introspect_memory::{MemoryFault, PhysAddr, PhysRange, PhysicalMemory};
use ktstr_introspect_symbols::START_KERNEL_MAP;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Sizes of an ELF64 header and of one program header.
const HEADER: usize = 64;
const PROGRAM: usize = 56;
/// Stretches of memory; a machine has some dozen.
const MAX_PROGRAMS: u16 = 4096;
/// `EM_X86_64`.
const X86_64: u16 = 62;
/// `PT_LOAD`.
const LOAD: u32 = 1;
/// What the kernel writes where a stretch is at no physical address of its own: vmalloc, modules (since 4.19).
const NOWHERE: u64 = u64::MAX;

/// The running kernel's memory can't be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelCoreError {
    /// The kernel doesn't show it, or not to us.
    #[error(
        "the kernel's memory can't be read: {path}: {source}; it takes CONFIG_PROC_KCORE=y, root, and no lockdown"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// It isn't what is expected.
    #[error("{path} is no core of a running x86-64 kernel: {why}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A stretch of RAM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    physical: u64,
    offset: u64,
    length: u64,
}

/// The RAM of the machine that this kernel runs on, through `/proc/kcore`. What the kernel has no page for reads as zero.
#[derive(Debug)]
pub struct KernelCore {
    file: File,
    stretches: Vec<Stretch>,
    ranges: Vec<PhysRange>,
}

impl KernelCore {
    /// Opens it: `/proc/kcore`, or a file that looks like it.
    ///
    /// # Errors
    /// [`KernelCoreError`]
    pub fn open(path: &Path) -> Result<Self, KernelCoreError> {
        let failed = |source| KernelCoreError::Open { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let mut header = [0; HEADER];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        let bad = |why: String| KernelCoreError::Content { path: path.to_path_buf(), why };
        let (at, count) = programs_of(&header).map_err(bad)?;
        let mut table = vec![0; usize::from(count) * PROGRAM];
        file.read_exact_at(&mut table, at).map_err(failed)?;
        let stretches = stretches(&table).map_err(bad)?;
        let range = |s: &Stretch| PhysRange { start: PhysAddr(s.physical), length: s.length };
        let ranges = stretches.iter().map(range).collect();
        Ok(Self { file, stretches, ranges })
    }
}

impl PhysicalMemory for KernelCore {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        let mut done = 0;
        while done < into.len() {
            let length = into.len() - done;
            let fault = MemoryFault { address: PhysAddr(at.0.wrapping_add(done as u64)), length };
            let address = at.0.checked_add(done as u64).ok_or(fault)?;
            let after = self.stretches.partition_point(|stretch| stretch.physical <= address);
            let stretch = after.checked_sub(1).and_then(|index| self.stretches.get(index)).ok_or(fault)?;
            let inside = address - stretch.physical;
            let there = stretch.length.checked_sub(inside).filter(|there| *there > 0).ok_or(fault)?;
            let part = usize::try_from(there).unwrap_or(usize::MAX).min(length);
            let wanted = &mut into[done..done + part];
            self.file.read_exact_at(wanted, stretch.offset + inside).map_err(|_| fault)?;
            done += part;
        }
        Ok(())
    }

    fn ranges(&self) -> &[PhysRange] {
        &self.ranges
    }
}

/// Where the program headers are, and how many.
fn programs_of(header: &[u8; HEADER]) -> Result<(u64, u16), String> {
    // Class 64, little-endian, version 1.
    if header[..7] != *b"\x7fELF\x02\x01\x01" {
        return Err(format!("it starts with {:02x?}, expected a little-endian ELF64 file", &header[..7]));
    }
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    if half(18) != X86_64 {
        return Err(format!("its machine is number {}, expected {X86_64}", half(18)));
    }
    let count = half(56);
    if usize::from(half(54)) != PROGRAM || count > MAX_PROGRAMS {
        return Err(format!("it has {count} program headers of {} bytes", half(54)));
    }
    Ok((word(header, 32), count))
}

/// The direct map: RAM by physical address. The image's own mapping shows a part of the same once more.
fn stretches(table: &[u8]) -> Result<Vec<Stretch>, String> {
    let mut found = Vec::new();
    for program in table.chunks_exact(PROGRAM) {
        let kind = u32::from_le_bytes([program[0], program[1], program[2], program[3]]);
        let (offset, seen_at, physical) = (word(program, 8), word(program, 16), word(program, 24));
        let length = word(program, 32);
        let fits = physical.checked_add(length).is_some() && offset.checked_add(length).is_some();
        if kind == LOAD && physical != NOWHERE && seen_at < START_KERNEL_MAP && length > 0 && fits {
            found.push(Stretch { physical, offset, length });
        }
    }
    found.sort_by_key(|stretch| stretch.physical);
    if found.is_empty() {
        return Err("it tells the physical address of no memory (a kernel before 4.19?)".to_string());
    }
    match found.windows(2).find(|pair| pair[1].physical - pair[0].physical < pair[0].length) {
        Some(pair) => Err(format!("two of its stretches overlap at {:#x}", pair[1].physical)),
        None => Ok(found),
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    const DIRECT: u64 = 0xffff_8880_0000_0000;

    /// A core with these program headers `(virtual, physical, bytes)`.
    fn core(loads: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut header = vec![0; HEADER];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        header[18..20].copy_from_slice(&X86_64.to_le_bytes());
        header[32..40].copy_from_slice(&(HEADER as u64).to_le_bytes());
        header[54..56].copy_from_slice(&(PROGRAM as u16).to_le_bytes());
        header[56..58].copy_from_slice(&(loads.len() as u16).to_le_bytes());
        let mut offset = (HEADER + loads.len() * PROGRAM) as u64;
        let mut data = Vec::new();
        for (seen_at, physical, bytes) in loads {
            header.extend(LOAD.to_le_bytes());
            header.extend(0u32.to_le_bytes());
            for word in [offset, *seen_at, *physical, bytes.len() as u64, bytes.len() as u64, 4096] {
                header.extend(word.to_le_bytes());
            }
            offset += bytes.len() as u64;
            data.extend(*bytes);
        }
        [header, data].concat()
    }

    fn open(bytes: &[u8]) -> Result<KernelCore, KernelCoreError> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(bytes).unwrap();
        KernelCore::open(file.path())
    }

    #[test]
    fn ram_is_read_by_physical_address_and_what_is_twice_there_once() {
        let core = core(&[
            (START_KERNEL_MAP + 0x100_0000, 0x1002, b"text"),
            (0xffff_c900_0000_0000, NOWHERE, b"vmalloc"),
            (DIRECT + 0x1008, 0x1008, b"above"),
            (DIRECT + 0x1000, 0x1000, b"01234567"),
        ]);
        let memory = open(&core).unwrap();
        let starts: Vec<u64> = memory.ranges().iter().map(|range| range.start.0).collect();
        assert_eq!(starts, [0x1000, 0x1008]);
        let mut bytes = [0; 4];
        memory.read(PhysAddr(0x1006), &mut bytes).unwrap();
        assert_eq!(&bytes, b"67ab");
        let fault = memory.read(PhysAddr(0x100b), &mut bytes).unwrap_err();
        assert_eq!(fault, MemoryFault { address: PhysAddr(0x100d), length: 2 });
        assert!(memory.read(PhysAddr(0xfff), &mut bytes).is_err());
        assert!(memory.read(PhysAddr(u64::MAX), &mut bytes).is_err());
    }

    #[test]
    fn what_is_no_kernels_core_is_told() {
        let why = |bytes: &[u8]| open(bytes).unwrap_err().to_string();
        assert!(why(&[0; HEADER]).contains("expected a little-endian ELF64"));
        assert!(why(b"short").contains("CONFIG_PROC_KCORE=y"));
        assert!(why(&core(&[(DIRECT, NOWHERE, b"x")])).contains("no memory"));
        assert!(why(&core(&[(DIRECT, 0, b"xyz"), (DIRECT + 1, 1, b"y")])).contains("overlap at 0x1"));
        let mut other = core(&[]);
        other[18] = 183;
        assert!(why(&other).contains("machine is number 183"));
        let none = KernelCore::open(Path::new("/no/such/kcore")).unwrap_err().to_string();
        assert!(none.contains("CONFIG_PROC_KCORE=y"), "{none}");
    }

    proptest! {
        #[test]
        fn no_core_does_harm(flips in proptest::collection::vec((0usize..400, any::<u8>()), 0..24), at: u64) {
            let mut bytes = core(&[(DIRECT, 0, &[1; 64]), (DIRECT + 64, 64, &[2; 64]), (DIRECT + 256, 256, &[3; 64])]);
            let size = bytes.len();
            flips.into_iter().for_each(|(at, value)| bytes[at % size] = value);
            if let Ok(memory) = open(&bytes) {
                let _ = memory.read(PhysAddr(at), &mut [0; 16]);
                let _ = memory.read(PhysAddr(at % 400), &mut [0; 16]);
            }
        }
    }
}
