//! What each architecture puts where. Every module here has the same names in its
//! `layout`: `LOW_RAM_END`, `HIGH_RAM_START`, `RAM_END`, and the addresses of what
//! the monitor itself places.

#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::layout;

#[cfg(not(target_arch = "x86_64"))]
compile_error!("guest memory is laid out for x86_64 only so far: add vmm/memory/src/arch/<arch>/layout.rs");
