//! Bytes of a known type as a tree of named values.

use std::fmt;

use crate::path::{Step, parse};
use crate::types::{Composite, Enumeration, Integer};
use crate::{Btf, BtfError, Type, TypeId};

/// Structs and arrays may stand in one another this deep; C programs need a handful.
const MAX_DEPTH: usize = 24;
/// Elements alike in a row from which on they are printed once, with their number.
const ALIKE: usize = 4;

/// How much of a value is decoded. What is left out is marked, not lost silently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeLimits {
    /// Elements of one array.
    pub elements: u32,
    /// Values in all.
    pub values: u32,
}

impl Default for DecodeLimits {
    /// 4096 elements an array, 64 Ki values in all.
    fn default() -> Self {
        Self { elements: 4096, values: 1 << 16 }
    }
}

/// A value and, for composites, what is in it.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded {
    /// An unsigned integer of up to 64 bits.
    Unsigned(u64),
    /// A signed one.
    Signed(i64),
    /// A `bool`.
    Flag(bool),
    /// A `float` or `double`.
    Float(f64),
    /// An enum's value, with the enumerator's name if it has that value.
    Enumerator {
        /// The name.
        name: Option<String>,
        /// The value, sign-extended for a signed enum.
        value: u64,
    },
    /// A pointer.
    Pointer(u64),
    /// A `char` array that holds printable text up to a NUL, or to its end.
    Text(String),
    /// A struct, union or section: its members in order. Members of anonymous ones inside are among them.
    Members(Vec<(String, Decoded)>),
    /// An array.
    Elements {
        /// The first elements.
        first: Vec<Decoded>,
        /// Elements left out by the limits.
        more: u64,
    },
    /// Bytes without a simpler meaning: an integer of 128 bits, a type that is only declared.
    Bytes(Vec<u8>),
    /// Left out, by the limits or because the bytes end before it.
    Omitted,
}

impl Btf {
    /// Decodes `bytes` as a value of type `ty`.
    ///
    /// # Errors
    /// [`BtfError`] when the type information is broken. Bytes that end early aren't an error: what is missing is
    /// [`Decoded::Omitted`].
    pub fn decode(&self, ty: TypeId, bytes: &[u8], limits: DecodeLimits) -> Result<Decoded, BtfError> {
        Decoder { btf: self, limits, left: limits.values }.value(ty, bytes, 0)
    }
}

struct Decoder<'a> {
    btf: &'a Btf,
    limits: DecodeLimits,
    left: u32,
}

