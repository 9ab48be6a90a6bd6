//! Cores written here, byte by byte, and broken ones.

use std::io::Write;

use object::elf::{EM_X86_64, ET_CORE};
use object::write::elf::{FileHeader as OutHeader, ProgramHeader as OutProgram, Writer};
use proptest::prelude::*;

use super::*;

fn core(loads: &[(u64, &[u8])], note: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut writer = Writer::new(object::Endianness::Little, true, &mut out);
    writer.reserve_file_header();
    writer.reserve_program_headers(loads.len() as u32 + 1);
    let note_at = writer.reserve(note.len() as u64, 4);
    let at: Vec<_> = loads.iter().map(|(_, bytes)| writer.reserve(bytes.len() as u64, 16)).collect();
    writer
        .write_file_header(&OutHeader {
            os_abi: object::elf::ELFOSABI_NONE,
            abi_version: 0,
            e_type: ET_CORE,
            e_machine: EM_X86_64,
            e_entry: 0,
            e_flags: object::elf::FileFlags(0),
        })
        .unwrap();
    writer.write_align_program_headers();
    let program = |p_type, p_offset, p_paddr, size: usize| OutProgram {
        p_type,
        p_flags: object::elf::PF_R,
        p_offset,
        p_vaddr: 0,
        p_paddr,
        p_filesz: size as u64,
        p_memsz: size as u64,
        p_align: 4,
    };
    writer.write_program_header(&program(PT_NOTE, note_at, 0, note.len()));
    for ((physical, bytes), at) in loads.iter().zip(&at) {
        writer.write_program_header(&program(PT_LOAD, *at, *physical, bytes.len()));
    }
    writer.pad_until(note_at);
    writer.write(note);
    for ((_, bytes), at) in loads.iter().zip(&at) {
        writer.pad_until(*at);
        writer.write(bytes);
    }
    out
}

fn qemu_note(cr3: u64, cr4: u64) -> Vec<u8> {
    let mut desc = vec![0; 8 + 18 * 8 + 10 * 24 + 48];
    desc[0] = 1;
    let control = desc.len() - 48;
    desc[control + 24..control + 32].copy_from_slice(&cr3.to_le_bytes());
    desc[control + 32..control + 40].copy_from_slice(&cr4.to_le_bytes());
    let mut note = Vec::new();
    for word in [5, desc.len() as u32, 0] {
        note.extend(word.to_le_bytes());
    }
    note.extend(b"QEMU\0\0\0\0");
    note.extend(desc);
    note
}

fn open(bytes: &[u8]) -> Result<ElfCore, CoreError> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    ElfCore::open(file.path())
}

#[test]
fn memory_and_registers_come_out_of_a_core() {
    let core =
        open(&core(&[(0, b"low memory"), (0x1_0000_0000, b"high memory")], &qemu_note(0x1234000, 1 << 12)))
            .unwrap();
    let mut bytes = [0; 4];
    core.read(PhysAddr(0x1_0000_0000), &mut bytes).unwrap();
    assert_eq!(&bytes, b"high");
    assert_eq!(core.read(PhysAddr(8), &mut bytes).unwrap_err().address, PhysAddr(10));
    assert_eq!(core.cpus().len(), 1);
    assert_eq!((core.cpus()[0].cr3, core.cpus()[0].cr4), (0x1234000, 0x1000));
}

#[test]
fn a_core_of_another_architecture_is_told() {
    let mut bytes = core(&[(0x4000_0000, b"memory")], &[]);
    assert_eq!(open(&bytes).unwrap().architecture(), Architecture::X86_64);
    for (machine, name) in [(183u16, "aarch64"), (243, "ELF machine 243")] {
        bytes[18..20].copy_from_slice(&machine.to_le_bytes());
        let core = open(&bytes).unwrap();
        assert_eq!(core.architecture().to_string(), name);
        let mut memory = [0; 6];
        core.read(PhysAddr(0x4000_0000), &mut memory).unwrap();
        assert_eq!(&memory, b"memory");
    }
}

#[test]
fn a_core_without_memory_or_that_is_no_core_says_so() {
    assert!(matches!(open(&core(&[], &qemu_note(0, 0))), Err(CoreError::NoMemory { .. })));
    assert!(matches!(open(b"not an ELF file at all, only text"), Err(CoreError::Elf { .. })));
}

#[test]
fn a_core_cut_short_is_refused_with_the_segment() {
    let whole = core(&[(0, &[7; 4096])], &qemu_note(0, 0));
    let Err(CoreError::Image(ImageError::Beyond { segment, .. })) = open(&whole[..whole.len() - 1]) else {
        panic!("a cut core must be refused")
    };
    assert_eq!(segment.length, 4096);
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(flips in proptest::collection::vec((0usize..700, any::<u8>()), 0..12)) {
        let mut bytes = core(&[(0, b"memory")], &qemu_note(1, 2));
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(core) = open(&bytes) {
            let _ = core.read(core.ranges()[0].start, &mut [0; 3]);
        }
    }
}
