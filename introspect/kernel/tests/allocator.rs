//! What an allocator in an arena has given out, in a kernel written by hand: in both layouts of the library, by types that
//! are known or not, and out of trees that are broken.

mod world;

use ktstr_introspect_kernel::{BpfAllocations, BpfVariable, ErrorKind, Kernel, KernelError, PayloadType};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{BtfBuilder, DecodeLimits};
use proptest::prelude::*;
use world::{address, at, healthy, kernel, put};

/// Where user space has the arena, and how far into it the tree's parts lie.
const USER: u64 = 0x7000_0000_0000;
const ROOT: u64 = 0x100;
const ROOT_CHUNK: u64 = 0x200;
const LEAVES: [u64; 2] = [0x400, 0x440];
const LEAF_CHUNKS: [u64; 2] = [0x600, 0x800];
const ELEMENTS: [u64; 3] = [0xa00, 0xa40, 0xa80];
/// Payload of the elements: a `task_ctx`.
const PAYLOAD: u64 = 16;

/// Which version of the library's structs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Data {
    Before,
    Behind,
}

/// Types of a program with an allocator of two levels of 64; `more` adds to them. What a `sdt_data` is they may not tell.
fn types(data: Data, is_told: bool, more: impl FnOnce(&mut BtfBuilder)) -> (Vec<u8>, u32) {
    let mut b = BtfBuilder::new();
    let (s32, u64_) = (b.integer("int", 4, true), b.integer("unsigned long", 8, false));
    let id = b.structure("sdt_id", 8, &[("idx", s32, 0), ("genn", s32, 4)]);
    match data {
        _ if !is_told => {
            b.forward("sdt_data");
        }
        Data::Before => {
            let payload = b.array(u64_, 0);
            b.structure("sdt_data", 8, &[("tid", id, 0), ("payload", payload, 8)]);
        }
        Data::Behind => {
            b.structure("sdt_data", 16, &[("tid", id, 0), ("urcu_link", u64_, 8)]);
        }
    }
    let bitmap = b.array(u64_, 1);
    let chunk = b.forward("sdt_chunk");
    let chunk = b.pointer(chunk);
    b.structure("sdt_desc", 24, &[("allocated", bitmap, 0), ("nr_free", u64_, 8), ("chunk", chunk, 16)]);
    b.enumeration("sdt_consts", false, &[("SDT_TASK_LEVELS", 2)]);
    let pool = b.structure("sdt_pool", 16, &[("slab", u64_, 0), ("elem_size", u64_, 8)]);
    let allocator = b.structure("scx_allocator", 24, &[("pool", pool, 0), ("root", u64_, 16)]);
    b.structure("task_ctx", 16, &[("vtime", u64_, 0), ("weight", u64_, 8)]);
    more(&mut b);
    let (task, other) = (b.variable("scx_task_allocator", allocator), b.variable("nr", u64_));
    let section = b.section(".bss", 88, &[(task, 0, 24), (other, 24, 8)]);
    (b.bytes(), section.0)
}

fn bytes(data: Data, more: impl FnOnce(&mut BtfBuilder)) -> Vec<u8> {
    bytes_of(data, true, more)
}

/// A kernel in whose arena the elements 1, 5 and 67 are in use.
fn bytes_of(data: Data, is_told: bool, more: impl FnOnce(&mut BtfBuilder)) -> Vec<u8> {
    let mut bytes = healthy();
    let (types, section) = types(data, is_told, more);
    bytes[at::BTF_DATA..at::BTF_DATA + types.len()].copy_from_slice(&types);
    let size = if data == Data::Before { 8 } else { 16 };
    put(
        &mut bytes,
        &[
            (at::BTF + 8, types.len() as u64 | 1 << 32),
            (at::BSS + 48, u64::from(section) << 32),
            (at::BSS + 136 + 8, PAYLOAD + size),
            (at::BSS + 136 + 16, USER + ROOT),
            // The program uses the arena, too.
            (at::AUX, 2 | 2 << 32),
            (at::USED + 8, address(at::ARENA)),
        ],
    );
    let mut arena = |at: u64, word: u64| put(&mut bytes, &[(at::WINDOW + at as usize, word)]);
    arena(ROOT + 16, USER + ROOT_CHUNK);
    for (number, (leaf, chunk)) in LEAVES.into_iter().zip(LEAF_CHUNKS).enumerate() {
        arena(ROOT_CHUNK + number as u64 * 8, USER + leaf);
        arena(leaf + 16, USER + chunk);
    }
    arena(LEAVES[0], 1 << 1 | 1 << 5);
    arena(LEAVES[1], 1 << 3);
    for (number, (place, index)) in
        [(LEAF_CHUNKS[0] + 8, 1u64), (LEAF_CHUNKS[0] + 5 * 8, 5), (LEAF_CHUNKS[1] + 3 * 8, 67)]
            .into_iter()
            .enumerate()
    {
        let element = ELEMENTS[number];
        arena(place, USER + element);
        let (id, payload) = match data {
            Data::Before => (element, element + 8),
            Data::Behind => (element + PAYLOAD, element),
        };
        arena(id, index | 2 << 32);
        arena(payload, 1000 + index);
        arena(payload + 8, 100);
    }
    // One that was freed keeps its place.
    arena(LEAF_CHUNKS[0] + 9 * 8, USER + 0xac0);
    bytes
}

