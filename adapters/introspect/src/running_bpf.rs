//! BPF programs and maps of the kernel that runs here, as values for checks.

use crate::entries::{Entries, IN_WORDS, LIMITS, MAX_ENTRIES, MAX_PER_CPU, Names, Types, decoded, number};
use crate::maps::MAX_VARIABLES;
use crate::scheduler::short;
use crate::typed::Budget;
use ktstr_introspect_kernel::{MapContents, MapEntry, MapValue};
use ktstr_introspect_live::{
    BpfMapInfo, BpfObjects, BpfProgramInfo, LiveContents, LiveEntry, LiveValue, RunningFiles,
};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_symbols::SymbolTable;
use ktstr_introspect_types::{Btf, Section, Type, TypeId};
use ktstr_monitor::{MapState, ProgramState, Value, VariableState};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, OnceLock};

/// `enum bpf_map_type` of include/uapi/linux/bpf.h.
const ARRAY: u32 = 2;
const PER_CPU_ARRAY: u32 = 6;
const PROGRAM_ARRAY: u32 = 3;
const STACK_TRACE: u32 = 7;
const STRUCT_OPS: u32 = 26;
const TASK_STORAGE: u32 = 29;
/// The interface that sched_ext schedulers implement.
const SCHED_EXT_OPS: &str = "sched_ext_ops";

/// A scheduler's programs and maps.
pub type SchedulerObjects = (Vec<ProgramState>, Vec<MapState>);

/// BPF programs and maps of the kernel that runs here, read by bpf(2).
pub struct RunningBpf {
    objects: BpfObjects,
    /// The kernel's own types, for names of kinds and what schedulers implement.
    types: Result<Arc<Btf>, String>,
    files: RunningFiles,
    symbols: OnceLock<Option<SymbolTable>>,
}

/// What a struct_ops map implements.
struct Implements {
    /// The `name` in it: what `/sys/kernel/sched_ext/root/ops` says of the scheduler that is attached.
    name: String,
    /// Members by the ID of the program.
    members: BTreeMap<u32, String>,
}

impl RunningBpf {
    /// Reads the kernel's types.
    #[must_use]
    pub fn new(files: &RunningFiles) -> Self {
        let types = files.types().map(|(types, _)| types).map_err(|e| e.to_string());
        Self { objects: BpfObjects::new(), types, files: files.clone(), symbols: OnceLock::new() }
    }

    /// Why names of kinds and what programs implement are not known; `None` if they are.
    pub fn untyped(&self) -> Option<&str> {
        self.types.as_ref().err().map(String::as_str)
    }

    /// All programs, by ID.
    ///
    /// # Errors
    /// The kernel's, such as `EPERM` without root.
    pub fn programs(&self) -> io::Result<Vec<ProgramState>> {
        let implements = self.implements(&self.objects.maps()?);
        let member = |id: u32| implements.iter().find_map(|ops| ops.members.get(&id));
        let programs = self.objects.programs()?.into_iter();
        Ok(programs.map(|p| self.program(&p, member(p.id).map_or("", String::as_str))).collect())
    }

    /// All maps, by ID, with what is in them. `attached` is the name of the scheduler that the kernel has now: its maps
    /// are in use.
    ///
    /// # Errors
    /// As [`RunningBpf::programs`].
    pub fn maps(&self, attached: Option<&str>) -> io::Result<Vec<MapState>> {
        let (infos, programs) = (self.objects.maps()?, self.objects.programs()?);
        let of_scheduler = Of::new(self.implements(&infos), attached, &programs);
        let names = reference_names(&infos, &programs);
        let one = |info: &BpfMapInfo| self.map(info, &of_scheduler, &names, &mut Budget::default());
        Ok(infos.iter().map(one).collect())
    }

