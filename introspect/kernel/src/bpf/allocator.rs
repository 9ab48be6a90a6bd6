//! What the allocator of sched_ext's BPF library has given out: `struct scx_allocator`, at first `struct sdt_allocator`
//! (lib/sdt_task_defs.h of the scx repository), a tree of descriptors in the program's arena.
//!
//! A descriptor (`struct sdt_desc`) has a bitmap and points to a chunk of as many pointers: to descriptors again or, at the
//! lowest level, to elements. Where their members lie is what the program's own BTF says.
//!
//! An element is what its user asked for and a `struct sdt_data` that knows the element's index: before it at first, where
//! that has a `payload`; behind it in later versions of the library. Compilers leave that struct out of most programs' BTF;
//! then the one of the library's versions is taken by which the elements of the program know their indices.
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
/// An id, and data rounded up to a word.
const LEAST_BYTES: u64 = 16;
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
    /// Whether the library's part of it names another place: it was just given out, or the program has written past its
    /// own part.
    pub misplaced: bool,
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
    /// Elements that were freed while they were read, have no memory yet, or can't be read.
    pub passed_over: usize,
}

/// An allocator's variable with what it has given out.
pub type AllocatorContents = (BpfVariable, Result<BpfAllocations, KernelError>);

/// Where things lie in the library's tree.
struct Layout {
    levels: u64,
    /// Of a descriptor: its bitmap, bits in it, its chunk.
    bitmap: u64,
    bits: u64,
    chunk: u64,
}

/// Where things lie in an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct DataLayout {
    /// Size of its `sdt_data`.
    size: u64,
    /// Whether that stands behind the program's data instead of before it.
    behind: bool,
    /// In it: the index, and how often the place was freed.
    index: u64,
    generation: Option<u64>,
}

/// The library's versions: an id; an id and a link, behind; an id, behind.
const VERSIONS: [DataLayout; 3] = [
    DataLayout { size: 8, behind: false, index: 0, generation: Some(4) },
    DataLayout { size: 16, behind: true, index: 0, generation: Some(4) },
    DataLayout { size: 8, behind: true, index: 0, generation: Some(4) },
];

/// Elements that are marked as in use, as they lie in memory.
struct Raw {
    /// Bytes of each.
    size: u64,
    /// Index, address, bytes.
    elements: Vec<(u64, VirtAddr, Vec<u8>)>,
    truncated: bool,
    passed_over: usize,
}

impl Kernel {
    /// What the allocators of sched_ext's BPF library have given out that are global variables in `map`: structs of a `pool`
    /// with a size of elements and a `root`. Of each at most `limit` elements. The program may go on meanwhile: an element
    /// counts only when it is in use before and after it was read.
    ///
    /// # Errors
    /// As [`Kernel::bpf_variables`]. An allocator has its own error when its program has no arena or several, or its BTF
    /// doesn't say how the library's tree looks.
    pub fn bpf_allocations(
        &self,
        map: VirtAddr,
        limit: usize,
    ) -> Result<Vec<AllocatorContents>, KernelError> {
        let mut allocators = self.bpf_variables(map)?;
        allocators.retain(|variable| {
            let has = |path| variable.btf.plan_from(variable.ty, path).is_ok();
            has(".pool.elem_size") && has(".root")
        });
        let Some(btf) = allocators.first().map(|first| first.btf.clone()) else { return Ok(Vec::new()) };
        let raw: Vec<_> = allocators.iter().map(|allocator| self.elements_of(allocator, limit)).collect();
        let data = match DataLayout::of(&btf)? {
            Some(known) => Some(known),
            None => DataLayout::seen_in(raw.iter().flatten()),
        };
        let told = allocators.into_iter().zip(raw).map(|(allocator, raw)| {
            let told = raw.and_then(|raw| self.told(&btf, &allocator.name, raw, data));
            (allocator, told)
        });
        Ok(told.collect())
    }

