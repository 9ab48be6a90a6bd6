//! What allocators of sched_ext's BPF library have given out, in words and as values.

use crate::entries::{IN_WORDS, decoded};
use crate::scheduler::short;
use crate::typed::Budget;
use ktstr_introspect_kernel::{BpfAllocations, BpfVariable, Kernel, KernelError, PayloadType};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, TypeId};
use ktstr_monitor::{AllocatorState, ElementState};

/// Elements of one allocator.
const MAX_ELEMENTS: usize = 4096;

/// Those among the global variables in `map`.
pub(crate) fn allocators(kernel: &Kernel, map: VirtAddr, budget: &mut Budget) -> Vec<AllocatorState> {
    // Why its variables can't be read, the map tells.
    let found = kernel.bpf_allocations(map, MAX_ELEMENTS).unwrap_or_default();
    found.into_iter().map(|(allocator, found)| one(&allocator, found, budget)).collect()
}

fn one(
    allocator: &BpfVariable,
    found: Result<BpfAllocations, KernelError>,
    budget: &mut Budget,
) -> AllocatorState {
    let state = AllocatorState { name: allocator.name.clone(), ..AllocatorState::default() };
    let found = match found {
        Ok(found) => found,
        Err(e) => return AllocatorState { note: format!("its elements can't be read: {e}"), ..state },
    };
    let (ty, payload_type, note) = match found.ty {
        PayloadType::Known { ty, name, since } => (Some(ty), Some(name), since.to_string()),
        PayloadType::Unknown(why) => (None, None, format!("type not known: {why}")),
    };
    let ty: Option<(&Btf, TypeId)> = ty.map(|ty| (&*allocator.btf, ty));
    let each = found.elements.iter().enumerate().map(|(place, element)| ElementState {
        index: element.index,
        generation: element.generation,
        user: element.user.0,
        misplaced: element.misplaced,
        value: if place < IN_WORDS { short(&decoded(ty, &element.bytes)) } else { String::new() },
        typed: budget.value(ty, &element.bytes),
    });
    let elements = each.collect();
    let spent = if budget.is_spent() { "; not all values were kept" } else { "" };
    AllocatorState {
        payload_size: found.payload,
        payload_type,
        note: format!("{note}{spent}"),
        elements,
        truncated: found.truncated,
        passed_over: found.passed_over,
        ..state
    }
}
