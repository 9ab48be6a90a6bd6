//! Reads of kernel virtual addresses.

use std::fmt;
use std::sync::Arc;

use crate::{AddressSpace, MemoryFault, PhysAddr, PhysicalMemory, TranslationFault, VirtAddr};

/// A range of virtual addresses that maps to physical ones by a constant difference: the direct map, the kernel
/// image. Reads there need no page-table walk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearRange {
    /// First virtual address.
    pub start: VirtAddr,
    /// Length in bytes.
    pub length: u64,
    /// What `start` maps to.
    pub physical: PhysAddr,
}

/// A virtual address couldn't be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadFault {
    /// It has no physical address.
    #[error(transparent)]
    Translation(#[from] TranslationFault),
    /// It has one, but there is no memory.
    #[error("cannot read virtual address {address}: {fault}")]
    Physical {
        /// The first virtual address that couldn't be read.
        address: VirtAddr,
        /// The physical side of it.
        fault: MemoryFault,
    },
    /// It is in no linear range and there are no page tables to ask.
    #[error("address {address} is outside the linear ranges and no page tables are known yet")]
    NoTables {
        /// The address.
        address: VirtAddr,
    },
    /// The read would pass the end of the address space.
    #[error("a read of {length} bytes at {address} passes the end of the address space")]
    Wraps {
        /// The address.
        address: VirtAddr,
        /// Bytes wanted.
        length: usize,
    },
}

/// Kernel virtual memory over some physical memory.
#[derive(Clone)]
pub struct VirtualMemory {
    physical: Arc<dyn PhysicalMemory>,
    linear: Vec<LinearRange>,
    tables: Option<Arc<dyn AddressSpace>>,
}

impl fmt::Debug for VirtualMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualMemory")
            .field("linear", &self.linear)
            .field("tables", &self.tables.is_some())
            .finish_non_exhaustive()
    }
}

impl VirtualMemory {
    /// Virtual memory that maps nothing yet.
    #[must_use]
    pub fn new(physical: Arc<dyn PhysicalMemory>) -> Self {
        Self { physical, linear: Vec::new(), tables: None }
    }

    /// Adds a linear range, tried before the page tables and in the order added.
    #[must_use]
    pub fn with_linear(mut self, range: LinearRange) -> Self {
        self.linear.push(range);
        self
    }

    /// Sets the page tables for everything else.
    #[must_use]
    pub fn with_tables(mut self, tables: Arc<dyn AddressSpace>) -> Self {
        self.tables = Some(tables);
        self
    }

    /// The physical memory below.
    #[must_use]
    pub fn physical(&self) -> &Arc<dyn PhysicalMemory> {
        &self.physical
    }

    /// Where `at` lies, and how many bytes follow it contiguously.
    ///
    /// # Errors
    /// [`ReadFault`] when it isn't mapped.
    #[inline]
    pub fn translate(&self, at: VirtAddr) -> Result<(PhysAddr, u64), ReadFault> {
        for range in &self.linear {
            let inside = at.0.wrapping_sub(range.start.0);
            if inside < range.length
                && let Some(physical) = range.physical.checked_add(inside)
            {
                return Ok((physical, range.length - inside));
            }
        }
        let tables = self.tables.as_ref().ok_or(ReadFault::NoTables { address: at })?;
        let found = tables.translate(&*self.physical, at)?;
        Ok((found.physical, found.remaining))
    }

    /// Fills `into` with the bytes at `at`.
    ///
    /// # Errors
    /// [`ReadFault`] with the first address that couldn't be read.
    #[inline]
    pub fn read(&self, at: VirtAddr, into: &mut [u8]) -> Result<(), ReadFault> {
        let length = into.len();
        // The last byte, not the end: the top page of the address space is readable.
        if length > 0 && at.checked_add(length as u64 - 1).is_none() {
            return Err(ReadFault::Wraps { address: at, length });
        }
        let mut done = 0;
        while done < length {
            let address = at.wrapping_add(done as u64);
            let (physical, contiguous) = self.translate(address)?;
            let part = usize::try_from(contiguous).unwrap_or(usize::MAX).min(length - done);
            self.physical.read(physical, &mut into[done..done + part]).map_err(|fault| {
                ReadFault::Physical {
                    address: address.wrapping_add(fault.address.0.wrapping_sub(physical.0)),
                    fault,
                }
            })?;
            done += part.max(1);
        }
        Ok(())
    }

