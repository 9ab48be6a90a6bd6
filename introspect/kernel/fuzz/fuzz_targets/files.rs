//! Any bytes as a vmlinux, as its DWARF and as an ELF core.

#![no_main]

use std::io::Write;
use std::path::Path;

use ktstr_introspect_lines::SourceLines;
use ktstr_introspect_memory::{ElfCore, PhysAddr, PhysicalMemory, VirtAddr};
use ktstr_introspect_symbols::{Vmlinux, gnu_build_id};
use ktstr_introspect_types::Btf;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let _ = gnu_build_id(input);
    let _ = Btf::from_elf(input);
    let mut found = vec![VirtAddr(0x40_1000), VirtAddr(0)];
    let path = std::env::temp_dir().join(format!("ktstr-fuzz-files-{}", std::process::id()));
    std::fs::File::create(&path).and_then(|mut file| file.write_all(input)).expect("a file of our own");
    vmlinux(&path, &mut found);
    core(&path);
    // Left behind only when a finding ends the process.
    let _ = std::fs::remove_file(&path);
    if let Ok(lines) = SourceLines::open(input) {
        for at in found.into_iter().take(32) {
            assert!(lines.frames(at).map_or(0, |frames| frames.len()) <= 256);
        }
    }
});

fn vmlinux(path: &Path, found: &mut Vec<VirtAddr>) {
    let Ok(file) = Vmlinux::open(path) else { return };
    let _ = (file.build_id(), file.section(".BTF"), file.section_address(".notes"));
    let Ok(symbols) = file.symbols() else { return };
    let mut last = VirtAddr(0);
    for symbol in symbols.iter().take(500) {
        assert!(symbol.address >= last);
        last = symbol.address;
        assert!(symbols.lookup_all(symbol.name).any(|other| other == symbol));
        let _ = (symbols.at(symbol.address), file.loaded_at(symbol.address));
        found.push(symbol.address);
    }
}

fn core(path: &Path) {
    let Ok(core) = ElfCore::open(path) else { return };
    let _ = core.cpus();
    for range in core.ranges().iter().take(100) {
        let mut word = [0; 8];
        for at in [range.start.0, range.start.0.wrapping_add(range.length).wrapping_sub(4)] {
            let _ = core.read(PhysAddr(at), &mut word);
        }
    }
}
