//! What a scheduler told of itself at one moment.

use crate::{FieldView, SnapshotError, Value};
use std::collections::BTreeMap;

/// An answer of a scheduler over scx_stats.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// ms of guest time since the test's beginning.
    pub at_ms: u64,
    /// The numbers of the answer, in objects and arrays as it had them; `true` is 1.
    pub value: Value,
}

impl Figures {
    /// Of figures by path, such as `layers.batch.util`.
    pub fn new(at_ms: u64, figures: &BTreeMap<String, f64>) -> Self {
        Self { at_ms, value: Value::nested(figures) }
    }

    /// A figure, or an object of several, by its path.
    ///
    /// # Errors
    /// As [`Value::get`].
    pub fn get(&self, path: &str) -> Result<FieldView<'_>, SnapshotError> {
        FieldView::new(format!("figures at +{} ms", self.at_ms), &self.value).get(path)
    }
}
