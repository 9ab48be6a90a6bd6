//! Types of DWARF as types of BTF.

use std::collections::HashMap;
use std::rc::Rc;

use addr2line::gimli::{AttributeValue, DebugInfoOffset, Unit, UnitHeader, UnitOffset, constants as dw};
use ktstr_introspect_types::{Btf, BtfBuilder, MAX_BIT_OFFSET, MAX_PARTS, Type, TypeId};

use super::Gimli;
use super::entry::{Entry, Reference};
use crate::sections::{Dwarf, Slice};

/// Pointers, arrays, typedefs and qualifiers may stand on one another this deep; the kernel needs 10 or so.
const MAX_CHAIN: u32 = 64;
/// Types and members that are looked at in all, of which a kernel built with everything has a few million: units could
/// each refer to the same huge type of another, which is then looked at again for each.
const MAX_WORK: usize = 1 << 26;
/// Types of one name and size that are told apart by their members.
const MAX_ALIKE: usize = 16;

/// A type that the kernel's BTF lacks.
enum Node {
    Integer {
        name: String,
        size: u32,
        signed: bool,
    },
    Float {
        name: String,
        size: u32,
    },
    Pointer(TypeId),
    Array {
        element: TypeId,
        count: u32,
    },
    /// Its members come later, as they may point back to it.
    Composite {
        union: bool,
        name: String,
        size: u32,
        members: Vec<(String, TypeId, u32, u8)>,
    },
    Enumeration {
        name: String,
        size: u32,
        signed: bool,
        values: Vec<(String, u64)>,
    },
    Forward {
        union: bool,
        name: String,
    },
    Typedef {
        name: String,
        target: TypeId,
    },
    Prototype {
        returns: TypeId,
        parameters: Vec<TypeId>,
    },
    Variable {
        name: String,
        ty: TypeId,
    },
}

/// What is alike whichever unit it is from.
#[derive(PartialEq, Eq, Hash)]
enum Derived {
    Pointer(TypeId),
    Array(TypeId, u32),
}

/// Where an entry is: number of the unit, and offset in it.
type At = (usize, UnitOffset);

pub(super) struct Converter<'d, 'a> {
    dwarf: &'d Dwarf<'a>,
    headers: &'d [UnitHeader<Slice<'a>>],
    base: &'d Btf,
    nodes: Vec<Node>,
    derived: HashMap<Derived, TypeId>,
    /// What became of each entry, of the unit at hand and of those that it refers to.
    known: HashMap<At, Option<TypeId>>,
    /// Composites whose members aren't known yet.
    waiting: Vec<(usize, At)>,
    units: HashMap<usize, Rc<Unit<Slice<'a>>>>,
    /// How many types and members may still be looked at.
    left: usize,
}

