//! Global variables of BPF programs: `.bss`, `.data` and `.rodata` are array maps of one element, whose value's type is
//! a section of variables in the program's BTF (tools/lib/bpf/libbpf.c names the maps after program and section).

use std::sync::Arc;

use ktstr_introspect_memory::{PhysAddr, VirtAddr};
use ktstr_introspect_types::{Btf, DecodeLimits, Decoded, Type, TypeId};

use super::map::BpfMapKind;
use crate::{Kernel, KernelError};

/// Bytes of one variable that are read to be decoded.
const MAX_BYTES: u64 = 4 << 20;

/// A global variable, or a member of one.
#[derive(Debug, Clone)]
pub struct BpfVariable {
    /// Its name, or the path asked for.
    pub name: String,
    /// The section that it is in: `.bss`, `.data`, `.rodata`…
    pub section: String,
    /// Its map: `struct bpf_map` address.
    pub map: VirtAddr,
    /// The program's type information, `struct btf` address: the same for all sections of one program.
    pub program: VirtAddr,
    /// Where the kernel has it.
    pub at: VirtAddr,
    /// Where that is in guest-physical memory, if all of it lies together: what a host writes to.
    pub physical: Option<PhysAddr>,
    /// Its size, bytes.
    pub size: u64,
    /// The program's types.
    pub btf: Arc<Btf>,
    /// Its type there.
    pub ty: TypeId,
}

/// What a scheduler wrote down of its own end in its `exit` operation, which outlives the kernel's `scx_exit_info` for as
/// long as its maps do: by custom a `struct user_exit_info` that `UEI_RECORD` fills
/// (tools/sched_ext/include/scx/user_exit_info.h).
#[derive(Debug, Clone, PartialEq)]
pub struct ExitRecord {
    /// The variable's name, by custom `uei`.
    pub variable: String,
    /// `SCX_EXIT_*`; 0 while it runs.
    pub kind: u64,
    /// Its code.
    pub exit_code: i64,
    /// The reason, short.
    pub reason: String,
    /// The message.
    pub message: String,
    /// The kernel's dump, if the scheduler kept it: a variable called `dump`, or as `UEI_DEFINE` does of the record's name
    /// with `_dump`.
    pub dump: String,
}

impl Kernel {
    /// The section of global variables that `map` holds, with its types; nothing when the map isn't one.
    ///
    /// # Errors
    /// [`KernelError`] when its types can't be read.
    pub fn bpf_section(&self, map: VirtAddr) -> Result<Option<(Arc<Btf>, TypeId)>, KernelError> {
        if self.bpf_map_kind(map)? != BpfMapKind::Array {
            return Ok(None);
        }
        let Some((btf, _, value)) = self.bpf_map_types(map)? else { return Ok(None) };
        let is_section = matches!(btf.resolve(value)?.1, Type::Section(_));
        Ok(is_section.then_some((btf, value)))
    }

    /// The global variables in `map`; none when it is no section of variables.
    ///
    /// # Errors
    /// [`KernelError`] when its types can't be read.
    pub fn bpf_variables(&self, map: VirtAddr) -> Result<Vec<BpfVariable>, KernelError> {
        let Some((btf, id)) = self.bpf_section(map)? else { return Ok(Vec::new()) };
        let (_, Type::Section(section)) = btf.resolve(id)? else { return Ok(Vec::new()) };
        let (start, size) = (self.array_value(map, 0)?, self.bpf_map_shape(map)?.value);
        let program = VirtAddr(self.read("bpf_map.btf", map)?);
        let mut found = Vec::new();
        for variable in section.variables() {
            let variable = variable?;
            let end = u64::from(variable.offset) + u64::from(variable.size);
            if end > size {
                let (what, expected) = ("the end of a BPF variable", "at most the map's value size");
                return Err(KernelError::Implausible { what, at: map, seen: end, expected });
            }
            let at = start.wrapping_add(variable.offset.into());
            found.push(BpfVariable {
                name: variable.name.to_owned(),
                section: section.name.to_owned(),
                map,
                program,
                at,
                physical: self.contiguous(at, variable.size.into()),
                size: variable.size.into(),
                btf: btf.clone(),
                ty: variable.ty,
            });
        }
        Ok(found)
    }

