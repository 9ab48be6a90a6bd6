//! An ELF core of guest-physical memory, as `crash` and `drgn` read it: a PT_LOAD a
//! region with its physical address, and an NT_PRSTATUS note a vCPU (System V gABI,
//! chapter 5; `struct elf_prstatus` in include/linux/elfcore.h).

use crate::arch::{EM_MACHINE, prstatus};
use ktstr_vmm::{GuestRam, Registers};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PAGE: u64 = 4096;
const CHUNK: usize = 1 << 20;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;
const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;

/// Writes the core; what is zero in RAM becomes a hole in the file.
pub(crate) fn write(path: &Path, ram: &GuestRam, vcpus: &[Registers]) -> io::Result<()> {
    let file = File::create(path)?;
    let regions = ram.regions();
    let notes: Vec<u8> = (1u32..).zip(vcpus).flat_map(|(pid, registers)| prstatus(pid, registers)).collect();
    let notes_at = (HEADER + PROGRAM_HEADER * (regions.len() + 1)) as u64;
    let mut at = (notes_at + notes.len() as u64).next_multiple_of(PAGE);
    let mut head = header(regions.len() as u16 + 1);
    head.extend(program_header(PT_NOTE, notes_at, 0, notes.len() as u64));
    for region in regions {
        head.extend(program_header(PT_LOAD, at, region.start, region.bytes));
        if let Some(source) = ram.file(region.node) {
            copy(&source, region.file_offset, &file, at, region.bytes)?;
        }
        at += region.bytes;
    }
    file.set_len(at)?;
    head.extend(notes);
    file.write_all_at(&head, 0)
}

fn copy(source: &File, from: u64, target: &File, to: u64, bytes: u64) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut done = 0;
    while done < bytes {
        let count = usize::try_from(bytes - done).unwrap_or(CHUNK).min(CHUNK);
        let piece = &mut buffer[..count];
        source.read_exact_at(piece, from + done)?;
        if piece.iter().any(|byte| *byte != 0) {
            target.write_all_at(piece, to + done)?;
        }
        done += count as u64;
    }
    Ok(())
}

/// ELF header: 64-bit, little-endian, ET_CORE.
fn header(program_headers: u16) -> Vec<u8> {
    let mut bytes = b"\x7fELF\x02\x01\x01".to_vec();
    bytes.resize(16, 0);
    bytes.extend(4u16.to_le_bytes());
    bytes.extend(EM_MACHINE.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend((HEADER as u64).to_le_bytes());
    bytes.extend(0u64.to_le_bytes());
    bytes.extend(0u32.to_le_bytes());
    for half in [HEADER as u16, PROGRAM_HEADER as u16, program_headers, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    bytes
}

fn program_header(kind: u32, offset: u64, physical: u64, bytes: u64) -> Vec<u8> {
    let mut header = kind.to_le_bytes().to_vec();
    header.extend(0u32.to_le_bytes());
    for word in [offset, 0, physical, bytes, bytes, 0] {
        header.extend(word.to_le_bytes());
    }
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::{PR_REG, PRSTATUS};
    use ktstr_vmm::RamOptions;
    use object::read::elf::{FileHeader, ProgramHeader};
    use object::{Endianness, elf};
    use vm_memory::{Bytes, GuestAddress};

    #[test]
    fn another_reader_finds_memory_and_registers() {
        let mib = 1u64 << 20;
        let ram = GuestRam::create(&[2 * mib, mib], RamOptions::default()).unwrap();
        ram.memory().write_slice(b"needle", GuestAddress(2 * mib + 100)).unwrap();
        let registers = Registers { ip: 0x1234, sp: 0x5678, ..Default::default() };
        let path = tempfile::tempdir().unwrap();
        let path = path.path().join("core");
        write(&path, &ram, &[registers, registers]).unwrap();
        let data = std::fs::read(&path).unwrap();
        let header = elf::FileHeader64::<Endianness>::parse(&*data).unwrap();
        let endian = header.endian().unwrap();
        let segments = header.program_headers(endian, &*data).unwrap();
        let loads: Vec<_> = segments.iter().filter(|s| s.p_type(endian) == elf::PT_LOAD).collect();
        let at: Vec<_> = loads.iter().map(|s| (s.p_paddr(endian), s.p_memsz(endian))).collect();
        assert_eq!(at, [(0, 2 * mib), (2 * mib, mib)]);
        assert_eq!(&loads[1].data(endian, &*data).unwrap()[100..106], b"needle");
        let mut notes = segments[0].notes(endian, &*data).unwrap().unwrap();
        let mut seen = 0;
        while let Some(note) = notes.next().unwrap() {
            assert_eq!(
                (note.name(), note.n_type(endian), note.desc().len()),
                (&b"CORE"[..], elf::NT_PRSTATUS, PRSTATUS)
            );
            assert_eq!(note.desc()[PR_REG + 16 * 8..][..8], 0x1234u64.to_le_bytes());
            seen += 1;
        }
        assert_eq!(seen, 2);
    }
}
