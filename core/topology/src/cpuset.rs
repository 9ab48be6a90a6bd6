//! An ordered set of CPU numbers that prints and reads as a kernel cpulist.

use std::collections::{BTreeSet, btree_set};
use std::fmt;
use std::iter::Copied;
use std::str::FromStr;

use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{CpuListError, MAX_CPU, parse_cpu_list};

/// A set of CPU numbers in ascending order; the kernel's `cpumask`.
///
/// Its text form, in [`Display`](fmt::Display), [`FromStr`] and serde alike, is the cpulist that sysfs
/// and `cpuset.cpus` use: `0-3,8`. A set may hold any `u32`, but only CPUs up to [`MAX_CPU`] can be
/// read back from text, so serialising a set with a larger one is an error.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CpuSet {
    cpus: BTreeSet<u32>,
}

impl CpuSet {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { cpus: BTreeSet::new() }
    }

    /// The CPUs in ascending order.
    pub fn iter(&self) -> Copied<btree_set::Iter<'_, u32>> {
        self.cpus.iter().copied()
    }

    /// How many CPUs are in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cpus.len()
    }

    /// Whether no CPU is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cpus.is_empty()
    }

    /// Whether `cpu` is in the set.
    #[must_use]
    pub fn contains(&self, cpu: u32) -> bool {
        self.cpus.contains(&cpu)
    }

    /// Adds `cpu`; says whether it is new.
    pub fn insert(&mut self, cpu: u32) -> bool {
        self.cpus.insert(cpu)
    }

    /// Takes `cpu` out; says whether it was there.
    pub fn remove(&mut self, cpu: u32) -> bool {
        self.cpus.remove(&cpu)
    }

    /// The lowest CPU.
    #[must_use]
    pub fn first(&self) -> Option<u32> {
        self.cpus.first().copied()
    }

    /// The highest CPU.
    #[must_use]
    pub fn last(&self) -> Option<u32> {
        self.cpus.last().copied()
    }

    /// The CPUs that are in either set.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        self.cpus.union(&other.cpus).copied().collect()
    }

    /// The CPUs that are in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.cpus.intersection(&other.cpus).copied().collect()
    }

    /// The CPUs that are in this set and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        self.cpus.difference(&other.cpus).copied().collect()
    }

    /// Whether every CPU of this set is in `other`.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.cpus.is_subset(&other.cpus)
    }

    /// Whether the sets share no CPU.
    #[must_use]
    pub fn is_disjoint(&self, other: &Self) -> bool {
        self.cpus.is_disjoint(&other.cpus)
    }

    /// The maximal runs of consecutive CPUs, as first and last CPU.
    fn runs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let mut cpus = self.iter().peekable();
        std::iter::from_fn(move || {
            let first = cpus.next()?;
            let mut last = first;
            while let Some(next) = cpus.next_if(|&next| next - last == 1) {
                last = next;
            }
            Some((first, last))
        })
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.runs().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            if first == last {
                write!(f, "{first}")?;
            } else {
                write!(f, "{first}-{last}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

impl FromStr for CpuSet {
    type Err = CpuListError;

    fn from_str(text: &str) -> Result<Self, CpuListError> {
        parse_cpu_list(text)
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(cpus: I) -> Self {
        Self { cpus: cpus.into_iter().collect() }
    }
}

impl Extend<u32> for CpuSet {
    fn extend<I: IntoIterator<Item = u32>>(&mut self, cpus: I) {
        self.cpus.extend(cpus);
    }
}

impl<const N: usize> From<[u32; N]> for CpuSet {
    fn from(cpus: [u32; N]) -> Self {
        Self { cpus: cpus.into() }
    }
}

impl From<BTreeSet<u32>> for CpuSet {
    fn from(cpus: BTreeSet<u32>) -> Self {
        Self { cpus }
    }
}

impl<'a> IntoIterator for &'a CpuSet {
    type Item = u32;
    type IntoIter = Copied<btree_set::Iter<'a, u32>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for CpuSet {
    type Item = u32;
    type IntoIter = btree_set::IntoIter<u32>;

    fn into_iter(self) -> btree_set::IntoIter<u32> {
        self.cpus.into_iter()
    }
}

impl Serialize for CpuSet {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if let Some(last) = self.last().filter(|&last| last > MAX_CPU) {
            return Err(S::Error::custom(format!(
                "can't write a cpulist with CPU {last}: the largest that can be read back is {MAX_CPU}"
            )));
        }
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CpuSet {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
