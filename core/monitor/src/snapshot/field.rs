//! A value of a snapshot, with the place that it is from.

use crate::{FromValue, SnapshotError, Value};
use std::fmt;

/// A value and where it is: errors name the place.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldView<'a> {
    path: String,
    value: &'a Value,
}

impl<'a> FieldView<'a> {
    pub(crate) fn new(path: impl Into<String>, value: &'a Value) -> Self {
        Self { path: path.into(), value }
    }

    /// Where it is, such as `counts[0].seen`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The value.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// What is at a path inside, such as `stats.seen[3]`.
    ///
    /// # Errors
    /// As [`Value::get`].
    pub fn get(&self, path: &str) -> Result<Self, SnapshotError> {
        let joint = if path.is_empty() || path.starts_with('[') || self.path.is_empty() { "" } else { "." };
        let path_of = format!("{}{joint}{path}", self.path);
        match self.value.get(path) {
            Ok(value) => Ok(Self { path: path_of, value }),
            Err(e) => Err(e.at(path_of)),
        }
    }

    /// An element of an array.
    ///
    /// # Errors
    /// As [`Value::at`].
    pub fn at(&self, index: usize) -> Result<Self, SnapshotError> {
        let path = format!("{}[{index}]", self.path);
        match self.value.at(index) {
            Ok(value) => Ok(Self { path, value }),
            Err(e) => Err(e.at(path)),
        }
    }

    /// The elements of an array. Where more of it was not read, the last one is a placeholder.
    ///
    /// # Errors
    /// [`SnapshotError::Type`] when it is none.
    pub fn elements(&self) -> Result<Vec<Self>, SnapshotError> {
        let Value::List(list) = self.value else {
            let seen = self.value.to_string();
            return Err(SnapshotError::Type { expected: "an array", seen }.at(&self.path));
        };
        let one = |(index, value)| Self { path: format!("{}[{index}]", self.path), value };
        Ok(list.iter().enumerate().map(one).collect())
    }

    /// The value as a type.
    ///
    /// # Errors
    /// [`SnapshotError::Type`], [`SnapshotError::Placeholder`]
    pub fn read<T: FromValue>(&self) -> Result<T, SnapshotError> {
        T::from_value(self.value).map_err(|e| e.at(&self.path))
    }

    /// As [`Value::as_u64`].
    ///
    /// # Errors
    /// As there.
    pub fn as_u64(&self) -> Result<u64, SnapshotError> {
        self.read()
    }

    /// As [`Value::as_i64`].
    ///
    /// # Errors
    /// As there.
    pub fn as_i64(&self) -> Result<i64, SnapshotError> {
        self.read()
    }

    /// As [`Value::as_f64`].
    ///
    /// # Errors
    /// As there.
    pub fn as_f64(&self) -> Result<f64, SnapshotError> {
        self.read()
    }

    /// As [`Value::as_bool`].
    ///
    /// # Errors
    /// As there.
    pub fn as_bool(&self) -> Result<bool, SnapshotError> {
        self.read()
    }

    /// As [`Value::as_str`].
    ///
    /// # Errors
    /// As there.
    pub fn as_str(&self) -> Result<&'a str, SnapshotError> {
        self.value.as_str().map_err(|e| e.at(&self.path))
    }
}

impl fmt::Display for FieldView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.path, self.value)
    }
}
