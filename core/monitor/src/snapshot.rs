//! The kernel's state at a named moment of a run.

use crate::{CpuSample, KernelState, Sample};
use ktstr_assert::Phase;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Snapshots that are kept of a run; more push out the oldest.
pub const MAX_SNAPSHOTS: usize = 64;

/// A value read out of kernel memory.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A `bool`.
    Flag(bool),
    /// An unsigned number, or an address.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// Characters.
    Text(String),
    /// An array.
    List(Vec<Value>),
}

/// A value that a snapshot does not have, or not as that type.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SnapshotError {
    /// It was not asked for.
    #[error(
        "snapshot {snapshot:?} has no value {path:?}; it has {known}: add the path to the test's `snapshot_paths`"
    )]
    Missing {
        /// The snapshot.
        snapshot: String,
        /// What was looked up.
        path: String,
        /// The paths that there are.
        known: String,
    },
    /// It was asked for and could not be read.
    #[error("{path:?} could not be read for snapshot {snapshot:?}: {why}")]
    Unavailable {
        /// The snapshot.
        snapshot: String,
        /// The path.
        path: String,
        /// Why not.
        why: String,
    },
    /// It is of another type.
    #[error("expected {expected}, the value is {seen:?}")]
    Type {
        /// What was asked for.
        expected: &'static str,
        /// What is there.
        seen: Value,
    },
    /// An index past the end.
    #[error("expected an index below {len}, got {index}")]
    Index {
        /// What was asked for.
        index: usize,
        /// Elements there are.
        len: usize,
    },
    /// The machine's sample could not be taken.
    #[error("snapshot {0:?} has no reading of that CPU")]
    NoCpu(String),
}

impl Value {
    /// An unsigned number; a signed one that is not negative, and a flag (0 or 1).
    ///
    /// # Errors
    /// [`SnapshotError::Type`]
    pub fn as_u64(&self) -> Result<u64, SnapshotError> {
        let number = match self {
            Self::Unsigned(n) => Some(*n),
            Self::Signed(n) => u64::try_from(*n).ok(),
            Self::Flag(flag) => Some(u64::from(*flag)),
            Self::Text(_) | Self::List(_) => None,
        };
        number.ok_or_else(|| self.is_not("an unsigned number"))
    }

    /// A signed number, or an unsigned one that fits.
    ///
    /// # Errors
    /// [`SnapshotError::Type`]
    pub fn as_i64(&self) -> Result<i64, SnapshotError> {
        let number = match self {
            Self::Signed(n) => Some(*n),
            Self::Unsigned(n) => i64::try_from(*n).ok(),
            Self::Flag(flag) => Some(i64::from(*flag)),
            Self::Text(_) | Self::List(_) => None,
        };
        number.ok_or_else(|| self.is_not("a signed number"))
    }

    /// Any number, as a float.
    ///
    /// # Errors
    /// [`SnapshotError::Type`]
    pub fn as_f64(&self) -> Result<f64, SnapshotError> {
        match self {
            Self::Unsigned(n) => Ok(*n as f64),
            Self::Signed(n) => Ok(*n as f64),
            Self::Flag(_) | Self::Text(_) | Self::List(_) => Err(self.is_not("a number")),
        }
    }

    /// A flag, or a number that is 0 or 1.
    ///
    /// # Errors
    /// [`SnapshotError::Type`]
    pub fn as_bool(&self) -> Result<bool, SnapshotError> {
        match self {
            Self::Flag(flag) => Ok(*flag),
            Self::Unsigned(n @ 0..=1) => Ok(*n == 1),
            _ => Err(self.is_not("a flag")),
        }
    }

    /// Text.
    ///
    /// # Errors
    /// [`SnapshotError::Type`]
    pub fn as_str(&self) -> Result<&str, SnapshotError> {
        match self {
            Self::Text(text) => Ok(text),
            _ => Err(self.is_not("text")),
        }
    }

    /// An element of an array.
    ///
    /// # Errors
    /// [`SnapshotError::Type`] when it is none, [`SnapshotError::Index`]
    pub fn at(&self, index: usize) -> Result<&Self, SnapshotError> {
        let Self::List(list) = self else { return Err(self.is_not("an array")) };
        list.get(index).ok_or(SnapshotError::Index { index, len: list.len() })
    }

    fn is_not(&self, expected: &'static str) -> SnapshotError {
        SnapshotError::Type { expected, seen: self.clone() }
    }
}

/// A type that a value can be had as.
pub trait FromValue: Sized {
    /// The value as this type.
    ///
    /// # Errors
    /// [`SnapshotError::Type`]
    fn from_value(value: &Value) -> Result<Self, SnapshotError>;
}

impl FromValue for u64 {
    fn from_value(value: &Value) -> Result<Self, SnapshotError> {
        value.as_u64()
    }
}

impl FromValue for i64 {
    fn from_value(value: &Value) -> Result<Self, SnapshotError> {
        value.as_i64()
    }
}

impl FromValue for f64 {
    fn from_value(value: &Value) -> Result<Self, SnapshotError> {
        value.as_f64()
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Result<Self, SnapshotError> {
        value.as_bool()
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Result<Self, SnapshotError> {
        value.as_str().map(str::to_owned)
    }
}

/// What caused a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SnapshotCause {
    /// An op of the scenario.
    Op,
    /// The clock, for a test with `num_snapshots`.
    Periodic,
    /// A write to a watched variable.
    Watch,
}

/// The kernel's state at one moment.
///
/// Of a machine in deterministic mode it is the same in every run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Guest time since the test began, ms.
    pub at_ms: u64,
    /// The step it falls into, from 1; 0 is the time before the first.
    pub step: u16,
    /// What caused it.
    pub cause: SnapshotCause,
    /// The values of the test's `snapshot_paths` and of what an op asked for, by path.
    pub values: BTreeMap<String, Value>,
    /// Paths that could not be read, and why.
    pub unavailable: BTreeMap<String, String>,
    /// The runqueues, where they could be read.
    pub sample: Option<Sample>,
    /// vCPUs, runqueues with their tasks, cgroups; `None` where only values were asked for.
    pub state: Option<KernelState>,
}

