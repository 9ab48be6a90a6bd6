//! Types of a kernel's variables.
//!
//! gcc writes no table of variables by name (`.debug_names`, `.debug_pubnames`), and `.debug_aranges` covers code only, so
//! the first variable costs one pass over the outermost entries of all units; what comes of it is small and can be kept.
//! Variables inside functions are not among them: the kernel's symbol table has those under made-up names.

mod convert;
mod entry;

use std::sync::Arc;

use addr2line::gimli::{EntriesRaw, Operation, Unit, constants as dw};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, VariableTypes};

use crate::sections::{Dwarf, Slice};
use crate::{DebugSections, DwarfError};
use convert::Converter;
use entry::Entry;

/// Goes over the variables that have a place in memory and puts their types on top of `base`, the BTF of the same kernel:
/// each named type is the one of that name there, and what has no name or isn't there is written anew.
///
/// # Errors
/// [`DwarfError`] when the table of units or a unit's outermost entries are broken. A variable whose own type is broken,
/// or can't be written as BTF, is only counted.
pub fn variable_types(sections: &DebugSections<'_>, base: &Arc<Btf>) -> Result<VariableTypes, DwarfError> {
    let dwarf = sections.dwarf();
    let failed = |reason| DwarfError::Dwarf { address: None, reason };
    let mut headers = Vec::new();
    let mut units = dwarf.units();
    while let Some(header) = units.next().map_err(failed)? {
        headers.push(header);
    }
    let mut converter = Converter::new(&dwarf, &headers, base);
    let (mut found, mut left_out) = (Vec::new(), 0u32);
    for number in 0..headers.len() {
        let unit = converter.unit(number).map_err(failed)?;
        each_outermost_variable(&unit, |entry| {
            let Some(at) = place(&dwarf, &unit, entry) else { return };
            match converter.variable(number, entry) {
                Some(id) => found.push((at, id)),
                None => left_out = left_out.saturating_add(1),
            }
        })
        .map_err(failed)?;
    }
    let split = converter.split();
    Ok(VariableTypes::new(base, split, found, left_out)?)
}

type Gimli<T> = Result<T, addr2line::gimli::Error>;

/// Calls `on` for each variable that is in no function.
fn each_outermost_variable<'a>(unit: &Unit<Slice<'a>>, mut on: impl FnMut(&Entry<'a>)) -> Gimli<()> {
    let mut raw = unit.entries_raw(None)?;
    // The unit's own entry; without children there is nothing in it.
    match raw.read_abbreviation()? {
        Some(root) => raw.skip_attributes(root.attributes())?,
        None => return Ok(()),
    }
    let (mut entry, mut outermost) = (Entry::default(), 1);
    while raw.next_depth() >= outermost && !raw.is_empty() {
        let depth = raw.next_depth();
        let Some(abbreviation) = raw.read_abbreviation()? else { continue };
        let leads_on = || abbreviation.attributes().iter().any(|spec| spec.name() == dw::DW_AT_sibling);
        if depth > outermost {
            raw.skip_attributes(abbreviation.attributes())?;
        } else if abbreviation.tag() == dw::DW_TAG_variable {
            raw.read_attributes(abbreviation.attributes(), &mut entry.attributes)?;
            on(&entry);
        } else if abbreviation.has_children() && leads_on() {
            raw.read_attributes(abbreviation.attributes(), &mut entry.attributes)?;
            if let Some(next) = beyond(&entry, unit, &raw)? {
                (raw, outermost) = (next, 0);
            }
        } else {
            raw.skip_attributes(abbreviation.attributes())?;
        }
    }
    Ok(())
}

/// The reader after all that is inside `entry`, which must lie ahead: hostile entries could lead in circles.
fn beyond<'r, 'a>(
    entry: &Entry<'a>,
    unit: &'r Unit<Slice<'a>>,
    raw: &EntriesRaw<'r, Slice<'a>>,
) -> Gimli<Option<EntriesRaw<'r, Slice<'a>>>> {
    match entry.local_reference(dw::DW_AT_sibling) {
        Some(sibling) if sibling.0 >= raw.next_offset().0 => unit.entries_raw(Some(sibling)).map(Some),
        _ => Ok(None),
    }
}

/// The address of a variable; nothing for one that is only declared, or lies elsewhere than in memory.
fn place(dwarf: &Dwarf<'_>, unit: &Unit<Slice<'_>>, entry: &Entry<'_>) -> Option<VirtAddr> {
    let mut operations = entry.expression()?.operations(unit.encoding());
    let at = match operations.next().ok()?? {
        Operation::Address { address } => address,
        Operation::AddressIndex { index } => dwarf.address(unit, index).ok()?,
        _ => return None,
    };
    matches!(operations.next(), Ok(None)).then_some(VirtAddr(at))
}

#[cfg(test)]
mod tests;
