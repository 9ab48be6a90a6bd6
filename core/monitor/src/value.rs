//! A value read out of kernel memory, or told by a scheduler.

use crate::SnapshotError;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Characters of a value that an error shows.
const SHOWN: usize = 120;
/// Elements of a list that is put together of figures.
const MAX_ELEMENTS: usize = 1 << 16;

/// A value. In JSON it is what it looks like: a number, a text, an array, an object, `null`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A `bool`.
    Flag(bool),
    /// An unsigned number, an enum's value, or an address.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// A number with a fraction. JSON has none that is infinite: such a one comes back as [`Absent`](Self::Absent).
    Float(f64),
    /// Characters.
    Text(String),
    /// An array. One that ends in [`Absent`](Self::Absent) went on, beyond what is read of an array.
    List(Vec<Value>),
    /// A struct or union: members by name, those of anonymous ones inside among them.
    Fields(BTreeMap<String, Value>),
    /// A place held for what was left out: beyond what is read of one value, or of one snapshot.
    #[default]
    Absent,
}

/// Sound where no NaN gets in: BPF programs have no floating point, and JSON has no NaN.
impl Eq for Value {}

/// A step of a path.
enum Step<'a> {
    Name(&'a str),
    Index(usize),
}

/// `a.b[3].c`, or `[2].x` inside a list; `None` for what is no path.
fn steps(path: &str) -> Option<Vec<Step<'_>>> {
    let (mut found, mut rest) = (Vec::new(), path);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            found.push(Step::Index(index.trim().parse().ok()?));
            rest = after;
            continue;
        }
        // A name needs a dot before it unless it is the first.
        let name = if found.is_empty() { rest } else { rest.strip_prefix('.')? };
        let end = name.find(['.', '[']).unwrap_or(name.len());
        if end == 0 {
            return None;
        }
        found.push(Step::Name(&name[..end]));
        rest = &name[end..];
    }
    Some(found)
}

impl Value {
    /// An unsigned number; a signed one that is not negative, a flag (0 or 1), a float without fraction.
    ///
    /// # Errors
    /// [`SnapshotError::Type`], [`SnapshotError::Placeholder`]
    pub fn as_u64(&self) -> Result<u64, SnapshotError> {
        let number = match self {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            Self::Flag(flag) => Some(u64::from(*flag)),
            Self::Float(n) => whole(*n).and_then(|n| u64::try_from(n).ok()),
            _ => None,
        };
        number.ok_or_else(|| self.is_not("an unsigned number"))
    }

    /// A signed number, or another that fits.
    ///
    /// # Errors
    /// As [`as_u64`](Self::as_u64).
    pub fn as_i64(&self) -> Result<i64, SnapshotError> {
        let number = match self {
            Self::Signed(n) => Some(*n),
            Self::Unsigned(n) => i64::try_from(*n).ok(),
            Self::Flag(flag) => Some(i64::from(*flag)),
            Self::Float(n) => whole(*n),
            _ => None,
        };
        number.ok_or_else(|| self.is_not("a signed number"))
    }

    /// Any number, as a float.
    ///
    /// # Errors
    /// As [`as_u64`](Self::as_u64).
    pub fn as_f64(&self) -> Result<f64, SnapshotError> {
        match self {
            Self::Unsigned(n) => Ok(*n as f64),
            Self::Signed(n) => Ok(*n as f64),
            Self::Float(n) => Ok(*n),
            _ => Err(self.is_not("a number")),
        }
    }

    /// A flag, or a number that is 0 or 1.
    ///
    /// # Errors
    /// As [`as_u64`](Self::as_u64).
    pub fn as_bool(&self) -> Result<bool, SnapshotError> {
        match (self, self.as_u64()) {
            (Self::Flag(flag), _) => Ok(*flag),
            (_, Ok(n @ 0..=1)) => Ok(n == 1),
            _ => Err(self.is_not("a flag")),
        }
    }

