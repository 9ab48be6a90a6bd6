//! Sets and lists that claims can be made on.

use ktstr_topology::CpuSet;
use std::collections::{BTreeSet, HashSet};
use std::fmt::Debug;
use std::hash::{BuildHasher, Hash};

/// A set or list of things that can be compared and shown.
pub trait Collection {
    /// What it holds.
    type Item: PartialEq + Debug;

    /// How many items it holds.
    fn count(&self) -> usize;

    /// True when it holds `item`.
    fn has(&self, item: &Self::Item) -> bool;

    /// The items, in a stable order where there is one.
    fn items(&self) -> Vec<Self::Item>;
}

impl<T: PartialEq + Debug + Clone> Collection for Vec<T> {
    type Item = T;

    fn count(&self) -> usize {
        self.len()
    }

    fn has(&self, item: &T) -> bool {
        self.contains(item)
    }

    fn items(&self) -> Vec<T> {
        self.clone()
    }
}

impl<T: Ord + Debug + Clone> Collection for BTreeSet<T> {
    type Item = T;

    fn count(&self) -> usize {
        self.len()
    }

    fn has(&self, item: &T) -> bool {
        self.contains(item)
    }

    fn items(&self) -> Vec<T> {
        self.iter().cloned().collect()
    }
}

impl<T: Ord + Hash + Debug + Clone, S: BuildHasher> Collection for HashSet<T, S> {
    type Item = T;

    fn count(&self) -> usize {
        self.len()
    }

    fn has(&self, item: &T) -> bool {
        self.contains(item)
    }

    fn items(&self) -> Vec<T> {
        let mut items: Vec<T> = self.iter().cloned().collect();
        items.sort();
        items
    }
}

impl Collection for CpuSet {
    type Item = u32;

    fn count(&self) -> usize {
        self.len()
    }

    fn has(&self, item: &u32) -> bool {
        self.contains(*item)
    }

    fn items(&self) -> Vec<u32> {
        self.iter().collect()
    }
}
