//! The machine's interrupts, as far as a scenario says which CPUs take them.

use ktstr_topology::CpuSet;

/// An interrupt that could not be steered.
#[derive(Debug, thiserror::Error)]
pub enum IrqError {
    /// Nobody steers here.
    #[error("interrupts are left alone here: {0}; run the test in a machine")]
    Nobody(&'static str),
    /// There is no such interrupt.
    #[error("there is no interrupt {irq}: expected one of {known} (see /proc/interrupts)")]
    Unknown {
        /// As asked for.
        irq: u32,
        /// Those there are.
        known: String,
    },
    /// The kernel did not take it.
    #[error("writing {cpus:?} to {path}: {source}{hint}")]
    Refused {
        /// The CPUs, as a list.
        cpus: String,
        /// The file.
        path: String,
        /// Empty, or `; ` and what that answer means.
        hint: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

/// Steers interrupts.
#[cfg_attr(test, mockall::automock)]
pub trait IrqOps: Send + Sync {
    /// Has only these CPUs take interrupt `irq`, a number of `/proc/interrupts`.
    ///
    /// # Errors
    /// [`IrqError`]
    fn steer(&self, irq: u32, cpus: &CpuSet) -> Result<(), IrqError>;
}

/// Where a test runs without a machine: the host's interrupts are not its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoIrqs;

impl IrqOps for NoIrqs {
    fn steer(&self, _: u32, _: &CpuSet) -> Result<(), IrqError> {
        Err(IrqError::Nobody("this test runs on the host itself"))
    }
}