impl Decoder<'_> {
    fn value(&mut self, ty: TypeId, bytes: &[u8], depth: usize) -> Result<Decoded, BtfError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(Decoded::Omitted) };
        self.left = left;
        if depth > MAX_DEPTH {
            return Ok(Decoded::Omitted);
        }
        Ok(match self.btf.resolve(ty)?.1 {
            Type::Integer(integer) => integer_of(integer, bytes),
            Type::Pointer(_) => number(bytes, 8).map_or(Decoded::Omitted, Decoded::Pointer),
            Type::Enumeration(enumeration) => enumerator_of(enumeration, bytes),
            Type::Float { size: 4, .. } => number(bytes, 4)
                .map_or(Decoded::Omitted, |word| Decoded::Float(f64::from(f32::from_bits(word as u32)))),
            Type::Float { size: 8, .. } => {
                number(bytes, 8).map_or(Decoded::Omitted, |word| Decoded::Float(f64::from_bits(word)))
            }
            Type::Array { element, count } => self.array(element, count, bytes, depth)?,
            Type::Struct(whole) | Type::Union(whole) => {
                let mut members = Vec::new();
                self.members(whole, bytes, depth, &mut members)?;
                Decoded::Members(members)
            }
            Type::Section(section) => {
                let mut members = Vec::new();
                for variable in section.variables() {
                    let variable = variable?;
                    let inside = from(bytes, u64::from(variable.offset));
                    let value = self.value(variable.ty, inside, depth + 1)?;
                    members.push((variable.name.to_owned(), value));
                }
                Decoded::Members(members)
            }
            _ => Decoded::Bytes(bytes.to_vec()),
        })
    }

    fn members(
        &mut self,
        whole: Composite<'_>,
        bytes: &[u8],
        depth: usize,
        into: &mut Vec<(String, Decoded)>,
    ) -> Result<(), BtfError> {
        for member in whole.members() {
            let member = member?;
            if self.left == 0 || depth > MAX_DEPTH {
                into.push((member.name.to_owned(), Decoded::Omitted));
                return Ok(());
            }
            let (byte, bit) = (u64::from(member.bit_offset / 8), member.bit_offset % 8);
            let inside = from(bytes, byte);
            let (_, ty) = self.btf.resolve(member.ty)?;
            match (ty, member.bits) {
                (Type::Struct(inner) | Type::Union(inner), _) if member.name.is_empty() => {
                    self.left -= 1;
                    self.members(inner, inside, depth + 1, into)?;
                }
                (ty, Some(bits)) => {
                    self.left -= 1;
                    into.push((member.name.to_owned(), bits_of(ty, inside, bit, bits)));
                }
                _ => into.push((member.name.to_owned(), self.value(member.ty, inside, depth + 1)?)),
            }
        }
        Ok(())
    }

    fn array(
        &mut self,
        element: TypeId,
        count: u32,
        bytes: &[u8],
        depth: usize,
    ) -> Result<Decoded, BtfError> {
        let size = match self.btf.size_of(element) {
            Ok(size) => size,
            Err(BtfError::Unsized { .. }) => return Ok(Decoded::Omitted),
            Err(other) => return Err(other),
        };
        let is_text = matches!(
            self.btf.resolve(element)?.1,
            // `u8` is `unsigned char`, and counts.
            Type::Integer(Integer { size: 1, name: "char", .. })
        );
        if is_text && let Some(text) = text_of(&bytes[..bytes.len().min(count as usize)]) {
            return Ok(Decoded::Text(text));
        }
        let mut first = Vec::new();
        while (first.len() as u32) < count.min(self.limits.elements) && self.left > 0 {
            let inside = from(bytes, size.saturating_mul(first.len() as u64));
            if inside.is_empty() && size > 0 {
                break;
            }
            first.push(self.value(element, inside, depth + 1)?);
        }
        let more = u64::from(count) - first.len() as u64;
        Ok(Decoded::Elements { first, more })
    }
}

impl Decoded {
    /// What is at `path` inside: members by name, elements by index, such as `stats.seen[3]`.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Decoded> {
        let (first, steps) = parse(path)?;
        let mut at = self.member(first)?;
        for step in steps {
            at = match (step, at) {
                (Step::Member(name), _) => at.member(name)?,
                (Step::Index(index), Self::Elements { first, .. }) => first.get(index as usize)?,
                (Step::Index(_), _) => return None,
            };
        }
        Some(at)
    }

    /// The number that it is, if it is one: an integer, a flag, an enum's value, a pointer.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) | Self::Pointer(number) | Self::Enumerator { value: number, .. } => {
                Some(*number)
            }
            Self::Signed(number) => Some(*number as u64),
            Self::Flag(flag) => Some(u64::from(*flag)),
            _ => None,
        }
    }

    fn member(&self, name: &str) -> Option<&Decoded> {
        let Self::Members(members) = self else { return None };
        members.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }
}

