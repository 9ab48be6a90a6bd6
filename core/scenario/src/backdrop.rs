//! What lasts for a whole scenario while steps come and go.

use crate::{CgroupDef, Op};

/// Cgroups that live from before the first step to after the last, and ops
/// applied once before the first step.
#[derive(Debug, Clone, Default)]
pub struct Backdrop {
    /// Started first.
    pub cgroups: Vec<CgroupDef>,
    /// Applied after that.
    pub ops: Vec<Op>,
}

impl Backdrop {
    /// Nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// These cgroups.
    pub fn from_cgroups(cgroups: Vec<CgroupDef>) -> Self {
        Self { cgroups, ops: Vec::new() }
    }

    /// Adds a cgroup.
    pub fn push_cgroup(mut self, def: CgroupDef) -> Self {
        self.cgroups.push(def);
        self
    }

    /// Adds cgroups.
    pub fn extend_cgroups(mut self, defs: impl IntoIterator<Item = CgroupDef>) -> Self {
        self.cgroups.extend(defs);
        self
    }

    /// Adds an op.
    pub fn push_op(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Adds ops.
    pub fn extend_ops(mut self, ops: impl IntoIterator<Item = Op>) -> Self {
        self.ops.extend(ops);
        self
    }
}
