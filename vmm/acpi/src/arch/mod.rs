//! What the tables say differently on each architecture. Every module here has the
//! same names: `Interrupts`, `madt`, `cpu_affinity`. The guest's architecture is the
//! host's.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::Interrupts;
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{cpu_affinity, madt};
