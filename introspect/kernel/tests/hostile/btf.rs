//! Any bytes as BTF, alone and split: every type, name, path and value that can be asked for has an answer or an error,
//! and the parts that an index keeps give the same types again.
//!
//! Random bytes seldom have a header that agrees, so the input is also read as types and strings behind one that does.

use std::sync::Arc;

use ktstr_introspect_types::{Btf, DecodeLimits, Type, TypeId};

/// Types looked at; a few bytes can't make many more.
const MOST: u32 = 2000;

pub(crate) fn btf(input: &[u8]) {
    if let Ok(btf) = Btf::parse(input) {
        check(btf);
    }
    let [size, rest @ ..] = input else { return };
    let types = (usize::from(*size) * 4).min(rest.len());
    let whole = with_header(rest, types);
    if let Ok(btf) = Btf::parse(whole.clone()) {
        let base = Arc::new(btf);
        if let Ok(split) = Btf::parse_split(whole.clone(), base) {
            check(split);
        }
    }
    if let Ok(btf) = Btf::parse(whole) {
        check(btf);
    }
}

fn with_header(rest: &[u8], types: usize) -> Vec<u8> {
    let (types, strings) = rest.split_at(types);
    let mut out = vec![0x9f, 0xeb, 1, 0];
    for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32 + 2] {
        out.extend(word.to_le_bytes());
    }
    out.extend(types);
    out.push(0);
    out.extend(strings);
    out.push(0);
    out
}

fn check(btf: Btf) {
    let bytes: Vec<u8> = (0..=255).collect();
    let limits = DecodeLimits { elements: 50, values: 500 };
    for id in (0..btf.len().min(MOST)).map(TypeId) {
        let _ = (btf.resolve(id), btf.size_of(id));
        let _ =
            btf.decode(id, &bytes, limits).map(|value| (value.to_string(), value.get("a.b[1]").is_some()));
        let Ok(ty) = btf.get(id) else { continue };
        if let Type::Struct(whole) | Type::Union(whole) = ty {
            for member in whole.members().flatten().take(50) {
                let _ = btf.plan_from(id, &format!(".{}", member.name));
                let _ = btf.plan(&format!("{}.{}[1]", whole.name, member.name));
            }
            assert!(whole.name.is_empty() || btf.named(whole.name).any(|found| found == id));
        }
        if let Type::Section(section) = ty {
            let _ = section.variables().count();
        }
        if let Type::Enumeration(enumeration) = ty {
            for (name, value) in enumeration.values().flatten().take(50) {
                let _ =
                    (btf.enumerator(enumeration.name, value), btf.enumerator_value(enumeration.name, name));
            }
        }
    }
    if let Some(parts) = btf.parts() {
        let again = Btf::from_parts(parts.map(Into::into)).expect("parts of one that parsed");
        assert_eq!(again.len(), btf.len());
        assert_eq!(again.parts(), btf.parts());
    }
}
