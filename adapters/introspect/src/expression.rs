//! Expressions such as `runqueues[0].curr->comm`: a variable, then members by the kernel's
//! own type information.
//!
//! `name.path` for a variable whose type is known, `name[cpu].path` for a per-CPU variable,
//! `(type)name.path` and `(type)0xaddress.path` for any other, `name` alone for the 8 bytes
//! at a symbol (as many as it has, where the symbol table knows). The types of variables that
//! aren't per CPU are told by the DWARF of the kernel's vmlinux ([`Variables`]). `bpf:name.path` for a variable
//! of a loaded BPF program by the program's own types, `bpf:section/name.path` where several
//! sections (`.bss`, `.data`…) have one of that name.

mod bpf;
mod show;

pub use show::show;

use crate::variables::Variables;
use ktstr_introspect_kernel::{Kernel, KernelError};
use ktstr_introspect_memory::{ReadFault, VirtAddr};
use ktstr_introspect_types::{Btf, BtfError, Integer, Leaf, Plan, PlanError, PlanFault, Type, TypeId};
use ktstr_monitor::{Place, Readings, Value};
use std::sync::Arc;

/// Types of variables that people ask for, for a kernel without a vmlinux, and to spare the others the time.
const KNOWN: [(&str, &str); 11] = [
    ("init_task", "task_struct"),
    ("init_css_set", "css_set"),
    ("init_pid_ns", "pid_namespace"),
    ("init_mm", "mm_struct"),
    ("root_task_group", "task_group"),
    ("cgrp_dfl_root", "cgroup_root"),
    ("top_cpuset", "cpuset"),
    ("def_root_domain", "root_domain"),
    ("scx_ops", "sched_ext_ops"),
    ("prog_idr", "idr"),
    ("map_idr", "idr"),
];
/// Elements of an array that make a value.
const MAX_ELEMENTS: usize = 1024;