impl fmt::Display for Decoded {
    /// In C's way: `{a = 1, b = [1, 2]}`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Signed(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Float(number) => write!(f, "{number}"),
            Self::Enumerator { name: Some(name), .. } => f.write_str(name),
            Self::Enumerator { name: None, value } => write!(f, "{value}"),
            Self::Pointer(0) => f.write_str("NULL"),
            Self::Pointer(at) => write!(f, "{at:#x}"),
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Members(members) => {
                f.write_str("{")?;
                for (at, (name, value)) in members.iter().enumerate() {
                    write!(f, "{}{name} = {value}", if at == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Self::Elements { first, more } => elements(f, first, *more),
            Self::Bytes(bytes) => {
                f.write_str("0x")?;
                bytes.iter().take(64).try_for_each(|byte| write!(f, "{byte:02x}"))?;
                if bytes.len() > 64 { write!(f, "… ({} bytes)", bytes.len()) } else { Ok(()) }
            }
            Self::Omitted => f.write_str("…"),
        }
    }
}

fn elements(f: &mut fmt::Formatter<'_>, first: &[Decoded], more: u64) -> fmt::Result {
    f.write_str("[")?;
    let mut at = 0;
    while let Some(value) = first.get(at) {
        let alike = first[at..].iter().take_while(|next| *next == value).count();
        let comma = if at == 0 { "" } else { ", " };
        if alike >= ALIKE {
            write!(f, "{comma}{value} × {alike}")?;
            at += alike;
        } else {
            write!(f, "{comma}{value}")?;
            at += 1;
        }
    }
    if more > 0 {
        write!(f, "{}… {more} more", if at == 0 { "" } else { ", " })?;
    }
    f.write_str("]")
}

fn from(bytes: &[u8], offset: u64) -> &[u8] {
    usize::try_from(offset).ok().and_then(|offset| bytes.get(offset..)).unwrap_or(&[])
}

/// The little-endian number in the first `size` bytes.
fn number(bytes: &[u8], size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..size)?.copy_from_slice(bytes.get(..size)?);
    Some(u64::from_le_bytes(word))
}

fn integer_of(integer: Integer<'_>, bytes: &[u8]) -> Decoded {
    let size = integer.size as usize;
    match number(bytes, size) {
        None if size > 8 => bytes.get(..size).map_or(Decoded::Omitted, |raw| Decoded::Bytes(raw.to_vec())),
        None => Decoded::Omitted,
        Some(word) => narrow(integer, word, integer.size.saturating_mul(8)),
    }
}

/// `word` as the integer type, of whose value it holds the lowest `bits`.
fn narrow(integer: Integer<'_>, word: u64, bits: u32) -> Decoded {
    match (integer.name, integer.signed) {
        ("bool" | "_Bool", _) => Decoded::Flag(word != 0),
        (_, true) => Decoded::Signed(extend(word, bits)),
        _ => Decoded::Unsigned(word),
    }
}

fn extend(word: u64, bits: u32) -> i64 {
    let unused = 64 - bits.clamp(1, 64);
    ((word << unused) as i64) >> unused
}

fn bits_of(ty: Type<'_>, bytes: &[u8], shift: u32, bits: u8) -> Decoded {
    let bits = u32::from(bits);
    let span = (shift + bits).div_ceil(8) as usize;
    let Some(raw) = bytes.get(..span).filter(|_| bits <= 64) else { return Decoded::Omitted };
    let mut wide = [0; 16];
    wide[..span].copy_from_slice(raw);
    let mask = u64::MAX >> (64 - bits.clamp(1, 64));
    let word = (u128::from_le_bytes(wide) >> shift) as u64 & mask;
    match ty {
        Type::Integer(integer) => narrow(integer, word, bits),
        Type::Enumeration(enumeration) => {
            let value = if enumeration.signed { extend(word, bits) as u64 } else { word };
            named(enumeration, value)
        }
        _ => Decoded::Unsigned(word),
    }
}

fn enumerator_of(enumeration: Enumeration<'_>, bytes: &[u8]) -> Decoded {
    let Some(word) = number(bytes, enumeration.size as usize) else { return Decoded::Omitted };
    let bits = enumeration.size.saturating_mul(8);
    named(enumeration, if enumeration.signed { extend(word, bits) as u64 } else { word })
}

fn named(enumeration: Enumeration<'_>, value: u64) -> Decoded {
    let name =
        enumeration.values().filter_map(Result::ok).find(|(_, found)| *found == value).map(|(name, _)| name);
    Decoded::Enumerator { name: name.map(str::to_owned), value }
}

/// Text up to a NUL with nothing but NULs behind it; nothing when it isn't printable.
fn text_of(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let printable = text.chars().all(|letter| !letter.is_control() || matches!(letter, '\n' | '\t' | '\r'));
    (printable && bytes[end..].iter().all(|byte| *byte == 0)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests;
