//! Variables by the types that the vmlinux's DWARF tells.

use std::collections::HashMap;

use ktstr_introspect_dwarf::{DebugSections, variable_types};
use ktstr_introspect_kernel::Kernel;
use ktstr_introspect_symbols::{SymbolKind, Vmlinux};
use ktstr_introspect_types::{Leaf, Type, VariableTypes};
use serde_json::{Value as Json, json};

/// What people ask for; a kernel may lack some.
const PATHS: [&str; 24] = [
    "init_task.comm",
    "init_task.pid",
    "init_task.se.load.weight",
    "init_task.tasks.next",
    "jiffies",
    "jiffies_64",
    "root_task_group.shares",
    "root_task_group.css.cgroup",
    "init_css_set.nr_tasks",
    "init_pid_ns.pid_allocated",
    "init_mm.mm_count.counter",
    "init_uts_ns.name.release",
    "cgrp_dfl_root.nr_cgrps.counter",
    "def_root_domain.refcount.counter",
    "system_state",
    "nr_cpu_ids",
    "saved_command_line",
    "slab_caches.prev",
    "sched_domains_mutex.owner.counter",
    "sysctl_sched_base_slice",
    "scx_ops_bypass_depth",
    "scx_watchdog_timeout",
    "scx_ops.timeout_ms",
    "scx_ops_enable_state_var.counter",
];

pub(crate) fn all(kernel: &Kernel, vmlinux: &Vmlinux) -> Result<Json, Box<dyn std::error::Error>> {
    let types = variable_types(&DebugSections::read(vmlinux.bytes())?, kernel.btf())?;
    let paths = PATHS.iter().map(|path| json!([path, at_path(kernel, &types, path)])).collect::<Vec<_>>();
    let mut times: HashMap<&str, u32> = HashMap::new();
    for symbol in kernel.symbols().iter() {
        *times.entry(symbol.name).or_default() += 1;
    }
    let is_variable = |id| matches!(types.types().get(id), Ok(Type::Variable { .. }));
    // One name, one variable: so that there is no doubt which one drgn finds. Nor does it know aliases.
    let unique = kernel.symbols().iter().filter(|symbol| {
        symbol.kind == SymbolKind::Object
            && times[symbol.name] == 1
            && types.types().named(symbol.name).any(is_variable)
    });
    let each = unique.filter_map(|symbol| one(kernel, &types, symbol.name)).collect::<Vec<_>>();
    Ok(json!({ "paths": paths, "each": each, "left_out": types.left_out() }))
}

fn at_path(kernel: &Kernel, types: &VariableTypes, path: &str) -> Json {
    let end = path.find('.').unwrap_or(path.len());
    let (root, rest) = path.split_at(end);
    let Ok(at) = kernel.symbol(root) else { return json!({ "error": "Absent" }) };
    let Some(ty) = types.find(root, kernel.link_address(at)) else {
        return json!({ "error": "untyped" });
    };
    match types.types().plan_from(ty, rest) {
        Ok(plan) if plan.leaf() == Leaf::Bytes => json!(plan.read_text(kernel.memory(), at).ok()),
        Ok(plan) => number(plan.leaf(), plan.read(kernel.memory(), at).ok()),
        Err(error) if error.is_absent() => json!({ "error": "Absent" }),
        Err(error) => json!({ "error": error.to_string() }),
    }
}

fn number(leaf: Leaf, word: Option<u64>) -> Json {
    match leaf {
        Leaf::Word { signed: true, .. } | Leaf::Bits { signed: true, .. } => {
            json!(word.map(|word| word as i64))
        }
        _ => json!(word),
    }
}

/// Name, size, the value of a number, the members of a struct.
fn one(kernel: &Kernel, types: &VariableTypes, name: &str) -> Option<Json> {
    let at = kernel.symbol(name).ok()?;
    let ty = types.find(name, kernel.link_address(at))?;
    let btf = types.types();
    let plan = btf.plan_from(ty, "").ok()?;
    let value = match plan.leaf() {
        Leaf::Bytes => Json::Null,
        leaf => number(leaf, plan.read(kernel.memory(), at).ok()),
    };
    let members = match btf.resolve(ty).ok()?.1 {
        Type::Struct(whole) | Type::Union(whole) => {
            whole.members().flatten().map(|member| json!([member.name, member.bit_offset])).collect()
        }
        _ => Json::Null,
    };
    Some(json!([name, btf.size_of(ty).ok(), value, members]))
}
