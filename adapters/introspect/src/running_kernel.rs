//! The kernel that runs here, in its own memory.

use crate::expression::{self, ExpressionError};
use crate::index::IndexCache;
use crate::state::kernel_state;
use crate::variables::Variables;
use ktstr_introspect_kernel::{Kernel, KernelError};
use ktstr_introspect_live::{KernelCore, KernelCoreError, Missing, RunningFiles};
use ktstr_introspect_symbols::Vmlinux;
use ktstr_monitor::{KernelState, Readings};
use std::sync::Arc;

/// The running kernel can't be read in its memory.
#[derive(Debug, thiserror::Error)]
pub enum RunningKernelError {
    /// It doesn't show its memory.
    #[error(transparent)]
    Core(#[from] KernelCoreError),
    /// It doesn't show its symbols or types.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// They don't lead to it.
    #[error("finding the running kernel in its own memory: {0}")]
    Kernel(#[from] KernelError),
    /// What was found is another.
    #[error(
        "the kernel in memory is of build {found:?}, and the one that runs of {running}: nothing is read of it"
    )]
    Other {
        /// The build id in memory.
        found: Option<String>,
        /// That of the running kernel's notes.
        running: String,
    },
}

/// The kernel that runs here, read in its own memory while it goes on: what changes meanwhile may be torn.
pub struct RunningKernel {
    kernel: Kernel,
    variables: Variables,
}

impl RunningKernel {
    /// Finds it by its own symbols and types; that it is the one that runs is checked by its build id. Types of variables
    /// come from a vmlinux of that build, and are kept in `index`.
    ///
    /// # Errors
    /// [`RunningKernelError`]
    pub fn open(files: &RunningFiles, index: Option<IndexCache>) -> Result<Self, RunningKernelError> {
        let memory = Arc::new(KernelCore::open(&files.core())?);
        let (types, _) = files.types()?;
        let kernel = Kernel::open_known(memory, files.symbols()?, types)?;
        let (found, running) = (kernel.build_id()?, files.build_id()?);
        if found.as_ref() != Some(&running) {
            return Err(RunningKernelError::Other { found, running });
        }
        // Without one, expressions that need it say so.
        let vmlinux = files.vmlinux().ok();
        let variables = Variables::new(vmlinux.as_ref().map(Vmlinux::path), index);
        Ok(Self { kernel, variables })
    }

    /// Its symbols, types and memory.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The types of its variables.
    pub fn variables(&self) -> &Variables {
        &self.variables
    }

    /// Values by paths such as `jiffies` or `runqueues[*].nr_running`, as a snapshot has them.
    pub fn values(&self, paths: &[&str]) -> Readings {
        expression::values(&self.kernel, &self.variables, paths)
    }

    /// What an expression is worth, in words.
    ///
    /// # Errors
    /// [`ExpressionError`]
    pub fn show(&self, text: &str) -> Result<String, ExpressionError> {
        expression::show(&self.kernel, &self.variables, text)
    }

    /// What the whole kernel looks like, as a failure dump has it.
    pub fn state(&self) -> KernelState {
        kernel_state(&self.kernel, &[])
    }
}
