//! x86-64.

pub mod identity;
mod ids;
pub mod registers;

pub use ids::Ids;