/// An expression that has no value in this kernel.
#[derive(Debug, thiserror::Error)]
pub enum ExpressionError {
    /// It can't be read as one.
    #[error("expected {expected}, got {seen:?}")]
    Syntax {
        /// What was expected.
        expected: &'static str,
        /// What stands there.
        seen: String,
    },
    /// A per-CPU variable without a CPU.
    #[error("{root} is per CPU: write {root}[0]{path}")]
    NoCpu {
        /// The variable.
        root: String,
        /// What follows it.
        path: String,
    },
    /// A variable of which only the address is known.
    #[error("the type of {root} is not known: {why}; or write (its type){root}{path}")]
    NoType {
        /// What is missing, and what to do.
        why: String,
        /// The variable.
        root: String,
        /// What follows it.
        path: String,
    },
    /// A cast to nothing.
    #[error("this kernel has no type {0}")]
    UnknownType(String),
    /// The kernel lacks the variable, or can't be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The kernel lacks a member.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// It can't be read.
    #[error(transparent)]
    Fault(#[from] PlanFault),
    /// The variable can't be read.
    #[error("cannot read {root}: {fault}")]
    Read {
        /// The variable.
        root: String,
        /// The fault, with its address.
        fault: ReadFault,
    },
    /// The type information is broken.
    #[error(transparent)]
    Btf(#[from] BtfError),
    /// A struct where a number was expected.
    #[error("{0} is a struct: name one of its members")]
    Composite(String),
    /// Something that can't be written as one number.
    #[error("{0} is no number of 1, 2, 4 or 8 bytes whose size is known; cast it, as in (int){0}")]
    NotWritable(String),
    /// A BPF variable that can't be written as one number.
    #[error("{0} is no number of 1, 2, 4 or 8 bytes: name a member or element of it that is")]
    NotNumber(String),
}

/// Where an expression leads.
enum Target {
    /// To a typed place: from here on by the plan, which is one of these types.
    Typed(Arc<Btf>, Plan, VirtAddr),
    /// To a symbol of so many bytes, where known.
    Word { root: String, at: VirtAddr, bytes: Option<u64> },
}

/// What an expression is worth.
///
/// # Errors
/// [`ExpressionError`]
pub fn value(kernel: &Kernel, variables: &Variables, text: &str) -> Result<Value, ExpressionError> {
    if let Some(path) = bpf::path(text) {
        return bpf::value(kernel, path);
    }
    match resolve(kernel, variables, text, Bare::Word)? {
        Target::Typed(types, plan, base) => typed(kernel, &types, text, &plan, base),
        Target::Word { root, at, bytes } => {
            Ok(Value::Unsigned(cut(read_word(kernel, &root, at)?, bytes.unwrap_or(8))))
        }
    }
}

/// Where the number that an expression names lies.
///
/// # Errors
/// [`ExpressionError`]
pub fn locate(kernel: &Kernel, variables: &Variables, text: &str) -> Result<Place, ExpressionError> {
    if let Some(path) = bpf::path(text) {
        return bpf::locate(kernel, path);
    }
    let unfit = || ExpressionError::NotWritable(text.to_string());
    let (at, bytes) = match resolve(kernel, variables, text, Bare::Word)? {
        Target::Typed(_, plan, base) => match plan.leaf() {
            Leaf::Word { size, .. } => (plan.address(kernel.memory(), base)?, usize::from(size)),
            _ => return Err(unfit()),
        },
        Target::Word { at, bytes: Some(bytes @ (1 | 2 | 4 | 8)), .. } => (at, bytes as usize),
        Target::Word { .. } => return Err(unfit()),
    };
    let read = |fault| ExpressionError::Read { root: text.to_string(), fault };
    let (physical, left) = kernel.memory().translate(at).map_err(read)?;
    if left < bytes as u64 {
        return Err(unfit());
    }
    Ok(Place { physical: physical.0, address: at.0, bytes })
}

/// The expressions that one with `[*]` stands for: one for every possible CPU.
///
/// # Errors
/// [`ExpressionError`] when the CPUs can't be read.
pub fn expand(kernel: &Kernel, text: &str) -> Result<Vec<String>, ExpressionError> {
    // `[*]` is all CPUs, and BPF's variables are not per CPU.
    if !text.contains("[*]") || bpf::path(text).is_some() {
        return Ok(vec![text.to_string()]);
    }
    let cpus = kernel.possible_cpus()?.0;
    Ok(cpus.into_iter().map(|cpu| text.replacen("[*]", &format!("[{cpu}]"), 1)).collect())
}

/// Values of several, each that or why there is none; `[*]` stands for every possible CPU and makes a value of each.
pub(crate) fn values(kernel: &Kernel, variables: &Variables, paths: &[&str]) -> Readings {
    let mut readings = Readings::new();
    for path in paths {
        match expand(kernel, path) {
            Ok(all) => {
                for one in all {
                    let value = value(kernel, variables, &one).map_err(|e| e.to_string());
                    readings.insert(one, value);
                }
            }
            Err(e) => drop(readings.insert((*path).to_string(), Err(e.to_string()))),
        }
    }
    readings
}

/// How a name alone is taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Bare {
    /// As the bytes at the symbol: what a test reads must not hang on whether a vmlinux is there.
    Word,
    /// As a variable of its type, if that can be told.
    Typed,
}

fn resolve(
    kernel: &Kernel,
    variables: &Variables,
    text: &str,
    bare: Bare,
) -> Result<Target, ExpressionError> {
    let (cast, rest) = match text.trim().strip_prefix('(') {
        Some(rest) => {
            let (name, rest) = rest.split_once(')').ok_or_else(|| ExpressionError::Syntax {
                expected: "`)` after the type",
                seen: text.to_string(),
            })?;
            let name = name.trim().trim_start_matches("struct ").trim_start_matches("union ");
            (Some(name), rest)
        }
        None => (None, text.trim()),
    };
    let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
    let (root, path) = rest.split_at(end);
    if root.is_empty() {
        let expected = "a variable, as in `init_task.comm` or `runqueues[0].nr_running`";
        return Err(ExpressionError::Syntax { expected, seen: text.to_string() });
    }
    let address = match root.strip_prefix("0x") {
        Some(digits) => {
            let bad =
                |_| ExpressionError::Syntax { expected: "a hexadecimal address", seen: root.to_string() };
            VirtAddr(u64::from_str_radix(digits, 16).map_err(bad)?)
        }
        None => kernel.symbol(root)?,
    };
    let btf = kernel.btf();
    let by =
        |types: &Arc<Btf>, ty, path, at| Ok(Target::Typed(types.clone(), types.plan_from(ty, path)?, at));
    if let Some(name) = cast {
        return by(btf, type_of(btf, name)?, path, address);
    }
    if let Some(ty) = per_cpu_type(btf, root) {
        let (cpu, path) = cpu(path)
            .ok_or_else(|| ExpressionError::NoCpu { root: root.to_string(), path: path.to_string() })?;
        return by(btf, ty, path, kernel.per_cpu_pointer(address, cpu)?);
    }
    if let Some((_, name)) = KNOWN.iter().find(|(name, _)| *name == root) {
        return by(btf, type_of(btf, name)?, path, address);
    }
    // A number is none of a variable's names.
    let is_variable = !root.starts_with("0x") && (bare == Bare::Typed || !path.is_empty());
    let types = if is_variable { variables.of(kernel) } else { Err("it is an address") };
    let found = types.map(|types| (types, types.find(root, kernel.link_address(address))));
    match found {
        Ok((types, Some(ty))) if is_per_cpu(kernel, address) => {
            let (cpu, path) = cpu(path)
                .ok_or_else(|| ExpressionError::NoCpu { root: root.to_string(), path: path.to_string() })?;
            by(types.types(), ty, path, kernel.per_cpu_pointer(address, cpu)?)
        }
        Ok((types, Some(ty))) => by(types.types(), ty, path, address),
        _ if path.is_empty() => {
            // kallsyms knows no sizes.
            let bytes = kernel.symbols().lookup(root).map(|symbol| symbol.size).filter(|size| *size > 0);
            Ok(Target::Word { root: root.to_string(), at: address, bytes })
        }
        _ => {
            let why = match found {
                Ok((types, _)) => {
                    let (count, left_out) = (types.len(), types.left_out());
                    format!(
                        "the vmlinux's debug information tells those of {count} variables (of {left_out} more it \
                         can't be told), but not of this one"
                    )
                }
                Err(why) => why.to_string(),
            };
            Err(ExpressionError::NoType { root: root.to_string(), path: path.to_string(), why })
        }
    }
}

/// A struct or union by name, else an integer, enum or typedef.
fn type_of(btf: &Btf, name: &str) -> Result<TypeId, ExpressionError> {
    let plain = |id: &TypeId| {
        matches!(btf.get(*id), Ok(Type::Integer(_) | Type::Enumeration(_) | Type::Typedef { .. }))
    };
    let found = btf.composite(name).or_else(|| btf.named(name).find(plain));
    found.ok_or_else(|| ExpressionError::UnknownType(name.to_string()))
}

/// The type of a per-CPU variable.
fn per_cpu_type(btf: &Btf, name: &str) -> Option<TypeId> {
    btf.named(name).find_map(|id| match btf.get(id) {
        Ok(Type::Variable { ty, .. }) => Some(ty),
        _ => None,
    })
}

/// Whether each CPU has its own, as the linker script places it: also what BTF leaves out of those.
fn is_per_cpu(kernel: &Kernel, address: VirtAddr) -> bool {
    let (start, end) = (kernel.symbol("__per_cpu_start"), kernel.symbol("__per_cpu_end"));
    start.is_ok_and(|start| address >= start) && end.is_ok_and(|end| address < end)
}

/// A leading `[cpu]`, and what follows it.
fn cpu(path: &str) -> Option<(u32, &str)> {
    let (index, rest) = path.strip_prefix('[')?.split_once(']')?;
    Some((index.trim().parse().ok()?, rest))
}

fn read_word(kernel: &Kernel, root: &str, at: VirtAddr) -> Result<u64, ExpressionError> {
    let read = |fault| ExpressionError::Read { root: root.to_string(), fault };
    kernel.memory().read_u64(at).map_err(read)
}

/// The lowest bytes of a word.
fn cut(word: u64, bytes: u64) -> u64 {
    if (1..8).contains(&bytes) { word & (u64::MAX >> (64 - 8 * bytes)) } else { word }
}

fn typed(
    kernel: &Kernel,
    btf: &Btf,
    text: &str,
    plan: &Plan,
    base: VirtAddr,
) -> Result<Value, ExpressionError> {
    let memory = kernel.memory();
    let (_, ty) = btf.resolve(plan.ty())?;
    if let Leaf::Word { signed, .. } | Leaf::Bits { signed, .. } = plan.leaf() {
        let number = plan.read(memory, base)?;
        return Ok(match ty {
            Type::Integer(Integer { name: "_Bool", .. }) => Value::Flag(number != 0),
            _ if signed => Value::Signed(number as i64),
            _ => Value::Unsigned(number),
        });
    }
    match ty {
        Type::Array { element, .. } if is_char(btf, element) => {
            Ok(Value::Text(plan.read_text(memory, base)?))
        }
        Type::Array { element, count } => {
            let at = plan.address(memory, base)?;
            let (plan, size) = (btf.plan_from(element, "")?, btf.size_of(element)?);
            let elements = (0..u64::from(count).min(MAX_ELEMENTS as u64))
                .map(|index| typed(kernel, btf, text, &plan, at.wrapping_add(size.wrapping_mul(index))));
            let mut list = elements.collect::<Result<Vec<_>, _>>()?;
            if count as usize > MAX_ELEMENTS {
                list.push(Value::Absent);
            }
            Ok(Value::List(list))
        }
        _ => Err(ExpressionError::Composite(text.to_string())),
    }
}

fn is_char(btf: &Btf, ty: TypeId) -> bool {
    matches!(btf.resolve(ty), Ok((_, Type::Integer(Integer { name: "char", size: 1, .. }))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_stands_in_brackets() {
        assert_eq!(cpu("[3].nr_running"), Some((3, ".nr_running")));
        assert_eq!(cpu("[0]"), Some((0, "")));
        for bad in ["", ".x", "[", "[x]", "[-1]", "[99999999999]"] {
            assert!(cpu(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_word_is_cut_to_its_symbols_size() {
        assert_eq!(cut(0x1122_3344_5566_7788, 4), 0x5566_7788);
        assert_eq!(cut(0x1122_3344_5566_7788, 1), 0x88);
        assert_eq!(cut(u64::MAX, 8), u64::MAX);
        assert_eq!(cut(u64::MAX, 0), u64::MAX);
    }
}