    /// The programs that implement a scheduler, and the maps that they use: also those of one that is no longer
    /// attached, as long as its program holds them.
    ///
    /// # Errors
    /// As [`RunningBpf::programs`].
    pub fn scheduler(&self, attached: Option<&str>) -> io::Result<SchedulerObjects> {
        let (infos, programs) = (self.objects.maps()?, self.objects.programs()?);
        let of = Of::new(self.implements(&infos), attached, &programs);
        let names = reference_names(&infos, &programs);
        let member = |id: u32| of.implements.iter().find_map(|ops| ops.members.get(&id));
        let own = programs.iter().filter_map(|p| Some(self.program(p, member(p.id)?))).collect();
        // What is in use comes first to what may be kept.
        let mut used: Vec<&BpfMapInfo> = infos.iter().filter(|info| of.used.contains(&info.id)).collect();
        used.sort_by_key(|info| (!of.attached.contains(&info.id), info.id));
        let mut budget = Budget::default();
        let mut maps: Vec<MapState> =
            used.into_iter().map(|info| self.map(info, &of, &names, &mut budget)).collect();
        maps.sort_by_key(|map| map.id);
        Ok((own, maps))
    }

    fn program(&self, info: &BpfProgramInfo, implements: &str) -> ProgramState {
        ProgramState {
            id: info.id.into(),
            name: info.name.clone(),
            kind: self.kind("bpf_prog_type", "BPF_PROG_TYPE_", info.kind),
            implements: implements.to_string(),
            verified_insns: Some(info.verified_insns.into()).filter(|insns| *insns > 0),
            run_count: info.run_count,
            run_time_ns: info.run_time_ns,
            misses: info.misses,
        }
    }

    /// A kind by name, without its prefix and in lower case.
    fn kind(&self, of: &str, prefix: &str, number: u32) -> String {
        let name = self.types.as_ref().ok().and_then(|types| types.enumerator(of, number.into()));
        let short = name.and_then(|name| name.strip_prefix(prefix)).map(str::to_ascii_lowercase);
        short.unwrap_or_else(|| format!("type {number}"))
    }

    /// The struct_ops maps that implement sched_ext's interface, the newest first.
    fn implements(&self, infos: &[BpfMapInfo]) -> Vec<Implements> {
        let Ok(types) = &self.types else { return Vec::new() };
        let maps = infos.iter().rev().filter(|info| info.kind == STRUCT_OPS);
        maps.filter_map(|info| implements(types, info, &first_value(info.id)?)).collect()
    }

    fn map(
        &self,
        info: &BpfMapInfo,
        of: &Of,
        names: &BTreeMap<(bool, u32), String>,
        budget: &mut Budget,
    ) -> MapState {
        let mut state = MapState {
            id: info.id.into(),
            name: info.name.clone(),
            kind: self.kind("bpf_map_type", "BPF_MAP_TYPE_", info.kind),
            key_size: info.key_size.into(),
            value_size: info.value_size.into(),
            max_entries: info.max_entries.into(),
            in_use: of.attached.contains(&info.id),
            ..MapState::default()
        };
        if info.kind == STRUCT_OPS {
            let implemented = self.types.as_ref().ok().and_then(|types| interface(types, info));
            state.note = implemented.map(|(name, _)| name);
            return state;
        }
        let types = self.types_of(info);
        let found = match LiveContents::of(info.id, MAX_ENTRIES, MAX_PER_CPU) {
            Ok(Some(found)) => found,
            Ok(None) => {
                state.note = Some("no system call tells its contents".to_string());
                return state;
            }
            Err(e) => {
                state.note = Some(format!("its contents can't be read: {e}"));
                return state;
            }
        };
        if let Some((btf, id)) = section(info, types.as_ref()) {
            match (found.entries.first().map(|entry| &entry.value), btf.resolve(id)) {
                (Some(LiveValue::Shared(bytes)), Ok((_, Type::Section(section)))) => {
                    variables(&btf, section, bytes, &mut state, budget);
                }
                _ => state.note = Some("its variables can't be read: it is larger than is read".to_string()),
            }
            return state;
        }
        let by = BySyscall { bpf: self, kind: info.kind, names };
        let is_array = matches!(info.kind, ARRAY | PER_CPU_ARRAY);
        let mut entries = Entries { names: &by, is_array, types, budget };
        let note = entries.list(&contents(found), &mut state);
        state.note = Some(note).filter(|note| !note.is_empty());
        state
    }

