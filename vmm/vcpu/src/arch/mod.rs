//! What differs by architecture. Every module here has the same names: `Registers`,
//! `registers`, `Trap`, `trap`, `Watch`, `watch`, `Identity`,
//! `StateKinds`, `VcpuState`, `save`, `restore`.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::{Access, Identity, Registers, StateKinds, Trap, VcpuState, Watch, restore};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{registers, save, trap, watch};
