//! Expressions such as `runqueues[0].curr->comm`: a variable, then members by the kernel's
//! own type information.

use anyhow::{Context, Result, anyhow, bail};
use ktstr_introspect_kernel::Kernel;
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, Composite, Integer, Leaf, Plan, Type, TypeId};

/// Types of variables that people ask for. BTF tells those of per-CPU variables only.
const KNOWN: [(&str, &str); 8] = [
    ("init_task", "task_struct"),
    ("init_css_set", "css_set"),
    ("init_pid_ns", "pid_namespace"),
    ("init_mm", "mm_struct"),
    ("root_task_group", "task_group"),
    ("cgrp_dfl_root", "cgroup_root"),
    ("top_cpuset", "cpuset"),
    ("def_root_domain", "root_domain"),
];
/// Elements of an array and members of a struct that are shown.
const MAX_SHOWN: usize = 64;

/// What an expression is worth, in words.
///
/// `name.path` for a variable whose type is known, `name[cpu].path` for a per-CPU variable,
/// `(type)name.path` and `(type)0xaddress.path` for any other, `name` alone for the 8 bytes
/// at a symbol.
pub(super) fn evaluate(kernel: &Kernel, text: &str) -> Result<String> {
    let (cast, rest) = match text.trim().strip_prefix('(') {
        Some(rest) => {
            let (name, rest) = rest.split_once(')').context("expected `)` after the type")?;
            let name = name.trim().trim_start_matches("struct ").trim_start_matches("union ");
            (Some(name), rest)
        }
        None => (None, text.trim()),
    };
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (root, path) = rest.split_at(end);
    if root.is_empty() {
        bail!("expected a variable, as in `init_task.comm` or `runqueues[0].nr_running`");
    }
    let address = match root.strip_prefix("0x") {
        Some(digits) => VirtAddr(u64::from_str_radix(digits, 16).context("reading the address")?),
        None => kernel.symbol(root)?,
    };
    let btf = kernel.btf();
    let composite = |name: &str| btf.composite(name).ok_or_else(|| anyhow!("this kernel has no type {name}"));
    if let Some(name) = cast {
        return value(kernel, address, composite(name)?, path);
    }
    if let Some(ty) = per_cpu_type(btf, root) {
        let (cpu, path) = cpu(path).with_context(|| format!("{root} is per CPU: write {root}[0]{path}"))?;
        return value(kernel, kernel.per_cpu_pointer(address, cpu)?, ty, path);
    }
    match KNOWN.iter().find(|(name, _)| *name == root) {
        Some((_, name)) => value(kernel, address, composite(name)?, path),
        None if path.is_empty() => {
            let word = kernel.memory().read_u64(address).with_context(|| format!("reading {root}"))?;
            Ok(match kernel.symbols().lookup(root).map(|symbol| symbol.size) {
                Some(size @ (1 | 2 | 4)) => (word & (u64::MAX >> (64 - 8 * size))).to_string(),
                Some(8) => format!("{word} ({word:#x})"),
                // kallsyms knows no sizes.
                _ => format!("{word} ({word:#x}); as 32 bits {}", word as u32),
            })
        }
        None => bail!("the type of {root} is not known: write (its type){root}{path}"),
    }
}

/// The type of a per-CPU variable.
fn per_cpu_type(btf: &Btf, name: &str) -> Option<TypeId> {
    btf.named(name).find_map(|id| match btf.get(id) {
        Ok(Type::Variable { ty, .. }) => Some(ty),
        _ => None,
    })
}

/// A leading `[cpu]`, and what follows it.
fn cpu(path: &str) -> Result<(u32, &str)> {
    let (index, rest) =
        path.strip_prefix('[').and_then(|p| p.split_once(']')).context("expected a CPU in brackets")?;
    Ok((index.trim().parse().context("reading the CPU's number")?, rest))
}

fn value(kernel: &Kernel, base: VirtAddr, ty: TypeId, path: &str) -> Result<String> {
    show(kernel, &kernel.btf().plan_from(ty, path)?, base, 0)
}

