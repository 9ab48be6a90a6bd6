//! Boot protocols by architecture. Every module here has the same names: `Entry`
//! and `load`.

#[cfg(target_arch = "x86_64")]
pub mod x86_64;

#[cfg(target_arch = "x86_64")]
pub use x86_64::{Entry, load};
