//! Walks of the kernel's lists and trees (include/linux/list.h, rbtree.h, rhashtable.h, xarray.h).
//!
//! Memory may change under a walk, or be garbage. Each walk has a limit, and checks the link that leads back wherever
//! the kernel keeps one. A list that is found torn is walked again a few times before that is told.

mod hash;
mod tree;

use ktstr_introspect_memory::{VirtAddr, VirtualMemory};
use ktstr_introspect_types::{Btf, PlanError};

use crate::KernelError;

/// How often a torn list is walked again.
const ATTEMPTS: usize = 3;

/// Offsets of the links, from BTF.
#[derive(Debug, Clone)]
pub struct Links {
    list_next: u64,
    list_prev: u64,
    hlist_first: u64,
    hlist_next: u64,
    hlist_pprev: u64,
    rb_parent: u64,
    rb_left: u64,
    rb_right: u64,
    rhashtable: Result<hash::Offsets, PlanError>,
    xarray: Result<tree::XarrayOffsets, PlanError>,
}

impl Links {
    /// Takes them from `btf`.
    ///
    /// # Errors
    /// [`KernelError::Plan`] when it lacks lists or trees, which every kernel has.
    pub fn compile(btf: &Btf) -> Result<Self, KernelError> {
        let offset = |path: &str| btf.plan(path).map(|plan| plan.offset().unwrap_or(0));
        Ok(Self {
            list_next: offset("list_head.next")?,
            list_prev: offset("list_head.prev")?,
            hlist_first: offset("hlist_head.first")?,
            hlist_next: offset("hlist_node.next")?,
            hlist_pprev: offset("hlist_node.pprev")?,
            rb_parent: offset("rb_node.__rb_parent_color")?,
            rb_left: offset("rb_node.rb_left")?,
            rb_right: offset("rb_node.rb_right")?,
            rhashtable: hash::Offsets::compile(btf),
            xarray: tree::XarrayOffsets::compile(btf),
        })
    }
}

/// Walks over some kernel memory.
#[derive(Debug, Clone, Copy)]
pub struct Walker<'a> {
    memory: &'a VirtualMemory,
    links: &'a Links,
}

impl<'a> Walker<'a> {
    /// Walks over `memory`.
    #[must_use]
    pub fn new(memory: &'a VirtualMemory, links: &'a Links) -> Self {
        Self { memory, links }
    }

    /// The objects on the circular `list_head` list whose head is at `head`, each `member` bytes before its node.
    /// An empty list has its head point to itself; one never initialised, with null links, counts as empty too.
    ///
    /// # Errors
    /// [`KernelError::Torn`] when a node doesn't lead back, [`KernelError::Endless`] after `limit` nodes, or
    /// [`KernelError::Read`].
    pub fn list(
        &self,
        what: &'static str,
        head: VirtAddr,
        member: u64,
        limit: usize,
    ) -> Result<Vec<VirtAddr>, KernelError> {
        self.again(|| {
            let (mut found, mut at) = (Vec::new(), head);
            loop {
                let next = self.word(what, at.wrapping_add(self.links.list_next))?;
                if at == head && next.is_null() {
                    return Ok(found);
                }
                let back = self.word(what, next.wrapping_add(self.links.list_prev))?;
                if back != at {
                    return Err(KernelError::Torn { what, at: next, expected: at.0, seen: back.0 });
                }
                if next == head {
                    return Ok(found);
                }
                if found.len() >= limit {
                    return Err(KernelError::Endless { what, at: head, limit });
                }
                found.push(next.wrapping_sub(member));
                at = next;
            }
        })
    }

    /// The objects on the `hlist` whose `hlist_head` is at `head`, each `member` bytes before its node.
    ///
    /// # Errors
    /// As [`Walker::list`].
    pub fn hlist(
        &self,
        what: &'static str,
        head: VirtAddr,
        member: u64,
        limit: usize,
    ) -> Result<Vec<VirtAddr>, KernelError> {
        self.again(|| {
            let (mut found, mut link) = (Vec::new(), head.wrapping_add(self.links.hlist_first));
            loop {
                let node = self.word(what, link)?;
                if node.is_null() {
                    return Ok(found);
                }
                // `pprev` points to the pointer that led here.
                let back = self.word(what, node.wrapping_add(self.links.hlist_pprev))?;
                if back != link {
                    return Err(KernelError::Torn { what, at: node, expected: link.0, seen: back.0 });
                }
                if found.len() >= limit {
                    return Err(KernelError::Endless { what, at: head, limit });
                }
                found.push(node.wrapping_sub(member));
                link = node.wrapping_add(self.links.hlist_next);
            }
        })
    }

    fn again<T>(&self, walk: impl Fn() -> Result<T, KernelError>) -> Result<T, KernelError> {
        let mut last = walk();
        for _ in 1..ATTEMPTS {
            if !matches!(last, Err(KernelError::Torn { .. })) {
                break;
            }
            last = walk();
        }
        last
    }

    fn word(&self, what: &'static str, at: VirtAddr) -> Result<VirtAddr, KernelError> {
        self.memory.read_pointer(at).map_err(KernelError::read(what))
    }
}

#[cfg(test)]
mod tests;
