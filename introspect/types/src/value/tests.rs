//! Values of every kind, cut short, and hostile.

use proptest::prelude::*;

use super::*;
use crate::BtfBuilder;

fn whole(build: &mut BtfBuilder) -> TypeId {
    let (int, u64_) = (build.integer("int", 4, true), build.integer("unsigned long", 8, false));
    let (char_, flag) = (build.integer("char", 1, true), build.integer("_Bool", 1, false));
    let state = build.enumeration("state", true, &[("OFF", 0), ("ON", 1), ("BROKEN", -1)]);
    let name = build.array(char_, 8);
    let list = build.array(int, 6);
    let inner = build.bitfields("", 4, &[("low", int, 0, 3), ("high", u64_, 3, 5)]);
    let pointer = build.pointer(int);
    let whole = build.structure(
        "whole",
        64,
        &[
            ("a", int, 0),
            ("b", u64_, 8),
            ("on", flag, 16),
            ("state", state, 20),
            ("name", name, 24),
            ("list", list, 32),
            ("", inner, 56),
        ],
    );
    let (counters, next) = (build.variable("counters", whole), build.variable("next", pointer));
    build.section(".bss", 72, &[(counters, 0, 64), (next, 64, 8)])
}

fn bytes() -> Vec<u8> {
    let mut bytes = vec![0; 72];
    bytes[..4].copy_from_slice(&(-5i32).to_le_bytes());
    bytes[8..16].copy_from_slice(&u64::MAX.to_le_bytes());
    bytes[16] = 1;
    bytes[20..24].copy_from_slice(&(-1i32).to_le_bytes());
    bytes[24..27].copy_from_slice(b"scx");
    bytes[32] = 7;
    bytes[56] = 0b1010_0111;
    bytes
}

#[test]
fn a_section_comes_out_by_the_names_of_its_variables() {
    let mut build = BtfBuilder::new();
    let section = whole(&mut build);
    let btf = Btf::parse(build.bytes()).unwrap();
    let found = btf.decode(section, &bytes(), DecodeLimits::default()).unwrap();
    assert_eq!(found.get("counters.a"), Some(&Decoded::Signed(-5)));
    assert_eq!(found.get("counters.low"), Some(&Decoded::Signed(-1)));
    assert_eq!(found.get("counters.high").unwrap().as_u64(), Some(0b10100));
    assert_eq!(found.get("counters.list[0]").unwrap().as_u64(), Some(7));
    assert_eq!(found.get("counters.list[6]"), None);
    assert_eq!(
        found.to_string(),
        "{counters = {a = -5, b = 18446744073709551615, on = true, state = BROKEN, name = \"scx\", \
         list = [7, 0 × 5], low = -1, high = 20}, next = NULL}"
    );
}

#[test]
fn what_the_bytes_or_the_limits_leave_out_is_marked() {
    let mut build = BtfBuilder::new();
    let section = whole(&mut build);
    let btf = Btf::parse(build.bytes()).unwrap();
    let cut = btf.decode(section, &bytes()[..36], DecodeLimits::default()).unwrap();
    assert_eq!(cut.get("counters.list").unwrap().to_string(), "[7, … 5 more]");
    assert_eq!(cut.get("next"), Some(&Decoded::Omitted));
    let limited = btf.decode(section, &bytes(), DecodeLimits { elements: 2, values: 100 }).unwrap();
    assert_eq!(limited.get("counters.list").unwrap().to_string(), "[7, 0, … 4 more]");
    let few = btf.decode(section, &bytes(), DecodeLimits { elements: 2, values: 4 }).unwrap();
    assert!(few.to_string().contains('…'), "{few}");
}

#[test]
fn structs_in_one_another_without_end_end() {
    let mut build = BtfBuilder::new();
    build.structure("a", 8, &[("", TypeId(2), 0), ("x", TypeId(2), 0)]);
    build.structure("b", 8, &[("", TypeId(1), 0), ("y", TypeId(1), 0)]);
    let btf = Btf::parse(build.bytes()).unwrap();
    let found = btf.decode(TypeId(1), &[0; 8], DecodeLimits::default());
    assert!(found.is_ok());
}

proptest! {
    #[test]
    fn any_types_over_any_bytes_end(
        noise in proptest::collection::vec((0usize..400, any::<u8>()), 0..12),
        bytes in proptest::collection::vec(any::<u8>(), 0..80),
        id in 0u32..20,
    ) {
        let mut build = BtfBuilder::new();
        whole(&mut build);
        let mut data = build.bytes();
        for (at, byte) in noise {
            if let Some(slot) = data.get_mut(24 + at) {
                *slot = byte;
            }
        }
        if let Ok(btf) = Btf::parse(data) {
            let limits = DecodeLimits { elements: 100, values: 1000 };
            let _ = btf.decode(TypeId(id), &bytes, limits).map(|found| found.to_string());
        }
    }
}

#[test]
fn small_numbers_are_no_text_and_characters_are() {
    let mut build = BtfBuilder::new();
    let (u8_, char_) = (build.integer("unsigned char", 1, false), build.integer("char", 1, true));
    let (numbers, text) = (build.array(u8_, 4), build.array(char_, 4));
    let btf = Btf::parse(build.bytes()).unwrap();
    let decoded = |ty| btf.decode(ty, b"AB\0\0", DecodeLimits::default()).unwrap().to_string();
    assert_eq!((decoded(numbers).as_str(), decoded(text).as_str()), ("[65, 66, 0, 0]", "\"AB\""));
}