impl<'d, 'a> Converter<'d, 'a> {
    pub(super) fn new(dwarf: &'d Dwarf<'a>, headers: &'d [UnitHeader<Slice<'a>>], base: &'d Btf) -> Self {
        let (derived, known, units) = Default::default();
        let (nodes, waiting) = Default::default();
        Self { dwarf, headers, base, nodes, derived, known, waiting, units, left: MAX_WORK }
    }

    /// Turns to a unit, and forgets what was held of others.
    pub(super) fn unit(&mut self, number: usize) -> Gimli<Rc<Unit<Slice<'a>>>> {
        self.units.clear();
        self.known.clear();
        self.opened(number)
    }

    fn opened(&mut self, number: usize) -> Gimli<Rc<Unit<Slice<'a>>>> {
        if let Some(unit) = self.units.get(&number) {
            return Ok(unit.clone());
        }
        let unit = Rc::new(self.dwarf.unit(self.headers[number])?);
        self.units.insert(number, unit.clone());
        Ok(unit)
    }

    /// The variable with its type; nothing when that can't be told.
    pub(super) fn variable(&mut self, number: usize, entry: &Entry<'a>) -> Option<TypeId> {
        let unit = self.opened(number).ok()?;
        let mut name = entry.name(self.dwarf, &unit).ok()?;
        let mut ty = entry.reference(dw::DW_AT_type).map(|to| (number, to));
        // A definition says only what its declaration doesn't.
        let declared = [dw::DW_AT_specification, dw::DW_AT_abstract_origin]
            .into_iter()
            .find_map(|at| entry.reference(at));
        if let Some(declared) = declared {
            let (of, offset) = self.place(number, declared)?;
            let unit = self.opened(of).ok()?;
            let declaration = Entry::alone(&unit, offset).ok()?;
            if name.is_empty() {
                name = declaration.name(self.dwarf, &unit).ok()?;
            }
            ty = ty.or_else(|| declaration.reference(dw::DW_AT_type).map(|to| (of, to)));
        }
        let (of, to) = ty?;
        let at = self.place(of, to)?;
        let ty = self.ty(at, 0)?;
        self.fill();
        Some(self.add(Node::Variable { name, ty }))
    }

    /// All that the kernel's BTF lacks, on top of it.
    pub(super) fn split(self) -> Vec<u8> {
        let mut build = BtfBuilder::on(self.base);
        for node in self.nodes {
            match node {
                Node::Integer { name, size, signed } => build.integer(&name, size, signed),
                Node::Float { name, size } => build.float(&name, size),
                Node::Pointer(to) => build.pointer(to),
                Node::Array { element, count } => build.array(element, count),
                Node::Composite { union, name, size, members } => {
                    let members: Vec<_> =
                        members.iter().map(|(name, ty, at, bits)| (name.as_str(), *ty, *at, *bits)).collect();
                    build.members(union, &name, size, &members)
                }
                Node::Enumeration { name, size, signed, values } => {
                    let values: Vec<_> = values.iter().map(|(name, value)| (name.as_str(), *value)).collect();
                    build.values(&name, size, signed, &values)
                }
                Node::Forward { union: true, name } => build.forward_union(&name),
                Node::Forward { union: false, name } => build.forward(&name),
                Node::Typedef { name, target } => build.typedef(&name, target),
                Node::Prototype { returns, parameters } => {
                    let parameters: Vec<_> = parameters.iter().map(|ty| ("", *ty)).collect();
                    build.prototype_of(&parameters, returns)
                }
                Node::Variable { name, ty } => build.variable(&name, ty),
            };
        }
        build.bytes()
    }

    fn add(&mut self, node: Node) -> TypeId {
        self.nodes.push(node);
        TypeId(self.base.len() + self.nodes.len() as u32 - 1)
    }

    fn add_once(&mut self, key: Derived, node: Node) -> TypeId {
        if let Some(known) = self.derived.get(&key) {
            return *known;
        }
        let id = self.add(node);
        self.derived.insert(key, id);
        id
    }

    /// Which unit and offset a reference out of unit `number` leads to.
    fn place(&self, number: usize, to: Reference) -> Option<At> {
        match to {
            Reference::Here(offset) => Some((number, offset)),
            Reference::Anywhere(offset) => {
                let start = |header: &UnitHeader<Slice<'a>>| header.debug_info_offset().map_or(0, |at| at.0);
                let after = self.headers.partition_point(|header| start(header) <= offset.0);
                let number = after.checked_sub(1)?;
                DebugInfoOffset(offset.0).to_unit_offset(&self.headers[number]).map(|offset| (number, offset))
            }
        }
    }

    fn ty(&mut self, at: At, depth: u32) -> Option<TypeId> {
        if let Some(known) = self.known.get(&at) {
            return *known;
        }
        let found = if depth < MAX_CHAIN { self.convert(at, depth) } else { None };
        self.known.insert(at, found);
        found
    }

    /// The type that the entry's type attribute names: `void` without one.
    fn target(&mut self, number: usize, entry: &Entry<'a>, depth: u32) -> Option<TypeId> {
        if !entry.has(dw::DW_AT_type) {
            return Some(TypeId(0));
        }
        let at = self.place(number, entry.reference(dw::DW_AT_type)?)?;
        self.ty(at, depth + 1)
    }

    /// Counts what was looked at; nothing once that was too much.
    fn spend(&mut self, parts: usize) -> Option<()> {
        self.left = self.left.saturating_sub(parts);
        (self.left > 0).then_some(())
    }

    fn convert(&mut self, at: At, depth: u32) -> Option<TypeId> {
        self.spend(1)?;
        let (number, offset) = at;
        let unit = self.opened(number).ok()?;
        let mut counts = Vec::new();
        let mut parameters = Vec::new();
        let mut names = Vec::new();
        let mut values = Vec::new();
        let entry = Entry::read(&unit, offset, |child| match child.tag {
            Some(dw::DW_TAG_subrange_type) => counts.push(elements(child)),
            Some(dw::DW_TAG_formal_parameter) => parameters.push(child.reference(dw::DW_AT_type)),
            Some(dw::DW_TAG_member) => names.push(child.name(self.dwarf, &unit)),
            Some(dw::DW_TAG_enumerator) => values.push((child.name(self.dwarf, &unit), constant(child))),
            _ => {}
        });
        let entry = entry.ok()?;
        self.spend(counts.len() + parameters.len() + names.len() + values.len())?;
        let name = entry.name(self.dwarf, &unit).ok()?;
        let size = entry.number(dw::DW_AT_byte_size).unwrap_or(0);
        let size = u32::try_from(size).ok()?;
        match entry.tag? {
            dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type
            | dw::DW_TAG_atomic_type => self.target(number, &entry, depth),
            dw::DW_TAG_unspecified_type => Some(TypeId(0)),
            dw::DW_TAG_base_type => self.number(&entry, name, size),
            dw::DW_TAG_pointer_type => {
                let to = self.target(number, &entry, depth)?;
                Some(self.add_once(Derived::Pointer(to), Node::Pointer(to)))
            }
            dw::DW_TAG_array_type => {
                let mut element = self.target(number, &entry, depth)?;
                // `int a[2][3]` has the outermost count first.
                for count in counts.into_iter().rev() {
                    let count = count?;
                    element = self.add_once(Derived::Array(element, count), Node::Array { element, count });
                }
                Some(element)
            }
            dw::DW_TAG_typedef => {
                let target = self.target(number, &entry, depth)?;
                Some(
                    self.of_typedef(&name, target)
                        .unwrap_or_else(|| self.add(Node::Typedef { name, target })),
                )
            }
            tag @ (dw::DW_TAG_structure_type | dw::DW_TAG_union_type) => {
                let union = tag == dw::DW_TAG_union_type;
                let names = names.into_iter().collect::<Gimli<Vec<_>>>().ok()?;
                if entry.has(dw::DW_AT_declaration) {
                    let known = self.base.named(&name).find(|id| self.is_composite(*id, union));
                    return Some(known.unwrap_or_else(|| self.add(Node::Forward { union, name })));
                }
                if let Some(known) = self.of_members(union, &name, size, &names) {
                    return Some(known);
                }
                let id = self.add(Node::Composite { union, name, size, members: Vec::new() });
                self.waiting.push((self.nodes.len() - 1, at));
                Some(id)
            }
            dw::DW_TAG_enumeration_type => {
                let value = |(name, value): (Gimli<String>, Option<u64>)| Some((name.ok()?, value?));
                let values = values.into_iter().map(value).collect::<Option<Vec<_>>>()?;
                self.enumeration(name, size, values)
            }
            dw::DW_TAG_subroutine_type => {
                let returns = self.target(number, &entry, depth)?;
                let mut types = Vec::new();
                for parameter in parameters {
                    let at = self.place(number, parameter?)?;
                    types.push(self.ty(at, depth + 1)?);
                }
                fits(&types)?;
                Some(self.add(Node::Prototype { returns, parameters: types }))
            }
            _ => None,
        }
    }

    /// A number: the kernel's of that name, or a new one.
    fn number(&mut self, entry: &Entry<'a>, name: String, size: u32) -> Option<TypeId> {
        let Some(AttributeValue::Encoding(encoding)) = entry.value(dw::DW_AT_encoding) else { return None };
        let known = self.base.named(&name).find(|id| match self.base.get(*id) {
            Ok(Type::Integer(integer)) => integer.size == size,
            Ok(Type::Float { size: found, .. }) => found == size,
            _ => false,
        });
        if known.is_some() {
            return known;
        }
        let signed = matches!(encoding, dw::DW_ATE_signed | dw::DW_ATE_signed_char);
        match encoding {
            dw::DW_ATE_float => Some(self.add(Node::Float { name, size })),
            // BTF counts an integer's bits in a byte.
            _ if size <= 16 => Some(self.add(Node::Integer { name, size, signed })),
            _ => None,
        }
    }

    /// The kernel's typedef of that name, if it stands for as many bytes.
    fn of_typedef(&self, name: &str, target: TypeId) -> Option<TypeId> {
        let kernels = |id: TypeId| self.base.resolve(id).ok().map(|(id, _)| id);
        self.base.named(name).take(MAX_ALIKE).find(|id| {
            if !matches!(self.base.get(*id), Ok(Type::Typedef { .. })) {
                return false;
            }
            match self.own(target) {
                None => kernels(*id) == kernels(target),
                Some(node) => self.alike(node, *id),
            }
        })
    }

    /// Whether a type without a name is the one that a typedef of the kernel's stands for.
    fn alike(&self, node: &Node, typedef: TypeId) -> bool {
        match (node, self.base.resolve(typedef)) {
            (
                Node::Composite { union, name, size, .. },
                Ok((_, Type::Struct(whole) | Type::Union(whole))),
            ) => whole.name == *name && whole.size == *size && self.is_composite(typedef, *union),
            _ => false,
        }
    }

    fn own(&self, id: TypeId) -> Option<&Node> {
        self.nodes.get(id.0.checked_sub(self.base.len())? as usize)
    }

    fn is_composite(&self, id: TypeId, union: bool) -> bool {
        match self.base.resolve(id) {
            Ok((_, Type::Struct(_))) => !union,
            Ok((_, Type::Union(_))) => union,
            _ => false,
        }
    }

    /// The kernel's struct or union of that name and size; of several the one with these members.
    fn of_members(&self, union: bool, name: &str, size: u32, names: &[String]) -> Option<TypeId> {
        if name.is_empty() {
            return None;
        }
        let whole = |id: TypeId| match self.base.get(id) {
            Ok(Type::Struct(whole)) if !union => Some(whole),
            Ok(Type::Union(whole)) if union => Some(whole),
            _ => None,
        };
        let fits = |id: &TypeId| whole(*id).is_some_and(|whole| whole.size == size);
        let alike: Vec<TypeId> = self.base.named(name).filter(fits).take(MAX_ALIKE).collect();
        if let [only] = alike.as_slice() {
            return Some(*only);
        }
        alike.into_iter().find(|id| {
            let members = whole(*id).into_iter().flat_map(|whole| whole.members());
            members.map(|member| member.map_or("", |member| member.name)).eq(names.iter().map(String::as_str))
        })
    }

    fn enumeration(&mut self, name: String, size: u32, values: Vec<(String, u64)>) -> Option<TypeId> {
        let known = self.base.named(&name).take(MAX_ALIKE).find(|id| match self.base.get(*id) {
            Ok(Type::Enumeration(found)) => {
                let names = found.values().map(|value| value.map_or("", |(name, _)| name));
                found.size == size && names.eq(values.iter().map(|(name, _)| name.as_str()))
            }
            _ => false,
        });
        if known.is_some() && !name.is_empty() {
            return known;
        }
        fits(&values)?;
        let signed = values.iter().any(|(_, value)| (*value as i64) < 0);
        Some(self.add(Node::Enumeration { name, size, signed, values }))
    }

    /// Finds the members of composites. One that has a member that can't be told has none.
    fn fill(&mut self) {
        while let Some((node, at)) = self.waiting.pop() {
            let found = self.members_at(at).unwrap_or_default();
            if let Some(Node::Composite { members, .. }) = self.nodes.get_mut(node) {
                *members = found;
            }
        }
    }

    fn members_at(&mut self, (number, offset): At) -> Option<Vec<(String, TypeId, u32, u8)>> {
        let unit = self.opened(number).ok()?;
        let mut found = Vec::new();
        Entry::read(&unit, offset, |child| {
            if child.tag == Some(dw::DW_TAG_member) {
                found.push((child.name(self.dwarf, &unit), child.reference(dw::DW_AT_type), bits(child)));
            }
        })
        .ok()?;
        self.spend(found.len())?;
        let mut members = Vec::new();
        for (name, ty, bits) in found {
            let at = self.place(number, ty?)?;
            let ty = self.ty(at, 0)?;
            let bits = bits?;
            let start = match bits.start {
                Start::At(bit) => bit,
                // Counted from the most significant bit of the storage's `size` bytes, as DWARF 3 did.
                Start::FromTop { byte, top, size } => {
                    let size = size.or_else(|| self.size_of(ty))?.checked_mul(8)?;
                    byte.checked_mul(8)?
                        .checked_add(size)?
                        .checked_sub(top)?
                        .checked_sub(u64::from(bits.width))?
                }
            };
            members.push((name.ok()?, ty, u32::try_from(start).ok()?, bits.width));
        }
        fits(&members)?;
        let has_fields = members.iter().any(|(.., width)| *width > 0);
        let far = members.iter().any(|(_, _, start, _)| *start > MAX_BIT_OFFSET);
        (!has_fields || !far).then_some(members)
    }

    /// The size of a kernel's type, or of a number of our own.
    fn size_of(&self, id: TypeId) -> Option<u64> {
        match self.own(id) {
            None => self.base.size_of(id).ok(),
            Some(Node::Integer { size, .. } | Node::Enumeration { size, .. }) => Some(u64::from(*size)),
            Some(_) => None,
        }
    }
}

