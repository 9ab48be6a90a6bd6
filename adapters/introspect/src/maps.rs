//! What is in a BPF map, in words.

use crate::scheduler::short;
use crate::state::code;
use ktstr_introspect_kernel::{
    BpfMap, BpfMapKind, BpfVariable, Kernel, KernelError, MapContents, MapEntry, MapValue, Task,
};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, DecodeLimits, TypeId};
use ktstr_monitor::{EntryState, MapState, VariableState};
use std::sync::Arc;

/// Variables and entries that are listed of one map.
const MAX_VARIABLES: usize = 128;
const MAX_ENTRIES: usize = 32;
/// Pages of an arena that are counted: 4 MiB.
const MAX_PAGES: usize = 1024;
/// Of a value nobody reads more than this at a glance.
const LIMITS: DecodeLimits = DecodeLimits { elements: 32, values: 256 };
/// `BPF_MAP_TYPE_TASK_STORAGE`, whose owners are tasks.
const TASK_STORAGE: u64 = 29;

/// The types of a map's keys and values, in its program's own BTF.
type Types = Option<(Arc<Btf>, TypeId, TypeId)>;

/// A map: with its variables where it is a section of those that a program writes, else with its entries.
pub(crate) fn map(kernel: &Kernel, at: VirtAddr) -> MapState {
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
        Ok(None) => contents(kernel, at, &mut state),
        Ok(Some(_)) => variables(kernel, at, &mut state),
        Err(e) => state.note = Some(format!("its types can't be read: {e}")),
    }
    state
}

fn variables(kernel: &Kernel, at: VirtAddr, state: &mut MapState) {
    let variables = match kernel.bpf_variables(at) {
        Ok(variables) => variables,
        Err(e) => {
            state.note = Some(format!("its variables can't be read: {e}"));
            return;
        }
    };
    let written = |v: &&BpfVariable| v.section.starts_with(".bss") || v.section.starts_with(".data");
    let variables: Vec<_> = variables.iter().filter(written).collect();
    state.more = variables.len().saturating_sub(MAX_VARIABLES);
    let shown = |v: &&BpfVariable| VariableState {
        name: v.name.clone(),
        value: match kernel.bpf_value(v, LIMITS) {
            Ok(value) => short(&value.to_string()),
            Err(e) => format!("({e})"),
        },
    };
    state.variables = variables.iter().take(MAX_VARIABLES).map(shown).collect();
}

fn contents(kernel: &Kernel, at: VirtAddr, state: &mut MapState) {
    let kind = match kernel.bpf_map_kind(at) {
        Ok(kind) => kind,
        Err(e) => {
            state.note = Some(format!("its kind can't be read: {e}"));
            return;
        }
    };
    let told = match kind {
        BpfMapKind::Arena => kernel.bpf_arena_pages(at, MAX_PAGES).map(|arena| {
            let more = if arena.truncated { " or more" } else { "" };
            format!("{}{more} pages in use, at {} in user space", arena.pages.len(), arena.user_start)
        }),
        BpfMapKind::RingBuffer => kernel
            .bpf_ring_positions(at)
            .map(|ring| format!("{} bytes written, {} not read yet", ring.producer, ring.waiting())),
        BpfMapKind::StructOps => {
            kernel.bpf_struct_ops(at).map(|ops| format!("{}, {}", ops.interface, ops.state))
        }
        BpfMapKind::Other(_) => return,
        _ => kernel.bpf_map_contents(at, MAX_ENTRIES).map(|found| entries(kernel, at, kind, found, state)),
    };
    state.note = match told {
        Ok(note) => Some(note).filter(|note| !note.is_empty()),
        Err(e) => Some(format!("its contents can't be read: {e}")),
    };
}

/// Lists the entries; arrays' that are all zero are left out, as nobody has written them.
fn entries(
    kernel: &Kernel,
    map: VirtAddr,
    kind: BpfMapKind,
    found: MapContents,
    state: &mut MapState,
) -> String {
    let is_array = matches!(kind, BpfMapKind::Array | BpfMapKind::PerCpuArray);
    let kind = kind_of(kernel, map, kind);
    state.truncated = found.truncated;
    // Keys and values without types are told as bytes.
    let types = kernel.bpf_map_types(map).unwrap_or_default();
    let count = found.entries.len();
    let written = found.entries.iter().filter(|entry| !(is_array && is_zero(&entry.value)));
    state.entries = written.map(|entry| self::entry(kernel, &kind, &types, entry)).collect();
    match (count, state.entries.len()) {
        (0, _) => "empty".to_string(),
        (_, shown) if shown == count => String::new(),
        (_, 0) if found.truncated => format!("the first {count} are zero"),
        (_, 0) => "all zero".to_string(),
        _ => "those that are not zero".to_string(),
    }
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

fn entry(kernel: &Kernel, kind: &KeyOf, types: &Types, entry: &MapEntry) -> EntryState {
    let number = |bytes: &[u8]| {
        let mut word = [0; 8];
        let size = bytes.len().min(8);
        word[..size].copy_from_slice(&bytes[..size]);
        u64::from_le_bytes(word)
    };
    let key = match kind {
        KeyOf::Task => task(kernel, VirtAddr(number(&entry.key))),
        KeyOf::Object => format!("{:#x}", number(&entry.key)),
        KeyOf::Frames => number(&entry.key).to_string(),
        _ => decoded(types.as_ref().map(|(btf, key, _)| (&**btf, *key)), &entry.key),
    };
    let of_value = types.as_ref().map(|(btf, _, value)| (&**btf, *value));
    let value = match &entry.value {
        MapValue::Shared(bytes) if matches!(kind, KeyOf::Frames) => frames(kernel, bytes),
        MapValue::Shared(bytes) => decoded(of_value, bytes),
        MapValue::PerCpu(each) => {
            let each = each.iter().map(|(cpu, bytes)| format!("cpu{cpu}: {}", decoded(of_value, bytes)));
            each.collect::<Vec<_>>().join(", ")
        }
        MapValue::Reference { target, id } => {
            let id = id.map_or_else(|| target.to_string(), |id| format!("ID {id}"));
            let name = match kind {
                KeyOf::References(kind) => kernel.bpf_reference_name(*kind, *target).unwrap_or_default(),
                _ => String::new(),
            };
            if name.is_empty() { id } else { format!("{name} ({id})") }
        }
    };
    EntryState { key: short(&key), value: short(&value) }
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
fn decoded(ty: Option<(&Btf, TypeId)>, bytes: &[u8]) -> String {
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

/// A stack trace, the innermost function first.
fn frames(kernel: &Kernel, bytes: &[u8]) -> String {
    let (words, _) = bytes.as_chunks::<8>();
    let frames = words.iter().map(|word| u64::from_le_bytes(*word)).take_while(|at| *at != 0);
    let name = |at: u64| code(kernel, VirtAddr(at)).unwrap_or_else(|| format!("{at:#x}"));
    frames.map(name).collect::<Vec<_>>().join(" < ")
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
