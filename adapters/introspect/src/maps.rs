//! What is in a BPF map, in words and as values.

use crate::allocators::allocators;
use crate::scheduler::short;
use crate::state::code;
use crate::typed::Budget;
use ktstr_introspect_kernel::{
    BpfMap, BpfMapKind, BpfVariable, Kernel, KernelError, MapContents, MapEntry, MapValue, Task,
};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, DecodeLimits, TypeId};
use ktstr_monitor::{
    ArenaPage, ArenaState, EntryState, EntryValue, MapState, RingState, Value, VariableState,
};
use std::sync::Arc;

/// Variables that are read of one map.
const MAX_VARIABLES: usize = 4096;
/// Entries of one map, and of one whose values are per CPU.
const MAX_ENTRIES: usize = 4096;
const MAX_PER_CPU: usize = 256;
/// The first entries and variables are also told in words.
pub(crate) const IN_WORDS: usize = 128;
/// Pages of an arena: 16 MiB.
const MAX_PAGES: usize = 4096;
/// Of a value nobody reads more than this at a glance.
const LIMITS: DecodeLimits = DecodeLimits { elements: 32, values: 256 };
/// `BPF_MAP_TYPE_TASK_STORAGE`, whose owners are tasks.
const TASK_STORAGE: u64 = 29;

/// The types of a map's keys and values, in its program's own BTF.
type Types = Option<(Arc<Btf>, TypeId, TypeId)>;

/// A map: with its variables where it is a section of those, else with its entries.
pub(crate) fn map(kernel: &Kernel, at: VirtAddr, budget: &mut Budget) -> MapState {
    let seen = BpfMap::read(kernel, at);
    let mut state = MapState {
        id: seen.id.unwrap_or_default(),
        name: seen.name.unwrap_or_else(|e| format!("({e})")),
        kind: kernel.bpf_map_kind_name(at).unwrap_or_default(),
        key_size: seen.key_size.unwrap_or_default(),
        value_size: seen.value_size.unwrap_or_default(),
        max_entries: seen.max_entries.unwrap_or_default(),
        ..MapState::default()
    };
    match kernel.bpf_section(at) {
        Ok(None) => contents(kernel, at, &mut state, budget),
        Ok(Some(_)) => variables(kernel, at, &mut state, budget),
        Err(e) => state.note = Some(format!("its types can't be read: {e}")),
    }
    state
}

fn variables(kernel: &Kernel, at: VirtAddr, state: &mut MapState, budget: &mut Budget) {
    let variables = match kernel.bpf_variables(at) {
        Ok(variables) => variables,
        Err(e) => {
            state.note = Some(format!("its variables can't be read: {e}"));
            return;
        }
    };
    state.more = variables.len().saturating_sub(MAX_VARIABLES);
    let seen = variables.iter().take(MAX_VARIABLES).enumerate();
    state.variables = seen.map(|(index, v)| variable(kernel, v, index < IN_WORDS, budget)).collect();
    state.allocators = allocators(kernel, at, budget);
}

fn variable(kernel: &Kernel, variable: &BpfVariable, in_words: bool, budget: &mut Budget) -> VariableState {
    let value = match kernel.bpf_value(variable, LIMITS) {
        Ok(value) if in_words => short(&value.to_string()),
        Ok(_) => String::new(),
        Err(e) => format!("({e})"),
    };
    let typed = match kernel.bpf_variable_bytes(variable) {
        Ok(bytes) => budget.value(Some((&variable.btf, variable.ty)), &bytes),
        Err(_) => Value::Absent,
    };
    VariableState { name: variable.name.clone(), value, typed }
}

fn contents(kernel: &Kernel, at: VirtAddr, state: &mut MapState, budget: &mut Budget) {
    let kind = match kernel.bpf_map_kind(at) {
        Ok(kind) => kind,
        Err(e) => {
            state.note = Some(format!("its kind can't be read: {e}"));
            return;
        }
    };
    let told = match kind {
        BpfMapKind::Arena => arena(kernel, at, state),
        BpfMapKind::RingBuffer => kernel.bpf_ring_positions(at).map(|ring| {
            state.ring =
                Some(RingState { producer: ring.producer, consumer: ring.consumer, size: ring.size });
            format!("{} bytes written, {} not read yet", ring.producer, ring.waiting())
        }),
        BpfMapKind::StructOps => {
            kernel.bpf_struct_ops(at).map(|ops| format!("{}, {}", ops.interface, ops.state))
        }
        BpfMapKind::Other(_) => return,
        _ => {
            let per_cpu = matches!(kind, BpfMapKind::PerCpuArray | BpfMapKind::PerCpuHash);
            let most = if per_cpu { MAX_PER_CPU } else { MAX_ENTRIES };
            let found = kernel.bpf_map_contents(at, most);
            found.map(|found| Entries::of(kernel, at, kind, budget).list(&found, state))
        }
    };
    state.note = match told {
        Ok(note) => Some(note).filter(|note| !note.is_empty()),
        Err(e) => Some(format!("its contents can't be read: {e}")),
    };
}

