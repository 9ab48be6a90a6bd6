//! What the allocator of sched_ext's BPF library has given out: `struct scx_allocator`, at first `struct sdt_allocator`
//! (lib/sdt_task_defs.h of the scx repository), a tree of descriptors in the program's arena.
//!
//! A descriptor (`struct sdt_desc`) has a bitmap and points to a chunk of as many pointers: to descriptors again or, at the
//! lowest level, to elements. An element is what its user asked for and a `struct sdt_data` that knows the element's index:
//! before it at first, where that has a `payload`; behind it in later versions of the library. Where the members lie is
//! what the program's own BTF says.
//!
//! Nothing in a program says what type it keeps in an element: `scx_task_data()` and the like return `void *`. It is told
//! where only one struct of the program's fits.

use std::collections::BTreeSet;

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, Type, TypeId};

use super::arena::WINDOW;
use super::{BpfMapKind, BpfVariable};
use crate::{ErrorKind, Kernel, KernelError};

/// `SDT_TASK_LEVELS`, where the program's BTF has no `enum sdt_consts`.
const LEVELS: u64 = 3;
/// No version of the library has more.
const MOST_LEVELS: u64 = 8;
/// Bits of a descriptor's bitmap: 512.
const MOST_BITS: u64 = 1 << 13;
/// Bytes of an element: the library's pools have none above a few pages.
const MOST_BYTES: u64 = 1 << 20;
/// Descriptors that are looked at: two million elements' worth.
const MOST_DESCRIPTORS: usize = 1 << 12;
/// An element begins at a multiple of what its user asked for, a cache line at most by custom.
const MOST_PADDING: u64 = 64;
/// How the names of the allocator's own structs begin.
const OWN: &str = "sdt_";
/// Types that a reason names.
const NAMED: usize = 6;

/// What is known of the type of an allocator's elements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PayloadType {
    /// Of all types of the program's only this one fits.
    Known {
        /// It.
        ty: TypeId,
        /// Its name.
        name: String,
        /// What speaks for it.
        since: &'static str,
    },
    /// Not known, for that reason.
    Unknown(String),
}

/// An element that is in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfAllocation {
    /// Its index in the tree, which it keeps as long as it is in use.
    pub index: u64,
    /// How often its place was freed before.
    pub generation: u64,
    /// Where the program's data of it begins, in user space; the low 32 bits are what programs use.
    pub user: VirtAddr,
    /// The program's data of it.
    pub bytes: Vec<u8>,
}

/// What an allocator has given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpfAllocations {
    /// Bytes of an element that are the program's, padding included; 0 as long as it isn't set up.
    pub payload: u64,
    /// Their type in the program's BTF.
    pub ty: PayloadType,
    /// The elements in use, by index.
    pub elements: Vec<BpfAllocation>,
    /// Whether the limit left some out.
    pub truncated: bool,
    /// Elements that were given out or freed while they were read, or can't be read.
    pub passed_over: usize,
}

/// Where things lie in the library's structs.
struct Layout {
    levels: u64,
    /// Of a descriptor: its bitmap, bits in it, its chunk.
    bitmap: u64,
    bits: u64,
    chunk: u64,
    /// Of a `sdt_data`: index and generation, the size of it.
    index: u64,
    generation: Option<u64>,
    size: u64,
    /// Whether it stands behind the data instead of before it.
    behind: bool,
}

impl Kernel {
    /// The global variables in `map` that are allocators of sched_ext's BPF library: structs of a `pool` with a size of
    /// elements and a `root`.
    ///
    /// # Errors
    /// As [`Kernel::bpf_variables`].
    pub fn bpf_allocators(&self, map: VirtAddr) -> Result<Vec<BpfVariable>, KernelError> {
        let mut found = self.bpf_variables(map)?;
        found.retain(|variable| {
            let has = |path| variable.btf.plan_from(variable.ty, path).is_ok();
            has(".pool.elem_size") && has(".root")
        });
        Ok(found)
    }

