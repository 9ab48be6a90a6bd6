//! Writes BTF: for types that come from elsewhere, and for tests of whatever reads it.

use crate::{Btf, TypeId};

/// As many members, values or parameters as one type can have.
pub const MAX_PARTS: usize = 0xffff;
/// The furthest bit at which a member of a struct with bit fields can start.
pub const MAX_BIT_OFFSET: u32 = 0xff_ffff;

/// Collects types and writes them as BTF.
#[derive(Debug, Default)]
pub struct BtfBuilder {
    types: Vec<u8>,
    strings: Vec<u8>,
    first: u32,
    count: u32,
    strings_before: u32,
}

impl BtfBuilder {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self { strings: vec![0], first: 1, ..Self::default() }
    }

    /// One that continues `base`: split BTF.
    #[must_use]
    pub fn split(base: &BtfBuilder) -> Self {
        let strings_before = base.strings_before + base.strings.len() as u32;
        Self { first: base.first + base.count, strings_before, ..Self::default() }
    }

    /// An empty one that continues a BTF that is there already.
    #[must_use]
    pub fn on(base: &Btf) -> Self {
        Self { first: base.len(), strings_before: base.strings_len(), ..Self::default() }
    }

    /// An integer type of `size` bytes.
    pub fn integer(&mut self, name: &str, size: u32, signed: bool) -> TypeId {
        let id = self.push(name, 1, 0, false, size);
        self.words(&[u32::from(signed) << 24 | (size * 8)]);
        id
    }

    /// A pointer.
    pub fn pointer(&mut self, to: TypeId) -> TypeId {
        self.push("", 2, 0, false, to.0)
    }

    /// An array.
    pub fn array(&mut self, element: TypeId, count: u32) -> TypeId {
        let id = self.push("", 3, 0, false, 0);
        self.words(&[element.0, element.0, count]);
        id
    }

    /// A struct of members `(name, type, byte offset)`.
    pub fn structure(&mut self, name: &str, size: u32, members: &[(&str, TypeId, u32)]) -> TypeId {
        let bits: Vec<_> = members.iter().map(|(name, ty, at)| (*name, *ty, at * 8, 0)).collect();
        self.composite(4, name, size, &bits)
    }

    /// A union of members, all at offset 0.
    pub fn union(&mut self, name: &str, size: u32, members: &[(&str, TypeId)]) -> TypeId {
        let bits: Vec<_> = members.iter().map(|(name, ty)| (*name, *ty, 0, 0)).collect();
        self.composite(5, name, size, &bits)
    }

    /// A struct of members `(name, type, bit offset, bits)`, where 0 bits is no bitfield.
    pub fn bitfields(&mut self, name: &str, size: u32, members: &[(&str, TypeId, u32, u8)]) -> TypeId {
        self.composite(4, name, size, members)
    }

    /// A struct or union of members `(name, type, bit offset, bits)`, where 0 bits is no bitfield; at most [`MAX_PARTS`]
    /// of them, and none past [`MAX_BIT_OFFSET`] when there are bitfields.
    pub fn members(
        &mut self,
        union: bool,
        name: &str,
        size: u32,
        members: &[(&str, TypeId, u32, u8)],
    ) -> TypeId {
        self.composite(if union { 5 } else { 4 }, name, size, members)
    }

    /// A floating-point number.
    pub fn float(&mut self, name: &str, size: u32) -> TypeId {
        self.push(name, 16, 0, false, size)
    }

    /// An enum of `size` bytes with at most [`MAX_PARTS`] values, of which those of a signed one are sign-extended.
    pub fn values(&mut self, name: &str, size: u32, signed: bool, values: &[(&str, u64)]) -> TypeId {
        let wide = size > 4;
        let id = self.push(name, if wide { 19 } else { 6 }, values.len() as u32, signed, size);
        for (name, value) in values {
            let name = self.string(name);
            self.words(&[name, *value as u32]);
            if wide {
                self.words(&[(*value >> 32) as u32]);
            }
        }
        id
    }

    /// An enum of 4 bytes.
    pub fn enumeration(&mut self, name: &str, signed: bool, values: &[(&str, i32)]) -> TypeId {
        let id = self.push(name, 6, values.len() as u32, signed, 4);
        for (name, value) in values {
            let name = self.string(name);
            self.words(&[name, *value as u32]);
        }
        id
    }

    /// An enum of 8 bytes.
    pub fn enumeration64(&mut self, name: &str, values: &[(&str, u64)]) -> TypeId {
        let id = self.push(name, 19, values.len() as u32, false, 8);
        for (name, value) in values {
            let name = self.string(name);
            self.words(&[name, *value as u32, (*value >> 32) as u32]);
        }
        id
    }

    /// A struct that is only declared.
    pub fn forward(&mut self, name: &str) -> TypeId {
        self.push(name, 7, 0, false, 0)
    }

    /// A union that is only declared.
    pub fn forward_union(&mut self, name: &str) -> TypeId {
        self.push(name, 7, 0, true, 0)
    }

    /// A typedef.
    pub fn typedef(&mut self, name: &str, target: TypeId) -> TypeId {
        self.push(name, 8, 0, false, target.0)
    }

    /// `const`
    pub fn constant(&mut self, target: TypeId) -> TypeId {
        self.push("", 10, 0, false, target.0)
    }

    /// A variable.
    pub fn variable(&mut self, name: &str, ty: TypeId) -> TypeId {
        let id = self.push(name, 14, 0, false, ty.0);
        self.words(&[1]);
        id
    }

    /// A function's prototype without parameters.
    pub fn prototype(&mut self, returns: TypeId) -> TypeId {
        self.push("", 13, 0, false, returns.0)
    }

    /// A prototype with parameters `(name, type)`, at most [`MAX_PARTS`].
    pub fn prototype_of(&mut self, parameters: &[(&str, TypeId)], returns: TypeId) -> TypeId {
        let prototype = self.push("", 13, parameters.len() as u32, false, returns.0);
        for (name, ty) in parameters {
            let name = self.string(name);
            self.words(&[name, ty.0]);
        }
        prototype
    }

    /// A function of that name with parameters `(name, type)`.
    pub fn function(&mut self, name: &str, parameters: &[(&str, TypeId)], returns: TypeId) -> TypeId {
        let prototype = self.prototype_of(parameters, returns);
        self.push(name, 12, 0, false, prototype.0)
    }

    /// A section of variables `(variable, byte offset, size)`.
    pub fn section(&mut self, name: &str, size: u32, variables: &[(TypeId, u32, u32)]) -> TypeId {
        let id = self.push(name, 15, variables.len() as u32, false, size);
        for (variable, at, size) in variables {
            self.words(&[variable.0, *at, *size]);
        }
        id
    }

    /// The BTF.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
        let mut out = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, types, types, strings] {
            out.extend(word.to_le_bytes());
        }
        out.extend(&self.types);
        out.extend(&self.strings);
        out
    }

    fn composite(&mut self, kind: u32, name: &str, size: u32, members: &[(&str, TypeId, u32, u8)]) -> TypeId {
        let flag = members.iter().any(|(.., bits)| *bits > 0);
        let id = self.push(name, kind, members.len() as u32, flag, size);
        for (name, ty, at, bits) in members {
            let name = self.string(name);
            self.words(&[name, ty.0, at | u32::from(*bits) << 24]);
        }
        id
    }

    fn push(&mut self, name: &str, kind: u32, many: u32, flag: bool, size: u32) -> TypeId {
        let name = self.string(name);
        self.words(&[name, u32::from(flag) << 31 | kind << 24 | many, size]);
        self.count += 1;
        TypeId(self.first + self.count - 1)
    }

    fn string(&mut self, text: &str) -> u32 {
        if text.is_empty() {
            return 0;
        }
        let at = self.strings_before + self.strings.len() as u32;
        self.strings.extend(text.as_bytes());
        self.strings.push(0);
        at
    }

    fn words(&mut self, words: &[u32]) {
        self.types.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    }
}