fn arena(kernel: &Kernel, at: VirtAddr, state: &mut MapState) -> Result<String, KernelError> {
    let found = kernel.bpf_arena_pages(at, MAX_PAGES)?;
    let more = if found.truncated { " or more" } else { "" };
    let note = format!("{}{more} pages in use, at {} in user space", found.pages.len(), found.user_start);
    let pages = found.pages.into_iter().map(|page| ArenaPage::new(page.user.0, page.bytes)).collect();
    state.arena = Some(ArenaState { user_start: found.user_start.0, pages, truncated: found.truncated });
    Ok(note)
}

/// What an entry's key is about.
enum KeyOf {
    Task,
    Object,
    Frames,
    References(BpfMapKind),
    Bytes,
}

fn kind_of(kernel: &Kernel, map: VirtAddr, kind: BpfMapKind) -> KeyOf {
    match kind {
        BpfMapKind::Storage => match kernel.read("bpf_map.map_type", map) {
            Ok(TASK_STORAGE) => KeyOf::Task,
            _ => KeyOf::Object,
        },
        BpfMapKind::StackTrace => KeyOf::Frames,
        BpfMapKind::ProgramArray | BpfMapKind::MapArray | BpfMapKind::MapHash | BpfMapKind::CgroupArray => {
            KeyOf::References(kind)
        }
        _ => KeyOf::Bytes,
    }
}

/// The entries of one map, read by its types.
struct Entries<'a> {
    kernel: &'a Kernel,
    is_array: bool,
    kind: KeyOf,
    /// Keys and values without types are told as numbers or bytes.
    types: Types,
    budget: &'a mut Budget,
}

impl<'a> Entries<'a> {
    fn of(kernel: &'a Kernel, map: VirtAddr, kind: BpfMapKind, budget: &'a mut Budget) -> Self {
        let is_array = matches!(kind, BpfMapKind::Array | BpfMapKind::PerCpuArray);
        let types = kernel.bpf_map_types(map).unwrap_or_default();
        Self { kernel, is_array, kind: kind_of(kernel, map, kind), types, budget }
    }

    /// Lists the entries and says what there is to say of them; arrays' that are all zero are left out, as nobody has
    /// written them.
    fn list(&mut self, found: &MapContents, state: &mut MapState) -> String {
        state.truncated = found.truncated;
        state.looked_at = found.entries.len();
        let (zero, written): (Vec<&MapEntry>, Vec<&MapEntry>) =
            found.entries.iter().partition(|entry| self.is_array && is_zero(&entry.value));
        state.zero = zero.first().map(|entry| self.value(&entry.value));
        let each = written.iter().enumerate();
        state.entries = each.map(|(index, entry)| self.entry(entry, index < IN_WORDS)).collect();
        let told = match (state.looked_at, state.entries.len()) {
            (0, _) => "empty".to_string(),
            (count, shown) if shown == count => String::new(),
            (count, 0) if found.truncated => format!("the first {count} are zero"),
            (_, 0) => "all zero".to_string(),
            _ => "those that are not zero".to_string(),
        };
        match self.budget.is_spent() {
            true => format!("{told}{}not all values were kept", if told.is_empty() { "" } else { "; " }),
            false => told,
        }
    }

    fn entry(&mut self, entry: &MapEntry, in_words: bool) -> EntryState {
        let (key, value) = match in_words {
            true => (short(&self.key_in_words(&entry.key)), short(&self.in_words(&entry.value))),
            false => (String::new(), String::new()),
        };
        EntryState { key, value, typed_key: self.key(&entry.key), typed: self.value(&entry.value) }
    }

    fn key_in_words(&self, key: &[u8]) -> String {
        match self.kind {
            KeyOf::Task => task(self.kernel, VirtAddr(number(key))),
            KeyOf::Object => format!("{:#x}", number(key)),
            KeyOf::Frames => number(key).to_string(),
            _ => decoded(self.types.as_ref().map(|(btf, key, _)| (&**btf, *key)), key),
        }
    }

    fn key(&mut self, key: &[u8]) -> Value {
        match self.kind {
            KeyOf::Task => {
                let value = owner(self.kernel, VirtAddr(number(key)));
                self.budget.take(value)
            }
            KeyOf::Object | KeyOf::Frames => self.budget.take(Value::Unsigned(number(key))),
            // An array's index has 4 bytes, whatever its type says.
            _ if self.is_array => self.budget.take(Value::Unsigned(number(key))),
            _ => self.budget.value(self.types.as_ref().map(|(btf, key, _)| (&**btf, *key)), key),
        }
    }

    fn in_words(&self, value: &MapValue) -> String {
        let of_value = self.types.as_ref().map(|(btf, _, value)| (&**btf, *value));
        match value {
            MapValue::Shared(bytes) if matches!(self.kind, KeyOf::Frames) => {
                frames(self.kernel, bytes).join(" < ")
            }
            MapValue::Shared(bytes) => decoded(of_value, bytes),
            MapValue::PerCpu(each) => {
                let each = each.iter().map(|(cpu, bytes)| format!("cpu{cpu}: {}", decoded(of_value, bytes)));
                each.collect::<Vec<_>>().join(", ")
            }
            MapValue::Reference { target, id } => {
                let id = id.map_or_else(|| target.to_string(), |id| format!("ID {id}"));
                let name = self.name(*target);
                if name.is_empty() { id } else { format!("{name} ({id})") }
            }
        }
    }

