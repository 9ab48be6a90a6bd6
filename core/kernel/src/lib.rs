//! Which kernel a test runs on: specs, discovery order, cache keys, build plan.
//!
//! Pure rules. Files, processes, the network and the clock are behind the
//! traits in [`ports`]. Three entry points:
//!
//! - [`KernelSpec`]: what a user may write to name a kernel;
//! - [`discover`]: the kernel to use when nobody named one; never builds;
//! - [`resolve`]: the kernel to use when somebody did; fetches and builds what
//!   the store doesn't have.

mod arch;
mod discover;
mod error;
mod feature;
mod filter;
mod key;
mod list;
mod metadata;
mod plan;
pub mod ports;
mod progress;
mod resolve;
mod spec;
mod version;

pub use arch::{Arch, UnsupportedArch};
pub use discover::{DiscoverEnv, Discovery, Found, KTSTR_KERNEL_HINT, Origin, Skipped, discover};
pub use error::KernelError;
pub use feature::{Feature, config_supports, lacking_features, lacking_features_in};
pub use filter::Identity;
pub use key::{CacheKey, KeyError, build_lease, crc_hex, remote_key, source_lease, tree_key, uncached_label};
pub use list::{CleanPolicy, ListRow, age, list_rows, select_for_clean};
pub use metadata::{CacheEntry, CorruptKind, METADATA_SCHEMA, Metadata, Provenance};
pub use plan::BuildPlan;
pub use progress::{Event, Progress, Silent, Stage};
pub use resolve::{KernelOrigin, NotStored, Request, ResolvedKernel, resolve};
pub use spec::{GitRef, KernelSpec, RangeEnd, SpecError, expand_tilde};
pub use version::{Point, Version, VersionPrefix};

#[cfg(test)]
mod testing;
