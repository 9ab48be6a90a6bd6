//! An entry's attributes, as far as they tell of types.

use addr2line::gimli::{
    Attribute, AttributeValue, DebugInfoOffset, DwAt, DwTag, EntriesRaw, Expression, Unit, UnitOffset,
    constants as dw,
};

use super::Gimli;
use crate::sections::{Dwarf, Slice};

/// An entry that was read.
#[derive(Default)]
pub(super) struct Entry<'a> {
    pub(super) tag: Option<DwTag>,
    pub(super) attributes: Vec<Attribute<Slice<'a>>>,
}

/// What an attribute refers to.
#[derive(Clone, Copy)]
pub(super) enum Reference {
    /// An entry of the same unit.
    Here(UnitOffset),
    /// An entry of any unit.
    Anywhere(DebugInfoOffset),
}

impl<'a> Entry<'a> {
    /// Reads the entry at `offset`, without its children.
    pub(super) fn alone(unit: &Unit<Slice<'a>>, offset: UnitOffset) -> Gimli<Self> {
        Self::next(&mut unit.entries_raw(Some(offset))?)
    }

    fn next(raw: &mut EntriesRaw<'_, Slice<'a>>) -> Gimli<Self> {
        let mut this = Self::default();
        if let Some(abbreviation) = raw.read_abbreviation()? {
            this.tag = Some(abbreviation.tag());
            raw.read_attributes(abbreviation.attributes(), &mut this.attributes)?;
        }
        Ok(this)
    }

    /// Reads the entry at `offset`, and its children with `on_child`.
    pub(super) fn read(
        unit: &Unit<Slice<'a>>,
        offset: UnitOffset,
        mut on_child: impl FnMut(&Entry<'a>),
    ) -> Gimli<Self> {
        let mut raw = unit.entries_raw(Some(offset))?;
        let this = Self::next(&mut raw)?;
        let mut child = Self::default();
        while raw.next_depth() > 0 && !raw.is_empty() {
            let depth = raw.next_depth();
            let Some(abbreviation) = raw.read_abbreviation()? else { continue };
            if depth > 1 {
                raw.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            child.tag = Some(abbreviation.tag());
            raw.read_attributes(abbreviation.attributes(), &mut child.attributes)?;
            on_child(&child);
        }
        Ok(this)
    }

    pub(super) fn value(&self, name: DwAt) -> Option<AttributeValue<Slice<'a>>> {
        self.attributes.iter().find(|attribute| attribute.name() == name).map(Attribute::value)
    }

    pub(super) fn has(&self, name: DwAt) -> bool {
        self.attributes.iter().any(|attribute| attribute.name() == name)
    }

    /// A number that isn't negative.
    pub(super) fn number(&self, name: DwAt) -> Option<u64> {
        self.value(name)?.udata_value()
    }

    /// Its name; empty when it has none.
    pub(super) fn name(&self, dwarf: &Dwarf<'a>, unit: &Unit<Slice<'a>>) -> Gimli<String> {
        let Some(value) = self.value(dw::DW_AT_name) else { return Ok(String::new()) };
        dwarf.attr_string(unit, value).map(|name| name.to_string_lossy().into_owned())
    }

    pub(super) fn reference(&self, name: DwAt) -> Option<Reference> {
        match self.value(name)? {
            AttributeValue::UnitRef(offset) => Some(Reference::Here(offset)),
            AttributeValue::DebugInfoRef(offset) => Some(Reference::Anywhere(offset)),
            _ => None,
        }
    }

    pub(super) fn local_reference(&self, name: DwAt) -> Option<UnitOffset> {
        match self.reference(name)? {
            Reference::Here(offset) => Some(offset),
            Reference::Anywhere(_) => None,
        }
    }

    /// Where a variable lies.
    pub(super) fn expression(&self) -> Option<Expression<Slice<'a>>> {
        self.value(dw::DW_AT_location)?.exprloc_value()
    }
}