    /// Text.
    ///
    /// # Errors
    /// As [`as_u64`](Self::as_u64).
    pub fn as_str(&self) -> Result<&str, SnapshotError> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(self.is_not("text")),
        }
    }

    /// An element of an array.
    ///
    /// # Errors
    /// [`SnapshotError::Type`] when it is none, [`SnapshotError::Index`], [`SnapshotError::Placeholder`] for one that
    /// is past what was read.
    pub fn at(&self, index: usize) -> Result<&Self, SnapshotError> {
        let Self::List(list) = self else { return Err(self.is_not("an array")) };
        match (list.get(index), list.last()) {
            (Some(Self::Absent), _) | (None, Some(Self::Absent)) => Err(SnapshotError::Placeholder),
            (Some(element), _) => Ok(element),
            (None, _) => Err(SnapshotError::Index { index, len: list.len() }),
        }
    }

    /// What is at a path inside, such as `stats.seen[3]`; an empty path is the value itself.
    ///
    /// # Errors
    /// [`SnapshotError::FieldMissing`], or as [`at`](Self::at).
    pub fn get(&self, path: &str) -> Result<&Self, SnapshotError> {
        // A name may itself hold what stands between names.
        if let Self::Fields(fields) = self
            && let Some(found) = fields.get(path)
        {
            return Ok(found);
        }
        let steps = steps(path).ok_or_else(|| SnapshotError::Path(path.to_string()))?;
        steps.into_iter().try_fold(self, |at, step| match step {
            Step::Index(index) => at.at(index),
            Step::Name(name) => at.member(name),
        })
    }

    fn member(&self, name: &str) -> Result<&Self, SnapshotError> {
        let Self::Fields(fields) = self else { return Err(self.is_not("a struct")) };
        fields.get(name).ok_or_else(|| SnapshotError::FieldMissing {
            field: name.to_string(),
            known: crate::snapshot::listed(fields.keys().map(String::as_str)),
        })
    }

    /// Figures by path (`layers.batch.util`, `cpus[1]`) as the objects and arrays that they were in.
    pub fn nested(figures: &BTreeMap<String, f64>) -> Self {
        let mut whole = Self::Fields(BTreeMap::new());
        for (path, figure) in figures {
            let place = steps(path).and_then(|steps| whole.place(&steps));
            if let Some(place) = place {
                *place = Self::Float(*figure);
            } else if let Self::Fields(fields) = &mut whole {
                fields.insert(path.clone(), Self::Float(*figure));
            }
        }
        whole
    }

    /// The place at these steps, made where there is none; `None` where something else stands in the way.
    fn place(&mut self, steps: &[Step<'_>]) -> Option<&mut Self> {
        let Some((first, rest)) = steps.split_first() else { return Some(self) };
        match (first, &mut *self) {
            (Step::Name(_), Self::Absent) => *self = Self::Fields(BTreeMap::new()),
            (Step::Index(_), Self::Absent) => *self = Self::List(Vec::new()),
            _ => {}
        }
        match (first, self) {
            (Step::Name(name), Self::Fields(fields)) => {
                fields.entry((*name).to_string()).or_default().place(rest)
            }
            (Step::Index(index), Self::List(list)) if *index < MAX_ELEMENTS => {
                list.resize(list.len().max(index + 1), Self::Absent);
                list.get_mut(*index)?.place(rest)
            }
            _ => None,
        }
    }

    /// How many values it is, itself and those inside.
    pub fn count(&self) -> usize {
        match self {
            Self::List(list) => 1 + list.iter().map(Self::count).sum::<usize>(),
            Self::Fields(fields) => 1 + fields.values().map(Self::count).sum::<usize>(),
            _ => 1,
        }
    }

    fn is_not(&self, expected: &'static str) -> SnapshotError {
        match self {
            Self::Absent => SnapshotError::Placeholder,
            _ => SnapshotError::Type { expected, seen: self.to_string() },
        }
    }
}

/// A float that is an integer which it tells exactly.
fn whole(n: f64) -> Option<i64> {
    const EXACT: f64 = (1u64 << 53) as f64;
    (n.fract() == 0.0 && n.abs() <= EXACT).then_some(n as i64)
}

impl fmt::Display for Value {
    /// In few words: what is inside a struct or array as far as a line holds it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = String::new();
        self.write(&mut text);
        match text.char_indices().nth(SHOWN) {
            Some((end, _)) => write!(f, "{}…", &text[..end]),
            None => f.write_str(&text),
        }
    }
}

impl Value {
    fn write(&self, text: &mut String) {
        if text.len() > 4 * SHOWN {
            return;
        }
        let comma = |text: &mut String, at: usize| text.push_str(if at > 0 { ", " } else { "" });
        match self {
            Self::Flag(flag) => text.push_str(&flag.to_string()),
            Self::Unsigned(n) => text.push_str(&n.to_string()),
            Self::Signed(n) => text.push_str(&n.to_string()),
            Self::Float(n) => text.push_str(&n.to_string()),
            Self::Text(words) => text.push_str(&format!("{words:?}")),
            Self::List(list) => {
                text.push('[');
                for (at, element) in list.iter().enumerate() {
                    comma(text, at);
                    element.write(text);
                }
                text.push(']');
            }
            Self::Fields(fields) => {
                text.push('{');
                for (at, (name, field)) in fields.iter().enumerate() {
                    comma(text, at);
                    text.push_str(&format!("{name} = "));
                    field.write(text);
                }
                text.push('}');
            }
            Self::Absent => text.push('…'),
        }
    }
}

