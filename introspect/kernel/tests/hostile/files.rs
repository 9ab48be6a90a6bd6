//! Any bytes as a vmlinux, as its DWARF and as an ELF core.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use ktstr_introspect_dwarf::{DebugSections, SourceLines, variable_types};
use ktstr_introspect_memory::{ElfCore, PhysAddr, PhysicalMemory, VirtAddr};
use ktstr_introspect_symbols::{Vmlinux, gnu_build_id};
use ktstr_introspect_types::{Btf, BtfBuilder, DecodeLimits, VariableTypes};

pub(crate) fn files(input: &[u8]) {
    let _ = gnu_build_id(input);
    let _ = Btf::from_elf(input);
    let mut found = vec![VirtAddr(0x40_1000), VirtAddr(0)];
    let path = std::env::temp_dir().join(format!("ktstr-fuzz-files-{}", std::process::id()));
    std::fs::File::create(&path).and_then(|mut file| file.write_all(input)).expect("a file of our own");
    vmlinux(&path, &mut found);
    core(&path);
    // Left behind only when a finding ends the process.
    let _ = std::fs::remove_file(&path);
    if let Ok(sections) = DebugSections::read(input) {
        if let Ok(lines) = SourceLines::open(&sections) {
            for at in found.iter().take(32) {
                assert!(lines.frames(*at).map_or(0, |frames| frames.len()) <= 256);
            }
        }
        variables(&sections, &found);
    }
}

/// Types of variables on top of a BTF that has some of the names that the seeds' DWARF has.
fn variables(sections: &DebugSections<'_>, found: &[VirtAddr]) {
    let mut build = BtfBuilder::new();
    let int = build.integer("int", 4, true);
    build.integer("char", 1, true);
    let pair = build.structure("pair", 8, &[("a", int, 0), ("b", int, 4)]);
    build.typedef("pair_t", pair);
    let base = Arc::new(Btf::parse(build.bytes()).expect("types of our own"));
    let Ok(types) = variable_types(sections, &base) else { return };
    for at in found.iter().take(500) {
        let Some(id) = types.find("", *at) else { continue };
        let _ = (types.types().plan_from(id, ".a"), types.types().size_of(id));
        let _ = types.types().decode(id, &[0; 64], DecodeLimits { elements: 16, values: 256 });
    }
    let again = VariableTypes::from_parts(types.parts(), &base).expect("its own parts");
    assert_eq!(again.len(), types.len());
}

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
