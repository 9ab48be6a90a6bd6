//! What BPF maps held at a snapshot.

use crate::snapshot::error::listed;
use crate::{
    ArenaState, EntryState, EntryValue, FieldView, FromValue, MapState, RingState, SnapshotError, Value,
};
use std::borrow::Cow;

/// A BPF map, of one that is per CPU all CPUs or one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MapView<'a> {
    map: &'a MapState,
    cpu: Option<u32>,
}

/// An entry of a map.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryView<'a> {
    of: MapView<'a>,
    key: Cow<'a, Value>,
    value: &'a EntryValue,
}

impl<'a> MapView<'a> {
    pub(crate) fn new(map: &'a MapState) -> Self {
        Self { map, cpu: None }
    }

    /// Its name, at most 15 bytes.
    pub fn name(&self) -> &'a str {
        &self.map.name
    }

    /// All that is known of it.
    pub fn state(&self) -> &'a MapState {
        self.map
    }

    /// Only what a CPU has in it.
    ///
    /// # Errors
    /// [`SnapshotError::NotPerCpu`]; a CPU that is not there shows at the entries.
    pub fn cpu(self, cpu: u32) -> Result<Self, SnapshotError> {
        match self.map.kind.contains("percpu") {
            true => Ok(Self { cpu: Some(cpu), ..self }),
            false => Err(SnapshotError::NotPerCpu(self.map.name.clone())),
        }
    }

    /// How many entries were read: of an array, all that were looked at.
    pub fn len(&self) -> usize {
        self.map.looked_at
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Its entries; of an array those that are not zero.
    pub fn entries(self) -> impl Iterator<Item = EntryView<'a>> {
        let entry = move |state: &'a EntryState| EntryView {
            of: self,
            key: Cow::Borrowed(&state.typed_key),
            value: &state.typed,
        };
        self.map.entries.iter().map(entry)
    }

    /// Of an array the element of that index; of others the entry at that place, in the order of the kernel's walk.
    ///
    /// # Errors
    /// [`SnapshotError::EntryMissing`], or why there are no entries.
    pub fn at(self, index: usize) -> Result<EntryView<'a>, SnapshotError> {
        self.readable()?;
        if !self.map.kind.ends_with("array") {
            return self.entries().nth(index).ok_or_else(|| self.missing(format!("at {index}")));
        }
        if let Some(found) = self.entries().find(|entry| entry.key.as_u64() == Ok(index as u64)) {
            return Ok(found);
        }
        match &self.map.zero {
            Some(zero) if index < self.map.looked_at => {
                Ok(EntryView { of: self, key: Cow::Owned(Value::Unsigned(index as u64)), value: zero })
            }
            _ => Err(self.missing(format!("at index {index}"))),
        }
    }

    /// The first entry for which `is` holds.
    ///
    /// # Errors
    /// [`SnapshotError::EntryMissing`], or why there are no entries.
    pub fn find(self, is: impl FnMut(&EntryView<'a>) -> bool) -> Result<EntryView<'a>, SnapshotError> {
        self.readable()?;
        self.entries().find(is).ok_or_else(|| self.missing("that fits".to_string()))
    }

    /// The entries for which `is` holds.
    ///
    /// # Errors
    /// Why there are no entries; that none holds is none.
    pub fn filter(self, is: impl FnMut(&EntryView<'a>) -> bool) -> Result<Vec<EntryView<'a>>, SnapshotError> {
        self.readable()?;
        Ok(self.entries().filter(is).collect())
    }

    /// The entry of which `of` is the largest; the first of equals.
    ///
    /// # Errors
    /// [`SnapshotError::EntryMissing`] without an entry, or the error of `of` for any of them.
    pub fn max_by<T: PartialOrd>(
        self,
        mut of: impl FnMut(&EntryView<'a>) -> Result<T, SnapshotError>,
    ) -> Result<EntryView<'a>, SnapshotError> {
        self.readable()?;
        let mut best: Option<(T, EntryView<'a>)> = None;
        for entry in self.entries() {
            let value = of(&entry)?;
            if best.as_ref().is_none_or(|(largest, _)| value > *largest) {
                best = Some((value, entry));
            }
        }
        best.map(|(_, entry)| entry).ok_or_else(|| self.missing("at all that is not zero".to_string()))
    }

    /// How far it was written and read, if it is a ring buffer.
    ///
    /// # Errors
    /// [`SnapshotError::Kind`]
    pub fn ringbuf(self) -> Result<&'a RingState, SnapshotError> {
        self.map.ring.as_ref().ok_or_else(|| self.other_kind("a ring buffer"))
    }

    /// Its pages, if it is an arena.
    ///
    /// # Errors
    /// [`SnapshotError::Kind`]
    pub fn arena(self) -> Result<&'a ArenaState, SnapshotError> {
        self.map.arena.as_ref().ok_or_else(|| self.other_kind("an arena"))
    }

    /// The functions of the stack trace with that ID, the innermost first, if it is a map of such.
    ///
    /// # Errors
    /// [`SnapshotError::Kind`], [`SnapshotError::EntryMissing`]
    pub fn stack_trace(self, id: u64) -> Result<Vec<&'a str>, SnapshotError> {
        if self.map.kind != "stack_trace" {
            return Err(self.other_kind("stack_trace"));
        }
        self.readable()?;
        let is = |entry: &EntryView<'a>| entry.key.as_u64() == Ok(id);
        let found = self.entries().find(is).ok_or_else(|| self.missing(format!("with ID {id}")))?;
        found.value()?.elements()?.iter().map(FieldView::as_str).collect()
    }

    /// Nothing was looked at where the note says why.
    fn readable(&self) -> Result<(), SnapshotError> {
        match &self.map.note {
            Some(why) if self.map.looked_at == 0 && why != "empty" => {
                Err(self.other_kind("one with entries"))
            }
            _ => Ok(()),
        }
    }

    fn other_kind(&self, expected: &'static str) -> SnapshotError {
        let MapState { name, kind, note, .. } = self.map.clone();
        SnapshotError::Kind { map: name, kind, expected, why: note }
    }

    fn missing(&self, what: String) -> SnapshotError {
        let MapState { name, looked_at, truncated, .. } = self.map;
        SnapshotError::EntryMissing { map: name.clone(), what, looked_at: *looked_at, truncated: *truncated }
    }
}

/// Figures over all CPUs; an empty path is the value itself.
macro_rules! over_cpus {
    ($($type:ty: $sum:ident, $min:ident, $max:ident;)*) => {$(
        /// The sum of what all CPUs have at a path.
        ///
        /// # Errors
        /// [`SnapshotError::NotPerCpu`], the path's own for any CPU, [`SnapshotError::Overflow`]
        pub fn $sum(&self, path: &str) -> Result<$type, SnapshotError> {
            let add = |sum: $type, n: $type| <$type as Summed>::add(sum, n);
            let sum = self.of_cpus::<$type>(path)?.into_iter().try_fold(<$type>::default(), add);
            sum.ok_or(SnapshotError::Overflow(stringify!($type)))
        }

        /// The smallest that a CPU has there.
        ///
        /// # Errors
        /// As the sum.
        pub fn $min(&self, path: &str) -> Result<$type, SnapshotError> {
            let smaller = |a: $type, b: $type| if b < a { b } else { a };
            self.of_cpus::<$type>(path)?.into_iter().reduce(smaller).ok_or_else(|| self.no_cpu())
        }

        /// The largest that a CPU has there.
        ///
        /// # Errors
        /// As the sum.
        pub fn $max(&self, path: &str) -> Result<$type, SnapshotError> {
            let larger = |a: $type, b: $type| if b > a { b } else { a };
            self.of_cpus::<$type>(path)?.into_iter().reduce(larger).ok_or_else(|| self.no_cpu())
        }
    )*};
}

impl<'a> EntryView<'a> {
    /// Its key: of an array the index; of storage of tasks, `pid` and `comm` of the owner.
    pub fn key(&self) -> FieldView<'_> {
        FieldView::new(format!("key of {}", self.of.map.name), &self.key)
    }

    /// Its value: of a map per CPU, the chosen CPU's.
    ///
    /// # Errors
    /// [`SnapshotError::PerCpu`] when none is chosen, [`SnapshotError::Index`] for a CPU that is not there.
    pub fn value(&self) -> Result<FieldView<'a>, SnapshotError> {
        match (self.value, self.of.cpu) {
            (EntryValue::Shared(value), _) => Ok(FieldView::new(self.path(), value)),
            (EntryValue::PerCpu(_), None) => Err(SnapshotError::PerCpu(self.of.map.name.clone())),
            (EntryValue::PerCpu(each), Some(cpu)) => match each.iter().find(|(of, _)| *of == cpu) {
                Some((_, value)) => Ok(FieldView::new(format!("{} on cpu{cpu}", self.path()), value)),
                None => {
                    let (index, len) = (cpu as usize, each.len());
                    Err(SnapshotError::Index { index, len }.at(format!("CPUs of {}", self.of.map.name)))
                }
            },
        }
    }

    /// A member of its value, such as `stats.seen[3]`.
    ///
    /// # Errors
    /// As [`value`](Self::value) and [`Value::get`].
    pub fn get(&self, path: &str) -> Result<FieldView<'a>, SnapshotError> {
        self.value()?.get(path)
    }

    /// What each CPU has at a path, by CPU.
    ///
    /// # Errors
    /// [`SnapshotError::NotPerCpu`], or the path's own for any CPU.
    pub fn cpu_each(&self, path: &str) -> Result<Vec<(u32, FieldView<'a>)>, SnapshotError> {
        let EntryValue::PerCpu(each) = self.value else {
            return Err(SnapshotError::NotPerCpu(self.of.map.name.clone()));
        };
        let one = |(cpu, value): &'a (u32, Value)| {
            let whole = FieldView::new(format!("{} on cpu{cpu}", self.path()), value);
            Ok((*cpu, whole.get(path)?))
        };
        each.iter().map(one).collect()
    }

    over_cpus! {
        u64: cpu_sum_u64, cpu_min_u64, cpu_max_u64;
        i64: cpu_sum_i64, cpu_min_i64, cpu_max_i64;
        f64: cpu_sum_f64, cpu_min_f64, cpu_max_f64;
    }

    fn of_cpus<T: FromValue>(&self, path: &str) -> Result<Vec<T>, SnapshotError> {
        self.cpu_each(path)?.into_iter().map(|(_, field)| field.read()).collect()
    }

    fn no_cpu(&self) -> SnapshotError {
        self.of.missing("on any CPU".to_string())
    }

    fn path(&self) -> String {
        format!("{}[{}]", self.of.map.name, self.key)
    }
}

