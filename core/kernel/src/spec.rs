//! What a user can write to name a kernel (`--kernel`, `KTSTR_KERNEL`).

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::key::{CacheKey, KeyError};
use crate::metadata::{Metadata, Provenance};
use crate::version::{Version, VersionPrefix, number, numbers};

/// A kernel, or several, as named by the user.
///
/// Parsing and printing are inverse to each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum KernelSpec {
    /// A kernel tree: text with a `/`, or starting with `.` or `~`.
    Path(PathBuf),
    /// One release: `6.14.2`, `6.15-rc3`.
    Version(Version),
    /// The newest release of a series: `6.14`.
    Series(u32, u32),
    /// The newest release of a major version: `6`.
    Major(u32),
    /// Every stable and long-term release between two ends, both included:
    /// `6.12..6.14`, also written `6.12..=6.14`.
    Range(RangeEnd, RangeEnd),
    /// A commit of a git repository: `git+URL#REF`.
    Git {
        /// Where to fetch from.
        url: String,
        /// What to check out.
        reference: GitRef,
    },
    /// The distribution's kernel source package, built with our fragment:
    /// `apt:6.12`; `apt:` takes the newest.
    AptSource(Option<VersionPrefix>),
    /// The distribution's prebuilt kernel, downloaded and unpacked but not
    /// installed: `image:6.12`; `image:` takes the newest.
    AptImage(Option<VersionPrefix>),
    /// An entry of the kernel cache, as `kernel list` prints it.
    Key(CacheKey),
}

/// One end of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RangeEnd {
    /// One release.
    Version(Version),
    /// A whole series: its first release at the start of a range, its last at
    /// the end.
    Series(u32, u32),
}

/// What to check out of a git repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GitRef {
    /// `#NAME`: a tag or a branch, whichever exists.
    Name(String),
    /// `#tag=NAME`
    Tag(String),
    /// `#branch=NAME`
    Branch(String),
    /// `#sha=` and 40 hexadecimal digits.
    Sha(String),
}

/// Why a text names no kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Nothing but white space.
    #[error(
        "reading a kernel spec: it is empty; write a version (6.14.2), a series (6.14), a path (./linux), apt:6.12 or image:6.12"
    )]
    Empty,
    /// An end of a range is no version.
    #[error("reading the kernel range {spec:?}: {end:?} is not a version; write ends such as 6.12 or 6.12.3")]
    BadRangeEnd {
        /// The whole text.
        spec: String,
        /// The part that could not be read.
        end: String,
    },
    /// The end lies before the start.
    #[error("reading the kernel range {spec:?}: it ends before it starts; swap the ends: {swapped}")]
    InvertedRange {
        /// The whole text.
        spec: String,
        /// The same range the right way round.
        swapped: String,
    },
    /// `git+` without what it needs.
    #[error(
        "reading the kernel spec {spec:?}: {reason}; write git+URL#REF, for instance git+https://example.org/linux.git#v6.14"
    )]
    BadGit {
        /// The whole text.
        spec: String,
        /// What is missing or wrong.
        reason: &'static str,
    },
    /// `apt:` or `image:` followed by something else than numbers.
    #[error(
        "reading the kernel spec {spec:?}: {version:?} is not a version; write {prefix}6.12, or {prefix} for the newest"
    )]
    BadPackageVersion {
        /// The whole text.
        spec: String,
        /// What follows the prefix.
        version: String,
        /// `apt:` or `image:`
        prefix: &'static str,
    },
    /// `v6.14.2`: a tag's name, not a version.
    #[error("reading the kernel spec {spec:?}: versions have no leading v; write {version}")]
    LeadingV {
        /// The whole text.
        spec: String,
        /// What was probably meant.
        version: String,
    },
    /// Not even a possible cache key.
    #[error(
        "reading the kernel spec {spec:?}: {reason}; write a version (6.14.2), a path with a slash (./linux), apt:6.12, image:6.12 or a key from `cargo ktstr kernel list`"
    )]
    NotASpec {
        /// The whole text.
        spec: String,
        /// Why it can't be a key.
        reason: KeyError,
    },
    /// A spec for several kernels, or one to fetch, where one present kernel is
    /// needed.
    #[error(
        "reading {place}={spec}: {what} can't be used here; pass it to --kernel, or name one kernel (a path, a version or a cache key)"
    )]
    NotSingle {
        /// The variable or option.
        place: String,
        /// The text.
        spec: String,
        /// `a range` or `a git source`.
        what: &'static str,
    },
    /// `~` with no home directory to put in its place.
    #[error(
        "expanding {path}: {reason}; write the path in full",
        path = path.display()
    )]
    NoHome {
        /// The path as written.
        path: PathBuf,
        /// Why `~` stands for nothing.
        reason: &'static str,
    },
}

