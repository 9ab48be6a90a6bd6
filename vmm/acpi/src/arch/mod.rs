//! What the tables say differently on each architecture. Every module here has the
//! same names: `Interrupts`, `madt`, `cpu_affinity`. The tables are bytes, so this
//! compiles anywhere; the architecture is that of the guest, and so of the host.

#[cfg(not(target_arch = "aarch64"))]
mod x86_64;

#[cfg(not(target_arch = "aarch64"))]
pub use x86_64::Interrupts;
#[cfg(not(target_arch = "aarch64"))]
pub(crate) use x86_64::{cpu_affinity, madt};
