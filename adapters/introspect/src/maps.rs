//! What is in a BPF map, in words and as values.

use crate::allocators::allocators;
use crate::entries::{Entries, IN_WORDS, LIMITS, MAX_ENTRIES, MAX_PER_CPU, Names, number};
use crate::scheduler::short;
use crate::state::code;
use crate::typed::Budget;
use ktstr_introspect_kernel::{BpfMap, BpfMapKind, BpfVariable, Kernel, KernelError, Task};
use ktstr_introspect_memory::VirtAddr;
use ktstr_monitor::{ArenaPage, ArenaState, MapState, RingState, Value, VariableState};

/// Variables that are read of one map.
pub(crate) const MAX_VARIABLES: usize = 4096;
/// Pages of an arena: 16 MiB.
const MAX_PAGES: usize = 4096;
/// `BPF_MAP_TYPE_TASK_STORAGE`, whose owners are tasks.
const TASK_STORAGE: u64 = 29;

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
            let names = ByMemory { kernel, kind: kind_of(kernel, at, kind) };
            let is_array = matches!(kind, BpfMapKind::Array | BpfMapKind::PerCpuArray);
            let types = kernel.bpf_map_types(at).unwrap_or_default();
            let mut entries = Entries { names: &names, is_array, types, budget };
            found.map(|found| entries.list(&found, state))
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

/// Names out of the same memory.
struct ByMemory<'a> {
    kernel: &'a Kernel,
    kind: KeyOf,
}

impl Names for ByMemory<'_> {
    fn key_in_words(&self, key: &[u8]) -> Option<String> {
        match self.kind {
            KeyOf::Task => Some(task(self.kernel, VirtAddr(number(key)))),
            KeyOf::Object => Some(format!("{:#x}", number(key))),
            KeyOf::Frames => Some(number(key).to_string()),
            _ => None,
        }
    }

    fn key(&self, key: &[u8]) -> Option<Value> {
        match self.kind {
            KeyOf::Task => Some(owner(self.kernel, VirtAddr(number(key)))),
            KeyOf::Object | KeyOf::Frames => Some(Value::Unsigned(number(key))),
            _ => None,
        }
    }

    fn frames(&self, value: &[u8]) -> Option<Vec<String>> {
        matches!(self.kind, KeyOf::Frames).then(|| frames(self.kernel, value))
    }

    fn target(&self, target: VirtAddr, _: Option<u64>) -> String {
        match self.kind {
            KeyOf::References(kind) => self.kernel.bpf_reference_name(kind, target).unwrap_or_default(),
            _ => String::new(),
        }
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
