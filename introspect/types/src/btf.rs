//! BTF bytes and the types in them.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ktstr_introspect_memory::StableBytes;
use object::LittleEndian;
use object::elf::FileHeader64;
use object::read::elf::{FileHeader, SectionHeader};

use crate::types::{Composite, Enumeration, Integer, Modifier, Section};
use crate::{Type, TypeId};

/// How many typedefs and qualifiers may stand on one another, and arrays in one another. The kernel needs 6 or so.
const MAX_CHAIN: usize = 64;
const NONE: u32 = u32::MAX;

/// BTF that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BtfError {
    /// The ELF file has no such section.
    #[error(
        "no readable .BTF section in the ELF file ({reason}): expected a kernel built with CONFIG_DEBUG_INFO_BTF"
    )]
    NoSection {
        /// What the ELF reader said, or that there is none.
        reason: String,
    },
    /// The header is not one of little-endian BTF version 1.
    #[error("not little-endian BTF version 1: it starts with {start:02x?}")]
    Header {
        /// The first bytes.
        start: Vec<u8>,
    },
    /// A section is said to be where there are no bytes.
    #[error("BTF is cut short: {what} at {offset:#x} goes past its {length} bytes")]
    Truncated {
        /// What was being read.
        what: &'static str,
        /// Where it starts, from the start of the BTF.
        offset: usize,
        /// Length of the BTF.
        length: usize,
    },
    /// The strings don't end.
    #[error("the BTF string section doesn't start and end with a NUL")]
    Strings,
    /// A kind that this reader doesn't know, so that it can't tell where the next type starts.
    #[error("BTF type {id} has kind {kind}: kinds 1 to 19 are known")]
    Kind {
        /// Number of the type.
        id: u32,
        /// Its kind.
        kind: u32,
    },
    /// A type that isn't there.
    #[error("BTF refers to type {id}, but there are only {count} types")]
    NoType {
        /// Its number.
        id: u32,
        /// How many there are.
        count: u32,
    },
    /// A name that isn't there.
    #[error("BTF refers to a name at {offset:#x}, outside its strings or not UTF-8")]
    Name {
        /// Offset in the strings.
        offset: u32,
    },
    /// Types that refer to one another without end.
    #[error("BTF type {id} stands on more than {MAX_CHAIN} others: it refers to itself")]
    Cycle {
        /// Where it started.
        id: u32,
    },
    /// A struct whose anonymous members have no end.
    #[error("a search for a member went through {limit} others: anonymous structs contain one another")]
    Members {
        /// How many were looked at.
        limit: u32,
    },
    /// A type without a size was asked for it.
    #[error("BTF type {id} has no size, or one past the address space")]
    Unsized {
        /// Its number.
        id: u32,
    },
}

/// Type information of a kernel, a module or a BPF program.
pub struct Btf {
    data: StableBytes,
    /// Where each own type starts in `data`: words.
    types: StableBytes,
    strings: std::ops::Range<usize>,
    base: Option<Arc<Btf>>,
    names: OnceLock<Names>,
}

/// Own types by name: heads of chains through `next`, by hash; words.
struct Names {
    heads: StableBytes,
    next: StableBytes,
}

impl fmt::Debug for Btf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Btf({} types, {} bytes)", self.len(), self.data.len())
    }
}

impl Btf {
    /// Reads a whole BTF.
    ///
    /// # Errors
    /// [`BtfError`] when it isn't one.
    pub fn parse(data: impl Into<StableBytes>) -> Result<Self, BtfError> {
        Self::parse_on(data.into(), None)
    }

    /// Reads split BTF, whose types and strings continue those of `base`.
    ///
    /// # Errors
    /// [`BtfError`] when it isn't one.
    pub fn parse_split(data: impl Into<StableBytes>, base: Arc<Btf>) -> Result<Self, BtfError> {
        Self::parse_on(data.into(), Some(base))
    }