/// The program's allocator, and what it has given out.
fn read_of(kernel: &Kernel, limit: usize) -> (BpfVariable, Result<BpfAllocations, KernelError>) {
    let mut found = kernel.bpf_allocations(VirtAddr(address(at::BSS)), limit).unwrap();
    let one = found.pop().expect("an allocator");
    assert!(found.is_empty(), "{found:?}");
    one
}

fn read(bytes: Vec<u8>) -> Result<BpfAllocations, KernelError> {
    read_of(&kernel(bytes), 100).1
}

#[test]
fn elements_in_use_are_read_by_their_type_in_both_layouts() {
    for (data, is_told) in
        [Data::Before, Data::Behind].into_iter().flat_map(|data| [(data, true), (data, false)])
    {
        let kernel = kernel(bytes_of(data, is_told, |_| {}));
        let (allocator, found) = read_of(&kernel, 100);
        let found = found.unwrap();
        assert_eq!(allocator.name, "scx_task_allocator");
        let indices: Vec<u64> = found.elements.iter().map(|element| element.index).collect();
        assert_eq!(
            (&indices[..], found.truncated, found.passed_over),
            (&[1, 5, 67][..], false, 0),
            "{data:?}"
        );
        let PayloadType::Known { ty, name, .. } = &found.ty else { panic!("{:?}", found.ty) };
        assert_eq!((found.payload, name.as_str()), (PAYLOAD, "task_ctx"));
        let last = &found.elements[2];
        let value = allocator.btf.decode(*ty, &last.bytes, DecodeLimits::default()).unwrap();
        assert_eq!((value.to_string().as_str(), last.generation), ("{vtime = 1067, weight = 100}", 2));
        let inside = if data == Data::Before { 8 } else { 0 };
        assert_eq!(last.user, VirtAddr(USER + ELEMENTS[2] + inside));
    }
}

#[test]
fn a_limit_is_told() {
    let kernel = kernel(bytes(Data::Behind, |_| {}));
    let found = read_of(&kernel, 2).1.unwrap();
    assert_eq!((found.elements.len(), found.truncated), (2, true));
}

#[test]
fn a_type_is_told_only_where_one_fits() {
    let of = |more: fn(&mut BtfBuilder)| read(bytes(Data::Behind, more)).unwrap().ty;
    let known = |ty: &PayloadType| match ty {
        PayloadType::Known { name, .. } => name.clone(),
        PayloadType::Unknown(why) => why.clone(),
    };
    let two = |b: &mut BtfBuilder| {
        let long = b.integer("long", 8, true);
        b.structure("cell", 16, &[("a", long, 0), ("b", long, 8)])
    };
    let both = of(|b| {
        let long = b.integer("long", 8, true);
        b.structure("cell", 16, &[("a", long, 0), ("b", long, 8)]);
    });
    assert_eq!(known(&both), "2 structs of the program's have its size: task_ctx, cell");
    let one_is_passed = |b: &mut BtfBuilder| {
        let cell = two(b);
        let (tag, int) = (b.constant(cell), b.integer("int", 4, true));
        let pointer = b.pointer(tag);
        b.function("cell_is_full", &[("cell", pointer)], int);
    };
    assert_eq!(known(&read(bytes(Data::Behind, one_is_passed)).unwrap().ty), "cell");
    let namesake = |b: &mut BtfBuilder| {
        two(b);
        let long = b.integer("long", 8, true);
        b.structure("task", 16, &[("a", long, 0), ("b", long, 8)]);
    };
    assert_eq!(known(&read(bytes(Data::Behind, namesake)).unwrap().ty), "task");
    // A struct that the kernel has as well came along with its headers.
    let of_kernel = of(|b| {
        let long = b.integer("long", 8, true);
        b.structure("list_head", 16, &[("a", long, 0), ("b", long, 8)]);
    });
    assert_eq!(known(&of_kernel), "task_ctx");
    let mut none = bytes(Data::Behind, |_| {});
    put(&mut none, &[(at::BSS + 136 + 8, 8 + 16)]);
    let found = read(none).unwrap();
    assert_eq!(known(&found.ty), "no struct of the program's has 8 bytes");
}

#[test]
fn what_has_no_memory_is_passed_over() {
    for (what, place, word) in [
        ("not placed yet", LEAF_CHUNKS[0] + 8, 0),
        ("in a page that is gone", LEAF_CHUNKS[0] + 8, USER + 0x8000_0000),
    ] {
        let mut bytes = bytes(Data::Behind, |_| {});
        put(&mut bytes, &[(at::WINDOW + place as usize, word)]);
        let found = read(bytes).unwrap();
        assert_eq!((found.elements.len(), found.passed_over), (2, 1), "{what}");
    }
}

