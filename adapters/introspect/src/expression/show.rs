//! What an expression is worth, in words.

use super::{Bare, ExpressionError, Target, bpf, cut, is_char, read_word, resolve};
use crate::variables::Variables;
use ktstr_introspect_kernel::Kernel;
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, Composite, Integer, Leaf, Plan, Type, TypeId};

/// Elements of an array and members of a struct that are shown.
const MAX_SHOWN: usize = 64;

/// What an expression is worth, in words.
///
/// # Errors
/// [`ExpressionError`]
pub fn show(kernel: &Kernel, variables: &Variables, text: &str) -> Result<String, ExpressionError> {
    if let Some(path) = bpf::path(text) {
        return bpf::show(kernel, path);
    }
    match resolve(kernel, variables, text, Bare::Typed)? {
        Target::Typed(types, plan, base) => planned(kernel, &types, &plan, base, 0),
        Target::Word { root, at, bytes } => {
            let word = read_word(kernel, &root, at)?;
            Ok(match bytes {
                Some(size @ (1 | 2 | 4)) => cut(word, size).to_string(),
                Some(8) => format!("{word} ({word:#x})"),
                _ => format!("{word} ({word:#x}); as 32 bits {}", word as u32),
            })
        }
    }
}

fn planned(
    kernel: &Kernel,
    btf: &Btf,
    plan: &Plan,
    base: VirtAddr,
    depth: usize,
) -> Result<String, ExpressionError> {
    let memory = kernel.memory();
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
                parts.push(planned(kernel, btf, &plan, element, depth + 1)?);
            }
            if shown < count as usize {
                parts.push(format!("… {count} in all"));
            }
            Ok(format!("[{}]", parts.join(", ")))
        }
        Type::Struct(whole) | Type::Union(whole) if depth == 0 => {
            members(kernel, btf, whole, plan.ty(), plan.address(memory, base)?)
        }
        Type::Struct(_) | Type::Union(_) => Ok("{…}".to_string()),
        _ => Ok(format!("at {}", plan.address(memory, base)?)),
    }
}

/// The members of a struct, a line each; those that are composite themselves are only
/// hinted at.
fn members(
    kernel: &Kernel,
    btf: &Btf,
    whole: Composite<'_>,
    ty: TypeId,
    at: VirtAddr,
) -> Result<String, ExpressionError> {
    let mut lines = vec![format!("{} at {at} {{", if whole.name.is_empty() { "struct" } else { whole.name })];
    for member in whole.members().filter(|m| m.as_ref().map_or(true, |m| !m.name.is_empty())) {
        let name = member?.name;
        let shown = btf.plan_from(ty, &format!(".{name}")).map_err(ExpressionError::from);
        let shown = shown.and_then(|plan| planned(kernel, btf, &plan, at, 1));
        lines.push(format!("  {name} = {}", shown.unwrap_or_else(|e| format!("? ({e})"))));
    }
    lines.push("}".to_string());
    Ok(lines.join("\n"))
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