/// Numbers that add up, or don't fit.
trait Summed: Sized {
    fn add(self, other: Self) -> Option<Self>;
}

impl Summed for u64 {
    fn add(self, other: Self) -> Option<Self> {
        self.checked_add(other)
    }
}

impl Summed for i64 {
    fn add(self, other: Self) -> Option<Self> {
        self.checked_add(other)
    }
}

impl Summed for f64 {
    fn add(self, other: Self) -> Option<Self> {
        Some(self + other)
    }
}

/// The map that a name stands for: all of it, or its end where that begins with a dot (`.bss`, as libbpf puts the
/// object's name before it). Of several, one that the loaded scheduler uses.
pub(super) fn find_map<'a>(
    snapshot: &str,
    maps: &[&'a MapState],
    name: &str,
) -> Result<MapView<'a>, SnapshotError> {
    let fitting = |is: &dyn Fn(&str) -> bool| -> Vec<&'a MapState> {
        maps.iter().copied().filter(|map| is(&map.name)).collect()
    };
    let mut found = fitting(&|of| of == name);
    if found.is_empty() && name.starts_with('.') {
        found = fitting(&|of| of.ends_with(name));
    }
    if found.len() > 1 && found.iter().any(|map| map.in_use) {
        found.retain(|map| map.in_use);
    }
    match found.as_slice() {
        [map] => Ok(MapView::new(map)),
        [] => {
            let (snapshot, name) = (snapshot.to_string(), name.to_string());
            let known = listed(maps.iter().map(|map| map.name.as_str()));
            Err(SnapshotError::MapMissing { snapshot, name, known })
        }
        several => {
            let ids: Vec<String> =
                several.iter().map(|map| format!("{} (ID {})", map.name, map.id)).collect();
            let found = listed(ids.iter().map(String::as_str));
            Err(SnapshotError::AmbiguousMap { name: name.to_string(), found })
        }
    }
}

#[cfg(test)]
mod tests;