    /// The byte at `at`.
    ///
    /// # Errors
    /// As [`VirtualMemory::read`].
    pub fn read_u8(&self, at: VirtAddr) -> Result<u8, ReadFault> {
        let mut bytes = [0; 1];
        self.read(at, &mut bytes)?;
        Ok(bytes[0])
    }

    /// The little-endian 16-bit word at `at`.
    ///
    /// # Errors
    /// As [`VirtualMemory::read`].
    pub fn read_u16(&self, at: VirtAddr) -> Result<u16, ReadFault> {
        let mut bytes = [0; 2];
        self.read(at, &mut bytes)?;
        Ok(u16::from_le_bytes(bytes))
    }

    /// The little-endian 32-bit word at `at`.
    ///
    /// # Errors
    /// As [`VirtualMemory::read`].
    #[inline]
    pub fn read_u32(&self, at: VirtAddr) -> Result<u32, ReadFault> {
        let mut bytes = [0; 4];
        self.read(at, &mut bytes)?;
        Ok(u32::from_le_bytes(bytes))
    }

    /// The little-endian 64-bit word at `at`.
    ///
    /// # Errors
    /// As [`VirtualMemory::read`].
    #[inline]
    pub fn read_u64(&self, at: VirtAddr) -> Result<u64, ReadFault> {
        let mut bytes = [0; 8];
        self.read(at, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// The pointer stored at `at`.
    ///
    /// # Errors
    /// As [`VirtualMemory::read`].
    #[inline]
    pub fn read_pointer(&self, at: VirtAddr) -> Result<VirtAddr, ReadFault> {
        self.read_u64(at).map(VirtAddr)
    }

    /// The NUL-terminated string at `at`, at most `limit` bytes of it; bytes that aren't UTF-8 are replaced. A string
    /// that ends just before unmapped memory is read up to its NUL.
    ///
    /// # Errors
    /// As [`VirtualMemory::read`], when the fault comes before the NUL.
    pub fn read_string(&self, at: VirtAddr, limit: usize) -> Result<String, ReadFault> {
        let mut text = Vec::new();
        let mut chunk = [0; 64];
        while text.len() < limit {
            let address = at.wrapping_add(text.len() as u64);
            // Chunks end at multiples of 64, so none crosses into a page that the string doesn't reach.
            let part = (64 - (address.0 % 64) as usize).min(limit - text.len());
            self.read(address, &mut chunk[..part])?;
            if let Some(end) = chunk[..part].iter().position(|byte| *byte == 0) {
                text.extend(&chunk[..end]);
                break;
            }
            text.extend(&chunk[..part]);
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SparseMemory;

    fn memory() -> VirtualMemory {
        let mut physical = SparseMemory::new();
        let mut page = vec![b'a'; 4096];
        page[4090] = 0;
        physical.insert(PhysAddr(0x2000), page);
        let direct =
            LinearRange { start: VirtAddr(0xffff_8880_0000_0000), length: 0x10000, physical: PhysAddr(0) };
        VirtualMemory::new(Arc::new(physical)).with_linear(direct)
    }

    #[test]
    fn the_fault_carries_the_virtual_address_of_the_first_bad_byte() {
        let fault = memory().read(VirtAddr(0xffff_8880_0000_2ffc), &mut [0; 8]).unwrap_err();
        let ReadFault::Physical { address, fault } = fault else { panic!("{fault}") };
        assert_eq!((address, fault.address), (VirtAddr(0xffff_8880_0000_3000), PhysAddr(0x3000)));
    }

    #[test]
    fn strings_stop_at_nul_limit_or_fault() {
        let memory = memory();
        assert_eq!(memory.read_string(VirtAddr(0xffff_8880_0000_2ff5), 100).unwrap(), "aaaaa");
        assert_eq!(memory.read_string(VirtAddr(0xffff_8880_0000_2000), 70).unwrap().len(), 70);
        assert!(memory.read_string(VirtAddr(0xffff_8880_0000_2ffc), 70).is_err());
    }

    #[test]
    fn the_end_of_the_address_space_is_an_error_not_a_wrap() {
        let memory = memory();
        assert!(matches!(memory.read(VirtAddr(u64::MAX), &mut [0; 2]), Err(ReadFault::Wraps { .. })));
        assert!(matches!(memory.read_u64(VirtAddr(0x10)), Err(ReadFault::NoTables { .. })));
    }
}
