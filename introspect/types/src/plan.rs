//! A member path compiled to offsets, and reading by it.

use ktstr_introspect_memory::{ReadFault, VirtAddr, VirtualMemory};

use crate::path::{Step, parse};
use crate::{Btf, BtfError, Composite, Integer, Type, TypeId};

/// How many members one search may look at: hostile BTF could nest anonymous ones without end.
const MAX_MEMBERS: u32 = 1 << 14;
/// The largest array or struct that [`Plan::read_bytes`] copies.
const MAX_BYTES: u64 = 1 << 20;

/// A path can't be compiled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Not written as a path.
    #[error("{path:?} isn't a member path: expected something like rq.scx.local_dsq.nr or rq.curr->comm[0]")]
    Syntax {
        /// The path.
        path: String,
    },
    /// This kernel has no such struct or union.
    #[error("this kernel has no struct or union {name} (wanted for {path})")]
    NoType {
        /// Its name.
        name: String,
        /// The path.
        path: String,
    },
    /// The struct or union has no such member on this kernel.
    #[error("this kernel's {holder} has no member {member} (wanted for {path})")]
    NoMember {
        /// The struct or union.
        holder: String,
        /// The member.
        member: String,
        /// The path.
        path: String,
    },
    /// A member or index was asked of something that has none.
    #[error(
        "{step} can't be taken in {path}: what comes before it is neither composite nor a pointer to one, or is a type only declared here"
    )]
    NotComposite {
        /// The step.
        step: String,
        /// The path.
        path: String,
    },
    /// An index past the array's end.
    #[error("index {index} is past the {count} elements of the array in {path}")]
    Index {
        /// The index.
        index: u32,
        /// Number of elements.
        count: u32,
        /// The path.
        path: String,
    },
    /// The type information is broken.
    #[error("cannot compile {path}: {source}")]
    Btf {
        /// The path.
        path: String,
        /// What is wrong.
        source: BtfError,
    },
}

impl PlanError {
    /// Whether the path is good but this kernel doesn't have what it names.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::NoType { .. } | Self::NoMember { .. })
    }
}

/// A planned read failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanFault {
    /// Memory couldn't be read.
    #[error("cannot read {path}: {fault}")]
    Read {
        /// The path.
        path: String,
        /// The fault, with its address.
        fault: ReadFault,
    },
    /// A pointer on the way is null.
    #[error("cannot follow {path}: the pointer at {at} is null")]
    Null {
        /// The path.
        path: String,
        /// Where the pointer is.
        at: VirtAddr,
    },
    /// The member isn't a number, or too long to copy.
    #[error("{path} is {size} bytes and not a number: read it as bytes (up to 1 MiB) or go on to a member")]
    NotANumber {
        /// The path.
        path: String,
        /// Its size.
        size: u64,
    },
}

/// What stands at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaf {
    /// A number or pointer of `size` bytes (1, 2, 4 or 8).
    Word {
        /// Size in bytes.
        size: u8,
        /// Whether it is signed.
        signed: bool,
    },
    /// A bitfield.
    Bits {
        /// Its first bit, counted from the plan's byte address: 0 to 7.
        shift: u8,
        /// Width, 1 to 64.
        bits: u8,
        /// Whether it is signed.
        signed: bool,
    },
    /// A struct, union or array.
    Bytes,
}

/// A compiled path: offsets with a pointer read between each two, and what is at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    path: String,
    first: u64,
    hops: Vec<u64>,
    leaf: Leaf,
    ty: TypeId,
    size: u64,
}

impl Btf {
    /// Compiles a path that starts with the name of a struct, union or typedef of one.
    ///
    /// # Errors
    /// [`PlanError`]; [`PlanError::is_absent`] tells "not on this kernel" from all else.
    pub fn plan(&self, path: &str) -> Result<Plan, PlanError> {
        let (root, steps) = parse(path).ok_or_else(|| PlanError::Syntax { path: path.into() })?;
        let start =
            self.composite(root).ok_or_else(|| PlanError::NoType { name: root.into(), path: path.into() })?;
        Compiler { btf: self, path }.compile(start, &steps)
    }

