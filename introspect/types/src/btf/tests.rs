//! BTF written here, and broken.

use proptest::prelude::*;

use super::*;
use crate::BtfBuilder;

fn sample() -> BtfBuilder {
    let mut build = BtfBuilder::new();
    let int = build.integer("int", 4, true);
    let constant = build.constant(int);
    build.typedef("s32", constant);
    build.enumeration("state", true, &[("OFF", 0), ("BROKEN", -1)]);
    build.enumeration64("flags", &[("TOP", 1 << 63)]);
    let array = build.array(int, 5);
    build.enumeration("", false, &[("FIRST", 0), ("FROZEN", 3)]);
    build.structure("holder", 24, &[("items", array, 0)]);
    build
}

#[test]
fn names_kinds_and_sizes_come_out() {
    let btf = Btf::parse(sample().bytes()).unwrap();
    let id = btf.named("s32").next().unwrap();
    let (_, Type::Integer(int)) = btf.resolve(id).unwrap() else { panic!("s32 is an int") };
    assert!(int.signed && int.size == 4);
    assert_eq!(btf.size_of(btf.composite("holder").unwrap()), Ok(24));
    assert_eq!(btf.enumerator("state", u64::MAX), Some("BROKEN"));
    assert_eq!(btf.enumerator_value("flags", "TOP"), Some(1 << 63));
    assert_eq!((btf.constant("FROZEN"), btf.constant("TOP")), (Some(3), None));
    assert!(btf.named("absent").next().is_none());
    assert!(matches!(btf.get(TypeId(0)), Ok(Type::Void)));
    assert!(matches!(btf.get(TypeId(99)), Err(BtfError::NoType { id: 99, count: 9 })));
}

#[test]
fn parts_make_the_same_types_again_and_broken_ones_end() {
    let btf = Btf::parse(sample().bytes()).unwrap();
    let again = Btf::from_parts(btf.parts().unwrap().map(StableBytes::from)).unwrap();
    for name in ["s32", "holder", "state", "int", "absent"] {
        assert_eq!(again.named(name).collect::<Vec<_>>(), btf.named(name).collect::<Vec<_>>());
    }
    let [data, types, heads, next] = btf.parts().unwrap().map(StableBytes::from);
    let circle = StableBytes::of_words(&vec![0; next.words()]);
    let broken = Btf::from_parts([data.clone(), types.clone(), heads.clone(), circle]).unwrap();
    assert!(broken.named("holder").count() <= 8);
    let astray = StableBytes::of_words(&vec![u32::MAX; types.words()]);
    let broken = Btf::from_parts([data.clone(), astray, heads.clone(), next.clone()]).unwrap();
    assert!(broken.named("holder").next().is_none());
    assert!(broken.get(TypeId(3)).is_ok() || broken.get(TypeId(3)).is_err());
    assert!(Btf::from_parts([data, types, heads, StableBytes::of_words(&[1])]).is_none());
}

#[test]
fn split_btf_continues_its_base() {
    let base = sample();
    let mut module = BtfBuilder::split(&base);
    module.typedef("module_int", TypeId(1));
    let base = Arc::new(Btf::parse(base.bytes()).unwrap());
    let split = Btf::parse_split(module.bytes(), base).unwrap();
    let id = split.named("module_int").next().unwrap();
    assert_eq!((id, split.size_of(id)), (TypeId(9), Ok(4)));
    assert_eq!(split.named("int").next(), Some(TypeId(1)));
}

#[test]
fn types_without_end_are_a_cycle_not_a_hang() {
    let mut build = BtfBuilder::new();
    build.typedef("a", TypeId(2));
    build.typedef("b", TypeId(1));
    build.array(TypeId(3), 1);
    let btf = Btf::parse(build.bytes()).unwrap();
    assert_eq!(btf.resolve(TypeId(1)).map(|found| found.0), Err(BtfError::Cycle { id: 1 }));
    assert_eq!(btf.size_of(TypeId(3)), Err(BtfError::Cycle { id: 3 }));
}

#[test]
fn foreign_and_cut_bytes_are_told_apart() {
    assert!(matches!(Btf::parse(&b"\x7fELF"[..]), Err(BtfError::Header { .. })));
    let whole = sample().bytes();
    assert!(matches!(Btf::parse(&whole[..whole.len() - 1]), Err(BtfError::Truncated { .. })));
    assert!(matches!(Btf::from_elf(b"no ELF"), Err(BtfError::NoSection { .. })));
}

/// Everything that can be asked of every type.
fn ask_all(btf: &Btf) {
    for id in 0..btf.len().min(500) {
        let id = TypeId(id);
        let _ = (btf.size_of(id), btf.resolve(id).map(|found| found.0));
        match btf.get(id) {
            Ok(Type::Struct(whole) | Type::Union(whole)) => {
                for member in whole.members().flatten() {
                    let _ = btf.plan_from(id, &format!(".{}", member.name));
                }
            }
            Ok(Type::Enumeration(enumeration)) => assert!(enumeration.values().count() <= 0xffff),
            Ok(Type::Prototype { .. } | Type::Function { .. }) => {
                let found = btf.parameters(id);
                assert!(found.is_err() || found.is_ok_and(|found| found.len() <= 0xffff));
            }
            _ => {}
        }
    }
    assert!(btf.named("int").count() <= btf.len() as usize);
}

#[test]
fn a_function_knows_its_parameters() {
    let mut build = BtfBuilder::new();
    let int = build.integer("int", 4, true);
    let pointer = build.pointer(int);
    let function = build.function("f", &[("a", pointer), ("", int)], int);
    let base = Arc::new(Btf::parse(build.bytes()).unwrap());
    assert_eq!(base.parameters(function).unwrap(), [("a", pointer), ("", int)]);
    assert_eq!(base.parameters(int).unwrap(), []);
    let mut split = BtfBuilder::split(&build);
    let own = split.function("g", &[("b", int)], int);
    let split = Btf::parse_split(split.bytes(), base).unwrap();
    assert_eq!(split.parameters(own).unwrap(), [("b", int)]);
    assert_eq!(split.parameters(function).unwrap().len(), 2);
}

proptest! {
    #[test]
    fn damage_never_panics_or_hangs(flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..12)) {
        let mut bytes = sample().bytes();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if let Ok(btf) = Btf::parse(bytes) {
            ask_all(&btf);
        }
    }

    #[test]
    fn random_types_never_panic_or_hang(words in proptest::collection::vec(any::<u32>(), 0..200), kinds: [u8; 16]) {
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        let types = words.len() as u32 * 4;
        for word in [24, 0, types, types, 8] {
            bytes.extend(word.to_le_bytes());
        }
        for (at, word) in words.iter().enumerate() {
            // Small numbers, so that types and names hit one another.
            let word = if at % 3 == 1 { u32::from(kinds[at % 16] % 20) << 24 | word & 0x8000_0003 } else { word & 0x1f };
            bytes.extend(word.to_le_bytes());
        }
        bytes.extend(b"\0int\0ab\0");
        if let Ok(btf) = Btf::parse(bytes) {
            ask_all(&btf);
        }
    }
}
