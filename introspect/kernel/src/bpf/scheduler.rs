//! Which BPF objects the loaded sched_ext scheduler is made of.

use std::collections::BTreeSet;

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::TypeId;

use super::BpfMapKind;
use crate::{BpfProgram, Kernel, KernelError};

impl Kernel {
    /// The maps that the loaded scheduler's programs use: `struct bpf_map` addresses. What is left of a scheduler that was
    /// replaced, or of one that is loaded and not attached, is not among them; nothing is when none is attached.
    ///
    /// The kernel has a copy of the `sched_ext_ops` that came with the scheduler's struct_ops map (`bpf_scx_reg`,
    /// kernel/sched/ext.c), whose operations are trampolines of that map alone: by those the map is known.
    ///
    /// # Errors
    /// [`KernelError`], [`crate::ErrorKind::Absent`] without sched_ext, [`crate::ErrorKind::Null`] where none is loaded.
    pub fn bpf_scheduler_maps(&self) -> Result<BTreeSet<VirtAddr>, KernelError> {
        let operations = self.scx_operations()?;
        let mut programs = BTreeSet::new();
        for map in self.bpf_maps()? {
            // One that goes away while it is looked at is not the loaded one's.
            if self.bpf_map_kind(map).ok() == Some(BpfMapKind::StructOps)
                && let Ok(ops) = self.bpf_struct_ops(map)
                && ops.interface == "sched_ext_ops"
                && self.has_operation(map, &operations).unwrap_or(false)
            {
                programs.extend(ops.programs.into_iter().map(|(_, id)| u64::from(id)));
            }
        }
        let mut used = BTreeSet::new();
        for at in self.bpf_programs()? {
            if BpfProgram::read(self, at).id.is_ok_and(|id| programs.contains(&id)) {
                used.extend(self.bpf_program_maps(at)?);
            }
        }
        Ok(used)
    }

    /// Whether any of these operations, by name and code, is the struct_ops map's own.
    fn has_operation(&self, map: VirtAddr, operations: &[(String, VirtAddr)]) -> Result<bool, KernelError> {
        let whole = map.wrapping_sub(self.offset("bpf_struct_ops_map.map")?);
        let ty = TypeId(self.read("bpf_map.btf_vmlinux_value_type_id", map)? as u32);
        let value = self.plan("bpf_struct_ops_map.kvalue")?.address(self.memory(), whole)?;
        for (name, code) in operations {
            let member = self.btf().plan_from(ty, &format!(".data.{name}"))?;
            let at = member.address(self.memory(), value)?;
            if self.pointer("a struct_ops map's operations", at)? == *code {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
