//! The kernel configuration fragment of the guest kernel: merge, hash, checks.
//!
//! Pure text in, data out. The syntax is the one that the kernel's own
//! `scripts/kconfig/confdata.c` reads: `CONFIG_X=value` and
//! `# CONFIG_X is not set`, one a line, the last line about an option wins.
//!
//! ```
//! use ktstr_kconfig::{EMBEDDED_KCONFIG, merge_kconfig_fragments, missing_options};
//!
//! let merged = merge_kconfig_fragments(EMBEDDED_KCONFIG, Some("CONFIG_HZ_1000=n\nCONFIG_HZ_250=y\n"));
//! // After `make olddefconfig` the tree's .config says what stuck.
//! let dot_config = merged.replace("CONFIG_HZ_250=y\n", "");
//! let missing = missing_options(&merged, &dot_config)?;
//! assert_eq!(missing[0].option, "HZ_250");
//! # Ok::<(), ktstr_kconfig::ParseError>(())
//! ```

mod check;
mod parse;

use std::borrow::Cow;

pub use check::{
    Missing, Override, Required, is_enabled, missing_options, overrides, required_options, unmet_requirements,
};
pub use parse::{Assignment, BadLine, Fragment, ParseError, Value};

/// The fragment that every kernel built by ktstr is configured with.
pub const EMBEDDED_KCONFIG: &str = include_str!("../ktstr.kconfig");

/// CRC32 of [`EMBEDDED_KCONFIG`], 8 lowercase hexadecimal digits.
#[must_use]
pub fn kconfig_hash() -> String {
    crc_hex(EMBEDDED_KCONFIG)
}

/// CRC32 of a user's own fragment, 8 lowercase hexadecimal digits.
///
/// The bytes are taken verbatim: a comment or a space makes another kernel as
/// far as the cache is concerned, which is cheaper than a wrong hit.
#[must_use]
pub fn extra_kconfig_hash(extra: &str) -> String {
    crc_hex(extra)
}

/// The part of a cache key that names the configuration: [`kconfig_hash`].
#[must_use]
pub fn cache_key_suffix() -> String {
    kconfig_hash()
}

/// [`cache_key_suffix`], with `-xkc{hash}` appended when the user brought a
/// fragment of their own.
#[must_use]
pub fn cache_key_suffix_with_extra(extra: Option<&str>) -> String {
    match extra {
        None => kconfig_hash(),
        Some(extra) => format!("{}-xkc{}", kconfig_hash(), extra_kconfig_hash(extra)),
    }
}

/// The fragment to configure with: `baked`, then the user's lines.
///
/// kconfig lets the last line about an option win, so the user does.
#[must_use]
pub fn merge_kconfig_fragments<'a>(baked: &'a str, extra: Option<&str>) -> Cow<'a, str> {
    match extra {
        None => Cow::Borrowed(baked),
        Some(extra) => Cow::Owned(format!("{baked}\n{extra}")),
    }
}

fn crc_hex(text: &str) -> String {
    format!("{:08x}", crc32fast::hash(text.as_bytes()))
}

#[cfg(test)]
mod tests;
