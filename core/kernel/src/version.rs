//! Kernel version numbers: exact releases, series, and the leading numbers of
//! a distribution's package version.

use std::fmt;
use std::str::FromStr;

/// One release as kernel.org names it: `6.14.2` or `6.15-rc3`.
///
/// Ordered as released: `6.15-rc3` < `6.15.0` < `6.15.1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Version {
    /// `6` of `6.14.2`.
    pub major: u32,
    /// `14` of `6.14.2`.
    pub minor: u32,
    /// What follows the series.
    pub point: Point,
}

/// The third part of a [`Version`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// A release candidate, `-rc3`.
    Candidate(u32),
    /// A maintenance release, `.2`; the first release of a series is `.0`.
    Patch(u32),
}

impl Version {
    /// Reads exactly `A.B.C` or `A.B-rcN`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some((series, candidate)) = text.split_once("-rc") {
            let [major, minor] = numbers(series)?;
            let point = Point::Candidate(number(candidate)?);
            return Some(Self { major, minor, point });
        }
        let [major, minor, patch] = numbers(text)?;
        let point = Point::Patch(patch);
        Some(Self { major, minor, point })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor) = (self.major, self.minor);
        match self.point {
            Point::Candidate(n) => write!(f, "{major}.{minor}-rc{n}"),
            Point::Patch(n) => write!(f, "{major}.{minor}.{n}"),
        }
    }
}

/// Leading version numbers: `6`, `6.12` or `6.12.117`. Stands for every
/// version that starts with the same numbers, so `6.1` is not `6.12`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionPrefix(Vec<u32>);

impl VersionPrefix {
    /// The numbers at the start of a package version, a kernel release or a
    /// package name's tail: `6.12.117` of `6.12.117-1~deb12u1`. `None` when
    /// `text` doesn't start with a digit.
    #[must_use]
    pub fn leading(text: &str) -> Option<Self> {
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        text[..end].trim_end_matches('.').parse().ok()
    }

    /// The numbers, most significant first; never empty.
    #[must_use]
    pub fn numbers(&self) -> &[u32] {
        &self.0
    }

    /// Does `other` start with these numbers?
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.starts_with(&self.0)
    }
}

impl FromStr for VersionPrefix {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
        numbers.map(Self).ok_or(())
    }
}

impl fmt::Display for VersionPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&parts.join("."))
    }
}

/// A decimal number without sign and without a leading zero, so that every
/// version has one spelling.
pub(crate) fn number(text: &str) -> Option<u32> {
    let canonical = text == "0" || !text.starts_with('0');
    (canonical && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// Exactly `N` numbers separated by dots.
pub(crate) fn numbers<const N: usize>(text: &str) -> Option<[u32; N]> {
    let parts: Option<Vec<u32>> = text.split('.').map(number).collect();
    parts?.try_into().ok()
}
