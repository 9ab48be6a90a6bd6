//! What a vCPU is before it runs: its id, what CPUID tells of caches and cores, and
//! the registers that it starts with. Data only; nothing here opens `/dev/kvm`.
//!
//! Everything is in [`arch`]: each architecture names the same things there.

pub mod arch;

pub use arch::Ids;
