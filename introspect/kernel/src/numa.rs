//! Where pages came from, by node: `zone.vm_numa_event` (include/linux/mmzone.h, mm/vmstat.c), as
//! /sys/devices/system/node/nodeN/numastat shows it.

use ktstr_introspect_memory::VirtAddr;

use crate::{Kernel, KernelError};

/// Names in sysfs, and of `enum numa_stat_item`.
const EVENTS: [(&str, &str); 6] = [
    ("numa_hit", "NUMA_HIT"),
    ("numa_miss", "NUMA_MISS"),
    ("numa_foreign", "NUMA_FOREIGN"),
    ("interleave_hit", "NUMA_INTERLEAVE_HIT"),
    ("local_node", "NUMA_LOCAL"),
    ("other_node", "NUMA_OTHER"),
];

/// A node's counters by name, pages.
pub type NodeCounters = (u32, Vec<(&'static str, u64)>);

impl Kernel {
    /// The page counters of each node: what its zones have, and what CPUs have not added to that yet.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without `CONFIG_NUMA`, and before 5.14.
    pub fn numa_counters(&self) -> Result<Vec<NodeCounters>, KernelError> {
        let event = |(name, enumerator): (&'static str, &str)| {
            let index = self.btf().enumerator_value("numa_stat_item", enumerator);
            index.map(|index| (name, index)).ok_or(KernelError::NoSymbol { name: enumerator.into() })
        };
        let events: Vec<(&str, u64)> = EVENTS.into_iter().map(event).collect::<Result<_, _>>()?;
        let nodes = self.symbol("node_data")?;
        let (zones, size) = (self.plan("pglist_data.node_zones")?, self.plan("zone")?.size().max(1));
        let first = self.offset("pglist_data.node_zones")?;
        let mut found = Vec::new();
        for node in 0..self.nr_nodes(nodes)? {
            let at = self.pointer("node_data", nodes.wrapping_add(u64::from(node) * 8))?;
            if at.is_null() {
                continue;
            }
            let mut counters: Vec<_> = events.iter().map(|(name, _)| (*name, 0)).collect();
            for zone in 0..zones.size() / size {
                self.add_zone(at.wrapping_add(first + zone * size), &events, &mut counters)?;
            }
            found.push((node, counters));
        }
        Ok(found)
    }

    fn add_zone(
        &self,
        zone: VirtAddr,
        events: &[(&str, u64)],
        counters: &mut [(&'static str, u64)],
    ) -> Result<(), KernelError> {
        let of_zone = zone.wrapping_add(self.offset("zone.vm_numa_event[0]")?);
        let inside = self.offset("per_cpu_zonestat.vm_numa_event[0]")?;
        let mut parts = vec![of_zone];
        // One without pages has the counters of all CPUs that boot.
        if self.read("zone.present_pages", zone)? > 0 {
            let pointer = VirtAddr(self.read("zone.per_cpu_zonestats", zone)?);
            for cpu in self.online_cpus()?.0 {
                parts.push(self.per_cpu_pointer(pointer, cpu)?.wrapping_add(inside));
            }
        }
        for part in parts {
            for ((_, index), (_, sum)) in events.iter().zip(counters.iter_mut()) {
                let at = part.wrapping_add(index * 8);
                let count = self.memory().read_u64(at).map_err(KernelError::read("a zone's NUMA events"))?;
                *sum = sum.wrapping_add(count);
            }
        }
        Ok(())
    }
}
