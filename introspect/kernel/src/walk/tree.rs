//! Red-black trees (lib/rbtree.c) and XArrays (lib/xarray.c).

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, Plan, PlanError};

use super::Walker;
use crate::KernelError;

/// A red-black tree of 2^64 nodes is at most this deep.
const MAX_DEPTH: usize = 128;
/// Nodes without entries that an XArray may have in passing.
const EMPTY_NODES: usize = 256;

#[derive(Debug, Clone)]
pub(super) struct XarrayOffsets {
    head: Plan,
    shift: Plan,
    slots: Plan,
}

impl XarrayOffsets {
    pub(super) fn compile(btf: &Btf) -> Result<Self, PlanError> {
        Ok(Self {
            head: btf.plan("xarray.xa_head")?,
            shift: btf.plan("xa_node.shift")?,
            slots: btf.plan("xa_node.slots")?,
        })
    }
}

impl Walker<'_> {
    /// The objects in the red-black tree whose root pointer is at `root` (an `rb_root`), in order, each `member` bytes
    /// before its `rb_node`.
    ///
    /// # Errors
    /// [`KernelError::Torn`] when a child doesn't name its parent, [`KernelError::Endless`] after `limit` nodes or
    /// too deep, or a read's fault.
    pub fn rbtree(
        &self,
        what: &'static str,
        root: VirtAddr,
        member: u64,
        limit: usize,
    ) -> Result<Vec<VirtAddr>, KernelError> {
        self.again(|| {
            let (mut found, mut above) = (Vec::new(), Vec::new());
            let (mut node, mut parent) = (self.word(what, root)?, VirtAddr(0));
            loop {
                while !node.is_null() {
                    // The two lowest bits of the parent pointer are the colour.
                    let back = self.word(what, node.wrapping_add(self.links.rb_parent))?.0 & !3;
                    if back != parent.0 {
                        return Err(KernelError::Torn { what, at: node, expected: parent.0, seen: back });
                    }
                    if above.len() >= MAX_DEPTH {
                        return Err(KernelError::Endless { what, at: root, limit: MAX_DEPTH });
                    }
                    above.push(node);
                    parent = node;
                    node = self.word(what, node.wrapping_add(self.links.rb_left))?;
                }
                let Some(last) = above.pop() else { return Ok(found) };
                if found.len() >= limit {
                    return Err(KernelError::Endless { what, at: root, limit });
                }
                found.push(last.wrapping_sub(member));
                node = self.word(what, last.wrapping_add(self.links.rb_right))?;
                parent = last;
            }
        })
    }

    /// The entries of the `xarray` at `array`, with their indices. Value entries (an integer tagged with bit 0) come
    /// as they are; entries internal to the XArray (siblings, retries) don't come.
    ///
    /// # Errors
    /// [`KernelError::Implausible`] when a node's shift isn't below its parent's, [`KernelError::Endless`] after
    /// `limit` entries, or a read's fault.
    pub fn xarray(
        &self,
        what: &'static str,
        array: VirtAddr,
        limit: usize,
    ) -> Result<Vec<(u64, VirtAddr)>, KernelError> {
        let offsets = self.links.xarray.as_ref().map_err(|error| KernelError::Plan(error.clone()))?;
        let head = offsets.head.read(self.memory, array)?;
        let mut found = Vec::new();
        let mut waiting = Vec::new();
        match node_of(head) {
            Some(node) => waiting.push((node, 0, 64)),
            None if head != 0 && !is_internal(head) => found.push((0, VirtAddr(head))),
            None => {}
        }
        let mut visited = 0;
        while let Some((node, base, above)) = waiting.pop() {
            // Every node of a real array leads to an entry, over at most 11 levels; a few may just have emptied.
            visited += 1;
            if visited > found.len() * 11 + EMPTY_NODES {
                return Err(KernelError::Endless { what, at: array, limit: visited });
            }
            let shift = offsets.shift.read(self.memory, node)?;
            if shift >= above {
                let expected = "a shift below the parent node's";
                return Err(KernelError::Implausible { what, at: node, seen: shift, expected });
            }
            let slots = offsets.slots.address(self.memory, node)?;
            // Backwards, so that the lowest index is popped first.
            for slot in (0..offsets.slots.size() / 8).rev() {
                let entry = self.word(what, slots.wrapping_add(slot * 8))?.0;
                let index: u64 = base | slot.wrapping_shl(shift as u32);
                match node_of(entry) {
                    Some(child) if shift > 0 => waiting.push((child, index, shift)),
                    _ if entry == 0 || is_internal(entry) => {}
                    _ if found.len() >= limit => return Err(KernelError::Endless { what, at: node, limit }),
                    _ => found.push((index, VirtAddr(entry))),
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// `xa_is_internal`: the two lowest bits are 10.
fn is_internal(entry: u64) -> bool {
    entry & 3 == 2
}

/// `xa_to_node`: an internal entry above 4096 is a node.
fn node_of(entry: u64) -> Option<VirtAddr> {
    (is_internal(entry) && entry > 4096).then(|| VirtAddr(entry - 2))
}