    /// The elements that an allocator has given out, at most `limit` of them. The program may go on meanwhile: an element
    /// counts only when it is in use before and after it was read and knows its own index.
    ///
    /// # Errors
    /// [`KernelError`] when the program has no arena or several, or its BTF doesn't say how the library's structs look.
    pub fn bpf_allocations(
        &self,
        allocator: &BpfVariable,
        limit: usize,
    ) -> Result<BpfAllocations, KernelError> {
        let btf = &*allocator.btf;
        let layout = Layout::of(btf)?;
        let number = |path| {
            Ok::<_, KernelError>(btf.plan_from(allocator.ty, path)?.read(self.memory(), allocator.at)?)
        };
        let (element, root) = (number(".pool.elem_size")?, VirtAddr(number(".root")?));
        let mut found = BpfAllocations {
            payload: element.saturating_sub(layout.size),
            ty: PayloadType::Unknown("it isn't set up".to_owned()),
            elements: Vec::new(),
            truncated: false,
            passed_over: 0,
        };
        if root.is_null() || element == 0 {
            found.payload = 0;
            return Ok(found);
        }
        if element > MOST_BYTES || element < layout.size {
            let (what, expected) = ("the size of an allocator's elements", "a struct sdt_data to 1 MiB");
            return Err(KernelError::Implausible { what, at: allocator.at, seen: element, expected });
        }
        found.ty = payload_type(self.btf(), btf, found.payload, layout.behind)?;
        let arena = self.arena_of(allocator)?;
        let window = self.bpf_arena(arena)?.1;
        let walk = Walk { kernel: self, window, layout: &layout, element, limit };
        walk.descriptors(root, &mut found)?;
        Ok(found)
    }

    /// The one arena of the program that a variable belongs to.
    fn arena_of(&self, variable: &BpfVariable) -> Result<VirtAddr, KernelError> {
        let owner = self.plan("bpf_prog.aux->btf")?;
        let mut arenas = BTreeSet::new();
        for program in self.bpf_programs()? {
            if owner.read(self.memory(), program)? == variable.program.0 {
                for map in self.bpf_program_maps(program)? {
                    if self.bpf_map_kind(map)? == BpfMapKind::Arena {
                        arenas.insert(map);
                    }
                }
            }
        }
        match (arenas.pop_first(), arenas.is_empty()) {
            (Some(arena), true) => Ok(arena),
            (found, _) => Err(KernelError::Unsupported {
                what: format!(
                    "the allocator {}, whose program has {}",
                    variable.name,
                    if found.is_some() { "several arenas" } else { "no arena" }
                ),
                instead: "a program with one arena",
            }),
        }
    }
}

impl Layout {
    fn of(btf: &Btf) -> Result<Self, KernelError> {
        let defined = |name: &str| {
            btf.definition(name, false).ok_or_else(|| KernelError::Unsupported {
                what: format!("an allocator whose program's BTF doesn't say what a struct {name} is"),
                instead: "BTF with the structs of the allocator",
            })
        };
        let (desc, data) = (defined("sdt_desc")?, defined("sdt_data")?);
        let at = |ty, path| Ok::<_, KernelError>(btf.plan_from(ty, path)?.offset().unwrap_or(0));
        let bits = btf.plan_from(desc, ".allocated")?.size().saturating_mul(8);
        let levels = btf.enumerator_value("sdt_consts", "SDT_TASK_LEVELS").unwrap_or(LEVELS);
        if bits == 0 || bits > MOST_BITS || levels == 0 || levels > MOST_LEVELS {
            let (what, expected) =
                ("the shape of an allocator's tree", "up to 8 levels of up to 8192 places");
            return Err(KernelError::Implausible { what, at: VirtAddr(0), seen: bits, expected });
        }
        // `gen`, which is a keyword of newer languages, in some versions.
        let generation = [".tid.genn", ".tid.gen"].into_iter().find_map(|path| at(data, path).ok());
        Ok(Self {
            levels,
            bitmap: at(desc, ".allocated")?,
            bits,
            chunk: at(desc, ".chunk")?,
            index: at(data, ".tid.idx")?,
            generation,
            size: btf.size_of(data)?,
            behind: btf.plan_from(data, ".payload").is_err(),
        })
    }
}

