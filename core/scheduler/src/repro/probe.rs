//! Probes: what is fetched where, as kprobe events.

use super::fields::{of_struct, short, show_of_argument, show_of_member};
use crate::ports::{KernelTypes, MemberPlace, Prototype, ValueType};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// Arguments that come in registers (`regs_get_kernel_argument()` on x86-64).
const IN_REGISTERS: usize = 6;
/// Members shown of a struct that [`of_struct`] does not know.
const FOUND_MEMBERS: usize = 4;
/// Fields of an event; the kernel takes 128 (`MAX_TRACE_ARGS`).
const MOST_FIELDS: usize = 40;

/// How a number is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Show {
    /// Decimal.
    Decimal,
    /// Hexadecimal.
    Hex,
    /// `true` or `false`.
    Truth,
    /// The address of a text, fetched as that text.
    Text,
    /// A mask of CPUs 0 to 63.
    Cpus,
    /// A dispatch queue's id (`enum scx_dsq_id_flags`).
    Queue,
    /// `enum scx_enq_flags`.
    EnqueueFlags,
    /// `DEQUEUE_*` of kernel/sched/sched.h and `enum scx_deq_flags`.
    DequeueFlags,
    /// `WF_*` of kernel/sched/sched.h.
    WakeFlags,
    /// `enum scx_kick_flags`.
    KickFlags,
    /// `sched_ext_entity.ops_state`: `enum scx_ops_state` and a sequence number.
    OpsState,
    /// `sched_ext_entity.flags` (`enum scx_ent_flags`).
    EntityFlags,
    /// Names of values.
    Names(Vec<(i64, String)>),
}

/// What a field is of its function's call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Part {
    /// An argument as it is.
    Argument,
    /// A pointer: without it, what hangs on it is meaningless. Shown only as an argument that is null.
    Pointer,
    /// The pid of a task that is an argument.
    Pid,
    /// The name of one.
    Comm,
    /// A member of a struct that an argument points to.
    Member,
}

/// A value that an event holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// The argument that it belongs to.
    pub argument: String,
    /// The member, empty for the argument itself.
    pub member: String,
    /// How it is fetched: `+0x2b0($arg1):u64`.
    pub fetch: String,
    /// How it is shown.
    pub show: Show,
    /// What it is.
    pub part: Part,
    /// The field, by number, that must not be null for this one to mean anything.
    pub guard: Option<u16>,
    /// Fetched again at the function's exit.
    pub again: bool,
}

/// A probed function: its entry is the event `ktstr/e<number>`, its exit `ktstr/x<number>`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// The function.
    pub function: String,
    /// What its events hold: field `i` is called `a<i>` in both.
    pub fields: Vec<Field>,
    /// How its return value is fetched and shown; `None` if it returns nothing.
    pub returns: Option<(String, Show)>,
    /// Of a scheduler's own program: which callback it is.
    #[serde(default)]
    pub callback: Option<String>,
    /// Of one: where it stands in its source, `file:line`, as far as the program says.
    #[serde(default)]
    pub line: Option<String>,
}

impl Probe {
    /// The group of the events in tracefs.
    pub const GROUP: &'static str = "ktstr";

    /// The event at the function's entry, as `kprobe_events` takes it.
    pub fn at_entry(&self, number: usize) -> String {
        let mut text = format!("p:{}/e{number} {}", Self::GROUP, self.function);
        for (at, field) in self.fields.iter().enumerate() {
            let _ = write!(text, " a{at}={}", field.fetch);
        }
        text
    }

    /// The event at its exit. Only kernels since 6.9 can fetch arguments there: without `arguments` it is the return
    /// value alone.
    pub fn at_exit(&self, number: usize, arguments: bool) -> String {
        let mut text = format!("r:{}/x{number} {}", Self::GROUP, self.function);
        if let Some((fetch, _)) = &self.returns {
            let _ = write!(text, " ret={fetch}");
        }
        for (at, field) in self.fields.iter().enumerate().filter(|(_, f)| arguments && f.again) {
            let _ = write!(text, " a{at}={}", field.fetch);
        }
        text
    }
}

/// The probe of a function, by what the kernel knows of its prototype: of a function of which it knows none (the compiler
/// changed its arguments, for one) the registers are told that arguments come in.
pub fn define(function: &str, types: &dyn KernelTypes) -> Probe {
    let mut probe = define_as(function, types.prototype(function).as_ref(), types);
    if types.prototype(function).is_none() {
        probe.fields = (1..=IN_REGISTERS).map(raw_argument).collect();
    }
    probe
}

/// What is in the register of an argument of which nothing is known.
fn raw_argument(number: usize) -> Field {
    Field {
        argument: format!("arg{number}"),
        member: String::new(),
        fetch: format!("$arg{number}:x64"),
        show: Show::Hex,
        part: Part::Argument,
        guard: None,
        again: false,
    }
}

/// The same of a function whose prototype is known from elsewhere.
pub(super) fn define_as(function: &str, prototype: Option<&Prototype>, types: &dyn KernelTypes) -> Probe {
    let mut probe = Probe { function: function.to_string(), ..Probe::default() };
    let Some(prototype) = prototype else { return probe };
    for (number, (name, ty)) in prototype.parameters.iter().take(IN_REGISTERS).enumerate() {
        // A struct by value may take two registers or none: what follows it can't be placed.
        if *ty == ValueType::Other {
            break;
        }
        let register = format!("$arg{}", number + 1);
        argument(&mut probe.fields, &Parameter { function, register: &register, name, ty }, types);
    }
    probe.fields.truncate(MOST_FIELDS);
    probe.returns = prototype.returns.as_ref().and_then(|ty| {
        let (kind, show) = number_type(ty)?;
        Some((format!("$retval:{kind}"), show))
    });
    probe
}