    /// Compiles the rest of a path, such as `.scx.flags`, from the type of number `start`.
    ///
    /// # Errors
    /// As [`Btf::plan`].
    pub fn plan_from(&self, start: TypeId, rest: &str) -> Result<Plan, PlanError> {
        let whole = format!("_{rest}");
        let (_, steps) = parse(&whole).ok_or_else(|| PlanError::Syntax { path: rest.into() })?;
        Compiler { btf: self, path: rest }.compile(start, &steps)
    }

    /// Compiles the first of `paths` that this kernel has: for members that were renamed, or that became a struct
    /// (`limit` and `limit.counter`).
    ///
    /// # Errors
    /// The error of the first when none compiles; at once, one that says that the type information is broken.
    pub fn plan_any(&self, paths: &[&str]) -> Result<Plan, PlanError> {
        let mut first = None;
        for path in paths {
            match self.plan(path) {
                Err(error) if error.is_absent() || matches!(error, PlanError::NotComposite { .. }) => {
                    first.get_or_insert(error);
                }
                other => return other,
            }
        }
        Err(first.unwrap_or_else(|| PlanError::Syntax { path: String::new() }))
    }
}

impl Plan {
    /// The path that it was compiled from.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The distance from the base when no pointer is followed.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        self.hops.is_empty().then_some(self.first)
    }

    /// Distances: from the base, then, for each pointer that is followed, from where it points.
    pub fn offsets(&self) -> impl Iterator<Item = u64> + '_ {
        std::iter::once(self.first).chain(self.hops.iter().copied())
    }

    /// What stands at the end.
    #[must_use]
    pub fn leaf(&self) -> Leaf {
        self.leaf
    }

    /// The type at the end, behind typedefs and qualifiers.
    #[must_use]
    pub fn ty(&self) -> TypeId {
        self.ty
    }

    /// Its size in bytes; 0 for a flexible array.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the end of the path is for the object at `base`.
    ///
    /// # Errors
    /// [`PlanFault`] when a pointer on the way can't be read or is null.
    #[inline]
    pub fn address(&self, memory: &VirtualMemory, base: VirtAddr) -> Result<VirtAddr, PlanFault> {
        let mut at = base.wrapping_add(self.first);
        for hop in &self.hops {
            let target = memory.read_pointer(at).map_err(|fault| self.fault(fault))?;
            if target.is_null() {
                return Err(PlanFault::Null { path: self.path.clone(), at });
            }
            at = target.wrapping_add(*hop);
        }
        Ok(at)
    }

    /// The number at the end; a signed one is sign-extended.
    ///
    /// # Errors
    /// [`PlanFault`] when memory can't be read, a pointer is null or it isn't a number.
    #[inline]
    pub fn read(&self, memory: &VirtualMemory, base: VirtAddr) -> Result<u64, PlanFault> {
        let at = self.address(memory, base)?;
        let failed = |fault| self.fault(fault);
        match self.leaf {
            Leaf::Word { size: 8, .. } => memory.read_u64(at).map_err(failed),
            Leaf::Word { size: 4, signed } => {
                let word = memory.read_u32(at).map_err(failed)?;
                Ok(if signed { i64::from(word as i32) as u64 } else { u64::from(word) })
            }
            Leaf::Word { size: 2, signed } => {
                let word = memory.read_u16(at).map_err(failed)?;
                Ok(if signed { i64::from(word as i16) as u64 } else { u64::from(word) })
            }
            Leaf::Word { signed, .. } => {
                let word = memory.read_u8(at).map_err(failed)?;
                Ok(if signed { i64::from(word as i8) as u64 } else { u64::from(word) })
            }
            Leaf::Bits { shift, bits, signed } => {
                let mut bytes = [0; 16];
                let span = (u32::from(shift) + u32::from(bits)).div_ceil(8) as usize;
                memory.read(at, &mut bytes[..span.min(16)]).map_err(failed)?;
                let word = (u128::from_le_bytes(bytes) >> shift) as u64;
                let unused = 64 - u32::from(bits.clamp(1, 64));
                let word = word << unused;
                Ok(if signed { (word as i64 >> unused) as u64 } else { word >> unused })
            }
            Leaf::Bytes => Err(PlanFault::NotANumber { path: self.path.clone(), size: self.size }),
        }
    }

    /// The bytes of the member at the end, at most 1 MiB of them.
    ///
    /// # Errors
    /// [`PlanFault`] when memory can't be read, a pointer is null or there are too many.
    pub fn read_bytes(&self, memory: &VirtualMemory, base: VirtAddr) -> Result<Vec<u8>, PlanFault> {
        if self.size > MAX_BYTES {
            return Err(PlanFault::NotANumber { path: self.path.clone(), size: self.size });
        }
        let mut bytes = vec![0; self.size as usize];
        memory.read(self.address(memory, base)?, &mut bytes).map_err(|fault| self.fault(fault))?;
        Ok(bytes)
    }

    /// The text in a `char` array at the end, up to its NUL.
    ///
    /// # Errors
    /// As [`Plan::read_bytes`].
    pub fn read_text(&self, memory: &VirtualMemory, base: VirtAddr) -> Result<String, PlanFault> {
        let bytes = self.read_bytes(memory, base)?;
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        Ok(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    fn fault(&self, fault: ReadFault) -> PlanFault {
        PlanFault::Read { path: self.path.clone(), fault }
    }
}

struct Compiler<'a> {
    btf: &'a Btf,
    path: &'a str,
}

