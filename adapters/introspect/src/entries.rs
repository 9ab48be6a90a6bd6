//! Entries of a BPF map, in words and as values, wherever they were read.

use crate::scheduler::short;
use crate::typed::Budget;
use ktstr_introspect_kernel::{MapContents, MapEntry, MapValue};
use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, DecodeLimits, TypeId};
use ktstr_monitor::{EntryState, EntryValue, MapState, Value};
use std::sync::Arc;

/// Entries of one map, and of one whose values are per CPU.
pub(crate) const MAX_ENTRIES: usize = 4096;
pub(crate) const MAX_PER_CPU: usize = 256;
/// The first entries and variables are also told in words.
pub(crate) const IN_WORDS: usize = 128;
/// Of a value nobody reads more than this at a glance.
pub(crate) const LIMITS: DecodeLimits = DecodeLimits { elements: 32, values: 256 };

/// The types of a map's keys and values, in its program's own BTF.
pub(crate) type Types = Option<(Arc<Btf>, TypeId, TypeId)>;

/// What types don't tell of entries: what keys stand for, functions, and what references lead to.
pub(crate) trait Names {
    /// A key in words; `None` where its type says it all.
    fn key_in_words(&self, key: &[u8]) -> Option<String>;

    /// Likewise as a value.
    fn key(&self, key: &[u8]) -> Option<Value>;

    /// The functions of a stack trace, the innermost first; `None` where values are none.
    fn frames(&self, value: &[u8]) -> Option<Vec<String>>;

    /// The name of what a reference leads to; empty where there is none.
    fn target(&self, target: VirtAddr, id: Option<u64>) -> String;
}

/// The entries of one map, read by its types.
pub(crate) struct Entries<'a> {
    pub(crate) names: &'a dyn Names,
    pub(crate) is_array: bool,
    /// Keys and values without types are told as numbers or bytes.
    pub(crate) types: Types,
    pub(crate) budget: &'a mut Budget,
}

impl Entries<'_> {
    /// Lists the entries and says what there is to say of them; arrays' that are all zero are left out, as nobody has
    /// written them.
    pub(crate) fn list(&mut self, found: &MapContents, state: &mut MapState) -> String {
        state.truncated = found.truncated;
        state.looked_at = found.entries.len();
        let (zero, written): (Vec<&MapEntry>, Vec<&MapEntry>) =
            found.entries.iter().partition(|entry| self.is_array && is_zero(&entry.value));
        state.zero = zero.first().map(|entry| self.value(&entry.value));
        let each = written.iter().enumerate();
        state.entries = each.map(|(index, entry)| self.entry(entry, index < IN_WORDS)).collect();
        let told = match (state.looked_at, state.entries.len()) {
            (0, _) => "empty".to_string(),
            (count, shown) if shown == count => String::new(),
            (count, 0) if found.truncated => format!("the first {count} are zero"),
            (_, 0) => "all zero".to_string(),
            _ => "those that are not zero".to_string(),
        };
        match self.budget.is_spent() {
            true => format!("{told}{}not all values were kept", if told.is_empty() { "" } else { "; " }),
            false => told,
        }
    }

    fn entry(&mut self, entry: &MapEntry, in_words: bool) -> EntryState {
        let (key, value) = match in_words {
            true => (short(&self.key_in_words(&entry.key)), short(&self.in_words(&entry.value))),
            false => (String::new(), String::new()),
        };
        EntryState { key, value, typed_key: self.key(&entry.key), typed: self.value(&entry.value) }
    }

    fn key_in_words(&self, key: &[u8]) -> String {
        let by_type = || decoded(self.types.as_ref().map(|(btf, key, _)| (&**btf, *key)), key);
        self.names.key_in_words(key).unwrap_or_else(by_type)
    }

    fn key(&mut self, key: &[u8]) -> Value {
        match self.names.key(key) {
            Some(value) => self.budget.take(value),
            // An array's index has 4 bytes, whatever its type says.
            None if self.is_array => self.budget.take(Value::Unsigned(number(key))),
            None => self.budget.value(self.types.as_ref().map(|(btf, key, _)| (&**btf, *key)), key),
        }
    }

    fn in_words(&self, value: &MapValue) -> String {
        let of_value = self.types.as_ref().map(|(btf, _, value)| (&**btf, *value));
        match value {
            MapValue::Shared(bytes) => match self.names.frames(bytes) {
                Some(frames) => frames.join(" < "),
                None => decoded(of_value, bytes),
            },
            MapValue::PerCpu(each) => {
                let each = each.iter().map(|(cpu, bytes)| format!("cpu{cpu}: {}", decoded(of_value, bytes)));
                each.collect::<Vec<_>>().join(", ")
            }
            MapValue::Reference { target, id } => {
                let name = self.names.target(*target, *id);
                let id = id.map_or_else(|| target.to_string(), |id| format!("ID {id}"));
                if name.is_empty() { id } else { format!("{name} ({id})") }
            }
        }
    }

    fn value(&mut self, value: &MapValue) -> EntryValue {
        let of_value = self.types.as_ref().map(|(btf, _, value)| (&**btf, *value));
        match value {
            MapValue::Shared(bytes) => match self.names.frames(bytes) {
                Some(frames) => {
                    let trace = frames.into_iter().map(Value::Text).collect();
                    EntryValue::Shared(self.budget.take(Value::List(trace)))
                }
                None => EntryValue::Shared(self.budget.value(of_value, bytes)),
            },
            MapValue::PerCpu(each) => {
                let one = |(cpu, bytes): &(u32, Vec<u8>)| (*cpu, self.budget.value(of_value, bytes));
                EntryValue::PerCpu(each.iter().map(one).collect())
            }
            MapValue::Reference { target, id } => {
                let name = self.names.target(*target, *id);
                let id = id.map_or(Value::Absent, Value::Unsigned);
                let fields = [("id".to_string(), id), ("name".to_string(), Value::Text(name))];
                EntryValue::Shared(self.budget.take(Value::Fields(fields.into())))
            }
        }
    }
}