/// Where a member starts, in bits.
enum Start {
    At(u64),
    FromTop { byte: u64, top: u64, size: Option<u64> },
}

struct Bits {
    start: Start,
    /// 0 for what isn't a bit field.
    width: u8,
}

fn bits(member: &Entry<'_>) -> Option<Bits> {
    let width = u8::try_from(member.number(dw::DW_AT_bit_size).unwrap_or(0)).ok()?;
    let byte = match member.value(dw::DW_AT_data_member_location) {
        // Members of a union may have none.
        None => 0,
        Some(value) => value.udata_value()?,
    };
    let start = match (member.number(dw::DW_AT_data_bit_offset), member.number(dw::DW_AT_bit_offset)) {
        (Some(bit), _) => Start::At(byte.checked_mul(8)?.checked_add(bit)?),
        (None, Some(top)) => Start::FromTop { byte, top, size: member.number(dw::DW_AT_byte_size) },
        (None, None) => Start::At(byte.checked_mul(8)?),
    };
    Some(Bits { start, width })
}

/// The number of an array's elements: 0 where it isn't told, as in a flexible array.
fn elements(range: &Entry<'_>) -> Option<u32> {
    let (count, bound) = (range.number(dw::DW_AT_count), range.number(dw::DW_AT_upper_bound));
    // The bound of an array without elements is -1, of whatever width.
    let bound = bound.filter(|bound| ![u64::from(u32::MAX), u64::MAX].contains(bound));
    u32::try_from(count.or_else(|| bound?.checked_add(1)).unwrap_or(0)).ok()
}

/// An enumerator's value, sign-extended.
fn constant(enumerator: &Entry<'_>) -> Option<u64> {
    let value = enumerator.value(dw::DW_AT_const_value)?;
    value.udata_value().or_else(|| value.sdata_value().map(|value| value as u64))
}

fn fits<T>(parts: &[T]) -> Option<()> {
    (parts.len() <= MAX_PARTS).then_some(())
}