    /// Reads the `.BTF` section of a little-endian ELF64 file.
    ///
    /// # Errors
    /// [`BtfError::NoSection`] when there is none, others when it is broken.
    pub fn from_elf(file: &[u8]) -> Result<Self, BtfError> {
        let missing = |reason: &dyn fmt::Display| BtfError::NoSection { reason: reason.to_string() };
        let header = FileHeader64::<LittleEndian>::parse(file).map_err(|error| missing(&error))?;
        let sections = header.sections(LittleEndian, file).map_err(|error| missing(&error))?;
        let (_, section) =
            sections.section_by_name(LittleEndian, b".BTF").ok_or_else(|| missing(&"there is none"))?;
        let data = section.data(LittleEndian, file).map_err(|error| missing(&error))?;
        Self::parse(data)
    }

    fn parse_on(data: StableBytes, base: Option<Arc<Btf>>) -> Result<Self, BtfError> {
        let Ranges { types, strings } = ranges(&data, base.is_some())?;
        let first = base.as_ref().map_or(1, |base| base.len());
        let types = StableBytes::of_words(&starts(&data, types, first)?);
        Ok(Self { data, types, strings, base, names: OnceLock::new() })
    }

    /// The bytes, where each type starts, and the index by name as bytes, for [`Btf::from_parts`]; nothing for split BTF.
    #[must_use]
    pub fn parts(&self) -> Option<[&[u8]; 4]> {
        let names = self.names.get_or_init(|| self.index());
        self.base.is_none().then(|| [&*self.data, &*self.types, &*names.heads, &*names.next])
    }

    /// Type information out of the [`Btf::parts`] of another, without going over it again; nothing when they don't fit
    /// together. Parts that are broken otherwise give wrong answers or none, never a walk without end.
    #[must_use]
    pub fn from_parts([data, types, heads, next]: [StableBytes; 4]) -> Option<Self> {
        let strings = ranges(&data, false).ok()?.strings;
        let fits = types.len() % 4 == 0
            && next.len() == types.len()
            && heads.len() % 4 == 0
            && heads.words().is_power_of_two();
        let names = OnceLock::from(Names { heads, next });
        fits.then_some(Self { data, types, strings, base: None, names })
    }

    /// What split BTF stands on.
    #[must_use]
    pub fn base(&self) -> Option<&Arc<Btf>> {
        self.base.as_ref()
    }