    fn types_of(&self, info: &BpfMapInfo) -> Types {
        if info.value_type == 0 {
            return None;
        }
        Some((self.objects.types(info.btf)?, TypeId(info.key_type), TypeId(info.value_type)))
    }

    /// The kernel's symbols, if it shows them.
    fn symbols(&self) -> Option<&SymbolTable> {
        self.symbols.get_or_init(|| self.files.symbols().ok()).as_ref()
    }
}

/// What belongs to schedulers.
struct Of {
    implements: Vec<Implements>,
    /// Maps that programs of any scheduler use.
    used: BTreeSet<u32>,
    /// Those that programs of the attached one use.
    attached: BTreeSet<u32>,
}

impl Of {
    fn new(implements: Vec<Implements>, attached: Option<&str>, programs: &[BpfProgramInfo]) -> Self {
        let maps_of = |ops: &Implements| -> Vec<u32> {
            let own = programs.iter().filter(|program| ops.members.contains_key(&program.id));
            own.flat_map(|program| program.maps.iter().copied()).collect()
        };
        let used = implements.iter().flat_map(maps_of).collect();
        // Of several of that name the newest: the kernel attaches one at a time.
        let current = attached.and_then(|name| implements.iter().find(|ops| ops.name == name));
        let attached = current.map(maps_of).unwrap_or_default().into_iter().collect();
        Self { implements, used, attached }
    }
}

/// The bytes of the one value of a struct_ops map.
fn first_value(id: u32) -> Option<Vec<u8>> {
    let found = LiveContents::of(id, 1, 1).ok()??;
    match found.entries.into_iter().next()?.value {
        LiveValue::Shared(bytes) => Some(bytes),
        LiveValue::PerCpu(_) | LiveValue::Id(_) => None,
    }
}

/// The interface that a struct_ops map implements, by name, and where in the value it begins: the member `data` of
/// `struct bpf_struct_ops_NAME` (kernel/bpf/bpf_struct_ops.c).
fn interface(types: &Btf, info: &BpfMapInfo) -> Option<(String, u64)> {
    let data = types.plan_from(TypeId(info.kernel_value_type), ".data").ok()?;
    match types.resolve(data.ty()).ok()?.1 {
        Type::Struct(whole) => Some((whole.name.to_owned(), data.offset()?)),
        _ => None,
    }
}

/// What it implements of sched_ext: where the kernel has functions, user space sees the IDs of programs.
fn implements(types: &Btf, info: &BpfMapInfo, value: &[u8]) -> Option<Implements> {
    let (name, begin) = interface(types, info)?;
    if name != SCHED_EXT_OPS {
        return None;
    }
    let ops = types.plan_from(TypeId(info.kernel_value_type), ".data").ok()?;
    let (_, Type::Struct(whole)) = types.resolve(ops.ty()).ok()? else { return None };
    let (mut named, mut members) = (String::new(), BTreeMap::new());
    for member in whole.members().filter_map(Result::ok) {
        let at = usize::try_from(begin + u64::from(member.bit_offset / 8)).ok()?;
        match types.resolve(member.ty) {
            Ok((_, Type::Pointer(to))) if matches!(types.resolve(to), Ok((_, Type::Prototype { .. }))) => {
                let id = value.get(at..at.checked_add(8)?).map(number)?;
                if let Ok(id @ 1..) = u32::try_from(id) {
                    members.insert(id, member.name.to_owned());
                }
            }
            Ok((_, Type::Array { count, .. })) if member.name == "name" => {
                let bytes = value.get(at..at.checked_add(count as usize)?)?;
                let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
                named = String::from_utf8_lossy(&bytes[..end]).into_owned();
            }
            _ => {}
        }
    }
    Some(Implements { name: named, members })
}

