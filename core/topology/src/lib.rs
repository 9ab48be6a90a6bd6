//! CPU topology of a machine under test: NUMA nodes, LLCs, cores, threads, cpulists.
//!
//! - [`Topology`] is what a test declares: a shape such as `1n2l4c1t`.
//! - [`TestTopology`] is what a test sees: the machine's CPUs with their LLCs, nodes and siblings.
//! - [`CpusetSpec`] names a part of a machine; it becomes a [`CpuSet`] once the machine is known.
//! - [`PRESETS`] is the list of shapes that a gauntlet runs a test on.
//!
//! Everything here is data and arithmetic: nothing reads the system.

mod bounds;
mod cpulist;
mod cpuset;
mod cpuset_spec;
mod error;
mod label;
mod numa;
mod parts;
mod presets;
mod test_topology;
mod topology;
mod validate;

pub use bounds::ShapeBounds;
pub use cpulist::{CpuListError, MAX_CPU, parse_cpu_list, parse_cpu_list_lenient};
pub use cpuset::CpuSet;
pub use cpuset_spec::{CpusetError, CpusetSpec};
pub use error::TopologyError;
pub use numa::{CacheAssociativity, CacheWritePolicy, MemSideCache, NumaDistance, NumaNode};
pub use parts::{PartKind, PartsError, TopologyParts};
pub use presets::{PRESETS, Preset};
pub use test_topology::{LlcInfo, NodeInfo, NodeMemInfo, TestTopology};
pub use topology::Topology;
pub use validate::{MAX_CPUS, MAX_NUMA_NODES, MAX_THREADS_PER_CORE};

/// Distance from a node to itself: `LOCAL_DISTANCE` in `include/linux/topology.h`, ACPI SLIT.
pub const LOCAL_DISTANCE: u8 = 10;

/// Distance between two nodes when nothing else is said: `REMOTE_DISTANCE` in `include/linux/topology.h`.
pub const REMOTE_DISTANCE: u8 = 20;

/// Distance to a node that can't be reached or doesn't exist; 255 in an ACPI SLIT.
pub const UNREACHABLE_DISTANCE: u8 = 255;