impl KernelSpec {
    /// Parses a spec where only one kernel that is already there makes sense,
    /// such as `KTSTR_KERNEL`: no range, no git source. `place` names the
    /// variable or option in the error.
    ///
    /// # Errors
    /// As [`FromStr`], and [`SpecError::NotSingle`].
    pub fn parse_single(text: &str, place: &str) -> Result<Self, SpecError> {
        let spec: Self = text.parse()?;
        let what = match spec {
            Self::Range(..) => "a range",
            Self::Git { .. } => "a git source",
            _ => return Ok(spec),
        };
        Err(SpecError::NotSingle { place: place.to_owned(), spec: spec.to_string(), what })
    }

    /// Could the cached kernel described by `metadata` be what this spec
    /// means? Paths, ranges, git sources and keys match by other means and
    /// never here. A prebuilt image matches `image:` only, because it lacks
    /// what a built kernel has.
    #[must_use]
    pub fn matches(&self, metadata: &Metadata) -> bool {
        let built = matches!(metadata.source, Provenance::Tarball | Provenance::AptSource { .. });
        let covers = |prefix: &VersionPrefix| {
            VersionPrefix::leading(&metadata.version).is_some_and(|v| prefix.covers(&v))
        };
        match self {
            Self::Version(version) => built && same_release(*version, &metadata.version),
            Self::Series(major, minor) => {
                let series = VersionPrefix::leading(&format!("{major}.{minor}"));
                built && series.as_ref().is_some_and(covers)
            }
            Self::Major(major) => {
                built && VersionPrefix::leading(&major.to_string()).is_some_and(|p| covers(&p))
            }
            Self::AptSource(prefix) => {
                matches!(metadata.source, Provenance::AptSource { .. }) && prefix.as_ref().is_none_or(covers)
            }
            Self::AptImage(prefix) => {
                matches!(metadata.source, Provenance::AptImage { .. }) && prefix.as_ref().is_none_or(covers)
            }
            Self::Path(_) | Self::Range(..) | Self::Git { .. } | Self::Key(_) => false,
        }
    }
}

/// Is `recorded` (a release or a package version) the release `version`?
fn same_release(version: Version, recorded: &str) -> bool {
    let upstream = recorded
        .split_once('-')
        .filter(|(_, tail)| !tail.starts_with("rc"))
        .map_or(recorded, |(upstream, _)| upstream);
    Version::parse(upstream) == Some(version)
}

/// Puts the home directory in the place of a leading `~`.
///
/// # Errors
/// [`SpecError::NoHome`] without `home`, and for `~user`.
pub fn expand_tilde(path: &Path, home: Option<&Path>) -> Result<PathBuf, SpecError> {
    let fail = |reason| SpecError::NoHome { path: path.to_owned(), reason };
    if let Ok(rest) = path.strip_prefix("~") {
        let home = home.ok_or_else(|| fail("HOME is not set"))?;
        return Ok(home.join(rest));
    }
    if path.to_string_lossy().starts_with('~') {
        return Err(fail("other users' home directories are not looked up"));
    }
    Ok(path.to_owned())
}

impl FromStr for KernelSpec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(SpecError::Empty);
        }
        if let Some(rest) = text.strip_prefix("git+") {
            return parse_git(text, rest);
        }
        if let Some(rest) = text.strip_prefix("apt:") {
            return package_version(text, rest, "apt:").map(Self::AptSource);
        }
        if let Some(rest) = text.strip_prefix("image:") {
            return package_version(text, rest, "image:").map(Self::AptImage);
        }
        if text.contains('/') || text.starts_with(['.', '~']) {
            return Ok(Self::Path(PathBuf::from(text)));
        }
        if let Some((start, end)) = text.split_once("..") {
            return parse_range(text, start, end.strip_prefix('=').unwrap_or(end));
        }
        parse_version_or_key(text)
    }
}

fn parse_version_or_key(text: &str) -> Result<KernelSpec, SpecError> {
    if let Some(spec) = parse_version(text) {
        return Ok(spec);
    }
    if let Some(version) = text.strip_prefix('v')
        && parse_version(version).is_some()
    {
        return Err(SpecError::LeadingV { spec: text.to_owned(), version: version.to_owned() });
    }
    CacheKey::new(text)
        .map(KernelSpec::Key)
        .map_err(|reason| SpecError::NotASpec { spec: text.to_owned(), reason })
}

fn parse_version(text: &str) -> Option<KernelSpec> {
    Version::parse(text)
        .map(KernelSpec::Version)
        .or_else(|| numbers(text).map(|[major, minor]| KernelSpec::Series(major, minor)))
        .or_else(|| number(text).map(KernelSpec::Major))
}