    /// Number of types, `void` and those of the base included: ids are below it.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.first() + self.types.words() as u32
    }

    /// Whether there is nothing but `void`.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 1
    }

    /// The type of number `id`.
    ///
    /// # Errors
    /// [`BtfError::NoType`] or [`BtfError::Name`] when it, or its name, isn't there.
    pub fn get(&self, id: TypeId) -> Result<Type<'_>, BtfError> {
        let Some(own) = id.0.checked_sub(self.first()) else {
            return self.base.as_ref().map_or(Ok(Type::Void), |base| base.get(id));
        };
        let start = self.types.word(own as usize).ok_or(BtfError::NoType { id: id.0, count: self.len() })?;
        let start = start as usize;
        let (name, info, size) = (self.word(start), self.word(start + 4), self.word(start + 8));
        let (kind, many, flag) = (info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 == 1);
        // `starts` has checked that all of it lies inside the data.
        let tail = |bytes: usize| self.data.get(start + 12..start + 12 + bytes).unwrap_or(&[]);
        let name = self.string(name)?;
        let target = TypeId(size);
        let composite = || Composite { name, size, btf: self, members: tail(many * 12), bitfields: flag };
        let enumeration = |wide| {
            let values = tail(many * if wide { 12 } else { 8 });
            Type::Enumeration(Enumeration { name, size, signed: flag, btf: self, values, wide })
        };
        let modified = |modifier| Type::Modified { modifier, target };
        Ok(match kind {
            1 => {
                let encoding = self.word(start + 12);
                let (bits, offset) = (encoding as u8, (encoding >> 16) as u8);
                Type::Integer(Integer { name, size, bits, offset, signed: encoding >> 24 & 1 == 1 })
            }
            2 => Type::Pointer(target),
            3 => Type::Array { element: TypeId(self.word(start + 12)), count: self.word(start + 20) },
            4 => Type::Struct(composite()),
            5 => Type::Union(composite()),
            6 => enumeration(false),
            7 => Type::Forward { name, union: flag },
            8 => Type::Typedef { name, target },
            9 => modified(Modifier::Volatile),
            10 => modified(Modifier::Const),
            11 => modified(Modifier::Restrict),
            12 => Type::Function { name, prototype: target },
            13 => Type::Prototype { returns: target },
            14 => Type::Variable { name, ty: target },
            15 => Type::Section(Section { name, size, btf: self, variables: tail(many * 12) }),
            16 => Type::Float { name, size },
            17 => Type::DeclarationTag { name, target },
            18 => modified(Modifier::Tag),
            _ => enumeration(true),
        })
    }

    /// The parameters of the function or prototype of number `id`: names, empty where they have none, and types. None
    /// for types of other kinds; a variadic function ends in a `void` one.
    ///
    /// # Errors
    /// As [`Btf::get`].
    pub fn parameters(&self, id: TypeId) -> Result<Vec<(&str, TypeId)>, BtfError> {
        let id = match self.get(id)? {
            Type::Function { prototype, .. } => prototype,
            _ => id,
        };
        let Type::Prototype { .. } = self.get(id)? else { return Ok(Vec::new()) };
        let Some(own) = id.0.checked_sub(self.first()) else {
            return self.base.as_ref().map_or(Ok(Vec::new()), |base| base.parameters(id));
        };
        let start = self.types.word(own as usize).ok_or(BtfError::NoType { id: id.0, count: self.len() })?;
        let start = start as usize;
        let many = (self.word(start + 4) & 0xffff) as usize;
        let at = |number: usize| start + 12 + 8 * number;
        (0..many).map(|n| Ok((self.string(self.word(at(n)))?, TypeId(self.word(at(n) + 4))))).collect()
    }

    /// The type behind typedefs and qualifiers.
    ///
    /// # Errors
    /// [`BtfError::Cycle`] when there is no end to them, others as [`Btf::get`].
    pub fn resolve(&self, id: TypeId) -> Result<(TypeId, Type<'_>), BtfError> {
        let mut at = id;
        for _ in 0..MAX_CHAIN {
            match self.get(at)? {
                Type::Typedef { target, .. }
                | Type::Modified { target, .. }
                | Type::Variable { ty: target, .. } => {
                    at = target;
                }
                other => return Ok((at, other)),
            }
        }
        Err(BtfError::Cycle { id: id.0 })
    }

    /// Size of a type in bytes.
    ///
    /// # Errors
    /// [`BtfError::Unsized`] for `void`, functions and forward declarations, others as [`Btf::resolve`].
    pub fn size_of(&self, id: TypeId) -> Result<u64, BtfError> {
        let (mut at, mut times) = (id, 1u64);
        for _ in 0..MAX_CHAIN {
            let size = match self.resolve(at)?.1 {
                Type::Integer(Integer { size, .. })
                | Type::Float { size, .. }
                | Type::Section(Section { size, .. }) => size,
                Type::Struct(whole) | Type::Union(whole) => whole.size,
                Type::Enumeration(enumeration) => enumeration.size,
                Type::Pointer(_) => 8,
                Type::Array { element, count } => {
                    times = times.checked_mul(u64::from(count)).ok_or(BtfError::Unsized { id: id.0 })?;
                    at = element;
                    continue;
                }
                _ => return Err(BtfError::Unsized { id: id.0 }),
            };
            return times.checked_mul(u64::from(size)).ok_or(BtfError::Unsized { id: id.0 });
        }
        Err(BtfError::Cycle { id: id.0 })
    }

    /// All types named `name`, own ones first, in the order of their ids: types, functions and variables alike.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = TypeId> + 'a {
        let names = self.names.get_or_init(|| self.index());
        let bucket = hash(name.as_bytes()) & names.heads.words().wrapping_sub(1);
        let mut own = names.heads.word(bucket).unwrap_or(NONE);
        let mut base: Option<Box<dyn Iterator<Item = TypeId> + 'a>> = None;
        std::iter::from_fn(move || {
            while own != NONE {
                let id = TypeId(self.first() + own);
                let start = self.types.word(own as usize).unwrap_or(NONE) as usize;
                // A chain ascends; one that doesn't is out of a broken index, and may have no end.
                own = names.next.word(own as usize).filter(|next| *next > own).unwrap_or(NONE);
                if self.string(self.word(start)).is_ok_and(|found| found == name) {
                    return Some(id);
                }
            }
            if base.is_none() {
                base = Some(Box::new(self.base.as_deref()?.named(name)));
            }
            base.as_mut()?.next()
        })
    }

    /// The struct or union of that name, or the one that a typedef of that name stands for.
    #[must_use]
    pub fn composite(&self, name: &str) -> Option<TypeId> {
        let is_composite = |id: &TypeId| {
            matches!(self.resolve(*id), Ok((_, Type::Struct(_) | Type::Union(_))))
                && !matches!(self.get(*id), Ok(Type::Variable { .. }))
        };
        self.named(name).find(is_composite).and_then(|id| self.resolve(id).ok()).map(|(id, _)| id)
    }

    /// The struct, or the union, of that name with its members, which a [`Type::Forward`] only declares.
    #[must_use]
    pub fn definition(&self, name: &str, union: bool) -> Option<TypeId> {
        self.named(name).find(|id| match self.get(*id) {
            Ok(Type::Struct(_)) => !union,
            Ok(Type::Union(_)) => union,
            _ => false,
        })
    }

    /// The enumerator of enum `name` whose value is `value`.
    #[must_use]
    pub fn enumerator(&self, name: &str, value: u64) -> Option<&str> {
        self.named(name).find_map(|id| match self.get(id) {
            Ok(Type::Enumeration(enumeration)) => enumeration
                .values()
                .filter_map(Result::ok)
                .find(|(_, found)| *found == value)
                .map(|(name, _)| name),
            _ => None,
        })
    }

    /// The value of the enumerator called `enumerator` in enum `name`.
    #[must_use]
    pub fn enumerator_value(&self, name: &str, enumerator: &str) -> Option<u64> {
        self.named(name).find_map(|id| match self.get(id) {
            Ok(Type::Enumeration(enumeration)) => enumeration
                .values()
                .filter_map(Result::ok)
                .find(|(name, _)| *name == enumerator)
                .map(|(_, value)| value),
            _ => None,
        })
    }

    /// The value of an enumerator of an enum without a name, which is how the kernel writes many of its flag bits. Looks
    /// through all types.
    #[must_use]
    pub fn constant(&self, enumerator: &str) -> Option<u64> {
        (1..self.len()).find_map(|id| match self.get(TypeId(id)) {
            Ok(Type::Enumeration(enumeration)) if enumeration.name.is_empty() => enumeration
                .values()
                .filter_map(Result::ok)
                .find(|(name, _)| *name == enumerator)
                .map(|(_, value)| value),
            _ => None,
        })
    }

    pub(crate) fn string(&self, offset: u32) -> Result<&str, BtfError> {
        let base = self.base.as_ref().map_or(0, |base| base.strings_len());
        let Some(own) = offset.checked_sub(base) else {
            return self.base.as_ref().ok_or(BtfError::Name { offset })?.string(offset);
        };
        let rest = self.data[self.strings.clone()].get(own as usize..).ok_or(BtfError::Name { offset })?;
        if rest.is_empty() && offset == 0 {
            return Ok("");
        }
        let end = memchr::memchr(0, rest).ok_or(BtfError::Name { offset })?;
        std::str::from_utf8(&rest[..end]).map_err(|_| BtfError::Name { offset })
    }

    /// Length of all strings, those of the base included.
    pub(crate) fn strings_len(&self) -> u32 {
        self.base.as_ref().map_or(0, |base| base.strings_len()) + self.strings.len() as u32
    }

    /// Number of the first own type.
    fn first(&self) -> u32 {
        self.base.as_ref().map_or(1, |base| base.len())
    }

    fn word(&self, at: usize) -> u32 {
        self.data
            .get(at..)
            .and_then(|rest| rest.get(..4))
            .map_or(0, |word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]))
    }

    fn index(&self) -> Names {
        let count = self.types.words();
        let buckets = count.next_power_of_two().max(16);
        let (mut heads, mut next) = (vec![NONE; buckets], vec![NONE; count]);
        for own in (0..count).rev() {
            let start = self.types.word(own).unwrap_or(NONE) as usize;
            if let Ok(name) = self.string(self.word(start))
                && !name.is_empty()
            {
                let bucket = hash(name.as_bytes()) & (buckets - 1);
                next[own] = heads[bucket];
                heads[bucket] = own as u32;
            }
        }
        Names { heads: StableBytes::of_words(&heads), next: StableBytes::of_words(&next) }
    }
}