impl Compiler<'_> {
    fn compile(&self, start: TypeId, steps: &[Step<'_>]) -> Result<Plan, PlanError> {
        let mut offsets = vec![0u64];
        let (mut ty, mut bits, mut shift) = (start, None, 0u8);
        for step in steps {
            let (_, mut found) = self.broken(self.btf.resolve(ty))?;
            if let (Type::Pointer(target), Step::Member(_) | Step::Index(_)) = (found, step) {
                offsets.push(0);
                let id;
                (id, found) = self.whole(target)?;
                if let Step::Index(index) = step {
                    let size = self.broken(self.btf.size_of(id))?;
                    add(&mut offsets, u64::from(*index).wrapping_mul(size));
                    (ty, bits, shift) = (id, None, 0);
                    continue;
                }
            }
            match (found, step) {
                (Type::Array { element, count }, Step::Index(index)) => {
                    if count > 0 && *index >= count {
                        return Err(PlanError::Index { index: *index, count, path: self.path.into() });
                    }
                    let size = self.broken(self.btf.size_of(element))?;
                    add(&mut offsets, u64::from(*index).wrapping_mul(size));
                    (ty, bits, shift) = (element, None, 0);
                }
                (Type::Struct(whole) | Type::Union(whole), Step::Member(name)) => {
                    let member = self.member(whole, name)?.ok_or_else(|| PlanError::NoMember {
                        holder: if whole.name.is_empty() {
                            "anonymous struct".into()
                        } else {
                            whole.name.into()
                        },
                        member: (*name).into(),
                        path: self.path.into(),
                    })?;
                    add(&mut offsets, member.bit_offset / 8);
                    (ty, bits, shift) = (member.ty, member.bits, (member.bit_offset % 8) as u8);
                }
                (_, step) => {
                    return Err(PlanError::NotComposite {
                        step: format!("{step:?}"),
                        path: self.path.into(),
                    });
                }
            }
        }
        let (ty, _) = self.broken(self.btf.resolve(ty))?;
        let leaf = self.leaf(ty, bits, shift)?;
        let size = match leaf {
            Leaf::Word { size, .. } => u64::from(size),
            Leaf::Bits { shift, bits, .. } => (u64::from(shift) + u64::from(bits)).div_ceil(8),
            // A function or a declared-only struct has an address but no size.
            Leaf::Bytes => self.btf.size_of(ty).unwrap_or(0),
        };
        let first = offsets.remove(0);
        Ok(Plan { path: self.path.into(), first, hops: offsets, leaf, ty, size })
    }

    /// What a pointer points to, behind typedefs and qualifiers. Where that is only declared, the struct or union of the
    /// same name: a kernel's types are merged from many files, and some of them saw the declaration alone.
    fn whole(&self, target: TypeId) -> Result<(TypeId, Type<'_>), PlanError> {
        let (id, found) = self.broken(self.btf.resolve(target))?;
        let Type::Forward { name, union } = found else { return Ok((id, found)) };
        match self.btf.definition(name, union) {
            Some(whole) => self.broken(self.btf.resolve(whole)),
            None => Ok((id, found)),
        }
    }

    fn leaf(&self, ty: TypeId, bits: Option<u8>, shift: u8) -> Result<Leaf, PlanError> {
        let (size, signed, own_bits) = match self.broken(self.btf.get(ty))? {
            Type::Integer(Integer { size, signed, bits, .. }) => (size, signed, u32::from(bits)),
            Type::Enumeration(enumeration) => {
                (enumeration.size, enumeration.signed, enumeration.size.wrapping_mul(8))
            }
            Type::Pointer(_) => (8, false, 64),
            _ => return Ok(Leaf::Bytes),
        };
        // Without the kind flag, a bitfield is an integer type that uses fewer bits than its storage.
        let narrow = (own_bits > 0 && own_bits < size.saturating_mul(8)).then_some(own_bits as u8);
        Ok(match bits.or(narrow) {
            Some(bits) if bits <= 64 => Leaf::Bits { shift, bits, signed },
            None if matches!(size, 1 | 2 | 4 | 8) => Leaf::Word { size: size as u8, signed },
            _ => Leaf::Bytes,
        })
    }

    /// The member called `name`, in this struct or in anonymous ones inside it.
    fn member(&self, whole: Composite<'_>, name: &str) -> Result<Option<Found>, PlanError> {
        let mut waiting = vec![(whole, 0u64)];
        let mut left = MAX_MEMBERS;
        while let Some((whole, base)) = waiting.pop() {
            for member in whole.members() {
                let member = self.broken(member)?;
                left = self.broken(left.checked_sub(1).ok_or(BtfError::Members { limit: MAX_MEMBERS }))?;
                let bit_offset = base.saturating_add(u64::from(member.bit_offset));
                if member.name == name {
                    return self.found(member.ty, bit_offset, member.bits).map(Some);
                }
                if member.name.is_empty()
                    && let (_, Type::Struct(inner) | Type::Union(inner)) =
                        self.broken(self.btf.resolve(member.ty))?
                {
                    waiting.push((inner, bit_offset));
                }
            }
        }
        Ok(None)
    }

    /// Moves into the bits that an old-style bitfield's integer type uses.
    fn found(&self, ty: TypeId, bit_offset: u64, bits: Option<u8>) -> Result<Found, PlanError> {
        let inside = match self.broken(self.btf.resolve(ty))?.1 {
            Type::Integer(integer) if bits.is_none() => u64::from(integer.offset),
            _ => 0,
        };
        Ok(Found { ty, bit_offset: bit_offset.saturating_add(inside), bits })
    }

    fn broken<T>(&self, result: Result<T, BtfError>) -> Result<T, PlanError> {
        result.map_err(|source| PlanError::Btf { path: self.path.into(), source })
    }
}

struct Found {
    ty: TypeId,
    bit_offset: u64,
    bits: Option<u8>,
}

fn add(offsets: &mut [u64], bytes: u64) {
    if let Some(last) = offsets.last_mut() {
        *last = last.wrapping_add(bytes);
    }
}

#[cfg(test)]
mod tests;
