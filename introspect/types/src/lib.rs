//! Kernel types out of BTF, and member paths compiled to offset plans.
//!
//! [`Btf`] reads the type information that a kernel carries (Documentation/bpf/btf.rst): from a vmlinux's `.BTF`, from
//! bytes read out of guest memory, or a module's or program's split BTF on top of another. It keeps the bytes and one
//! offset a type; types are decoded when asked for, so opening costs one pass.
//!
//! Of variables a kernel's BTF has those per CPU only; [`VariableTypes`] holds the types of all others, which come from
//! elsewhere, as split BTF on top of it.
//!
//! A path such as `rq.scx.local_dsq.nr` or `rq.curr->se.vruntime` becomes a [`Plan`] once; reading it again and again
//! then looks nothing up. Bytes whose type is known become a [`Decoded`] tree of named values. A member that this kernel doesn't have is [`PlanError::NoMember`], never a guess.

mod btf;
mod build;
mod path;
mod plan;
mod types;
mod value;
mod variables;

pub use btf::{Btf, BtfError};
pub use build::{BtfBuilder, MAX_BIT_OFFSET, MAX_PARTS};
pub use plan::{Leaf, Plan, PlanError, PlanFault};
pub use types::{Composite, Enumeration, Integer, Member, Modifier, Section, SectionVariable, Type, TypeId};
pub use value::{DecodeLimits, Decoded};
pub use variables::VariableTypes;