/// Where types and strings lie.
struct Ranges {
    types: std::ops::Range<usize>,
    strings: std::ops::Range<usize>,
}

/// Reads the header.
fn ranges(data: &[u8], split: bool) -> Result<Ranges, BtfError> {
    let length = data.len();
    let word = |at: usize| {
        let bytes =
            data.get(at..at + 4).ok_or(BtfError::Truncated { what: "the header", offset: at, length })?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    if data.get(..3) != Some(&[0x9f, 0xeb, 1]) {
        return Err(BtfError::Header { start: data[..length.min(8)].to_vec() });
    }
    let header = word(4)? as usize;
    let range = |what, offset: u32, size: u32| {
        let start = header.saturating_add(offset as usize);
        let end = start.saturating_add(size as usize);
        if end > length { Err(BtfError::Truncated { what, offset: start, length }) } else { Ok(start..end) }
    };
    let types = range("the types", word(8)?, word(12)?)?;
    let strings = range("the strings", word(16)?, word(20)?)?;
    let text = &data[strings.clone()];
    // Split BTF may start with any string; both must end.
    if text.last().is_some_and(|last| *last != 0) || (!split && text.first() != Some(&0)) {
        return Err(BtfError::Strings);
    }
    Ok(Ranges { types, strings })
}

/// Where each type starts. Checks that every type lies inside `range` whole.
fn starts(data: &[u8], range: std::ops::Range<usize>, first: u32) -> Result<Vec<u32>, BtfError> {
    let mut found = Vec::with_capacity(range.len() / 24);
    let mut at = range.start;
    while at < range.end {
        let truncated = BtfError::Truncated { what: "a type", offset: at, length: range.end };
        let Some(head) = data[..range.end].get(at..at + 12) else { return Err(truncated) };
        let info = u32::from_le_bytes([head[4], head[5], head[6], head[7]]);
        let (kind, many) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
        let tail = match kind {
            2 | 7..=12 | 16 | 18 => 0,
            1 | 14 | 17 => 4,
            3 => 12,
            4 | 5 | 15 | 19 => 12 * many,
            6 | 13 => 8 * many,
            _ => return Err(BtfError::Kind { id: first.saturating_add(found.len() as u32), kind }),
        };
        found.push(u32::try_from(at).map_err(|_| truncated.clone())?);
        at += 12 + tail;
        if at > range.end {
            return Err(truncated);
        }
    }
    Ok(found)
}

fn hash(name: &[u8]) -> usize {
    let hash = name
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    (hash ^ (hash >> 32)) as usize
}

#[cfg(test)]
mod tests;
