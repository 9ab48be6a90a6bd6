//! BPF programs and maps (kernel/bpf/syscall.c): found over the kernel's ID tables, read by their own type information.
//!
//! `prog_idr`, `map_idr` and `btf_idr` hold every object that has an ID, as `bpftool` lists them. What is in a map is
//! read by the map's kind; keys, values and the global variables of a program have the types of the program's own BTF.

mod allocator;
mod arena;
mod hash;
mod map;
mod program;
mod reference;
mod scheduler;
mod storage;
mod type_info;
mod variable;

use ktstr_introspect_memory::VirtAddr;

use crate::{Kernel, KernelError};

pub use allocator::{AllocatorContents, BpfAllocation, BpfAllocations, PayloadType};
pub use arena::{ArenaPage, ArenaPages};
pub use map::{BpfMap, BpfMapKind, MapContents, MapEntry, MapValue, StructOps};
pub use program::{BpfProgram, BpfProgramStats};
pub use storage::RingPositions;
pub use type_info::BpfTypeInfo;
pub use variable::{BpfVariable, ExitRecord};

pub(crate) use map::BpfMapPlans;
pub(crate) use program::BpfProgramPlans;
pub(crate) use type_info::{BpfTypeInfoPlans, ReadTypes};

/// IDs are numbers below 2^31; more objects than this at a time is no kernel.
const MAX_OBJECTS: usize = 1 << 20;

impl Kernel {
    /// All BPF programs that have an ID, ascending: `struct bpf_prog` addresses.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without `CONFIG_BPF_SYSCALL`.
    pub fn bpf_programs(&self) -> Result<Vec<VirtAddr>, KernelError> {
        self.bpf_objects("the BPF programs' IDR", "prog_idr")
    }

    /// All BPF maps that have an ID, ascending: `struct bpf_map` addresses.
    ///
    /// # Errors
    /// As [`Kernel::bpf_programs`].
    pub fn bpf_maps(&self) -> Result<Vec<VirtAddr>, KernelError> {
        self.bpf_objects("the BPF maps' IDR", "map_idr")
    }

    /// All type information that has an ID, the kernel's own first: `struct btf` addresses.
    ///
    /// # Errors
    /// As [`Kernel::bpf_programs`].
    pub fn bpf_type_infos(&self) -> Result<Vec<VirtAddr>, KernelError> {
        self.bpf_objects("the BTF objects' IDR", "btf_idr")
    }

    fn bpf_objects(&self, what: &'static str, idr: &str) -> Result<Vec<VirtAddr>, KernelError> {
        let array = self.symbol(idr)?.wrapping_add(self.offset("idr.idr_rt")?);
        let found = self.walker().xarray(what, array, MAX_OBJECTS)?;
        Ok(found.into_iter().map(|(_, at)| at).collect())
    }
}
