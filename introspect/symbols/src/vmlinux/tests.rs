//! A vmlinux written here.

use std::io::Write;

use ktstr_introspect_memory::{KernelOffset, LinearRange, PhysAddr, SparseMemory};
use object::write::{Object, Symbol as OutSymbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolScope};
use proptest::prelude::*;

use super::*;

fn note(name: &[u8], kind: u32, desc: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [name.len() as u32, desc.len() as u32, kind] {
        out.extend(word.to_le_bytes());
    }
    out.extend(name);
    out.resize(out.len().next_multiple_of(4), 0);
    out.extend(desc);
    out.resize(out.len().next_multiple_of(4), 0);
    out
}

fn notes() -> Vec<u8> {
    [note(b"Xen\0", 6, b"linux\0"), note(b"GNU\0", 3, &[0xab, 0xcd, 0x01, 0x02])].concat()
}

fn elf(stripped: bool) -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
    let section = object.add_section(Vec::new(), b".notes".to_vec(), SectionKind::Note);
    object.append_section_data(section, &notes(), 4);
    if !stripped {
        for (name, value, kind) in [
            ("schedule", 0xffff_ffff_8100_0100u64, object::SymbolKind::Text),
            ("init_task", 0xffff_ffff_8200_0000, object::SymbolKind::Data),
        ] {
            object.add_symbol(OutSymbol {
                name: name.into(),
                value,
                size: 8,
                kind,
                scope: SymbolScope::Linkage,
                weak: false,
                section: SymbolSection::Absolute,
                flags: SymbolFlags::None,
            });
        }
    }
    object.write().unwrap()
}

fn open(bytes: &[u8]) -> (tempfile::NamedTempFile, Result<Vmlinux, VmlinuxError>) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let vmlinux = Vmlinux::open(file.path());
    (file, vmlinux)
}

#[test]
fn symbols_and_build_id_come_out() {
    let (_file, vmlinux) = open(&elf(false));
    let vmlinux = vmlinux.unwrap();
    let symbols = vmlinux.symbols().unwrap();
    let found = symbols.lookup("schedule").unwrap();
    assert_eq!((found.address, found.kind), (VirtAddr(0xffff_ffff_8100_0100), SymbolKind::Function));
    assert_eq!(vmlinux.build_id().as_deref(), Some("abcd0102"));
    assert!(vmlinux.section(".BTF").is_none());
}

#[test]
fn stripped_and_foreign_files_say_what_to_do() {
    let (_file, vmlinux) = open(&elf(true));
    let refused = vmlinux.unwrap().symbols().map(|symbols| symbols.len());
    assert!(matches!(refused, Err(VmlinuxError::Stripped { .. })), "{refused:?}");
    assert!(matches!(open(b"MZ is how a bzImage starts").1, Err(VmlinuxError::Elf { .. })));
}

#[test]
fn the_build_id_in_memory_must_be_the_files() {
    let (_file, vmlinux) = open(&elf(false));
    let vmlinux = vmlinux.unwrap();
    let symbols = vmlinux.symbols().unwrap().with_offset(KernelOffset(0x20_0000));
    let check = |bytes: Vec<u8>| {
        let mut physical = SparseMemory::new();
        physical.insert(PhysAddr(0), bytes);
        let image = LinearRange { start: VirtAddr(0x20_0000), length: 0x1000, physical: PhysAddr(0) };
        vmlinux.check_build_id(&symbols, &VirtualMemory::new(Arc::new(physical)).with_linear(image))
    };
    assert!(check(notes()).is_ok());
    let mut other = notes();
    let last = other.len() - 1;
    other[last] ^= 0xff;
    let Err(BuildIdError::Mismatch { expected, seen, .. }) = check(other) else { panic!("must differ") };
    assert_eq!((expected.as_str(), seen.as_deref()), ("abcd0102", Some("abcd01fd")));
    assert!(matches!(check(vec![0; 4]), Err(BuildIdError::Unreadable { .. })));
}

proptest! {
    #[test]
    fn random_notes_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = gnu_build_id(&bytes);
    }

    #[test]
    fn a_damaged_file_never_panics(flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..16)) {
        let mut bytes = elf(false);
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let (_file, Ok(vmlinux)) = open(&bytes) {
            let _ = vmlinux.symbols().map(|symbols| symbols.len());
            let _ = (vmlinux.build_id(), vmlinux.loaded_at(VirtAddr(0)));
        }
    }
}