    fn value(&mut self, value: &MapValue) -> EntryValue {
        let of_value = self.types.as_ref().map(|(btf, _, value)| (&**btf, *value));
        match value {
            MapValue::Shared(bytes) if matches!(self.kind, KeyOf::Frames) => {
                let trace = frames(self.kernel, bytes).into_iter().map(Value::Text).collect();
                EntryValue::Shared(self.budget.take(Value::List(trace)))
            }
            MapValue::Shared(bytes) => EntryValue::Shared(self.budget.value(of_value, bytes)),
            MapValue::PerCpu(each) => {
                let one = |(cpu, bytes): &(u32, Vec<u8>)| (*cpu, self.budget.value(of_value, bytes));
                EntryValue::PerCpu(each.iter().map(one).collect())
            }
            MapValue::Reference { target, id } => {
                let (name, id) = (self.name(*target), id.map_or(Value::Absent, Value::Unsigned));
                let fields = [("id".to_string(), id), ("name".to_string(), Value::Text(name))];
                EntryValue::Shared(self.budget.take(Value::Fields(fields.into())))
            }
        }
    }

    /// What a reference leads to, by name.
    fn name(&self, target: VirtAddr) -> String {
        match self.kind {
            KeyOf::References(kind) => self.kernel.bpf_reference_name(kind, target).unwrap_or_default(),
            _ => String::new(),
        }
    }
}

/// The number in the first 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let size = bytes.len().min(8);
    word[..size].copy_from_slice(&bytes[..size]);
    u64::from_le_bytes(word)
}

fn is_zero(value: &MapValue) -> bool {
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    match value {
        MapValue::Shared(bytes) => zero(bytes),
        MapValue::PerCpu(each) => each.iter().all(|(_, bytes)| zero(bytes)),
        MapValue::Reference { .. } => false,
    }
}

/// A value by its type; without one a number, or bytes.
pub(crate) fn decoded(ty: Option<(&Btf, TypeId)>, bytes: &[u8]) -> String {
    let typed = ty.filter(|(_, id)| id.0 != 0).and_then(|(btf, id)| btf.decode(id, bytes, LIMITS).ok());
    match (typed, bytes) {
        (Some(value), _) => value.to_string(),
        (None, [a, b, c, d]) => u32::from_le_bytes([*a, *b, *c, *d]).to_string(),
        (None, [a, b, c, d, e, f, g, h]) => u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]).to_string(),
        (None, bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}

/// The task that storage belongs to, by name.
fn task(kernel: &Kernel, at: VirtAddr) -> String {
    let task = Task::read(kernel, at);
    let named = || -> Result<String, KernelError> { Ok(format!("{} ({})", task.comm?, task.pid?)) };
    named().unwrap_or_else(|_| at.to_string())
}

/// The same by its parts, as far as they can be read.
fn owner(kernel: &Kernel, at: VirtAddr) -> Value {
    let task = Task::read(kernel, at);
    let fields = [
        ("address", Value::Unsigned(at.0)),
        ("comm", task.comm.map_or(Value::Absent, Value::Text)),
        ("pid", task.pid.map_or(Value::Absent, Value::Signed)),
    ];
    Value::Fields(fields.map(|(name, value)| (name.to_string(), value)).into())
}

/// A stack trace's functions, the innermost first.
fn frames(kernel: &Kernel, bytes: &[u8]) -> Vec<String> {
    let (words, _) = bytes.as_chunks::<8>();
    let frames = words.iter().map(|word| u64::from_le_bytes(*word)).take_while(|at| *at != 0);
    frames.map(|at| code(kernel, VirtAddr(at)).unwrap_or_else(|| format!("{at:#x}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_introspect_types::BtfBuilder;

    #[test]
    fn values_are_told_by_their_type_or_as_numbers_or_as_bytes() {
        let mut build = BtfBuilder::new();
        let int = build.integer("int", 4, true);
        let btf = Btf::parse(build.bytes()).unwrap();
        let minus_one = [0xff; 4];
        assert_eq!(decoded(Some((&btf, int)), &minus_one), "-1");
        // A type of 0 is none: key types of maps without.
        assert_eq!(decoded(Some((&btf, TypeId(0))), &minus_one), "4294967295");
        assert_eq!(decoded(None, &1u64.to_le_bytes()), "1");
        assert_eq!(decoded(None, &[1, 0xab, 0]), "01 ab 00");
    }

    #[test]
    fn what_nobody_wrote_is_zero_on_every_cpu() {
        let each = |last| MapValue::PerCpu(vec![(0, vec![0; 4]), (1, vec![0, 0, 0, last])]);
        assert!(is_zero(&each(0)) && !is_zero(&each(1)));
        assert!(!is_zero(&MapValue::Reference { target: VirtAddr(0), id: None }));
    }
}