/// What a walk through an allocator's tree needs at each step.
struct Walk<'a> {
    kernel: &'a Kernel,
    /// Where the arena's window starts.
    window: VirtAddr,
    layout: &'a Layout,
    /// Bytes of an element.
    element: u64,
    limit: usize,
}

impl Walk<'_> {
    /// Level by level: at the lowest, the elements.
    fn descriptors(&self, root: VirtAddr, found: &mut BpfAllocations) -> Result<(), KernelError> {
        let mut level = vec![(0u64, root)];
        for depth in 1..=self.layout.levels {
            let mut below = Vec::new();
            for (place, descriptor) in level {
                if depth == self.layout.levels {
                    self.elements(place, descriptor, found)?;
                    continue;
                }
                // A bit here is of a subtree that is full: any may hold elements.
                for (number, child) in self.chunk(descriptor)?.into_iter().enumerate() {
                    if child.is_null() {
                        continue;
                    }
                    if below.len() >= MOST_DESCRIPTORS {
                        found.truncated = true;
                        break;
                    }
                    below.push((place.saturating_mul(self.layout.bits) + number as u64, child));
                }
            }
            level = below;
        }
        Ok(())
    }

    fn elements(
        &self,
        place: u64,
        descriptor: VirtAddr,
        found: &mut BpfAllocations,
    ) -> Result<(), KernelError> {
        let used = self.bitmap(descriptor)?;
        let is_used = |used: &[u8], number: usize| used[number / 8] >> (number % 8) & 1 == 1;
        let before = found.elements.len();
        for (number, data) in self.chunk(descriptor)?.into_iter().enumerate() {
            if !is_used(&used, number) {
                continue;
            }
            if found.elements.len() >= self.limit {
                found.truncated = true;
                break;
            }
            let index = place.saturating_mul(self.layout.bits) + number as u64;
            match self.one(index, data)? {
                Some(element) => found.elements.push(element),
                None => found.passed_over += 1,
            }
        }
        // What was freed meanwhile may have been read half.
        let still = self.bitmap(descriptor)?;
        let first = place.saturating_mul(self.layout.bits);
        let read = found.elements.split_off(before);
        let (kept, freed): (Vec<_>, Vec<_>) =
            read.into_iter().partition(|element| is_used(&still, (element.index - first) as usize));
        found.elements.extend(kept);
        found.passed_over += freed.len();
        Ok(())
    }

    /// An element; `None` for one that isn't, or isn't yet, or no longer, what its place says.
    fn one(&self, index: u64, data: VirtAddr) -> Result<Option<BpfAllocation>, KernelError> {
        if data.is_null() {
            return Ok(None);
        }
        let mut bytes = vec![0; self.element as usize];
        match self.read(data, &mut bytes) {
            Err(error) if error.kind() == ErrorKind::Unmapped => return Ok(None),
            other => other?,
        }
        let size = self.layout.size as usize;
        let payload = bytes.len() - size;
        let (payload, id, user) = match self.layout.behind {
            true => (&bytes[..payload], &bytes[payload..], data),
            false => (&bytes[size..], &bytes[..size], data.wrapping_add(self.layout.size)),
        };
        let word = |at: u64| {
            let at = at as usize;
            id.get(at..at + 4)?.first_chunk().map(|word| u64::from(u32::from_le_bytes(*word)))
        };
        if word(self.layout.index) != Some(index) {
            return Ok(None);
        }
        let generation = self.layout.generation.and_then(word).unwrap_or(0);
        Ok(Some(BpfAllocation { index, generation, user, bytes: payload.to_vec() }))
    }

    fn bitmap(&self, descriptor: VirtAddr) -> Result<Vec<u8>, KernelError> {
        let mut bytes = vec![0; (self.layout.bits / 8) as usize];
        self.read(descriptor.wrapping_add(self.layout.bitmap), &mut bytes)?;
        Ok(bytes)
    }

    /// The pointers of a descriptor's chunk.
    fn chunk(&self, descriptor: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let mut pointer = [0; 8];
        self.read(descriptor.wrapping_add(self.layout.chunk), &mut pointer)?;
        let mut bytes = vec![0; self.layout.bits as usize * 8];
        self.read(VirtAddr(u64::from_le_bytes(pointer)), &mut bytes)?;
        Ok(bytes.as_chunks::<8>().0.iter().map(|word| VirtAddr(u64::from_le_bytes(*word))).collect())
    }

    fn read(&self, user: VirtAddr, into: &mut [u8]) -> Result<(), KernelError> {
        let at = self.window.wrapping_add(user.0 % WINDOW);
        self.kernel.memory().read(at, into).map_err(KernelError::read("an allocator's tree"))
    }
}