fn show(kernel: &Kernel, plan: &Plan, base: VirtAddr, depth: usize) -> Result<String> {
    let (btf, memory) = (kernel.btf(), kernel.memory());
    let (_, ty) = btf.resolve(plan.ty())?;
    if plan.leaf() != Leaf::Bytes {
        return Ok(word(kernel, ty, plan.leaf(), plan.read(memory, base)?));
    }
    match ty {
        Type::Array { element, .. } if is_char(btf, element) => {
            Ok(format!("{:?}", plan.read_text(memory, base)?))
        }
        Type::Array { element, count } => {
            let at = plan.address(memory, base)?;
            let (plan, size) = (btf.plan_from(element, "")?, btf.size_of(element)?);
            let shown = (count as usize).min(if depth == 0 { MAX_SHOWN } else { 4 });
            let mut parts = Vec::new();
            for index in 0..shown {
                let element = at.wrapping_add(size.wrapping_mul(index as u64));
                parts.push(show(kernel, &plan, element, depth + 1)?);
            }
            if shown < count as usize {
                parts.push(format!("… {count} in all"));
            }
            Ok(format!("[{}]", parts.join(", ")))
        }
        Type::Struct(whole) | Type::Union(whole) if depth == 0 => {
            members(kernel, whole, plan.ty(), plan.address(memory, base)?)
        }
        Type::Struct(_) | Type::Union(_) => Ok("{…}".to_string()),
        _ => Ok(format!("at {}", plan.address(memory, base)?)),
    }
}

/// The members of a struct, a line each; those that are composite themselves are only
/// hinted at.
fn members(kernel: &Kernel, whole: Composite<'_>, ty: TypeId, at: VirtAddr) -> Result<String> {
    let mut lines = vec![format!("{} at {at} {{", if whole.name.is_empty() { "struct" } else { whole.name })];
    for member in whole.members().filter(|m| m.as_ref().map_or(true, |m| !m.name.is_empty())) {
        let name = member?.name;
        let shown = kernel.btf().plan_from(ty, &format!(".{name}")).map_err(anyhow::Error::from);
        let shown = shown.and_then(|plan| show(kernel, &plan, at, 1));
        lines.push(format!("  {name} = {}", shown.unwrap_or_else(|e| format!("? ({e:#})"))));
    }
    lines.push("}".to_string());
    Ok(lines.join("\n"))
}

fn is_char(btf: &Btf, ty: TypeId) -> bool {
    matches!(btf.resolve(ty), Ok((_, Type::Integer(Integer { name: "char", size: 1, .. }))))
}

/// A number as its type reads: a pointer with its symbol, an enum with its name.
fn word(kernel: &Kernel, ty: Type<'_>, leaf: Leaf, number: u64) -> String {
    let signed = matches!(leaf, Leaf::Word { signed: true, .. } | Leaf::Bits { signed: true, .. });
    match ty {
        Type::Pointer(_) if number == 0 => "NULL".to_string(),
        Type::Pointer(_) => match kernel.symbolize(VirtAddr(number)) {
            Some(symbol) => format!("{number:#x} ({symbol})"),
            None => format!("{number:#x}"),
        },
        Type::Enumeration(values) => {
            let name = values.values().flatten().find(|(_, value)| *value == number).map(|(name, _)| name);
            name.map_or_else(|| number.to_string(), |name| format!("{name} ({number})"))
        }
        Type::Integer(Integer { name: "_Bool", .. }) => (number != 0).to_string(),
        _ if signed => (number as i64).to_string(),
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_stands_in_brackets() {
        assert_eq!(cpu("[3].nr_running").unwrap(), (3, ".nr_running"));
        assert_eq!(cpu("[0]").unwrap(), (0, ""));
        for bad in ["", ".x", "[", "[x]", "[-1]", "[99999999999]"] {
            assert!(cpu(bad).is_err(), "{bad}");
        }
    }
}
