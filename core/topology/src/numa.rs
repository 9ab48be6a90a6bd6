//! NUMA nodes as a test declares them, and the distances between them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{LOCAL_DISTANCE, TopologyError, UNREACHABLE_DISTANCE};

/// One NUMA node of a declared machine: an ACPI proximity domain (SRAT), with the performance that the
/// HMAT may tell of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct NumaNode {
    /// LLCs of this node; 0 makes it a memory-only node, as CXL memory is.
    pub llcs: u32,
    /// Memory of this node in MiB; `None` takes an even share of what the others leave.
    pub memory_mib: Option<u32>,
    /// Access latency of its memory in nanoseconds, as the nearest CPUs see it (HMAT System Locality Latency and
    /// Bandwidth); farther ones see it larger by their distances.
    pub latency_ns: Option<u32>,
    /// Bandwidth of its memory in MB/s, as the nearest CPUs see it (HMAT System Locality Latency and Bandwidth);
    /// farther ones see it smaller by their distances.
    pub bandwidth_mbs: Option<u32>,
    /// The cache in front of its memory, if any (HMAT Memory Side Cache).
    pub mem_side_cache: Option<MemSideCache>,
}

impl NumaNode {
    /// A node with `llcs` LLCs and an even share of the memory.
    #[must_use]
    pub const fn new(llcs: u32) -> Self {
        Self { llcs, memory_mib: None, latency_ns: None, bandwidth_mbs: None, mem_side_cache: None }
    }

    /// A node with memory and no CPUs.
    #[must_use]
    pub const fn memory_only(memory_mib: u32) -> Self {
        Self::new(0).with_memory_mib(memory_mib)
    }

    /// The node with this much memory.
    #[must_use]
    pub const fn with_memory_mib(mut self, memory_mib: u32) -> Self {
        self.memory_mib = Some(memory_mib);
        self
    }

    /// The node with this access latency in nanoseconds.
    #[must_use]
    pub const fn with_latency_ns(mut self, latency_ns: u32) -> Self {
        self.latency_ns = Some(latency_ns);
        self
    }

    /// The node with this bandwidth in MB/s.
    #[must_use]
    pub const fn with_bandwidth_mbs(mut self, bandwidth_mbs: u32) -> Self {
        self.bandwidth_mbs = Some(bandwidth_mbs);
        self
    }

    /// The node with a cache in front of its memory.
    #[must_use]
    pub const fn with_mem_side_cache(mut self, cache: MemSideCache) -> Self {
        self.mem_side_cache = Some(cache);
        self
    }

    /// Whether the node has no CPUs.
    #[must_use]
    pub const fn is_memory_only(&self) -> bool {
        self.llcs == 0
    }
}

/// A cache in front of a node's memory: the HMAT's Memory Side Cache Information Structure, level 1 of 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct MemSideCache {
    /// Size in KiB.
    pub size_kib: u32,
    /// Bytes in a line.
    pub line_bytes: u16,
    /// How lines map to memory.
    pub associativity: CacheAssociativity,
    /// When writes reach the memory.
    pub write_policy: CacheWritePolicy,
}

/// Cache associativity as the HMAT's cache attributes number it (bits 11:8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CacheAssociativity {
    /// 0: none.
    None,
    /// 1: direct mapped.
    Direct,
    /// 2: complex cache indexing.
    Complex,
}

/// Cache write policy as the HMAT's cache attributes number it (bits 15:12).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CacheWritePolicy {
    /// 0: none.
    None,
    /// 1: write back.
    WriteBack,
    /// 2: write through.
    WriteThrough,
}

/// Distances between NUMA nodes: the entries of an ACPI SLIT. A node is 10 from itself, another node
/// is 11 to 254 away, and the way back is as long.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Vec<u8>>", into = "Vec<Vec<u8>>")]
pub struct NumaDistance {
    nodes: u32,
    cells: Cow<'static, [u8]>,
}

impl NumaDistance {
    /// A table from its rows; row `a`, column `b` is the distance from node `a` to node `b`.
    ///
    /// # Errors
    /// [`TopologyError`] when the table isn't square or an entry breaks a rule.
    pub fn new<R: AsRef<[u8]>>(rows: &[R]) -> Result<Self, TopologyError> {
        let expected = rows.len();
        let mut cells = Vec::new();
        for (row, entries) in rows.iter().map(AsRef::as_ref).enumerate() {
            if entries.len() != expected {
                return Err(TopologyError::DistanceRow { row, seen: entries.len(), expected });
            }
            cells.extend_from_slice(entries);
        }
        let nodes = u32::try_from(expected).unwrap_or(u32::MAX);
        let table = Self { nodes, cells: Cow::Owned(cells) };
        table.validate()?;
        Ok(table)
    }

    /// A table for a `static`, row after row, unchecked: [`validate`](Self::validate) does that later.
    #[must_use]
    pub const fn from_static(nodes: u32, cells: &'static [u8]) -> Self {
        Self { nodes, cells: Cow::Borrowed(cells) }
    }

    /// How many nodes the table is for.
    #[must_use]
    pub const fn nodes(&self) -> u32 {
        self.nodes
    }

    /// Distance from node `from` to node `to`; `None` when the table has no such node.
    #[must_use]
    pub fn get(&self, from: u32, to: u32) -> Option<u8> {
        if from >= self.nodes || to >= self.nodes {
            return None;
        }
        let index = u64::from(from) * u64::from(self.nodes) + u64::from(to);
        self.cells.get(usize::try_from(index).ok()?).copied()
    }

    /// The table row by row.
    pub fn rows(&self) -> impl Iterator<Item = &[u8]> {
        self.cells.chunks(usize::try_from(self.nodes).unwrap_or(usize::MAX).max(1))
    }

    /// Checks size, diagonal, range and symmetry.
    ///
    /// # Errors
    /// The first rule that an entry breaks.
    pub fn validate(&self) -> Result<(), TopologyError> {
        let nodes = self.nodes;
        let seen = self.cells.len();
        if u64::try_from(seen).ok() != Some(u64::from(nodes) * u64::from(nodes)) {
            return Err(TopologyError::DistanceCells { nodes, seen });
        }
        for (from, row) in (0..nodes).zip(self.rows()) {
            for (to, &seen) in (0..nodes).zip(row) {
                self.check_entry(from, to, seen)?;
            }
        }
        Ok(())
    }

    fn check_entry(&self, from: u32, to: u32, seen: u8) -> Result<(), TopologyError> {
        let value = |expected| Err(TopologyError::DistanceValue { from, to, seen, expected });
        if from == to {
            return if seen == LOCAL_DISTANCE { Ok(()) } else { value("10, a node's distance to itself") };
        }
        if seen <= LOCAL_DISTANCE || seen == UNREACHABLE_DISTANCE {
            return value("11 to 254, farther than a node from itself");
        }
        match self.get(to, from) {
            Some(back) if back != seen => {
                Err(TopologyError::DistanceAsymmetric { from, to, there: seen, back })
            }
            _ => Ok(()),
        }
    }
}

impl TryFrom<Vec<Vec<u8>>> for NumaDistance {
    type Error = TopologyError;

    fn try_from(rows: Vec<Vec<u8>>) -> Result<Self, TopologyError> {
        Self::new(&rows)
    }
}

impl From<NumaDistance> for Vec<Vec<u8>> {
    fn from(table: NumaDistance) -> Self {
        table.rows().map(<[u8]>::to_vec).collect()
    }
}

#[cfg(test)]
mod tests;