/// As it is for a moment when it is given out, and for good when a program writes more than it asked for.
#[test]
fn an_element_that_names_another_place_is_kept_and_marked() {
    for is_told in [true, false] {
        let mut bytes = bytes_of(Data::Behind, is_told, |_| {});
        put(&mut bytes, &[(at::WINDOW + (ELEMENTS[0] + PAYLOAD) as usize, 0)]);
        let found = read(bytes).unwrap();
        let marked: Vec<_> = found.elements.iter().map(|e| (e.index, e.misplaced)).collect();
        assert_eq!((&marked[..], found.passed_over), (&[(1, true), (5, false), (67, false)][..], 0));
    }
}

#[test]
fn elements_that_fit_two_versions_are_told_whole() {
    let mut bytes = bytes_of(Data::Before, false, |_| {});
    // Only element 0 of what is zero all over: wherever the library looks it finds its index.
    put(
        &mut bytes,
        &[
            (at::WINDOW + LEAVES[0] as usize, 1),
            (at::WINDOW + LEAVES[1] as usize, 0),
            (at::WINDOW + LEAF_CHUNKS[0] as usize, USER + 0x2000),
        ],
    );
    let found = read(bytes).unwrap();
    assert_eq!((found.payload, found.elements[0].bytes.len(), found.elements.len()), (24, 24, 1));
    let PayloadType::Unknown(why) = found.ty else { panic!("{:?}", found.ty) };
    assert!(why.contains("can't be told from so few elements"), "{why}");
}

#[test]
fn one_that_is_not_set_up_is_empty_and_says_so() {
    let mut bytes = bytes(Data::Behind, |_| {});
    put(&mut bytes, &[(at::BSS + 136 + 16, 0)]);
    let found = read(bytes).unwrap();
    assert_eq!((found.payload, found.elements.len()), (0, 0));
    assert_eq!(found.ty, PayloadType::Unknown("it isn't set up".into()));
}

#[test]
fn a_broken_tree_is_an_error_and_a_cycle_has_an_end() {
    let with = |words: &[(usize, u64)]| {
        let mut bytes = bytes(Data::Behind, |_| {});
        put(&mut bytes, words);
        read(bytes)
    };
    let gone = with(&[(at::BSS + 136 + 16, USER + 0x9000_0000)]).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::Unmapped, "{gone}");
    let huge = with(&[(at::BSS + 136 + 8, 1 << 40)]).unwrap_err();
    assert_eq!(huge.kind(), ErrorKind::Torn, "{huge}");
    let no_arena = with(&[(at::AUX, 2 | 1 << 32)]).unwrap_err();
    assert!(no_arena.to_string().contains("scx_task_allocator, whose program has no arena"), "{no_arena}");
    // The root is its own child: its bitmap has no bit, and the tree two levels.
    let cycle = with(&[(at::WINDOW + ROOT_CHUNK as usize, USER + ROOT)]).unwrap();
    assert_eq!(cycle.elements.iter().map(|element| element.index).collect::<Vec<_>>(), [67]);
    let undefined = {
        let mut all = healthy();
        let mut b = BtfBuilder::new();
        let long = b.integer("long", 8, true);
        let pool = b.structure("sdt_pool", 8, &[("elem_size", long, 0)]);
        let allocator = b.structure("scx_allocator", 16, &[("pool", pool, 0), ("root", long, 8)]);
        let variable = b.variable("scx_task_allocator", allocator);
        let section = b.section(".bss", 88, &[(variable, 0, 16)]);
        let types = b.bytes();
        all[at::BTF_DATA..at::BTF_DATA + types.len()].copy_from_slice(&types);
        put(
            &mut all,
            &[(at::BTF + 8, types.len() as u64 | 1 << 32), (at::BSS + 48, u64::from(section.0) << 32)],
        );
        read(all).unwrap_err()
    };
    assert!(undefined.to_string().contains("doesn't say what a struct sdt_desc is"), "{undefined}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever the arena holds, reading it comes to an end, and never to more elements than were asked for.
    #[test]
    fn hostile_trees_are_bounded(
        words in prop::collection::vec((0usize..0x600, prop_oneof![any::<u64>(), (0u64..0x3000).prop_map(|at| USER + at)]), 0..200),
        limit in 0usize..100,
    ) {
        let mut bytes = bytes(Data::Before, |_| {});
        for (at, word) in words {
            put(&mut bytes, &[(at::WINDOW + at * 8, word)]);
        }
        let kernel = kernel(bytes);
        if let Ok(found) = read_of(&kernel, limit).1 {
            prop_assert!(found.elements.len() <= limit);
        }
    }
}