impl Snapshot {
    /// An empty one.
    pub fn new(name: impl Into<String>, at_ms: u64, step: u16, cause: SnapshotCause) -> Self {
        Self {
            name: name.into(),
            at_ms,
            step,
            cause,
            values: BTreeMap::new(),
            unavailable: BTreeMap::new(),
            sample: None,
            state: None,
        }
    }

    /// The part of the run that it falls into.
    pub fn phase(&self) -> Phase {
        Phase::step(self.step)
    }

    /// A value by its path, such as `runqueues[0].nr_running`.
    ///
    /// # Errors
    /// [`SnapshotError`] when it was not asked for, or could not be read.
    pub fn get(&self, path: &str) -> Result<&Value, SnapshotError> {
        if let Some(value) = self.values.get(path) {
            return Ok(value);
        }
        let (snapshot, path) = (self.name.clone(), path.to_string());
        match self.unavailable.get(&path) {
            Some(why) => Err(SnapshotError::Unavailable { snapshot, path, why: why.clone() }),
            None => {
                let known: Vec<&str> = self.values.keys().map(String::as_str).take(16).collect();
                let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
                Err(SnapshotError::Missing { snapshot, path, known })
            }
        }
    }

    /// The runqueue of a CPU.
    ///
    /// # Errors
    /// [`SnapshotError::NoCpu`]
    pub fn cpu(&self, cpu: u32) -> Result<&CpuSample, SnapshotError> {
        let found = self.sample.as_ref().and_then(|sample| sample.cpu(cpu));
        found.ok_or_else(|| SnapshotError::NoCpu(self.name.clone()))
    }
}

/// The snapshots of a run, by time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshots {
    kept: Vec<Snapshot>,
    evicted: usize,
}

impl Snapshots {
    /// Keeps one; a hit of a watch takes the place of the one before it.
    pub fn push(&mut self, snapshot: Snapshot) {
        if snapshot.cause == SnapshotCause::Watch {
            self.kept.retain(|s| s.cause != SnapshotCause::Watch || s.name != snapshot.name);
        }
        if self.kept.len() >= MAX_SNAPSHOTS {
            self.kept.remove(0);
            self.evicted += 1;
        }
        self.kept.push(snapshot);
    }

    /// Those that were kept, by time.
    pub fn all(&self) -> &[Snapshot] {
        &self.kept
    }

    /// The last of that name.
    pub fn get(&self, name: &str) -> Option<&Snapshot> {
        self.kept.iter().rev().find(|s| s.name == name)
    }

    /// How many were pushed out.
    pub fn evicted(&self) -> usize {
        self.evicted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(name: &str, cause: SnapshotCause) -> Snapshot {
        Snapshot::new(name, 7, 1, cause)
    }

    #[test]
    fn values_convert_where_nothing_is_lost() {
        assert_eq!(Value::Signed(-1).as_i64(), Ok(-1));
        assert!(Value::Signed(-1).as_u64().is_err());
        assert!(Value::Unsigned(u64::MAX).as_i64().is_err());
        assert_eq!(Value::Unsigned(1).as_bool(), Ok(true));
        assert!(Value::Unsigned(2).as_bool().is_err());
        assert_eq!(Value::Text("a".into()).as_str(), Ok("a"));
        let list = Value::List(vec![Value::Unsigned(4)]);
        assert_eq!(list.at(0).unwrap().as_f64(), Ok(4.0));
        assert_eq!(list.at(1), Err(SnapshotError::Index { index: 1, len: 1 }));
    }

    #[test]
    fn a_value_that_is_not_there_says_why() {
        let mut s = snapshot("mid", SnapshotCause::Op);
        assert!(s.get("jiffies").unwrap_err().to_string().contains("it has none"));
        s.values.insert("jiffies".into(), Value::Unsigned(1));
        s.unavailable.insert("x.y".into(), "no member y".into());
        assert_eq!(s.get("jiffies"), Ok(&Value::Unsigned(1)));
        assert!(s.get("x.y").unwrap_err().to_string().ends_with("no member y"));
        assert!(s.get("z").unwrap_err().to_string().contains("it has jiffies"));
    }

    #[test]
    fn the_oldest_make_room_and_a_watch_keeps_its_last() {
        let mut all = Snapshots::default();
        all.push(snapshot("watched", SnapshotCause::Watch));
        all.push(Snapshot { at_ms: 9, ..snapshot("watched", SnapshotCause::Watch) });
        assert_eq!((all.all().len(), all.get("watched").map(|s| s.at_ms)), (1, Some(9)));
        for i in 0..MAX_SNAPSHOTS {
            all.push(snapshot(&format!("s{i}"), SnapshotCause::Op));
        }
        assert_eq!((all.all().len(), all.evicted()), (MAX_SNAPSHOTS, 1));
        assert!(all.get("watched").is_none() && all.get("s0").is_some());
    }

    #[test]
    fn a_snapshot_survives_json() {
        let mut s = snapshot("mid", SnapshotCause::Periodic);
        let list = Value::List(vec![Value::Signed(-3), Value::Flag(true), Value::Text("t".into())]);
        s.values.insert("l".into(), list);
        s.sample = Some(crate::testing::sample(5, &[1, 2]));
        let json = serde_json::to_string(&s).unwrap();
        assert_eq!(serde_json::from_str::<Snapshot>(&json).unwrap(), s);
    }
}
