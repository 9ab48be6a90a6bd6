//! A kernel written by hand with BPF programs, maps and a scheduler, and any bytes over parts of it, the program's BTF
//! among them: all that can be asked has an answer or an error, within a number of reads.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::world::{BASE, SIZE, address, at, healthy, over};
use ktstr_introspect_kernel::{Kernel, Task};
use ktstr_introspect_memory::{MemoryFault, PhysAddr, PhysRange, PhysicalMemory, SparseMemory, VirtAddr};
use ktstr_introspect_types::DecodeLimits;

/// The largest count seen is a hundredth of this.
const READS: u64 = 20_000_000;

struct Counted(SparseMemory, AtomicU64);

impl PhysicalMemory for Counted {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        assert!(self.1.fetch_add(1, Ordering::Relaxed) < READS, "reading without end");
        self.0.read(at, into)
    }

    fn ranges(&self) -> &[PhysRange] {
        self.0.ranges()
    }
}

pub(crate) fn kernel(input: &[u8]) {
    let mut bytes = healthy();
    // Six bytes a wound: where, how, what.
    for wound in input.as_chunks::<6>().0 {
        let at = (usize::from(u16::from_le_bytes([wound[0], wound[1]])) % 0x2800) & !3;
        let value = u32::from_le_bytes([wound[2], wound[3], wound[4], wound[5]]);
        match value >> 30 {
            0 => bytes[at..at + 4].copy_from_slice(&(value & 0x3fff_ffff).to_le_bytes()),
            1 => bytes[at & !7..(at & !7) + 8].copy_from_slice(&address(value as usize % SIZE).to_le_bytes()),
            2 => bytes[at] = value as u8,
            _ => bytes[at..at + 4].fill(value as u8),
        }
    }
    let mut physical = SparseMemory::new();
    physical.insert(PhysAddr(0), bytes);
    all(&over(Arc::new(Counted(physical, AtomicU64::new(0)))));
}

fn all(kernel: &Kernel) {
    let limits = DecodeLimits { elements: 50, values: 500 };
    let without_id = [at::REFERENCES, at::TRACES, at::QUEUE].map(|at| VirtAddr(address(at)));
    for map in kernel.bpf_maps().unwrap_or_default().into_iter().chain(without_id) {
        let _ = kernel.bpf_ring_positions(map);
        let _ =
            (kernel.bpf_map_contents(map, 50), kernel.bpf_arena_pages(map, 8), kernel.bpf_struct_ops(map));
        for variable in kernel.bpf_variables(map).unwrap_or_default().iter().take(20) {
            let _ = kernel.bpf_value(variable, limits).map(|value| value.to_string());
        }
    }
    for program in kernel.bpf_programs().unwrap_or_default() {
        let _ = (kernel.bpf_program_stats(program), kernel.bpf_program_maps(program));
        let _ = (kernel.bpf_program_implements(program), kernel.bpf_program_kind(program));
    }
    for info in kernel.bpf_type_infos().unwrap_or_default() {
        let _ = kernel.bpf_types(info);
    }
    let _ = (kernel.bpf_variable(".bss", "stats.by_kind[2]"), kernel.bpf_exit_records());
    let _ = kernel.bpf_scheduler_maps();
    let _ =
        (kernel.scx_exit_report(), kernel.scx_operations(), kernel.scx_events(), kernel.dispatch_queues());
    let _ = kernel.scx_longest_wait();
    let _ = (kernel.sched_ext(), Task::read(kernel, VirtAddr(BASE + 0x400)));
}
