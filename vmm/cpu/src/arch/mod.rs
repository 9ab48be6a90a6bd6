//! Architectures. Every module here has `Ids`, which numbers CPUs as the interrupt
//! controller does, `identity`, which says what a CPU tells of itself, and
//! `registers`, which says how it starts.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::Ids;
