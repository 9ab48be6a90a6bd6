//! What the adapter does differently on each architecture: the notes of an ELF core, and the kernel arguments of the
//! machine's platform. Every module here has the same names: `EM_MACHINE`, `prstatus`, `PLATFORM`.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{EM_MACHINE, PLATFORM, prstatus};
#[cfg(all(test, target_arch = "x86_64"))]
pub(crate) use x86_64::{PR_REG, PRSTATUS};