fn parse_range(spec: &str, start: &str, end: &str) -> Result<KernelSpec, SpecError> {
    let parse_end = |text: &str| {
        Version::parse(text)
            .map(RangeEnd::Version)
            .or_else(|| numbers(text).map(|[major, minor]| RangeEnd::Series(major, minor)))
            .ok_or_else(|| SpecError::BadRangeEnd { spec: spec.to_owned(), end: text.to_owned() })
    };
    let (start, end) = (parse_end(start)?, parse_end(end)?);
    if end.last() < start.first() {
        return Err(SpecError::InvertedRange { spec: spec.to_owned(), swapped: format!("{end}..{start}") });
    }
    Ok(KernelSpec::Range(start, end))
}

impl RangeEnd {
    /// `(major, minor, None = before, patch or candidate, all)` as an ordered
    /// triple: the first release that this end can mean.
    fn first(self) -> (u32, u32, Bound) {
        match self {
            Self::Version(v) => (v.major, v.minor, Bound::At(v)),
            Self::Series(major, minor) => (major, minor, Bound::Start),
        }
    }

    /// The last release that this end can mean.
    fn last(self) -> (u32, u32, Bound) {
        match self {
            Self::Version(v) => (v.major, v.minor, Bound::At(v)),
            Self::Series(major, minor) => (major, minor, Bound::End),
        }
    }

    /// Is `version` not before this end, taken as the start of a range?
    #[must_use]
    pub fn starts_at_or_before(self, version: Version) -> bool {
        self.first() <= (version.major, version.minor, Bound::At(version))
    }

    /// Is `version` not after this end, taken as the end of a range?
    #[must_use]
    pub fn ends_at_or_after(self, version: Version) -> bool {
        (version.major, version.minor, Bound::At(version)) <= self.last()
    }
}

/// A place inside one series.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bound {
    Start,
    At(Version),
    End,
}

impl fmt::Display for RangeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version(version) => version.fmt(f),
            Self::Series(major, minor) => write!(f, "{major}.{minor}"),
        }
    }
}

fn parse_git(spec: &str, rest: &str) -> Result<KernelSpec, SpecError> {
    let fail = |reason| SpecError::BadGit { spec: spec.to_owned(), reason };
    let (url, reference) = rest.rsplit_once('#').ok_or_else(|| fail("it has no #REF"))?;
    if url.is_empty() {
        return Err(fail("it has no URL"));
    }
    // git would take it, like such a REF below, for an option of its own.
    if url.starts_with('-') {
        return Err(fail("its URL starts with '-'"));
    }
    let reference = match reference.split_once('=') {
        Some(("tag", name)) => GitRef::Tag(name.to_owned()),
        Some(("branch", name)) => GitRef::Branch(name.to_owned()),
        Some(("sha", sha)) if is_sha(sha) => GitRef::Sha(sha.to_ascii_lowercase()),
        Some(("sha", _)) => return Err(fail("#sha= takes 40 hexadecimal digits")),
        _ => GitRef::Name(reference.to_owned()),
    };
    match &reference {
        GitRef::Name(name) | GitRef::Tag(name) | GitRef::Branch(name) if name.is_empty() => {
            Err(fail("its REF is empty"))
        }
        GitRef::Name(name) | GitRef::Tag(name) | GitRef::Branch(name) if name.starts_with('-') => {
            Err(fail("its REF starts with '-'"))
        }
        _ => Ok(KernelSpec::Git { url: url.to_owned(), reference }),
    }
}

fn is_sha(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn package_version(spec: &str, rest: &str, prefix: &'static str) -> Result<Option<VersionPrefix>, SpecError> {
    if rest.is_empty() {
        return Ok(None);
    }
    rest.parse().map(Some).map_err(|()| SpecError::BadPackageVersion {
        spec: spec.to_owned(),
        version: rest.to_owned(),
        prefix,
    })
}

impl fmt::Display for KernelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Version(version) => version.fmt(f),
            Self::Series(major, minor) => write!(f, "{major}.{minor}"),
            Self::Major(major) => write!(f, "{major}"),
            Self::Range(start, end) => write!(f, "{start}..{end}"),
            Self::Git { url, reference } => write!(f, "git+{url}#{reference}"),
            Self::AptSource(prefix) => write_package(f, "apt:", prefix.as_ref()),
            Self::AptImage(prefix) => write_package(f, "image:", prefix.as_ref()),
            Self::Key(key) => key.fmt(f),
        }
    }
}

fn write_package(f: &mut fmt::Formatter<'_>, kind: &str, prefix: Option<&VersionPrefix>) -> fmt::Result {
    match prefix {
        Some(prefix) => write!(f, "{kind}{prefix}"),
        None => f.write_str(kind),
    }
}

impl fmt::Display for GitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Tag(name) => write!(f, "tag={name}"),
            Self::Branch(name) => write!(f, "branch={name}"),
            Self::Sha(sha) => write!(f, "sha={sha}"),
        }
    }
}

#[cfg(test)]
mod tests;