/// The one struct of the program's that fits: of the right size, and neither the allocator's own nor one of the kernel's
/// that came along.
fn payload_type(kernel: &Btf, btf: &Btf, payload: u64, behind: bool) -> Result<PayloadType, KernelError> {
    let own = |id: &TypeId| match btf.get(*id) {
        Ok(Type::Struct(whole)) => {
            let others = whole.name.is_empty()
                || whole.name.starts_with(OWN)
                || kernel.definition(whole.name, false).is_some();
            (!others).then(|| (*id, whole.name.to_owned(), u64::from(whole.size)))
        }
        _ => None,
    };
    let all: Vec<_> = (1..btf.len()).map(TypeId).filter_map(|id| own(&id)).collect();
    let fitting = |slack: u64| -> Vec<&(TypeId, String, u64)> {
        all.iter().filter(|(_, _, size)| *size <= payload && payload - size < slack).collect()
    };
    // Where `sdt_data` stands behind, all of it is rounded up to what was asked for.
    let mut fits = fitting(8);
    if fits.is_empty() && behind {
        fits = fitting(MOST_PADDING);
    }
    if let [(ty, name, _)] = fits[..] {
        let since = "no other struct of the program's has its size";
        return Ok(PayloadType::Known { ty: *ty, name: name.clone(), since });
    }
    let handed = handed_around(btf)?;
    let of_functions: Vec<_> = fits.iter().filter(|(ty, _, _)| handed.contains(ty)).collect();
    if let [(ty, name, _)] = of_functions[..] {
        let since = "of the program's structs of its size, its functions take or return this one alone";
        return Ok(PayloadType::Known { ty: *ty, name: name.clone(), since });
    }
    let named: Vec<&str> = fits.iter().take(NAMED).map(|(_, name, _)| name.as_str()).collect();
    let why = match fits.len() {
        0 => format!("no struct of the program's has {payload} bytes"),
        many => format!("{many} structs of the program's have its size: {}", named.join(", ")),
    };
    Ok(PayloadType::Unknown(why))
}

/// Structs that functions are given, or return, by pointer.
fn handed_around(btf: &Btf) -> Result<BTreeSet<TypeId>, KernelError> {
    let mut found = BTreeSet::new();
    for id in (1..btf.len()).map(TypeId) {
        let Type::Prototype { returns } = btf.get(id)? else { continue };
        let parameters = btf.parameters(id)?.into_iter().map(|(_, ty)| ty);
        for ty in parameters.chain([returns]) {
            if let Type::Pointer(target) = btf.resolve(ty)?.1 {
                found.insert(btf.resolve(target)?.0);
            }
        }
    }
    Ok(found)
}