    fn elements_of(&self, allocator: &BpfVariable, limit: usize) -> Result<Raw, KernelError> {
        let btf = &*allocator.btf;
        let layout = Layout::of(btf)?;
        let number = |path| {
            Ok::<_, KernelError>(btf.plan_from(allocator.ty, path)?.read(self.memory(), allocator.at)?)
        };
        let (size, root) = (number(".pool.elem_size")?, VirtAddr(number(".root")?));
        let mut found = Raw { size, elements: Vec::new(), truncated: false, passed_over: 0 };
        if root.is_null() || size == 0 {
            return Ok(Raw { size: 0, ..found });
        }
        if !(LEAST_BYTES..=MOST_BYTES).contains(&size) {
            let (what, expected) = ("the size of an allocator's elements", "16 bytes to 1 MiB");
            return Err(KernelError::Implausible { what, at: allocator.at, seen: size, expected });
        }
        let window = self.bpf_arena(self.arena_of(allocator)?)?.1;
        let walk = Walk { kernel: self, window, layout: &layout, limit };
        walk.descriptors(root, &mut found)?;
        Ok(found)
    }

    /// The elements by where their parts lie; as a whole where that isn't known.
    fn told(
        &self,
        btf: &Btf,
        name: &str,
        raw: Raw,
        data: Option<DataLayout>,
    ) -> Result<BpfAllocations, KernelError> {
        let Raw { size, elements, truncated, passed_over } = raw;
        let Some(data) = data.filter(|data| size >= data.size) else {
            let why = match (size, elements.is_empty()) {
                (0, _) => "it isn't set up",
                (_, true) => "nothing is given out",
                _ => {
                    "where an element's data ends and the library's begins can't be told from so few elements"
                }
            };
            let whole =
                |(index, user, bytes)| BpfAllocation { index, generation: 0, user, bytes, misplaced: false };
            let elements = elements.into_iter().map(whole).collect();
            let ty = PayloadType::Unknown(why.to_owned());
            return Ok(BpfAllocations { payload: size, ty, elements, truncated, passed_over });
        };
        let elements: Vec<_> =
            elements.iter().filter_map(|(index, user, bytes)| data.split(*index, *user, bytes)).collect();
        let payload = size - data.size;
        let ty = payload_type(self.btf(), btf, name, payload, data.behind)?;
        Ok(BpfAllocations { payload, ty, elements, truncated, passed_over })
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
        let desc = btf.definition("sdt_desc", false).ok_or_else(|| KernelError::Unsupported {
            what: "an allocator whose program's BTF doesn't say what a struct sdt_desc is".to_owned(),
            instead: "BTF with the structs of the allocator",
        })?;
        let at = |path| Ok::<_, KernelError>(btf.plan_from(desc, path)?.offset().unwrap_or(0));
        let bits = btf.plan_from(desc, ".allocated")?.size().saturating_mul(8);
        let levels = btf.enumerator_value("sdt_consts", "SDT_TASK_LEVELS").unwrap_or(LEVELS);
        if bits == 0 || bits > MOST_BITS || levels == 0 || levels > MOST_LEVELS {
            let (what, expected) =
                ("the shape of an allocator's tree", "up to 8 levels of up to 8192 places");
            return Err(KernelError::Implausible { what, at: VirtAddr(0), seen: bits, expected });
        }
        Ok(Self { levels, bitmap: at(".allocated")?, bits, chunk: at(".chunk")? })
    }
}

impl DataLayout {
    /// As the program's BTF has it, if it does.
    fn of(btf: &Btf) -> Result<Option<Self>, KernelError> {
        let Some(data) = btf.definition("sdt_data", false) else { return Ok(None) };
        let at = |path| Ok::<_, KernelError>(btf.plan_from(data, path)?.offset().unwrap_or(0));
        // `gen`, which is a keyword of newer languages, in some versions.
        let generation = [".tid.genn", ".tid.gen"].into_iter().find_map(|path| at(path).ok());
        Ok(Some(Self {
            size: btf.size_of(data)?,
            behind: btf.plan_from(data, ".payload").is_err(),
            index: at(".tid.idx")?,
            generation,
        }))
    }