/// A parameter of a function.
struct Parameter<'a> {
    function: &'a str,
    register: &'a str,
    name: &'a str,
    ty: &'a ValueType,
}

fn argument(fields: &mut Vec<Field>, parameter: &Parameter<'_>, types: &dyn KernelTypes) {
    let Parameter { function, register, name, ty } = *parameter;
    let field = |fetch: String, show: Show, part: Part| Field {
        argument: name.to_string(),
        member: String::new(),
        fetch,
        show,
        part,
        guard: None,
        again: false,
    };
    if let ValueType::Text = ty {
        fields.push(field(format!("+0({register}):string"), Show::Text, Part::Argument));
        return;
    }
    if let ValueType::Pointer(to) = ty {
        let guard = u16::try_from(fields.len()).ok();
        fields.push(field(format!("{register}:x64"), Show::Hex, Part::Pointer));
        if let Some(to) = to {
            members(fields, &Holder { register, name, of: to, guard }, types);
        }
        return;
    }
    if let Some((kind, show)) = number_type(ty) {
        let show = show_of_argument(function, name).unwrap_or(show);
        fields.push(field(format!("{register}:{kind}"), show, Part::Argument));
    }
}

/// A struct that an argument points to.
struct Holder<'a> {
    register: &'a str,
    name: &'a str,
    of: &'a str,
    guard: Option<u16>,
}

fn members(fields: &mut Vec<Field>, holder: &Holder<'_>, types: &dyn KernelTypes) {
    if holder.of == "task_struct" {
        for (path, part) in [("pid", Part::Pid), ("comm", Part::Comm)] {
            if let Some(place) = types.member(holder.of, path) {
                fields.extend(member(holder, path, &place, part));
            }
        }
    }
    let paths: Vec<String> = match of_struct(holder.of) {
        Some(known) => known.iter().map(|path| (*path).to_string()).collect(),
        None => types.scalars(holder.of, FOUND_MEMBERS),
    };
    for path in paths {
        let Some(place) = types.member(holder.of, &path) else { continue };
        let Some(mut found) = member(holder, &path, &place, Part::Member) else { continue };
        // What lies behind a pointer of the struct's needs that pointer.
        if let [way @ .., _] = place.offsets.as_slice()
            && !way.is_empty()
            && !path.starts_with("cpus_ptr")
        {
            let guard = u16::try_from(fields.len()).ok();
            fields.push(Field {
                fetch: format!("{}:x64", through(holder.register, way)),
                show: Show::Hex,
                part: Part::Pointer,
                ..found.clone()
            });
            found.guard = guard;
        }
        fields.push(found);
    }
}

fn member(holder: &Holder<'_>, path: &str, place: &MemberPlace, part: Part) -> Option<Field> {
    let at = through(holder.register, &place.offsets);
    let (kind, show) = match (&place.ty, place.bits) {
        (ValueType::Text, _) => ("string".to_string(), Show::Text),
        (ty, Some((shift, bits))) => (bit_field(shift, bits)?, number_type(ty)?.1),
        (ty, None) => number_type(ty)?,
    };
    let show = show_of_member(holder.of, path).unwrap_or(show);
    // Bits are printed in hexadecimal by a type of their own.
    let kind = if show == Show::Cpus { kind.replace('u', "x") } else { kind };
    Some(Field {
        argument: holder.name.to_string(),
        member: short(path).to_string(),
        fetch: format!("{at}:{kind}"),
        show,
        part,
        guard: holder.guard,
        again: part == Part::Member,
    })
}

/// Follows pointers: `+0x8(+0x10($arg1))`.
fn through(register: &str, offsets: &[u64]) -> String {
    offsets.iter().fold(register.to_string(), |inner, offset| format!("+{offset:#x}({inner})"))
}

/// `b<width>@<first bit>/<container>` of kprobetrace.rst.
fn bit_field(shift: u8, bits: u8) -> Option<String> {
    let end = u32::from(shift) + u32::from(bits);
    let container = [8, 16, 32, 64].into_iter().find(|size| end <= *size)?;
    Some(format!("b{bits}@{shift}/{container}"))
}

/// The fetch type of a number and how it is shown; `None` for what is no number of a size the kernel fetches.
fn number_type(ty: &ValueType) -> Option<(String, Show)> {
    let sized = |letter: char, size: u8| {
        matches!(size, 1 | 2 | 4 | 8).then(|| format!("{letter}{}", u32::from(size) * 8))
    };
    Some(match ty {
        ValueType::Truth => ("u8".to_string(), Show::Truth),
        ValueType::Integer { size, signed } => {
            (sized(if *signed { 's' } else { 'u' }, *size)?, Show::Decimal)
        }
        ValueType::Enumeration { size, names } => (sized('s', *size)?, Show::Names(names.clone())),
        ValueType::Pointer(_) | ValueType::Text => ("x64".to_string(), Show::Hex),
        ValueType::Other => return None,
    })
}
