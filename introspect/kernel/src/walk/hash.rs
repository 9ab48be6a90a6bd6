//! Resizable hash tables (lib/rhashtable.c).

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Btf, Plan, PlanError};

use super::Walker;
use crate::KernelError;

/// Buckets for each object that a table may have: it grows when three quarters full, and starts with up to 64.
const BUCKETS_EACH: u64 = 4;
const MIN_BUCKETS: u64 = 64;
/// A table is moved into one other; a third would wait.
const MAX_TABLES: usize = 4;

#[derive(Debug, Clone)]
pub(super) struct Offsets {
    table: Plan,
    size: Plan,
    nest: Plan,
    future: Plan,
    buckets: Plan,
}

impl Offsets {
    pub(super) fn compile(btf: &Btf) -> Result<Self, PlanError> {
        Ok(Self {
            table: btf.plan("rhashtable.tbl")?,
            size: btf.plan("bucket_table.size")?,
            nest: btf.plan("bucket_table.nest")?,
            future: btf.plan("bucket_table.future_tbl")?,
            buckets: btf.plan("bucket_table.buckets")?,
        })
    }
}

impl Walker<'_> {
    /// The objects in the `rhashtable` at `table`, each `member` bytes before its `rhash_head`. During a resize both
    /// tables are walked, and an object that moves meanwhile may come twice or be missed.
    ///
    /// # Errors
    /// [`KernelError::Endless`] after `limit` objects, [`KernelError::Implausible`] for a size that can't be or a
    /// nested table (used only when memory is short), or a read's fault.
    pub fn rhashtable(
        &self,
        what: &'static str,
        table: VirtAddr,
        member: u64,
        limit: usize,
    ) -> Result<Vec<VirtAddr>, KernelError> {
        let offsets = self.links.rhashtable.as_ref().map_err(|error| KernelError::Plan(error.clone()))?;
        let mut found = Vec::new();
        let mut at = VirtAddr(offsets.table.read(self.memory, table)?);
        for _ in 0..MAX_TABLES {
            if at.is_null() {
                break;
            }
            let size = offsets.size.read(self.memory, at)?;
            if !size.is_power_of_two() || size > (limit as u64).saturating_mul(BUCKETS_EACH).max(MIN_BUCKETS)
            {
                let expected = "a power of two, at most four buckets for each object that there can be";
                return Err(KernelError::Implausible { what, at, seen: size, expected });
            }
            let nest = offsets.nest.read(self.memory, at)?;
            if nest != 0 {
                return Err(KernelError::Implausible {
                    what,
                    at,
                    seen: nest,
                    expected: "a table that isn't nested",
                });
            }
            let buckets = offsets.buckets.address(self.memory, at)?;
            for bucket in 0..size {
                self.chain(what, buckets.wrapping_add(bucket * 8), member, limit, &mut found)?;
            }
            at = VirtAddr(offsets.future.read(self.memory, at)?);
        }
        Ok(found)
    }

    /// One bucket: its lowest bit is a lock, and an odd pointer ends the chain ("nulls").
    fn chain(
        &self,
        what: &'static str,
        bucket: VirtAddr,
        member: u64,
        limit: usize,
        found: &mut Vec<VirtAddr>,
    ) -> Result<(), KernelError> {
        let mut node = self.word(what, bucket)?.0 & !1;
        while node != 0 && node & 1 == 0 {
            // A chain may cross into another bucket's when an object moves; the limit ends what never does.
            if found.len() >= limit {
                return Err(KernelError::Endless { what, at: bucket, limit });
            }
            found.push(VirtAddr(node).wrapping_sub(member));
            node = self.word(what, VirtAddr(node))?.0;
        }
        Ok(())
    }
}
