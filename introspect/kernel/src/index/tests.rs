//! An index of a kernel written here: used, refused when it isn't this kernel's, written anew when damaged.

use ktstr_introspect_memory::{KernelOffset, PhysAddr, SparseMemory, VirtAddr};
use ktstr_introspect_symbols::{START_KERNEL_MAP, SymbolKind, SymbolTableBuilder};
use ktstr_introspect_types::BtfBuilder;

use super::*;

const LOAD: u64 = 0x40_0000;
const LINK: u64 = START_KERNEL_MAP + 0x100_0000;

fn symbols() -> SymbolTable {
    let mut builder = SymbolTableBuilder::default();
    for (name, at) in [
        ("_text", 0u64),
        ("phys_base", 0x100),
        ("linux_banner", 0x200),
        ("__start_notes", 0x300),
        ("__stop_notes", 0x324),
        ("init_top_pgt", 0x1000),
        ("_end", 0x2000),
    ] {
        builder.push(name.as_bytes(), VirtAddr(LINK + at), 8, SymbolKind::Object);
    }
    builder.push(b"runqueues", VirtAddr(0x500), 8, SymbolKind::Object);
    builder.build()
}

fn types() -> Btf {
    let mut build = BtfBuilder::new();
    let word = build.integer("u64", 8, false);
    build.structure("list_head", 16, &[("next", word, 0), ("prev", word, 8)]);
    build.structure("hlist_head", 8, &[("first", word, 0)]);
    build.structure("hlist_node", 16, &[("next", word, 0), ("pprev", word, 8)]);
    build.structure(
        "rb_node",
        24,
        &[("__rb_parent_color", word, 0), ("rb_right", word, 8), ("rb_left", word, 16)],
    );
    Btf::parse(build.bytes()).unwrap()
}

/// Memory with the kernel moved by `kaslr`, with the build id `id` repeated.
fn memory(kaslr: u64, id: u8) -> Arc<SparseMemory> {
    let mut image = vec![0; 0x2000];
    let phys_base = LOAD.wrapping_sub(0x100_0000 + kaslr);
    image[0x100..0x108].copy_from_slice(&phys_base.to_le_bytes());
    image[0x200..0x215].copy_from_slice(b"Linux version 6.12-x\n");
    image[0x300..0x310].copy_from_slice(&[4, 0, 0, 0, 20, 0, 0, 0, 3, 0, 0, 0, b'G', b'N', b'U', 0]);
    image[0x310..0x324].fill(id);
    let mut memory = SparseMemory::new();
    memory.insert(PhysAddr(LOAD), image);
    Arc::new(memory)
}

fn index() -> Index {
    let banner = b"Linux version 6.12-x\n".to_vec();
    Index { build_id: "ab".repeat(20), banner, symbols: symbols(), types: Arc::new(types()) }
}

#[test]
fn an_index_comes_back_as_it_was_written_and_finds_its_kernel() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.ktx");
    index().write(&path).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing but the index is left");
    let found = Index::open(&path).unwrap();
    let kernel = Kernel::open_indexed(memory(0x1e00_0000, 0xab), &found).unwrap();
    assert_eq!(kernel.placement().kaslr, KernelOffset(0x1e00_0000));
    assert_eq!(kernel.symbol("_end").unwrap(), VirtAddr(LINK + 0x2000 + 0x1e00_0000));
    assert_eq!(kernel.symbol("runqueues").unwrap(), VirtAddr(0x500));
    assert_eq!(kernel.plan("list_head.prev").unwrap().offset(), Some(8));
    let again = Index::of(&kernel).unwrap();
    assert_eq!(again.symbols().parts(), index().symbols().parts());
}

#[test]
fn another_kernel_is_refused() {
    let refused = Kernel::open_indexed(memory(0, 0xcd), &index()).unwrap_err();
    assert!(matches!(&refused, KernelError::OtherIndex { seen: Some(seen), .. } if *seen == "cd".repeat(20)));
    let elsewhere = Kernel::open_indexed(Arc::new(SparseMemory::new()), &index()).unwrap_err();
    assert!(matches!(elsewhere, KernelError::Placement(_)), "{elsewhere}");
}

#[test]
fn damage_anywhere_is_told_and_never_used() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.ktx");
    index().write(&path).unwrap();
    let good = fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        fs::write(&path, &bytes).unwrap();
        // The number of parts isn't read: it goes with the version.
        let refused = matches!(Index::open(&path), Err(IndexError::Format { .. }));
        assert!(refused || (12..16).contains(&at), "byte {at}");
    }
    fs::write(&path, &good[..good.len() - 8]).unwrap();
    let cut = Index::open(&path).unwrap_err();
    assert!(matches!(cut, IndexError::Format { reason: FormatError::Length { .. }, .. }), "{cut}");
    assert!(matches!(Index::open(&folder.path().join("none")), Err(IndexError::Map(_))));
}

#[test]
fn types_of_variables_come_back_for_their_kernel_only() {
    let dir = tempfile::tempdir().unwrap();
    let folder = IndexFolder::new(dir.path().join("new"));
    let (base, id) = (Arc::new(types()), "ab".repeat(20));
    assert!(matches!(folder.variables(&id, &base), Err(IndexError::Map(_))));
    let mut split = BtfBuilder::on(&base);
    let list = split.variable("a_list", base.composite("list_head").unwrap());
    let found = vec![(VirtAddr(LINK), list)];
    let variables = VariableTypes::new(&base, split.bytes(), found, 2).unwrap();
    folder.keep_variables(&id, &variables).unwrap();
    let again = folder.variables(&id, &base).unwrap();
    assert_eq!((again.find("a_list", VirtAddr(LINK)), again.left_out()), (base.composite("list_head"), 2));
    // Under another's name, and damaged.
    let (path, other) = (folder.variables_path(&id).unwrap(), "cd".repeat(20));
    let copy = folder.variables_path(&other).unwrap();
    fs::copy(&path, &copy).unwrap();
    assert!(matches!(folder.variables(&other, &base), Err(IndexError::Format { .. })));
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&copy, &bytes).unwrap();
    let damaged = folder.variables(&other, &base).unwrap_err();
    assert!(matches!(damaged, IndexError::Format { reason: FormatError::Checksum, .. }), "{damaged}");
    fs::copy(&path, folder.path(&id).unwrap()).unwrap();
    let no_index = Index::open(&folder.path(&id).unwrap()).unwrap_err();
    assert!(no_index.to_string().contains("KTSTRIDX"), "{no_index}");
}

#[test]
fn keys_that_are_no_names_are_refused() {
    let folder = IndexFolder::new("/x");
    assert_eq!(folder.path("ab12").unwrap(), PathBuf::from("/x/ab12.ktx"));
    for key in ["", "../x", "a/b", ".x", &"a".repeat(129)] {
        assert!(matches!(folder.path(key), Err(IndexError::Key { .. })), "{key}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error_with_its_path() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = index().write(&file.path().join("x.ktx")).unwrap_err();
    assert!(matches!(error, IndexError::Write { .. }), "{error}");
}
