//! The lines of this very test program, and files that have none.

use object::elf::FileHeader64;
use object::read::elf::{FileHeader, Sym};

use super::*;

/// A function whose line is known: the one that says so.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn ktstr_lines_landmark(number: u32) -> u32 {
    number.wrapping_mul(3)
}

const LANDMARK: std::ops::RangeInclusive<u32> = 8..=13;

fn own_program() -> Vec<u8> {
    std::fs::read(std::env::current_exe().unwrap()).unwrap()
}

fn link_address(file: &[u8], name: &[u8]) -> Option<u64> {
    let header = FileHeader64::<object::LittleEndian>::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.sections(endian, file).ok()?;
    let symbols = sections.symbols(endian, file, object::elf::SHT_SYMTAB).ok()?;
    let symbol = symbols.iter().find(|symbol| symbol.name(endian, symbols.strings()) == Ok(name))?;
    Some(symbol.st_value(endian))
}

#[test]
fn the_landmark_is_found_by_its_address() {
    assert_eq!(ktstr_lines_landmark(2), 6);
    let file = own_program();
    let at = link_address(&file, b"ktstr_lines_landmark").unwrap();
    let sections = DebugSections::read(&file).unwrap();
    let lines = SourceLines::open(&sections).unwrap();
    let frames = lines.frames(VirtAddr(at)).unwrap();
    let last = frames.last().unwrap();
    assert!(last.file.as_deref().is_some_and(|file| file.ends_with("dwarf/src/lines/tests.rs")), "{last:?}");
    assert!(last.line.is_some_and(|line| LANDMARK.contains(&line)), "{last:?}");
}

#[test]
fn paths_are_told_from_the_kernels_tree() {
    let file = own_program();
    let sections = DebugSections::read(&file).unwrap();
    let lines = SourceLines::open(&sections).unwrap();
    assert!(lines.tree.is_empty() || lines.tree.starts_with('/') && lines.tree.ends_with('/'));
    let lines = SourceLines { tree: "/build/linux/".to_owned(), ..lines };
    assert_eq!(lines.in_tree("/build/linux/kernel/fork.c"), "kernel/fork.c");
    assert_eq!(lines.in_tree("/build/linux-other/a.c"), "/build/linux-other/a.c");
    // Built elsewhere (`make O=`), with whole paths, or in the tree, with paths from there.
    assert_eq!(tree_of("/src/linux/arch/x86/kernel/head_64.S"), Some("/src/linux/"));
    assert_eq!(tree_of("/src/linux/init/main.c"), Some("/src/linux/"));
    assert_eq!([tree_of("init/main.c"), tree_of("/src/other_init/main.c"), tree_of("/a/b.c")], [None; 3]);
}

#[test]
fn an_address_that_no_unit_covers_has_no_frames() {
    let file = own_program();
    let sections = DebugSections::read(&file).unwrap();
    let lines = SourceLines::open(&sections).unwrap();
    // The last address of all is what stands before a return address of 0.
    for at in [u64::MAX - 5, u64::MAX] {
        assert_eq!(lines.frames(VirtAddr(at)).unwrap(), []);
    }
}

#[test]
fn files_without_lines_say_so() {
    assert!(matches!(DebugSections::read(b"no ELF"), Err(DwarfError::Elf(_))));
    let mut file = own_program();
    // Rename every section by pointing the header at no section table: nothing is left to be found.
    file[0x28..0x30].fill(0);
    file[0x3c..0x40].fill(0);
    assert!(matches!(DebugSections::read(&file), Err(DwarfError::NoDwarf { section: ".debug_info" })));
}

#[test]
fn damaged_information_is_refused_or_answered() {
    let whole = own_program();
    let at = link_address(&whole, b"ktstr_lines_landmark").unwrap();
    let mut seed = 0x9e37_79b9_7f4a_7c15u64;
    for _ in 0..8 {
        let mut file = whole.clone();
        for _ in 0..2000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Past the ELF header, so that what is damaged is what it leads to.
            let place = 64 + (seed >> 16) as usize % (file.len() - 64);
            file[place] = seed as u8;
        }
        let Ok(sections) = DebugSections::read(&file) else { continue };
        if let Ok(lines) = SourceLines::open(&sections) {
            for step in 0..32 {
                let _ = lines.frames(VirtAddr(at + step));
            }
        }
    }
}
