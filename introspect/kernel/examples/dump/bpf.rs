//! BPF programs, maps with all that is in them, and type information.

use ktstr_introspect_kernel::{
    BpfAllocation, BpfAllocations, BpfMap, BpfMapKind, BpfProgram, BpfTypeInfo, BpfVariable, Kernel,
    KernelError, MapContents, MapValue, PayloadType,
};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{DecodeLimits, Type, TypeId};
use serde_json::{Value as Json, json};

use crate::{addresses, fault, object, outcome};

const ENTRIES: usize = 10_000;

pub(crate) fn all(kernel: &Kernel) -> Json {
    let each = |found: Result<Vec<VirtAddr>, KernelError>, show: &dyn Fn(VirtAddr) -> Json| {
        outcome(found, |found| found.into_iter().map(show).collect::<Vec<_>>())
    };
    json!({
        "programs": each(kernel.bpf_programs(), &|at| program(kernel, at)),
        "maps": each(kernel.bpf_maps(), &|at| map(kernel, at)),
        "btfs": each(kernel.bpf_type_infos(), &|at| type_info(kernel, at)),
        "modules": outcome(kernel.module_type_infos(), |found| {
            found.into_iter().map(|(name, at)| module(kernel, &name, at)).collect::<Vec<_>>()
        }),
        "exit_records": outcome(kernel.bpf_exit_records(), |records| {
            records.iter().map(|record| format!("{record:?}")).collect::<Vec<_>>()
        }),
    })
}

fn program(kernel: &Kernel, at: VirtAddr) -> Json {
    let mut json = object!(kernel, BpfProgram, at);
    json["kind_name"] = outcome(kernel.bpf_program_kind(at), Json::from);
    json["name"] = outcome(kernel.bpf_program_name(at), Json::from);
    json["tag"] = outcome(kernel.bpf_program_tag(at), Json::from);
    json["maps"] = addresses(kernel.bpf_program_maps(at));
    json["implements"] = outcome(kernel.bpf_program_implements(at), Json::from);
    json["stats"] = outcome(
        kernel.bpf_program_stats(at),
        |stats| json!({ "cnt": stats.run_count, "nsecs": stats.run_time_ns, "misses": stats.misses, "by_cpu": stats.by_cpu }),
    );
    json
}

fn map(kernel: &Kernel, at: VirtAddr) -> Json {
    let mut json = object!(kernel, BpfMap, at);
    json["kind_name"] = outcome(kernel.bpf_map_kind_name(at), Json::from);
    match kernel.bpf_map_kind(at) {
        Ok(BpfMapKind::Arena) => {
            json["arena"] = outcome(kernel.bpf_arena_pages(at, 4096), |arena| {
                let pages: Vec<_> =
                    arena.pages.iter().map(|page| json!([page.user.0, hex(&page.bytes)])).collect();
                json!({ "start": arena.user_start.0, "end": arena.user_end.0, "pages": pages })
            });
        }
        Ok(BpfMapKind::RingBuffer) => {
            json["ring"] = outcome(kernel.bpf_ring_positions(at), |ring| {
                json!([ring.producer, ring.consumer, ring.size])
            });
        }
        Ok(BpfMapKind::StructOps) => {
            json["struct_ops"] = outcome(
                kernel.bpf_struct_ops(at),
                |ops| json!({ "interface": ops.interface, "state": ops.state, "programs": ops.programs }),
            );
        }
        _ => json["contents"] = outcome(kernel.bpf_map_contents(at, ENTRIES), contents),
    }
    json["variables"] = outcome(kernel.bpf_variables(at), |variables| {
        variables
            .iter()
            .map(|variable| {
                json!({
                    "name": variable.name, "section": variable.section, "at": variable.at.0, "size": variable.size,
                    "physical": variable.physical.map(|at| at.0),
                    "value": outcome(kernel.bpf_value(variable, DecodeLimits::default()), |value| value.to_string()),
                })
            })
            .collect::<Vec<_>>()
    });
    json["allocators"] = outcome(kernel.bpf_allocations(at, ENTRIES), |found| {
        found.into_iter().map(|(allocator, found)| elements(&allocator, found)).collect::<Vec<_>>()
    });
    json
}

/// What an allocator has given out, each element by its type where that is known.
fn elements(allocator: &BpfVariable, found: Result<BpfAllocations, KernelError>) -> Json {
    let mut json = outcome(found, |found| {
        let ty = match &found.ty {
            PayloadType::Known { ty, .. } => Some(*ty),
            PayloadType::Unknown(_) => None,
        };
        let element = |element: &BpfAllocation| {
            let value = ty.map(|ty| allocator.btf.decode(ty, &element.bytes, DecodeLimits::default()));
            json!({
                "index": element.index, "generation": element.generation, "user": element.user.0, "misplaced": element.misplaced,
                "bytes": hex(&element.bytes), "value": value.map(|value| value.map_or_else(|e| e.to_string(), |v| v.to_string())),
            })
        };
        json!({
            "payload": found.payload, "type": format!("{:?}", found.ty), "truncated": found.truncated,
            "passed_over": found.passed_over, "elements": found.elements.iter().map(element).collect::<Vec<_>>(),
        })
    });
    json["name"] = allocator.name.as_str().into();
    json["at"] = allocator.at.0.into();
    json
}

fn contents(contents: MapContents) -> Json {
    let entries: Vec<Json> = contents
        .entries
        .into_iter()
        .map(|entry| match entry.value {
            MapValue::Shared(bytes) => json!({ "key": hex(&entry.key), "value": hex(&bytes) }),
            MapValue::Reference { target, id } => {
                json!({ "key": hex(&entry.key), "target": target.0, "id": id })
            }
            MapValue::PerCpu(by_cpu) => json!({
                "key": hex(&entry.key),
                "values": by_cpu.iter().map(|(cpu, bytes)| json!([cpu, hex(bytes)])).collect::<Vec<_>>(),
            }),
        })
        .collect();
    json!({ "entries": entries, "truncated": contents.truncated })
}

fn type_info(kernel: &Kernel, at: VirtAddr) -> Json {
    let mut json = object!(kernel, BpfTypeInfo, at);
    json["types"] = outcome(kernel.bpf_types(at), |btf| json!(btf.len()));
    json
}

/// A module's types by name: structs that the kernel's own BTF doesn't have.
fn module(kernel: &Kernel, name: &str, at: VirtAddr) -> Json {
    let types = match kernel.module_types(name) {
        Ok(types) => types,
        Err(error) => return fault(&error),
    };
    let structs: Vec<_> = (kernel.btf().len()..types.len())
        .filter_map(|id| match types.get(TypeId(id)) {
            Ok(Type::Struct(whole)) if !whole.name.is_empty() => Some(json!([whole.name, whole.size])),
            _ => None,
        })
        .collect();
    let info = BpfTypeInfo::read(kernel, at);
    let mut bytes = vec![0; info.data_size.unwrap_or(0) as usize];
    let read = info.data.map(|at| kernel.memory().read(at, &mut bytes).map(|()| checksum(&bytes)));
    let checksum = match read {
        Ok(Ok(sum)) => json!(sum),
        other => json!(format!("{other:?}")),
    };
    json!({ "name": name, "checksum": checksum, "types": types.len(), "structs": structs })
}

/// FNV-1a, as the oracle's guest prints it of /sys/kernel/btf.
fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