    /// The one of the library's versions by which most of these elements know their index, and more of them than by any
    /// other.
    fn seen_in<'a>(all: impl Iterator<Item = &'a Raw>) -> Option<Self> {
        let mut votes = [0usize; VERSIONS.len()];
        let mut count = 0;
        for (index, user, bytes) in all.flat_map(|raw| &raw.elements) {
            count += 1;
            for (version, votes) in VERSIONS.iter().zip(&mut votes) {
                let fits = version.split(*index, *user, bytes).is_some_and(|element| !element.misplaced);
                *votes += usize::from(fits);
            }
        }
        let most = votes.into_iter().max().filter(|most| most * 2 > count)?;
        let mut best = VERSIONS.into_iter().zip(votes).filter(|(_, votes)| *votes == most);
        best.next().map(|(version, _)| version).filter(|_| best.next().is_none())
    }

    /// An element's parts; `None` for one that is too small for them.
    fn split(&self, index: u64, data: VirtAddr, bytes: &[u8]) -> Option<BpfAllocation> {
        let payload = bytes.len().checked_sub(usize::try_from(self.size).ok()?)?;
        let (payload, id, user) = match self.behind {
            true => (&bytes[..payload], &bytes[payload..], data),
            false => (
                &bytes[bytes.len() - payload..],
                &bytes[..bytes.len() - payload],
                data.wrapping_add(self.size),
            ),
        };
        let word = |at: u64| {
            let at = usize::try_from(at).ok()?;
            id.get(at..at.checked_add(4)?)?.first_chunk().map(|word| u64::from(u32::from_le_bytes(*word)))
        };
        let generation = self.generation.and_then(word).unwrap_or(0);
        let misplaced = word(self.index) != Some(index);
        Some(BpfAllocation { index, generation, user, bytes: payload.to_vec(), misplaced })
    }
}

/// What a walk through an allocator's tree needs at each step.
struct Walk<'a> {
    kernel: &'a Kernel,
    /// Where the arena's window starts.
    window: VirtAddr,
    layout: &'a Layout,
    limit: usize,
}

impl Walk<'_> {
    /// Level by level: at the lowest, the elements.
    fn descriptors(&self, root: VirtAddr, found: &mut Raw) -> Result<(), KernelError> {
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

    fn elements(&self, place: u64, descriptor: VirtAddr, found: &mut Raw) -> Result<(), KernelError> {
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
            match self.one(data, found.size)? {
                Some(bytes) => found.elements.push((index, data, bytes)),
                None => found.passed_over += 1,
            }
        }
        // What was freed meanwhile may have been read half.
        let still = self.bitmap(descriptor)?;
        let first = place.saturating_mul(self.layout.bits);
        let read = found.elements.split_off(before);
        let (kept, freed): (Vec<_>, Vec<_>) =
            read.into_iter().partition(|(index, ..)| is_used(&still, (index - first) as usize));
        found.elements.extend(kept);
        found.passed_over += freed.len();
        Ok(())
    }

    /// An element's bytes; `None` for one that has no place yet, or can't be read.
    fn one(&self, data: VirtAddr, size: u64) -> Result<Option<Vec<u8>>, KernelError> {
        if data.is_null() {
            return Ok(None);
        }
        let mut bytes = vec![0; size as usize];
        match self.read(data, &mut bytes) {
            Err(error) if error.kind() == ErrorKind::Unmapped => Ok(None),
            other => other.map(|()| Some(bytes)),
        }
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
fn payload_type(
    kernel: &Btf,
    btf: &Btf,
    allocator: &str,
    payload: u64,
    behind: bool,
) -> Result<PayloadType, KernelError> {
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
    let stem = allocator.strip_suffix("_allocator").unwrap_or(allocator);
    let is_namesake = |name: &str| name == stem || stem.strip_prefix("scx_") == Some(name);
    let namesakes: Vec<_> = fits.iter().filter(|(_, name, _)| is_namesake(name)).collect();
    if let [(ty, name, _)] = namesakes[..] {
        let since = "of the program's structs of its size it bears the allocator's name";
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
