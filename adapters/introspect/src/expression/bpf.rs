//! Variables of BPF programs: `bpf:victim.pid`, or of one section `bpf:.data.victim/victim.pid`.

use super::{ExpressionError, MAX_ELEMENTS};
use crate::typed::plain;
use ktstr_introspect_kernel::{BpfVariable, Kernel};
use ktstr_introspect_types::{DecodeLimits, Decoded, Leaf, Type};
use ktstr_monitor::{Place, Value};

/// What stands before the path of such a variable.
const PREFIX: &str = "bpf:";
/// How much of one is shown.
const SHOWN: DecodeLimits = DecodeLimits { elements: 64, values: 1024 };
/// How much of one makes a value.
const READ: DecodeLimits = DecodeLimits { elements: MAX_ELEMENTS as u32, values: 4 * MAX_ELEMENTS as u32 };

/// The path after `bpf:`; `None` for another kind of expression.
pub(super) fn path(text: &str) -> Option<&str> {
    text.trim().strip_prefix(PREFIX)
}

/// A place in a section, or in any when that is empty: then it is the one that has it, of the scheduler that is loaded.
struct Named<'a> {
    section: &'a str,
    path: &'a str,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Result<Self, ExpressionError> {
        let (section, path) = text.split_once('/').unwrap_or(("", text));
        if path.is_empty() {
            let expected =
                "a variable of a BPF program, as in `bpf:nr_queued` or `bpf:.data.stats/stats.seen[2]`";
            return Err(ExpressionError::Syntax { expected, seen: format!("{PREFIX}{text}") });
        }
        Ok(Self { section, path })
    }

    fn find(&self, kernel: &Kernel) -> Result<BpfVariable, ExpressionError> {
        Ok(kernel.bpf_variable(self.section, self.path)?)
    }

    fn decode(&self, kernel: &Kernel, limits: DecodeLimits) -> Result<Decoded, ExpressionError> {
        // What is found at a bit field's path is its whole word: only what it is in tells its bits.
        if let Some((whole, member)) = self.bit_field(kernel) {
            let whole = kernel.bpf_value(&whole, limits)?;
            return Ok(whole.get(member).cloned().unwrap_or(Decoded::Omitted));
        }
        Ok(kernel.bpf_value(&self.find(kernel)?, limits)?)
    }

    /// What the bit field is in, and its name there; `None` for all else.
    fn bit_field(&self, kernel: &Kernel) -> Option<(BpfVariable, &'a str)> {
        let (whole, member) = self.path.rsplit_once('.')?;
        let whole = kernel.bpf_variable(self.section, whole).ok()?;
        let plan = whole.btf.plan_from(whole.ty, &format!(".{member}")).ok()?;
        matches!(plan.leaf(), Leaf::Bits { .. }).then_some((whole, member))
    }
}

pub(super) fn value(kernel: &Kernel, path: &str) -> Result<Value, ExpressionError> {
    Ok(plain(Named::parse(path)?.decode(kernel, READ)?))
}

pub(super) fn show(kernel: &Kernel, path: &str) -> Result<String, ExpressionError> {
    Ok(Named::parse(path)?.decode(kernel, SHOWN)?.to_string())
}

pub(super) fn locate(kernel: &Kernel, path: &str) -> Result<Place, ExpressionError> {
    let named = Named::parse(path)?;
    let variable = named.find(kernel)?;
    let (_, ty) = variable.btf.resolve(variable.ty)?;
    // Writing all of a bit field's word would change its neighbours.
    let is_number = matches!(ty, Type::Integer(_) | Type::Enumeration(_) | Type::Pointer(_))
        && named.bit_field(kernel).is_none();
    match (variable.physical, variable.size) {
        (Some(physical), bytes @ (1 | 2 | 4 | 8)) if is_number => {
            Ok(Place { physical: physical.0, address: variable.at.0, bytes: bytes as usize })
        }
        _ => Err(ExpressionError::NotNumber(format!("{PREFIX}{path}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_prefix_makes_a_variable_of_bpf() {
        assert_eq!(path("bpf:victim.pid"), Some("victim.pid"));
        assert_eq!(path(" bpf:.bss/nr"), Some(".bss/nr"));
        assert_eq!(path("bpf_stats_enabled_key"), None);
    }
}
