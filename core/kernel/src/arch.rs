//! The architectures a test kernel can be built for.

use serde::{Deserialize, Serialize};

/// A guest (and host: guests run on their own kind) architecture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Arch {
    /// 64-bit x86.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "aarch64")]
    Aarch64,
}

impl Arch {
    /// The architecture this program was compiled for.
    ///
    /// # Errors
    /// The name of an architecture that no guest is defined for.
    pub const fn host() -> Result<Self, UnsupportedArch> {
        if cfg!(target_arch = "x86_64") {
            Ok(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Ok(Self::Aarch64)
        } else {
            Err(UnsupportedArch)
        }
    }

    /// Rust's and `uname -m`'s name; part of cache keys.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The name Debian and Ubuntu give it in package names.
    #[must_use]
    pub const fn debian_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The bootable image inside a build tree.
    #[must_use]
    pub const fn image_path(self) -> &'static str {
        match self {
            Self::X86_64 => "arch/x86/boot/bzImage",
            Self::Aarch64 => "arch/arm64/boot/Image",
        }
    }

    /// The image's file name, which is also the `make` target.
    #[must_use]
    pub const fn image_name(self) -> &'static str {
        match self {
            Self::X86_64 => "bzImage",
            Self::Aarch64 => "Image",
        }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// This program was compiled for an architecture without guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("choosing a guest kernel: this host is neither x86_64 nor aarch64; run on one of these")]
pub struct UnsupportedArch;