/// A type that a value can be had as.
pub trait FromValue: Sized {
    /// The value as this type.
    ///
    /// # Errors
    /// [`SnapshotError::Type`], [`SnapshotError::Placeholder`]
    fn from_value(value: &Value) -> Result<Self, SnapshotError>;
}

macro_rules! from_value {
    ($($type:ty: $as:ident),*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Result<Self, SnapshotError> {
                value.$as()
            }
        }
    )*};
}

from_value!(u64: as_u64, i64: as_i64, f64: as_f64, bool: as_bool);

impl FromValue for String {
    fn from_value(value: &Value) -> Result<Self, SnapshotError> {
        value.as_str().map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fields(members: &[(&str, Value)]) -> Value {
        Value::Fields(members.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect())
    }

    #[test]
    fn values_convert_where_nothing_is_lost() {
        assert_eq!(Value::Signed(-1).as_i64(), Ok(-1));
        assert!(Value::Signed(-1).as_u64().is_err());
        assert!(Value::Unsigned(u64::MAX).as_i64().is_err());
        assert_eq!(Value::Unsigned(1).as_bool(), Ok(true));
        assert!(Value::Unsigned(2).as_bool().is_err());
        assert_eq!(Value::Text("a".into()).as_str(), Ok("a"));
        assert_eq!((Value::Float(7.0).as_u64(), Value::Float(-7.0).as_i64()), (Ok(7), Ok(-7)));
        assert!(Value::Float(0.5).as_u64().is_err() && Value::Float(1e300).as_i64().is_err());
        let list = Value::List(vec![Value::Unsigned(4)]);
        assert_eq!(list.at(0).unwrap().as_f64(), Ok(4.0));
        assert_eq!(list.at(1), Err(SnapshotError::Index { index: 1, len: 1 }));
    }

    #[test]
    fn paths_lead_through_structs_and_arrays() {
        let inner =
            fields(&[("b", Value::List(vec![Value::Signed(-3), fields(&[("c", Value::Flag(true))])]))]);
        let value = fields(&[("a", inner), ("x.y", Value::Unsigned(5))]);
        assert_eq!(value.get("a.b[0]").unwrap().as_i64(), Ok(-3));
        assert_eq!(value.get("a.b[1].c").unwrap().as_bool(), Ok(true));
        assert_eq!(value.get("x.y").unwrap().as_u64(), Ok(5));
        assert_eq!(value.get("").unwrap(), &value);
        let told = |path: &str| value.get(path).unwrap_err().to_string();
        assert_eq!(told("a.z"), "no field \"z\"; there is b");
        assert_eq!(told("a.b.c"), "expected a struct, the value is [-3, {c = true}]");
        assert_eq!(told("a.b[2]"), "expected an index below 2, got 2");
        assert_eq!(told("a..b"), "expected a path such as `stats.seen[3]`, got \"a..b\"");
    }

    #[test]
    fn what_was_left_out_is_no_value_and_no_end() {
        let cut = Value::List(vec![Value::Unsigned(1), Value::Absent]);
        assert_eq!(cut.at(0).unwrap().as_u64(), Ok(1));
        for index in [1, 9] {
            assert_eq!(cut.at(index), Err(SnapshotError::Placeholder));
        }
        assert_eq!(Value::Absent.as_u64(), Err(SnapshotError::Placeholder));
    }

    #[test]
    fn figures_are_put_back_into_objects_and_arrays() {
        let flat = [("cpus[10]", 3.0), ("cpus[1]", 2.0), ("layers.a.util", 0.5), ("odd[x]", 1.0)];
        let value = Value::nested(&flat.map(|(path, n)| (path.to_string(), n)).into());
        assert_eq!(value.get("layers.a.util").unwrap().as_f64(), Ok(0.5));
        assert_eq!(value.get("cpus[10]").unwrap().as_u64(), Ok(3));
        assert_eq!(value.get("cpus[0]"), Err(SnapshotError::Placeholder));
        assert_eq!(value.get("odd[x]").unwrap().as_u64(), Ok(1));
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::Flag),
            any::<u64>().prop_map(Value::Unsigned),
            // One that is not negative comes back as unsigned, which tells the same.
            (i64::MIN..0).prop_map(Value::Signed),
            (-8000i32..8000).prop_map(|n| Value::Float(f64::from(n) / 8.0)),
            ".*".prop_map(Value::Text),
            Just(Value::Absent),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::List),
                proptest::collection::btree_map("[a-z]{1,4}", inner, 0..4).prop_map(Value::Fields),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_gives_back_what_it_was_given(value in any_value()) {
            let json = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(serde_json::from_str::<Value>(&json).unwrap(), value);
        }

        #[test]
        fn no_path_and_no_value_does_harm(value in any_value(), path in ".{0,12}") {
            let _ = (value.get(&path), value.at(3), value.to_string());
            prop_assert!(value.count() >= 1);
        }
    }
}