/// The section of variables that a map is.
fn section(info: &BpfMapInfo, types: Option<&(Arc<Btf>, TypeId, TypeId)>) -> Option<(Arc<Btf>, TypeId)> {
    let (btf, _, value) = types.filter(|_| info.kind == ARRAY)?;
    matches!(btf.resolve(*value), Ok((_, Type::Section(_)))).then(|| (btf.clone(), *value))
}

fn variables(btf: &Btf, section: Section<'_>, bytes: &[u8], state: &mut MapState, budget: &mut Budget) {
    let all: Vec<_> = section.variables().filter_map(Result::ok).collect();
    state.more = all.len().saturating_sub(MAX_VARIABLES);
    for (index, variable) in all.iter().take(MAX_VARIABLES).enumerate() {
        let (start, size) = (variable.offset as usize, variable.size as usize);
        let own = start.checked_add(size).and_then(|end| bytes.get(start..end));
        let (value, typed) = match own {
            Some(own) => {
                let in_words = || short(&in_words(btf, variable.ty, own));
                let value = if index < IN_WORDS { in_words() } else { String::new() };
                (value, budget.value(Some((btf, variable.ty)), own))
            }
            None => ("(past the end of its section)".to_string(), Value::Absent),
        };
        state.variables.push(VariableState { name: variable.name.to_owned(), value, typed });
    }
}

fn in_words(btf: &Btf, ty: TypeId, bytes: &[u8]) -> String {
    match btf.decode(ty, bytes, LIMITS) {
        Ok(value) => value.to_string(),
        Err(_) => decoded(None, bytes),
    }
}

/// Names of programs (`true`) and maps by ID, for maps that refer to them.
fn reference_names(maps: &[BpfMapInfo], programs: &[BpfProgramInfo]) -> BTreeMap<(bool, u32), String> {
    let programs = programs.iter().map(|program| ((true, program.id), program.name.clone()));
    programs.chain(maps.iter().map(|map| ((false, map.id), map.name.clone()))).collect()
}

fn contents(found: LiveContents) -> MapContents {
    let value = |value| match value {
        LiveValue::Shared(bytes) => MapValue::Shared(bytes),
        LiveValue::PerCpu(each) => MapValue::PerCpu(each),
        LiveValue::Id(id) => MapValue::Reference { target: VirtAddr(0), id: Some(id.into()) },
    };
    let entry = |LiveEntry { key, value: seen }| MapEntry { key, at: VirtAddr(0), value: value(seen) };
    MapContents { entries: found.entries.into_iter().map(entry).collect(), truncated: found.truncated }
}

/// Names by /proc and the lists of objects.
struct BySyscall<'a> {
    bpf: &'a RunningBpf,
    kind: u32,
    names: &'a BTreeMap<(bool, u32), String>,
}

impl Names for BySyscall<'_> {
    fn key_in_words(&self, key: &[u8]) -> Option<String> {
        match self.kind {
            TASK_STORAGE => Some(format!("{} ({})", comm(number(key)), number(key))),
            STACK_TRACE => Some(number(key).to_string()),
            _ => None,
        }
    }

    fn key(&self, key: &[u8]) -> Option<Value> {
        match self.kind {
            TASK_STORAGE => {
                let (pid, comm) = (number(key) as i64, comm(number(key)));
                let fields = [("pid", Value::Signed(pid)), ("comm", Value::Text(comm))];
                Some(Value::Fields(fields.map(|(name, value)| (name.to_string(), value)).into()))
            }
            STACK_TRACE => Some(Value::Unsigned(number(key))),
            _ => None,
        }
    }

    fn frames(&self, value: &[u8]) -> Option<Vec<String>> {
        if self.kind != STACK_TRACE {
            return None;
        }
        let symbols = self.bpf.symbols();
        let name = |at: u64| match symbols.and_then(|symbols| symbols.at(VirtAddr(at))) {
            Some((symbol, 0)) => symbol.name.to_owned(),
            Some((symbol, distance)) => format!("{}+{distance:#x}", symbol.name),
            None => format!("{at:#x}"),
        };
        let (words, _) = value.as_chunks::<8>();
        Some(words.iter().map(|word| u64::from_le_bytes(*word)).take_while(|at| *at != 0).map(name).collect())
    }

    fn target(&self, _: VirtAddr, id: Option<u64>) -> String {
        let id = id.and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
        self.names.get(&(self.kind == PROGRAM_ARRAY, id)).cloned().unwrap_or_default()
    }
}

