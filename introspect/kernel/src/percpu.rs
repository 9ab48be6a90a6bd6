//! CPUs and per-CPU variables (include/linux/percpu-defs.h, mm/percpu.c).

use ktstr_introspect_memory::VirtAddr;

use crate::record::{Cpus, cpus_of};
use crate::{Kernel, KernelError};

/// The largest `CONFIG_NR_CPUS` of x86-64.
pub(crate) const MAX_CPUS: u32 = 8192;

impl Kernel {
    /// `nr_cpu_ids`: CPUs are numbered below it.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read or is more than a kernel can have.
    pub fn nr_cpu_ids(&self) -> Result<u32, KernelError> {
        let at = self.symbol("nr_cpu_ids")?;
        let seen = self.memory().read_u32(at).map_err(KernelError::read("nr_cpu_ids"))?;
        if (1..=MAX_CPUS).contains(&seen) {
            return Ok(seen);
        }
        Err(KernelError::Implausible { what: "nr_cpu_ids", at, seen: seen.into(), expected: "1 to 8192" })
    }

    /// The CPUs in `__cpu_possible_mask`.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn possible_cpus(&self) -> Result<Cpus, KernelError> {
        self.cpumask("__cpu_possible_mask", self.symbol("__cpu_possible_mask")?)
    }

    /// The CPUs in `__cpu_online_mask`.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn online_cpus(&self) -> Result<Cpus, KernelError> {
        self.cpumask("__cpu_online_mask", self.symbol("__cpu_online_mask")?)
    }

    /// Where a per-CPU variable lies for one CPU: its address plus that CPU's `__per_cpu_offset`.
    ///
    /// # Errors
    /// [`KernelError`] when the symbol is absent, or the CPU has no area.
    pub fn per_cpu(&self, name: &str, cpu: u32) -> Result<VirtAddr, KernelError> {
        self.per_cpu_pointer(self.symbol(name)?, cpu)
    }

    /// What a `__percpu` pointer means for one CPU.
    ///
    /// # Errors
    /// As [`Kernel::per_cpu`].
    pub fn per_cpu_pointer(&self, pointer: VirtAddr, cpu: u32) -> Result<VirtAddr, KernelError> {
        let expected = "a CPU below nr_cpu_ids";
        if cpu >= self.nr_cpu_ids()? {
            let at = pointer;
            return Err(KernelError::Implausible { what: "a CPU number", at, seen: cpu.into(), expected });
        }
        let slot = self.symbol("__per_cpu_offset")?.wrapping_add(u64::from(cpu) * 8);
        let offset = self.memory().read_u64(slot).map_err(KernelError::read("__per_cpu_offset"))?;
        Ok(pointer.wrapping_add(offset))
    }

    /// The CPUs in the cpumask at `at`.
    pub(crate) fn cpumask(&self, what: &'static str, at: VirtAddr) -> Result<Cpus, KernelError> {
        let words = u64::from(self.nr_cpu_ids()?).div_ceil(64);
        let mut bytes = vec![0; words as usize * 8];
        self.memory().read(at, &mut bytes).map_err(KernelError::read(what))?;
        Ok(cpus_of(&bytes))
    }
}
