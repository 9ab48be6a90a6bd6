//! Any memory as page tables of x86-64 and AArch64: a walk takes one read a level, and what it finds is in a page.

use std::sync::atomic::{AtomicU32, Ordering};

use ktstr_introspect_memory::{
    Aarch64PageTables, AddressSpace, Granule, MemoryFault, PagingLevels, PhysAddr, PhysRange, PhysicalMemory,
    SparseMemory, VirtAddr, X86PageTables,
};

/// Counts reads.
struct Counted(SparseMemory, AtomicU32);

impl PhysicalMemory for Counted {
    fn read(&self, at: PhysAddr, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.read(at, into)
    }

    fn ranges(&self) -> &[PhysRange] {
        self.0.ranges()
    }
}

pub(crate) fn page_tables(input: &[u8]) {
    let Some((head, tables)) = input.split_first_chunk::<12>() else { return };
    let address = VirtAddr(u64::from_le_bytes(head[..8].try_into().expect("eight bytes")));
    let (root, kind, bits) = (u64::from(head[8]) << 12, head[9], u32::from(head[10]));
    let mut memory = SparseMemory::new();
    // Words sparsely: one each 64 bytes of 64 KiB, so that a few input bytes reach all of it.
    let mut bytes = vec![0u8; 0x10000];
    for (word, at) in tables.as_chunks::<8>().0.iter().zip((0..0x10000).step_by(8)) {
        bytes[at..at + 8].copy_from_slice(word);
    }
    memory.insert(PhysAddr(0), bytes);
    let memory = Counted(memory, AtomicU32::new(0));
    let space: Box<dyn AddressSpace> = match kind % 7 {
        0 => Box::new(X86PageTables::new(root, PagingLevels::Four)),
        1 => Box::new(X86PageTables::new(root, PagingLevels::Five)),
        granule => {
            let granules = [Granule::K4, Granule::K16, Granule::K64, Granule::K4, Granule::K16];
            let make = if granule < 5 { Aarch64PageTables::new } else { Aarch64PageTables::with_lpa2 };
            match make(root, granules[usize::from(granule - 2)], bits) {
                Ok(tables) => Box::new(tables),
                Err(_) => return,
            }
        }
    };
    if let Ok(found) = space.translate(&memory, address) {
        assert!(found.remaining > 0 && found.remaining <= 1 << 42);
        // A page's offset is the address's.
        let inside = found.remaining.next_power_of_two().min(1 << 12) - 1;
        assert_eq!(found.physical.0 & inside, address.0 & inside);
    }
    assert!(memory.1.load(Ordering::Relaxed) <= 5, "more reads than levels");
}
