//! The kinds of type.

use crate::{Btf, BtfError};

/// A type's number; 0 is `void`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TypeId(pub u32);

/// A decoded type.
#[derive(Debug, Clone, Copy)]
pub enum Type<'a> {
    /// No type.
    Void,
    /// An integer, `bool` and `char` among them.
    Integer(Integer<'a>),
    /// A pointer to the type.
    Pointer(TypeId),
    /// An array.
    Array {
        /// Type of an element.
        element: TypeId,
        /// Number of elements; 0 for a flexible array.
        count: u32,
    },
    /// A struct.
    Struct(Composite<'a>),
    /// A union.
    Union(Composite<'a>),
    /// An enum of either width.
    Enumeration(Enumeration<'a>),
    /// A struct or union that is only declared here.
    Forward {
        /// Its name.
        name: &'a str,
        /// Whether it is a union.
        union: bool,
    },
    /// A typedef.
    Typedef {
        /// Its name.
        name: &'a str,
        /// What it stands for.
        target: TypeId,
    },
    /// A qualifier or a type tag.
    Modified {
        /// Which.
        modifier: Modifier,
        /// The type that it qualifies.
        target: TypeId,
    },
    /// A function.
    Function {
        /// Its name.
        name: &'a str,
        /// Its prototype.
        prototype: TypeId,
    },
    /// A function's prototype.
    Prototype {
        /// What it returns.
        returns: TypeId,
    },
    /// A variable; in kernel BTF the per-CPU ones.
    Variable {
        /// Its name.
        name: &'a str,
        /// Its type.
        ty: TypeId,
    },
    /// A section of variables: `.bss`, `.data` or `.rodata` of a BPF program, or a kernel's per-CPU section.
    Section(Section<'a>),
    /// A floating-point number.
    Float {
        /// Its name.
        name: &'a str,
        /// Its size in bytes.
        size: u32,
    },
    /// A tag on a declaration.
    DeclarationTag {
        /// Its text.
        name: &'a str,
        /// What it is on.
        target: TypeId,
    },
}

/// An integer type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Size of the storage in bytes.
    pub size: u32,
    /// Bits in use; fewer than the storage's only in bitfields of the old encoding.
    pub bits: u8,
    /// First bit in use.
    pub offset: u8,
    /// Whether it is signed.
    pub signed: bool,
}

/// A struct or union.
#[derive(Debug, Clone, Copy)]
pub struct Composite<'a> {
    /// Its name; empty when it has none.
    pub name: &'a str,
    /// Its size in bytes.
    pub size: u32,
    pub(crate) btf: &'a Btf,
    pub(crate) members: &'a [u8],
    pub(crate) bitfields: bool,
}

/// A member of a struct or union.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// Its name; empty for an anonymous struct or union.
    pub name: &'a str,
    /// Its type.
    pub ty: TypeId,
    /// Where it starts, in bits from the start of the whole.
    pub bit_offset: u32,
    /// Width in bits when it is a bitfield.
    pub bits: Option<u8>,
}

impl<'a> Composite<'a> {
    /// Its members, in order.
    pub fn members(&self) -> impl Iterator<Item = Result<Member<'a>, BtfError>> + use<'a> {
        let (btf, bitfields) = (self.btf, self.bitfields);
        self.members.chunks_exact(12).map(move |raw| {
            let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
            let (offset, bits) = match (bitfields, word(8)) {
                (true, word) => (word & 0xff_ffff, (word >> 24) as u8),
                (false, word) => (word, 0),
            };
            let name = btf.string(word(0))?;
            Ok(Member { name, ty: TypeId(word(4)), bit_offset: offset, bits: (bits > 0).then_some(bits) })
        })
    }
}

/// An enum.
#[derive(Debug, Clone, Copy)]
pub struct Enumeration<'a> {
    /// Its name; empty when it has none.
    pub name: &'a str,
    /// Size in bytes.
    pub size: u32,
    /// Whether its values are signed.
    pub signed: bool,
    pub(crate) btf: &'a Btf,
    pub(crate) values: &'a [u8],
    pub(crate) wide: bool,
}

impl<'a> Enumeration<'a> {
    /// Its names and values; a signed value is sign-extended.
    pub fn values(&self) -> impl Iterator<Item = Result<(&'a str, u64), BtfError>> + use<'a> {
        let this = *self;
        this.values.chunks_exact(if this.wide { 12 } else { 8 }).map(move |raw| {
            let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
            let value = match (this.wide, this.signed) {
                (true, _) => u64::from(word(4)) | u64::from(word(8)) << 32,
                (false, true) => i64::from(word(4) as i32) as u64,
                (false, false) => u64::from(word(4)),
            };
            Ok((this.btf.string(word(0))?, value))
        })
    }
}

/// A section of variables (`BTF_KIND_DATASEC`).
#[derive(Debug, Clone, Copy)]
pub struct Section<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its size in bytes.
    pub size: u32,
    pub(crate) btf: &'a Btf,
    pub(crate) variables: &'a [u8],
}

/// A variable's place in a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SectionVariable<'a> {
    /// Its name; empty for what isn't a variable (an extern function in `.ksyms`).
    pub name: &'a str,
    /// Its type.
    pub ty: TypeId,
    /// Where it starts, in bytes from the start of the section.
    pub offset: u32,
    /// Its size in bytes.
    pub size: u32,
}

impl<'a> Section<'a> {
    /// Its variables, in the order written, which the kernel checks to be ascending.
    pub fn variables(&self) -> impl Iterator<Item = Result<SectionVariable<'a>, BtfError>> + use<'a> {
        let btf = self.btf;
        self.variables.chunks_exact(12).map(move |raw| {
            let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
            let (name, ty) = match btf.get(TypeId(word(0)))? {
                Type::Variable { name, ty } => (name, ty),
                _ => ("", TypeId(word(0))),
            };
            Ok(SectionVariable { name, ty, offset: word(4), size: word(8) })
        })
    }
}

/// What a [`Type::Modified`] adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Modifier {
    /// `volatile`
    Volatile,
    /// `const`
    Const,
    /// `restrict`
    Restrict,
    /// `__attribute__((btf_type_tag))`, such as `__rcu` or `__percpu`.
    Tag,
}
