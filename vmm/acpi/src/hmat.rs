//! HMAT: how fast the memory of each node is (ACPI 6.5, 5.2.28).

use crate::table::with_header;
use ktstr_topology::{CacheAssociativity, CacheWritePolicy, MemSideCache, NumaNode, Topology};

const PROXIMITY: u16 = 0;
const LOCALITY: u16 = 1;
const SIDE_CACHE: u16 = 2;
/// "Access latency": reads and writes alike.
const ACCESS_LATENCY: u8 = 0;
/// "Access bandwidth": reads and writes alike.
const ACCESS_BANDWIDTH: u8 = 3;
/// Base unit of latencies in picoseconds: entries are nanoseconds.
const NANOSECOND: u64 = 1000;
/// Base unit of bandwidths in MB/s.
const MEGABYTE: u64 = 1;
/// Largest entry; 0xffff means unreachable and 0 unknown.
const MAX_ENTRY: u64 = 0xfffe;

/// `None` when no node says anything.
pub(crate) fn build(topology: &Topology) -> Option<Vec<u8>> {
    let nodes = topology.nodes.as_deref()?;
    let told =
        |n: &NumaNode| n.latency_ns.is_some() || n.bandwidth_mbs.is_some() || n.mem_side_cache.is_some();
    if !nodes.iter().any(told) {
        return None;
    }
    let mut body = vec![0; 4];
    let initiators: Vec<u32> =
        numbered(nodes).filter(|(_, n)| !n.is_memory_only()).map(|(id, _)| id).collect();
    for (node, listed) in numbered(nodes) {
        body.extend(proximity(node, (!listed.is_memory_only()).then_some(node)));
    }
    // What is declared is what the nearest CPUs see: a node's own, if it has any.
    let nearest = |to: u32| initiators.iter().map(|&from| topology.distance(from, to)).min().unwrap_or(1);
    let scaled = |from: u32, to: u32, value: u64, farther_is_more: bool| {
        let (far, near) = (u64::from(topology.distance(from, to)), u64::from(nearest(to)));
        if farther_is_more { value * far / near } else { value * near / far }
    };
    let latency = |n: &NumaNode| n.latency_ns.map(u64::from);
    if nodes.iter().any(|n| latency(n).is_some()) {
        let cell = |from, to, n: &NumaNode| latency(n).map_or(0, |v| scaled(from, to, v, true));
        body.extend(locality(ACCESS_LATENCY, NANOSECOND, &initiators, nodes, cell));
    }
    let bandwidth = |n: &NumaNode| n.bandwidth_mbs.map(u64::from);
    if nodes.iter().any(|n| bandwidth(n).is_some()) {
        let cell = |from, to, n: &NumaNode| bandwidth(n).map_or(0, |v| scaled(from, to, v, false));
        body.extend(locality(ACCESS_BANDWIDTH, MEGABYTE, &initiators, nodes, cell));
    }
    for (node, listed) in numbered(nodes) {
        body.extend(listed.mem_side_cache.iter().flat_map(|cache| side_cache(node, cache)));
    }
    Some(with_header(*b"HMAT", 2, &body))
}

fn numbered(nodes: &[NumaNode]) -> impl Iterator<Item = (u32, &NumaNode)> {
    (0u32..).zip(nodes)
}

/// Memory Proximity Domain Attributes Structure.
fn proximity(memory: u32, initiator: Option<u32>) -> Vec<u8> {
    let mut bytes = head(PROXIMITY, 40);
    // Flag: the initiator field is valid.
    bytes.extend(u16::from(initiator.is_some()).to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend(initiator.unwrap_or(0).to_le_bytes());
    bytes.extend(memory.to_le_bytes());
    bytes.extend([0; 20]);
    bytes
}

/// System Locality Latency and Bandwidth Information Structure: initiators by
/// targets, each entry a multiple of the base unit, in row order. The unit is
/// raised until the largest entry fits 16 bits.
fn locality(
    data: u8,
    unit: u64,
    initiators: &[u32],
    targets: &[NumaNode],
    cell: impl Fn(u32, u32, &NumaNode) -> u64,
) -> Vec<u8> {
    let values: Vec<u64> = initiators
        .iter()
        .flat_map(|&from| numbered(targets).map(move |(to, n)| (from, to, n)))
        .map(|(f, t, n)| cell(f, t, n))
        .collect();
    let divisor = values.iter().max().copied().unwrap_or(0).div_ceil(MAX_ENTRY).max(1);
    let length = 32 + 4 * (initiators.len() + targets.len()) + 2 * values.len();
    let mut bytes = head(LOCALITY, length);
    // Flags 0: memory, not a cache; any transfer size.
    bytes.extend([0, data, 0, 0]);
    bytes.extend((initiators.len() as u32).to_le_bytes());
    bytes.extend((targets.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((unit * divisor).to_le_bytes());
    bytes.extend(initiators.iter().flat_map(|id| id.to_le_bytes()));
    bytes.extend(numbered(targets).flat_map(|(id, _)| id.to_le_bytes()));
    bytes.extend(values.iter().flat_map(|v| ((v / divisor) as u16).to_le_bytes()));
    bytes
}

/// Memory Side Cache Information Structure: level 1 of 1.
fn side_cache(node: u32, cache: &MemSideCache) -> Vec<u8> {
    let associativity = match cache.associativity {
        CacheAssociativity::None => 0,
        CacheAssociativity::Direct => 1,
        CacheAssociativity::Complex => 2,
    };
    let policy = match cache.write_policy {
        CacheWritePolicy::None => 0,
        CacheWritePolicy::WriteBack => 1,
        CacheWritePolicy::WriteThrough => 2,
    };
    let attributes = 1u32 | 1 << 4 | associativity << 8 | policy << 12 | u32::from(cache.line_bytes) << 16;
    let mut bytes = head(SIDE_CACHE, 32);
    bytes.extend(node.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend((u64::from(cache.size_kib) << 10).to_le_bytes());
    bytes.extend(attributes.to_le_bytes());
    // Reserved, and no SMBIOS handles.
    bytes.extend([0; 4]);
    bytes
}

/// Type, reserved, length.
fn head(kind: u16, length: usize) -> Vec<u8> {
    let mut bytes = kind.to_le_bytes().to_vec();
    bytes.extend([0; 2]);
    bytes.extend((length as u32).to_le_bytes());
    bytes
}
