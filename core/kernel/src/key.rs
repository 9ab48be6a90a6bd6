//! Names of cache entries.
//!
//! A key says everything that makes one kernel differ from another: version,
//! where it came from, architecture, configuration. Two builds with one key
//! are interchangeable.

use std::fmt;
use std::path::Path;

use crate::arch::Arch;
use crate::ports::{RemoteId, TreeId, TreeState};

/// The longest key: entry names get a prefix and a process id while they are
/// staged and must fit a file name (255 bytes).
const MAX_LEN: usize = 200;

/// The name of a cache entry: a plain file name that needs no quoting in a
/// shell and can't be mistaken for a path, an option or a hidden file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheKey(String);

/// Why a text can't be a cache key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The first character is no letter and no digit.
    #[error("a cache key starts with a letter or a digit")]
    BadStart,
    /// A character that keys never have.
    #[error("a cache key has only letters, digits and . _ + ~ - in it")]
    BadCharacter,
    /// Longer than any key.
    #[error("a cache key has at most 200 characters")]
    TooLong,
}

impl CacheKey {
    /// Takes `text` as a key.
    ///
    /// # Errors
    /// The rule that `text` breaks.
    pub fn new(text: impl Into<String>) -> Result<Self, KeyError> {
        let text = text.into();
        if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            return Err(KeyError::BadStart);
        }
        if !text.chars().all(allowed) {
            return Err(KeyError::BadCharacter);
        }
        if text.len() > MAX_LEN {
            return Err(KeyError::TooLong);
        }
        Ok(Self(text))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is it built like the keys that this crate makes? Only such directories
    /// of a cache are ever deleted, so that pointing the cache at somebody's
    /// home directory can't empty it.
    #[must_use]
    pub fn is_generated(&self) -> bool {
        [Arch::X86_64, Arch::Aarch64].iter().any(|arch| {
            let kinds = [format!("-tarball-{arch}-kc"), format!("-apt-{arch}-kc"), format!("-image-{arch}")];
            let local = self.0.starts_with("local-") && self.0.contains(&format!("-{arch}-kc"));
            local || kinds.iter().any(|kind| self.0.contains(kind))
        })
    }

    /// Makes a key of any text: what isn't allowed (a package version's epoch
    /// colon, say) becomes `_`, and what is too long ends in a hash of it all.
    fn assemble(text: &str) -> Self {
        let mut clean: String = text.chars().map(|c| if allowed(c) { c } else { '_' }).collect();
        if !clean.starts_with(|c: char| c.is_ascii_alphanumeric()) {
            clean.insert(0, 'k');
        }
        if clean.len() > MAX_LEN {
            clean.truncate(MAX_LEN - 9);
            clean.push('-');
            clean.push_str(&crc_hex(text.as_bytes()));
        }
        Self(clean)
    }
}

fn allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '~' | '-')
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The key under which a fetched kernel is kept.
///
/// `suffix` is `ktstr_kconfig::cache_key_suffix_with_extra`.
///
/// | from | key |
/// |-|-|
/// | kernel.org | `{version}-tarball-{arch}-kc{suffix}` |
/// | source package | `{package version}-apt-{arch}-kc{suffix}` |
/// | prebuilt package | `{package version}-image-{arch}` |
#[must_use]
pub fn remote_key(id: &RemoteId, arch: Arch, suffix: &str) -> CacheKey {
    let version = id.version();
    CacheKey::assemble(&match id {
        RemoteId::Tarball { .. } => format!("{version}-tarball-{arch}-kc{suffix}"),
        RemoteId::AptSource { .. } => format!("{version}-apt-{arch}-kc{suffix}"),
        RemoteId::AptImage { .. } => format!("{version}-image-{arch}"),
    })
}

/// The key under which a tree's kernel is kept: `local-{hash7}-{arch}-kc{suffix}`
/// and, when the tree has a `.config` of its own, `-cfg{crc32 of it}`. `None`
/// when the tree can't be named by a commit and so must not be kept.
#[must_use]
pub fn tree_key(tree: &TreeId, arch: Arch, suffix: &str) -> Option<CacheKey> {
    let TreeState::Clean { commit } = &tree.state else {
        return None;
    };
    let hash7: String = commit.chars().take(7).collect();
    let config = match &tree.config_hash {
        Some(crc) => format!("-cfg{crc}"),
        None => String::new(),
    };
    let text = format!("local-{hash7}-{arch}-kc{suffix}{config}");
    Some(CacheKey::assemble(&text))
}

/// A name for a tree that can't be cached, for its log and its messages:
/// `local-unknown-{crc32 of the path}-{arch}-kc{suffix}`.
#[must_use]
pub fn uncached_label(dir: &Path, arch: Arch, suffix: &str) -> CacheKey {
    let crc = path_crc(dir);
    CacheKey::assemble(&format!("local-unknown-{crc}-{arch}-kc{suffix}"))
}

/// The lease under which a fetched kernel is made once: `build-{key}`.
#[must_use]
pub fn build_lease(key: &CacheKey) -> CacheKey {
    CacheKey::assemble(&format!("build-{key}"))
}

/// The lease that keeps two builds out of one tree: `source-{crc32 of path}`.
#[must_use]
pub fn source_lease(dir: &Path) -> CacheKey {
    CacheKey::assemble(&format!("source-{}", path_crc(dir)))
}

fn path_crc(dir: &Path) -> String {
    crc_hex(dir.as_os_str().as_encoded_bytes())
}

/// CRC32 as 8 lowercase hexadecimal digits: how configurations and paths are
/// named in keys and metadata.
#[must_use]
pub fn crc_hex(bytes: &[u8]) -> String {
    format!("{:08x}", crc32fast::hash(bytes))
}

#[cfg(test)]
mod tests;
