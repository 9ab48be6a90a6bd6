//! Names of functions in the BTF of a loaded BPF object: the kernel itself keeps only 15
//! bytes of a program's name (Documentation/bpf/btf.rst).

/// `BTF_MAGIC` of include/uapi/linux/btf.h.
const MAGIC: u16 = 0xeb9f;
/// `sizeof(struct btf_type)`.
const TYPE_LEN: usize = 12;
/// `BTF_KIND_FUNC`.
const FUNC: u32 = 12;

/// The name of the function of this type id; `None` if the data holds no such function.
pub(crate) fn function(btf: &[u8], id: u32) -> Option<&str> {
    // struct btf_header: magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
    if u16::from_le_bytes(btf.get(..2)?.try_into().ok()?) != MAGIC {
        return None;
    }
    let field = |index: usize| word(btf, 4 + 4 * index).map(|value| value as usize);
    let body = btf.get(field(0)?..)?;
    let types = body.get(field(1)?..)?.get(..field(2)?)?;
    // Ids begin at 1: 0 is void and has no entry.
    let mut at = 0;
    for _ in 1..id {
        at += TYPE_LEN + more(word(types, at + 4)?)?;
    }
    let kind = word(types, at + 4)? >> 24 & 0x1f;
    let name = string(btf, word(types, at)?)?;
    Some(name).filter(|name| kind == FUNC && !name.is_empty())
}

/// The string at this offset of its strings.
pub(crate) fn string(btf: &[u8], offset: u32) -> Option<&str> {
    let field = |index: usize| word(btf, 4 + 4 * index).map(|value| value as usize);
    let strings = btf.get(field(0)?..)?.get(field(3)?..)?.get(..field(4)?)?;
    std::str::from_utf8(strings.get(offset as usize..)?.split(|byte| *byte == 0).next()?).ok()
}

/// Bytes that follow `struct btf_type`, by its `info`: kind in bits 24 to 28, vlen in 0 to 15.
fn more(info: u32) -> Option<usize> {
    let vlen = (info & 0xffff) as usize;
    Some(match info >> 24 & 0x1f {
        // INT, VAR, DECL_TAG
        1 | 14 | 17 => 4,
        // ARRAY
        3 => 12,
        // STRUCT, UNION, DATASEC, ENUM64
        4 | 5 | 15 | 19 => 12 * vlen,
        // ENUM, FUNC_PROTO
        6 | 13 => 8 * vlen,
        // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
        2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `int`, a struct of one member, a prototype of one parameter, a function.
    fn btf() -> Vec<u8> {
        let strings = b"\0int\0pair\0demo_set_cpumask\0";
        let types: [u32; 18] = [
            1,
            1 << 24,
            4,
            0x0100_0020, // int
            5,
            4 << 24 | 1,
            4,
            1,
            1,
            0, // struct
            0,
            13 << 24 | 1,
            1,
            1,
            1, // prototype
            10,
            12 << 24,
            3, // function
        ];
        let types: Vec<u8> = types.iter().flat_map(|word| word.to_le_bytes()).collect();
        let header = [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32];
        let mut bytes = vec![0x9f, 0xeb, 1, 0];
        bytes.extend(header.iter().flat_map(|word| word.to_le_bytes()));
        bytes.extend(types);
        bytes.extend(strings);
        bytes
    }

    #[test]
    fn a_function_has_its_whole_name() {
        assert_eq!(function(&btf(), 4), Some("demo_set_cpumask"));
    }

    #[test]
    fn what_is_no_function_has_none() {
        let btf = btf();
        assert!((0..4).chain(5..9).all(|id| function(&btf, id).is_none()));
        assert_eq!(function(&btf, u32::MAX), None);
    }

    #[test]
    fn broken_data_is_borne() {
        let good = btf();
        for end in 0..good.len() - 1 {
            assert_eq!(function(&good[..end], 4), None, "cut at {end}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0xff;
            let _ = function(&bad, 4);
        }
    }
}