/// A thread's name; empty when it has ended.
fn comm(tid: u64) -> String {
    std::fs::read_to_string(format!("/proc/{tid}/comm"))
        .map(|text| text.trim_end().to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_introspect_types::BtfBuilder;

    #[test]
    fn a_scheduler_is_known_by_its_name_and_its_programs_by_their_ids() {
        let mut build = BtfBuilder::new();
        let char = build.integer("char", 1, true);
        let word = build.integer("unsigned long", 8, false);
        let prototype = build.prototype(word);
        let (callback, name) = (build.pointer(prototype), build.array(char, 16));
        let members =
            [("enqueue", callback, 0), ("flags", word, 8), ("exit", callback, 16), ("name", name, 24)];
        let ops = build.structure(SCHED_EXT_OPS, 40, &members);
        let wrapped =
            build.structure("bpf_struct_ops_sched_ext_ops", 56, &[("state", word, 0), ("data", ops, 16)]);
        let types = Btf::parse(build.bytes()).unwrap();
        let info = BpfMapInfo { kernel_value_type: wrapped.0, kind: STRUCT_OPS, ..BpfMapInfo::default() };
        let mut value = vec![0; 56];
        value[16] = 7;
        value[24] = 9;
        value[40..44].copy_from_slice(b"demo");
        let seen = implements(&types, &info, &value).unwrap();
        assert_eq!((seen.name.as_str(), seen.members), ("demo", [(7, "enqueue".to_string())].into()));
        assert!(implements(&types, &info, &value[..20]).is_none(), "cut short");
        let other = BpfMapInfo { kernel_value_type: ops.0, ..info };
        assert!(implements(&types, &other, &value).is_none());
    }

    #[test]
    fn of_two_schedulers_of_one_name_the_newest_is_attached() {
        let ops = |id| Implements { name: "demo".to_string(), members: [(id, "init".to_string())].into() };
        let program = |id, map| BpfProgramInfo { id, maps: vec![map], ..BpfProgramInfo::default() };
        let programs = [program(1, 10), program(2, 20), program(3, 30)];
        let of = |attached| Of::new(vec![ops(2), ops(1)], attached, &programs);
        let seen = of(Some("demo"));
        assert_eq!((seen.used, seen.attached), ([10, 20].into(), [20].into()));
        assert!(of(Some("other")).attached.is_empty() && of(None).attached.is_empty());
    }

    #[test]
    fn variables_lie_in_their_section() {
        let mut build = BtfBuilder::new();
        let int = build.integer("int", 4, true);
        let (first, second) = (build.variable("first", int), build.variable("second", int));
        let id = build.section(".bss", 8, &[(first, 0, 4), (second, 4, 4)]);
        let btf = Btf::parse(build.bytes()).unwrap();
        let Ok((_, Type::Section(section))) = btf.resolve(id) else { panic!("a section") };
        let mut state = MapState::default();
        variables(&btf, section, &[1, 0, 0, 0, 0xff, 0xff], &mut state, &mut Budget::default());
        let seen: Vec<_> = state.variables.iter().map(|v| (v.name.as_str(), &v.typed)).collect();
        assert_eq!(seen, [("first", &Value::Signed(1)), ("second", &Value::Absent)]);
        assert_eq!(state.variables[0].value, "1");
    }
}