/// The number in the first 8 bytes.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    let size = bytes.len().min(8);
    word[..size].copy_from_slice(&bytes[..size]);
    u64::from_le_bytes(word)
}

fn is_zero(value: &MapValue) -> bool {
    let zero = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    match value {
        MapValue::Shared(bytes) => zero(bytes),
        MapValue::PerCpu(each) => each.iter().all(|(_, bytes)| zero(bytes)),
        MapValue::Reference { .. } => false,
    }
}

/// A value by its type; without one a number, or bytes.
pub(crate) fn decoded(ty: Option<(&Btf, TypeId)>, bytes: &[u8]) -> String {
    let typed = ty.filter(|(_, id)| id.0 != 0).and_then(|(btf, id)| btf.decode(id, bytes, LIMITS).ok());
    match (typed, bytes) {
        (Some(value), _) => value.to_string(),
        (None, [a, b, c, d]) => u32::from_le_bytes([*a, *b, *c, *d]).to_string(),
        (None, [a, b, c, d, e, f, g, h]) => u64::from_le_bytes([*a, *b, *c, *d, *e, *f, *g, *h]).to_string(),
        (None, bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_introspect_types::BtfBuilder;

    #[test]
    fn values_are_told_by_their_type_or_as_numbers_or_as_bytes() {
        let mut build = BtfBuilder::new();
        let int = build.integer("int", 4, true);
        let btf = Btf::parse(build.bytes()).unwrap();
        let minus_one = [0xff; 4];
        assert_eq!(decoded(Some((&btf, int)), &minus_one), "-1");
        // A type of 0 is none: key types of maps without.
        assert_eq!(decoded(Some((&btf, TypeId(0))), &minus_one), "4294967295");
        assert_eq!(decoded(None, &1u64.to_le_bytes()), "1");
        assert_eq!(decoded(None, &[1, 0xab, 0]), "01 ab 00");
    }

    #[test]
    fn what_nobody_wrote_is_zero_on_every_cpu() {
        let each = |last| MapValue::PerCpu(vec![(0, vec![0; 4]), (1, vec![0, 0, 0, last])]);
        assert!(is_zero(&each(0)) && !is_zero(&each(1)));
        assert!(!is_zero(&MapValue::Reference { target: VirtAddr(0), id: None }));
    }
}
