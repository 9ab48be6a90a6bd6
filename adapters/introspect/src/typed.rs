//! Decoded bytes as values for checks, as many as one look at a kernel may hold.

use ktstr_introspect_types::{Btf, DecodeLimits, Decoded, TypeId};
use ktstr_monitor::Value;

/// Values in all maps of a scheduler: a few MiB of them, which is what a snapshot may cost.
const MOST: u32 = 1 << 16;
/// Of one entry or variable, and elements of one array in it.
const MOST_OF_ONE: u32 = 1 << 14;
const MOST_ELEMENTS: u32 = 4096;

/// How many more values are taken.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Self { left: MOST }
    }
}

impl Budget {
    /// Whether something had to be left out.
    pub(crate) const fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// A value by its type; without one a number, or its bytes.
    pub(crate) fn value(&mut self, ty: Option<(&Btf, TypeId)>, bytes: &[u8]) -> Value {
        let limits = DecodeLimits { elements: MOST_ELEMENTS, values: self.left.min(MOST_OF_ONE) };
        if self.is_spent() {
            return Value::Absent;
        }
        let typed = ty.filter(|(_, id)| id.0 != 0).and_then(|(btf, id)| btf.decode(id, bytes, limits).ok());
        let value = typed.map_or_else(|| untyped(bytes, limits), plain);
        self.spend(&value);
        value
    }

    /// A value that was made otherwise.
    pub(crate) fn take(&mut self, value: Value) -> Value {
        if self.is_spent() {
            return Value::Absent;
        }
        self.spend(&value);
        value
    }

    fn spend(&mut self, value: &Value) {
        self.left = self.left.saturating_sub(u32::try_from(value.count()).unwrap_or(u32::MAX));
    }
}

/// A number of 1, 2, 4 or 8 bytes; else the bytes, as far as they are taken.
fn untyped(bytes: &[u8], limits: DecodeLimits) -> Value {
    if matches!(bytes.len(), 1 | 2 | 4 | 8) {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        return Value::Unsigned(u64::from_le_bytes(word));
    }
    let most = limits.elements.min(limits.values) as usize;
    let mut list: Vec<Value> =
        bytes.iter().take(most).map(|byte| Value::Unsigned(u64::from(*byte))).collect();
    if bytes.len() > most {
        list.push(Value::Absent);
    }
    Value::List(list)
}

/// The least value of an enum.
const MIN_ENUMERATOR: i64 = i32::MIN as i64;

/// What was decoded, without what only people need of it: an enumerator's name, that a number is an address.
pub(crate) fn plain(value: Decoded) -> Value {
    match value {
        Decoded::Unsigned(number) | Decoded::Pointer(number) => Value::Unsigned(number),
        // Signed enums' values are sign-extended; no enum of more than 32 bits has negative ones, but many have flags.
        Decoded::Enumerator { value, .. } => match value as i64 {
            number @ MIN_ENUMERATOR..0 => Value::Signed(number),
            _ => Value::Unsigned(value),
        },
        Decoded::Signed(number) => Value::Signed(number),
        Decoded::Flag(flag) => Value::Flag(flag),
        Decoded::Float(number) if number.is_finite() => Value::Float(number),
        Decoded::Text(text) => Value::Text(text),
        Decoded::Members(members) => {
            Value::Fields(members.into_iter().map(|(name, value)| (name, plain(value))).collect())
        }
        Decoded::Elements { first, more } => {
            let mut list: Vec<Value> = first.into_iter().map(plain).collect();
            if more > 0 && list.last() != Some(&Value::Absent) {
                list.push(Value::Absent);
            }
            Value::List(list)
        }
        Decoded::Bytes(bytes) => {
            Value::List(bytes.into_iter().map(|byte| Value::Unsigned(u64::from(byte))).collect())
        }
        Decoded::Float(_) | Decoded::Omitted => Value::Absent,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_introspect_types::BtfBuilder;

    #[test]
    fn structs_and_lists_are_values_and_what_is_cut_is_marked() {
        let list = |first, more| Decoded::Elements { first, more };
        let of = |values| Value::List(values);
        assert_eq!(plain(list(vec![Decoded::Signed(-1)], 0)), of(vec![Value::Signed(-1)]));
        assert_eq!(plain(list(vec![Decoded::Flag(true)], 2)), of(vec![Value::Flag(true), Value::Absent]));
        assert_eq!(plain(list(vec![Decoded::Omitted], 2)), of(vec![Value::Absent]));
        for (value, expected) in
            [(3, Value::Unsigned(3)), (u64::MAX, Value::Signed(-1)), (1 << 63, Value::Unsigned(1 << 63))]
        {
            assert_eq!(plain(Decoded::Enumerator { name: None, value }), expected);
        }
        let members = vec![("a".to_string(), Decoded::Pointer(7)), ("b".to_string(), Decoded::Omitted)];
        let fields = [("a".to_string(), Value::Unsigned(7)), ("b".to_string(), Value::Absent)].into();
        assert_eq!(plain(Decoded::Members(members)), Value::Fields(fields));
        assert_eq!(plain(Decoded::Float(f64::NAN)), Value::Absent);
    }

    #[test]
    fn without_a_type_a_value_is_a_number_or_bytes() {
        let mut budget = Budget::default();
        assert_eq!(budget.value(None, &[1, 2]), Value::Unsigned(0x201));
        let bytes = [1, 2, 3].map(Value::Unsigned).to_vec();
        assert_eq!(budget.value(None, &[1, 2, 3]), Value::List(bytes));
        let Value::List(long) = budget.value(None, &[0; 5000]) else { panic!("a list") };
        assert_eq!((long.len(), long.last()), (4097, Some(&Value::Absent)));
    }

    #[test]
    fn once_all_is_spent_only_places_are_held() {
        let mut build = BtfBuilder::new();
        let int = build.integer("int", 4, true);
        let many = build.array(int, 4);
        let btf = Btf::parse(build.bytes()).unwrap();
        let mut budget = Budget { left: 7 };
        let value = |budget: &mut Budget| budget.value(Some((&btf, many)), &[0; 16]);
        assert_eq!(value(&mut budget).count(), 5);
        // One for the array itself, one element, and that there were more.
        let zero = Value::Signed(0);
        assert_eq!(value(&mut budget), Value::List(vec![zero, Value::Absent]));
        assert!(budget.is_spent());
        assert_eq!((value(&mut budget), budget.take(Value::Flag(true))), (Value::Absent, Value::Absent));
    }
}