    /// The variable, or member of one, at `path` (`nr_enqueued`, `stats.by_kind[2]`) in the section whose map's name ends
    /// in `suffix` (`.bss`, `.data`, or all of a map's name) and that has it. Where several have one, the loaded
    /// scheduler's is meant: what one before it has left may stay for a while.
    ///
    /// # Errors
    /// [`KernelError::NoSymbol`] when there is none, [`KernelError::Ambiguous`] when there are several still, or its own
    /// error when a path can't be taken.
    pub fn bpf_variable(&self, suffix: &str, path: &str) -> Result<BpfVariable, KernelError> {
        let names = self.plan("bpf_map.name")?;
        let (mut broken, mut found) = (None, Vec::new());
        for map in self.bpf_maps()? {
            if !names.read_text(self.memory(), map)?.ends_with(suffix) {
                continue;
            }
            // A map may be going away while it is read; another may still have the variable.
            let variables = self.bpf_variables(map).unwrap_or_else(|error| {
                broken = Some(error);
                Vec::new()
            });
            // A static variable of a function is called `function.variable`: the longest name that fits is meant.
            let fits = |found: &BpfVariable| {
                path.strip_prefix(found.name.as_str())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            found.extend(variables.into_iter().filter(fits).max_by_key(|found| found.name.len()));
        }
        if found.len() > 1 {
            self.keep_the_schedulers(&mut found);
        }
        match (found.pop(), found.is_empty()) {
            (Some(variable), true) => self.inside(variable, path),
            (Some(variable), false) => {
                found.push(variable);
                let place = |found: &BpfVariable| {
                    let name = names.read_text(self.memory(), found.map).unwrap_or_default();
                    let id = self.read("bpf_map.id", found.map).unwrap_or_default();
                    format!("{} in map {name} (ID {id})", found.name)
                };
                let (what, name) = ("the BPF variables", path.to_owned());
                Err(KernelError::Ambiguous { what, name, found: found.iter().map(place).collect() })
            }
            (None, _) => Err(broken.unwrap_or_else(|| KernelError::NoSymbol {
                name: format!("{path} (variable of a BPF map named …{suffix})"),
            })),
        }
    }

    /// Leaves out what isn't the loaded scheduler's, if any is.
    fn keep_the_schedulers(&self, found: &mut Vec<BpfVariable>) {
        // Without one, or where it can't be read, nothing tells them apart.
        let loaded = self.bpf_scheduler_maps().unwrap_or_default();
        if found.iter().any(|variable| loaded.contains(&variable.map)) {
            found.retain(|variable| loaded.contains(&variable.map));
        }
    }

    /// The value of a variable, as its type says.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read or its types are broken.
    pub fn bpf_value(&self, variable: &BpfVariable, limits: DecodeLimits) -> Result<Decoded, KernelError> {
        let bytes = self.bpf_variable_bytes(variable)?;
        Ok(variable.btf.decode(variable.ty, &bytes, limits)?)
    }

    /// A variable's bytes, the first 4 MiB of it.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn bpf_variable_bytes(&self, variable: &BpfVariable) -> Result<Vec<u8>, KernelError> {
        let mut bytes = vec![0; variable.size.min(MAX_BYTES) as usize];
        self.memory().read(variable.at, &mut bytes).map_err(KernelError::read("a BPF variable"))?;
        Ok(bytes)
    }

    /// What schedulers whose maps are still there wrote down of their end: every global struct with a number `kind`, a text
    /// `reason` and a text `msg` or `message`, as `struct user_exit_info` has them. A kind of 0 is no end yet.
    ///
    /// # Errors
    /// [`KernelError`] when the maps can't be walked.
    pub fn bpf_exit_records(&self) -> Result<Vec<ExitRecord>, KernelError> {
        let mut all = Vec::new();
        for map in self.bpf_maps()? {
            all.extend(self.bpf_variables(map)?);
        }
        let mut found = Vec::new();
        for variable in &all {
            let (_, Type::Struct(whole)) = variable.btf.resolve(variable.ty)? else { continue };
            let names: Vec<_> = whole.members().filter_map(Result::ok).map(|member| member.name).collect();
            let has = |name| names.contains(&name);
            if !has("kind") || !has("reason") || !(has("msg") || has("message")) {
                continue;
            }
            let value = self.bpf_value(variable, DecodeLimits::default())?;
            let number = |path| value.get(path).and_then(Decoded::as_u64).unwrap_or(0);
            let text = |path| value.get(path).map(text_of).unwrap_or_default();
            let named = format!("{}_dump", variable.name);
            let is_dump = |other: &&BpfVariable| {
                other.program == variable.program && (other.name == named || other.name == "dump")
            };
            let dump = match all.iter().find(is_dump) {
                Some(dump) => text_of(&self.bpf_value(dump, DecodeLimits::default())?),
                None => String::new(),
            };
            found.push(ExitRecord {
                variable: variable.name.clone(),
                kind: number("kind"),
                exit_code: (number("exit_code") | number("code")) as i64,
                reason: text("reason"),
                message: text("msg") + &text("message"),
                dump,
            });
        }
        Ok(found)
    }

    fn inside(&self, whole: BpfVariable, path: &str) -> Result<BpfVariable, KernelError> {
        let rest = &path[whole.name.len()..];
        if rest.is_empty() {
            return Ok(whole);
        }
        let plan = whole.btf.plan_from(whole.ty, rest)?;
        // A pointer on the way may be a user or arena address: only what lies in the variable has a place.
        let ends = |offset: &u64| offset.checked_add(plan.size()).is_some_and(|end| end <= whole.size);
        let Some(offset) = plan.offset().filter(ends) else {
            return Err(KernelError::Unsupported {
                what: format!("{path}, which is behind a pointer or past its variable"),
                instead: "a member of the variable itself",
            });
        };
        let at = whole.at.wrapping_add(offset);
        Ok(BpfVariable {
            name: path.to_owned(),
            at,
            physical: self.contiguous(at, plan.size()),
            size: plan.size(),
            ty: plan.ty(),
            ..whole
        })
    }

    /// The physical address of `size` bytes that lie together.
    fn contiguous(&self, at: VirtAddr, size: u64) -> Option<PhysAddr> {
        self.memory().translate(at).ok().filter(|(_, together)| *together >= size).map(|(at, _)| at)
    }
}

fn text_of(value: &Decoded) -> String {
    match value {
        Decoded::Text(text) => text.clone(),
        _ => String::new(),
    }
}
