//! What `kernel list` shows and what `kernel clean` removes.

use serde::Serialize;

use crate::key::CacheKey;
use crate::metadata::CorruptKind;
use crate::ports::Listed;
use crate::version::VersionPrefix;

/// One line of `kernel list`, and one object of `kernel list --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListRow {
    /// The entry's name.
    pub key: String,
    /// Release or package version.
    pub version: Option<String>,
    /// `tarball`, `apt`, `image` or `local`.
    pub source: Option<&'static str>,
    /// `x86_64` or `aarch64`.
    pub arch: Option<&'static str>,
    /// Seconds since the Unix epoch.
    pub built_at: Option<u64>,
    /// Built with another version of the embedded fragment.
    pub stale_kconfig: bool,
    /// Built with a fragment of the user's on top.
    pub extra_kconfig: bool,
    /// Its series gets no more releases; `null` if that isn't known.
    pub eol: Option<bool>,
    /// Why the entry can't be used, by kind.
    pub error_kind: Option<CorruptKind>,
    /// Why the entry can't be used, in words.
    pub error: Option<String>,
}

impl ListRow {
    /// The remarks behind a line: `(stale kconfig)`, `(extra kconfig)`,
    /// `(EOL)`, `(corrupt: ..)`.
    #[must_use]
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        if self.stale_kconfig {
            remarks.push("(stale kconfig)".to_owned());
        }
        if self.extra_kconfig {
            remarks.push("(extra kconfig)".to_owned());
        }
        if self.eol == Some(true) {
            remarks.push("(EOL)".to_owned());
        }
        if let Some(error) = &self.error {
            remarks.push(format!("(corrupt: {error})"));
        }
        remarks
    }
}

/// The rows for `entries`, in their order.
///
/// `kconfig_hash` is the embedded fragment's. `maintained` are the series that
/// still get releases, if somebody knows: `6.12`, `6.17`.
#[must_use]
pub fn list_rows(
    entries: &[Listed],
    kconfig_hash: &str,
    maintained: Option<&[VersionPrefix]>,
) -> Vec<ListRow> {
    entries.iter().map(|listed| row(listed, kconfig_hash, maintained)).collect()
}

fn row(listed: &Listed, kconfig_hash: &str, maintained: Option<&[VersionPrefix]>) -> ListRow {
    let key = listed.key.to_string();
    match &listed.state {
        Ok(entry) => {
            let meta = &entry.metadata;
            let built_with = meta.ktstr_kconfig_hash.as_deref();
            ListRow {
                key,
                version: Some(meta.version.clone()),
                source: Some(meta.source.label()),
                arch: Some(meta.arch.name()),
                built_at: Some(meta.built_at),
                stale_kconfig: built_with.is_some_and(|hash| hash != kconfig_hash),
                extra_kconfig: meta.extra_kconfig_hash.is_some(),
                eol: end_of_life(&meta.version, maintained),
                error_kind: None,
                error: None,
            }
        }
        Err(corrupt) => ListRow {
            key,
            version: None,
            source: None,
            arch: None,
            built_at: None,
            stale_kconfig: false,
            extra_kconfig: false,
            eol: None,
            error_kind: Some(corrupt.kind),
            error: Some(corrupt.detail.clone()),
        },
    }
}

/// Release candidates are never at their end.
fn end_of_life(version: &str, maintained: Option<&[VersionPrefix]>) -> Option<bool> {
    let maintained = maintained?;
    let numbers = VersionPrefix::leading(version)?;
    let candidate = version.contains("-rc");
    Some(!candidate && !maintained.iter().any(|series| series.covers(&numbers)))
}

/// What `kernel clean` removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CleanPolicy {
    /// All but the newest so many usable entries; unusable ones take no slot
    /// and go.
    Keep(usize),
    /// Only what can't be used.
    CorruptOnly,
}

/// The keys to remove of `entries`, which come newest first.
#[must_use]
pub fn select_for_clean(entries: &[Listed], policy: CleanPolicy) -> Vec<CacheKey> {
    let mut usable = 0;
    entries
        .iter()
        .filter(|listed| match policy {
            _ if listed.state.is_err() => true,
            CleanPolicy::CorruptOnly => false,
            CleanPolicy::Keep(keep) => {
                usable += 1;
                usable > keep
            }
        })
        .map(|listed| listed.key.clone())
        .collect()
}

/// How long ago, in the largest unit that fits: `45s`, `12m`, `3h`, `9d`. A
/// time in the future (a clock was set back) is `0s`.
#[must_use]
pub fn age(now: u64, then: u64) -> String {
    let seconds = now.saturating_sub(then);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests;
