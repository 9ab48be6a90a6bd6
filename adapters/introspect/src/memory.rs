//! A machine's memory as the introspection crates want it.

use ktstr_introspect_memory::{MemoryFault, PhysAddr, PhysRange, PhysicalMemory};
use std::sync::Arc;

/// Guest RAM behind the machine port.
pub(crate) struct MachineMemory {
    memory: Arc<dyn ktstr_machine::PhysicalMemory>,
    ranges: Vec<PhysRange>,
}

impl MachineMemory {
    pub(crate) fn new(memory: Arc<dyn ktstr_machine::PhysicalMemory>) -> Self {
        let range = |(start, length)| PhysRange { start: PhysAddr(start), length };
        let ranges = memory.regions().into_iter().map(range).collect();
        Self { memory, ranges }
    }
}

impl PhysicalMemory for MachineMemory {
    #[inline]
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        if self.memory.read(at.0, into) { Ok(()) } else { Err(self.fault(at, into.len())) }
    }

    fn ranges(&self) -> &[PhysRange] {
        &self.ranges
    }
}

impl MachineMemory {
    /// The first address of a failed read that lies outside RAM.
    fn fault(&self, at: PhysAddr, length: usize) -> MemoryFault {
        let there = self.ranges.iter().map(|range| range.remaining(at)).max().unwrap_or(0);
        let inside = usize::try_from(there).unwrap_or(length).min(length);
        MemoryFault { address: PhysAddr(at.0.wrapping_add(inside as u64)), length: length - inside }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Page;

    impl ktstr_machine::PhysicalMemory for Page {
        fn read(&self, address: u64, buffer: &mut [u8]) -> bool {
            buffer.fill(7);
            address >= 0x1000 && address.checked_add(buffer.len() as u64).is_some_and(|end| end <= 0x2000)
        }
        fn regions(&self) -> Vec<(u64, u64)> {
            vec![(0x1000, 0x1000)]
        }
    }

    #[test]
    fn the_fault_is_the_first_address_outside() {
        let memory = MachineMemory::new(Arc::new(Page));
        let mut bytes = [0; 8];
        memory.read(PhysAddr(0x1ff8), &mut bytes).unwrap();
        assert_eq!(bytes, [7; 8]);
        let fault = memory.read(PhysAddr(0x1ffc), &mut bytes).unwrap_err();
        assert_eq!(fault, MemoryFault { address: PhysAddr(0x2000), length: 4 });
        let fault = memory.read(PhysAddr(u64::MAX), &mut bytes).unwrap_err();
        assert_eq!(fault, MemoryFault { address: PhysAddr(u64::MAX), length: 8 });
    }
}
