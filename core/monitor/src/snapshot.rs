//! The kernel's state at a named moment of a run.

mod around;
mod error;
mod field;
mod kernel;
mod view;

pub use error::SnapshotError;
pub(crate) use error::listed;
pub use field::FieldView;
pub use kernel::{RqScxState, SchedulerView, VarView};
pub use view::{EntryView, MapView};

use crate::{CpuSample, KernelState, Sample, Value};
use ktstr_assert::Phase;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Snapshots that are kept of a run; more push out the oldest.
pub const MAX_SNAPSHOTS: usize = 64;

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
                let known = listed(self.values.keys().map(String::as_str));
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
