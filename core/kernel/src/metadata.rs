//! What is recorded about a cached kernel.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::arch::Arch;
use crate::key::CacheKey;

/// The version of [`Metadata`]'s layout that this crate writes and reads.
/// An entry with another number is reported as schema drift and built anew.
pub const METADATA_SCHEMA: u32 = 1;

/// Everything recorded about a cached kernel (`metadata.json`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// [`METADATA_SCHEMA`] of the writer.
    pub schema: u32,
    /// Release, package version or, for a local tree, `kernelrelease`.
    pub version: String,
    /// Where the kernel came from.
    pub source: Provenance,
    /// What it runs on.
    pub arch: Arch,
    /// The image's file name inside the entry.
    pub image_name: String,
    /// The image's length in bytes; a shorter file is a truncated entry.
    pub image_bytes: u64,
    /// CRC32 of the final `.config`, 8 hexadecimal digits.
    pub config_hash: Option<String>,
    /// When the entry was stored, in seconds since the Unix epoch.
    pub built_at: u64,
    /// Hash of the fragment it was built with; none for a prebuilt image.
    pub ktstr_kconfig_hash: Option<String>,
    /// Hash of the user's own fragment, if there was one.
    pub extra_kconfig_hash: Option<String>,
    /// Is the ELF file with symbols and debug information there?
    pub has_vmlinux: bool,
    /// Was debug information removed from it?
    pub vmlinux_stripped: bool,
    /// Is there a directory with loadable modules?
    #[serde(default)]
    pub has_modules: bool,
}

/// Where a kernel came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Provenance {
    /// A release from kernel.org.
    Tarball,
    /// A distribution's source package, built here.
    AptSource {
        /// The package's name.
        package: String,
    },
    /// A distribution's prebuilt kernel.
    AptImage {
        /// The package's name.
        package: String,
    },
    /// A commit of a local git tree.
    Local {
        /// The tree.
        path: PathBuf,
        /// The full commit.
        commit: String,
    },
}

impl Provenance {
    /// One word for tables: `tarball`, `apt`, `image` or `local`.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Tarball => "tarball",
            Self::AptSource { .. } => "apt",
            Self::AptImage { .. } => "image",
            Self::Local { .. } => "local",
        }
    }
}

/// A complete entry of the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheEntry {
    /// Its name.
    pub key: CacheKey,
    /// The bootable image.
    pub image: PathBuf,
    /// The ELF file with symbols and debug information.
    pub vmlinux: Option<PathBuf>,
    /// The `.config` it was built with.
    pub config: Option<PathBuf>,
    /// The directory with its loadable modules, laid out as
    /// `/lib/modules/{release}` but without depmod's index files. Kernels that
    /// we build have none.
    pub modules: Option<PathBuf>,
    /// What is recorded about it.
    pub metadata: Metadata,
}

/// Why an entry can't be used, by kind; `kernel list --json` prints the names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CorruptKind {
    /// There is no `metadata.json`.
    Missing,
    /// The operating system refused to read it.
    Unreadable,
    /// It was written by another version of ktstr.
    SchemaDrift,
    /// It is no JSON.
    Malformed,
    /// It, or the image, ends too early.
    Truncated,
    /// It is JSON, but a field holds something impossible.
    ParseError,
    /// The image that it names isn't there.
    ImageMissing,
    /// None of these.
    Unknown,
}

impl std::fmt::Display for CorruptKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "missing metadata",
            Self::Unreadable => "unreadable",
            Self::SchemaDrift => "written by another version of ktstr",
            Self::Malformed => "malformed metadata",
            Self::Truncated => "truncated",
            Self::ParseError => "impossible metadata",
            Self::ImageMissing => "image missing",
            Self::Unknown => "unknown damage",
        })
    }
}
