//! Arenas (kernel/bpf/arena.c): memory that a program and user space share, at different addresses.
//!
//! The kernel maps an arena's pages into a window of 4 GiB in its own address space; which pages exist is what its page
//! tables say of that window. A page that a program knows by the low 32 bits of the user address lies that far into it.

use ktstr_introspect_memory::{ReadFault, TranslationFault, VirtAddr};

use crate::{Kernel, KernelError};

const PAGE: u64 = 4096;
/// `GUARD_SZ / 2`: the window starts this far into its `vm_struct`. A BPF instruction reaches 32 KiB to either side.
const GUARD: u64 = 1 << 15;
/// The window's size.
pub(super) const WINDOW: u64 = 1 << 32;

/// A page of an arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArenaPage {
    /// Its address in user space; the low 32 bits are what programs use.
    pub user: VirtAddr,
    /// Its address in the kernel.
    pub kernel: VirtAddr,
    /// Its 4096 bytes.
    pub bytes: Vec<u8>,
}

/// An arena's extent and pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArenaPages {
    /// Where user space has it; null when it isn't mapped there yet and no address was asked for.
    pub user_start: VirtAddr,
    /// Its end there.
    pub user_end: VirtAddr,
    /// Pages that exist, ascending.
    pub pages: Vec<ArenaPage>,
    /// Whether the limit left pages out.
    pub truncated: bool,
}

impl Kernel {
    /// The pages that an arena map has, at most `limit` of them.
    ///
    /// # Errors
    /// [`KernelError`] when `map` is no arena, or its pages can't be read; [`crate::ErrorKind::Absent`] before 6.9.
    pub fn bpf_arena_pages(&self, map: VirtAddr, limit: usize) -> Result<ArenaPages, KernelError> {
        let (arena, start, pages) = self.bpf_arena(map)?;
        let user_start = VirtAddr(self.read("bpf_arena.user_vm_start", arena)?);
        let user_end = VirtAddr(self.read("bpf_arena.user_vm_end", arena)?);
        let mut found = ArenaPages { user_start, user_end, pages: Vec::new(), truncated: false };
        let mut page = 0;
        while page < pages {
            let user = user_start.wrapping_add(page * PAGE);
            // The window is filled by the low half of user addresses, and so may start anywhere in it.
            let kernel = start.wrapping_add(user.0 % WINDOW);
            match self.memory().translate(kernel) {
                Ok(_) if found.pages.len() >= limit => {
                    found.truncated = true;
                    break;
                }
                Ok(_) => {
                    let mut bytes = vec![0; PAGE as usize];
                    self.memory().read(kernel, &mut bytes).map_err(KernelError::read("an arena's page"))?;
                    found.pages.push(ArenaPage { user, kernel, bytes });
                    page += 1;
                }
                // A hole ends where the table entry that isn't there ends: 4 KiB, 2 MiB, 1 GiB…
                Err(ReadFault::Translation(TranslationFault::Unmapped { level, .. })) => {
                    let span = PAGE << (9 * u32::from(level.clamp(1, 4) - 1));
                    page += (span - kernel.0 % span).div_ceil(PAGE);
                }
                Err(fault) => return Err(KernelError::Read { what: "an arena's page", fault }),
            }
        }
        Ok(found)
    }

    /// Where the kernel has the byte that programs and user space know as `user` (of a pointer out of the arena, all 64
    /// bits or the low half).
    ///
    /// # Errors
    /// [`KernelError`] when `map` is no arena.
    pub fn bpf_arena_address(&self, map: VirtAddr, user: VirtAddr) -> Result<VirtAddr, KernelError> {
        Ok(self.bpf_arena(map)?.1.wrapping_add(user.0 % WINDOW))
    }

    /// The arena of a map, where its window starts and how many pages it may have.
    pub(super) fn bpf_arena(&self, map: VirtAddr) -> Result<(VirtAddr, VirtAddr, u64), KernelError> {
        let (kind, pages) = (self.read("bpf_map.map_type", map)?, self.bpf_map_shape(map)?.entries);
        if super::BpfMapKind::from(kind) != super::BpfMapKind::Arena {
            let (what, expected) = ("a BPF map's type", "33, an arena");
            return Err(KernelError::Implausible { what, at: map, seen: kind, expected });
        }
        if pages > WINDOW / PAGE {
            let (what, expected) = ("an arena's number of pages", "at most 4 GiB of pages");
            return Err(KernelError::Implausible { what, at: map, seen: pages, expected });
        }
        let arena = map.wrapping_sub(self.offset("bpf_arena.map")?);
        let area = VirtAddr(self.read("bpf_arena.kern_vm->addr", arena)?);
        Ok((arena, area.wrapping_add(GUARD), pages))
    }
}
