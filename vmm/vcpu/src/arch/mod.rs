//! What differs by architecture. Every module here has the same names: `Registers`,
//! `registers`, `Trap`, `trap`, `Watch`, `WATCHES`,
//! `watch`, `Identity`,
//! `StateKinds`, `VcpuState`, `save`, `restore`, `VcpuClock`, `clock`, `set_clock`.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::{
    Access, Identity, Registers, StateKinds, Trap, VcpuClock, VcpuState, WATCHES, Watch, restore,
};
#[cfg(target_arch = "x86_64")]
pub(crate) use x86_64::{clock, registers, save, set_clock, trap, watch};
