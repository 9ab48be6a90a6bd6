//! Whether a kernel that was found is one of those that somebody listed.

use std::path::Path;

use crate::key::CacheKey;
use crate::metadata::{Metadata, Provenance};
use crate::spec::KernelSpec;
use crate::version::{Point, Version, VersionPrefix};

/// A kernel, as far as specs tell it from others.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Its image.
    pub image: &'a Path,
    /// `uname -r` of it, where that could be read.
    pub release: Option<&'a str>,
    /// Its entry of the cache, if it is from there.
    pub entry: Option<(&'a CacheKey, &'a Metadata)>,
}

impl KernelSpec {
    /// Is `kernel` one that this spec can mean?
    ///
    /// A version, series or range means every kernel of that release but a prebuilt image, as in
    /// [`matches`](Self::matches); a path (absolute) the kernel of that tree. A git source can't be
    /// told from a kernel and includes none.
    #[must_use]
    pub fn includes(&self, kernel: &Identity<'_>) -> bool {
        let metadata = kernel.entry.map(|(_, metadata)| metadata);
        let source = metadata.map(|metadata| &metadata.source);
        match self {
            Self::Key(key) => kernel.entry.is_some_and(|(own, _)| own == key),
            Self::AptSource(_) | Self::AptImage(_) => metadata.is_some_and(|metadata| self.matches(metadata)),
            Self::Path(tree) => {
                let built_there = matches!(source, Some(Provenance::Local { path, .. }) if path == tree);
                built_there || kernel.image.starts_with(tree)
            }
            Self::Git { .. } => false,
            _ if matches!(source, Some(Provenance::AptImage { .. })) => false,
            _ => {
                let release = metadata.map(|metadata| metadata.version.as_str()).or(kernel.release);
                release.is_some_and(|release| self.includes_release(release))
            }
        }
    }

    fn includes_release(&self, release: &str) -> bool {
        let leads = |numbers: &[u32]| {
            VersionPrefix::leading(release).is_some_and(|own| own.numbers().starts_with(numbers))
        };
        match self {
            Self::Major(major) => leads(&[*major]),
            Self::Series(major, minor) => leads(&[*major, *minor]),
            Self::Version(version) => version_of(release) == Some(*version),
            Self::Range(start, end) => {
                version_of(release).is_some_and(|v| start.starts_at_or_before(v) && end.ends_at_or_after(v))
            }
            _ => false,
        }
    }
}

/// The version in a release or package version, such as `6.12.117-1~deb12u1`, `6.15.0-rc3+` or
/// `6.15-rc3`.
fn version_of(release: &str) -> Option<Version> {
    let numbers = VersionPrefix::leading(release)?;
    let (major, minor, patch) = match *numbers.numbers() {
        [major, minor] => (major, minor, 0),
        [major, minor, patch, ..] => (major, minor, patch),
        _ => return None,
    };
    let digits = release
        .split_once("-rc")
        .map(|(_, tail)| tail.chars().take_while(char::is_ascii_digit).collect::<String>());
    let point = match digits.and_then(|digits| digits.parse().ok()) {
        Some(candidate) => Point::Candidate(candidate),
        None => Point::Patch(patch),
    };
    Some(Version { major, minor, point })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arch::Arch;
    use crate::metadata::METADATA_SCHEMA;
    use proptest::prelude::*;

    fn entry(version: &str, source: Provenance) -> (CacheKey, Metadata) {
        let metadata = Metadata {
            schema: METADATA_SCHEMA,
            version: version.to_owned(),
            source,
            arch: Arch::X86_64,
            image_name: "bzImage".to_owned(),
            image_bytes: 1,
            config_hash: None,
            built_at: 0,
            ktstr_kconfig_hash: None,
            extra_kconfig_hash: None,
            has_vmlinux: false,
            vmlinux_stripped: false,
            has_modules: false,
        };
        (CacheKey::new("6.12.117-x").unwrap(), metadata)
    }

    fn included(spec: &str, (key, metadata): &(CacheKey, Metadata)) -> bool {
        let image = Path::new("/cache/6.12.117-x/bzImage");
        let identity = Identity { image, release: None, entry: Some((key, metadata)) };
        spec.parse::<KernelSpec>().unwrap().includes(&identity)
    }

    #[test]
    fn a_built_kernel_is_known_by_its_release_and_its_package() {
        let package = || "linux-source-6.12".to_owned();
        let built = entry("6.12.117-1~deb12u1", Provenance::AptSource { package: package() });
        for spec in ["6", "6.12", "6.12.117", "6.11..6.12", "6.12.100..7.0", "apt:", "apt:6.12", "6.12.117-x"]
        {
            assert!(included(spec, &built), "{spec}");
        }
        for spec in ["5", "6.1", "6.12.11", "6.13..7.0", "6.1..6.12.116", "image:", "apt:6.1", "6.12.117-y"] {
            assert!(!included(spec, &built), "{spec}");
        }
    }

    #[test]
    fn a_prebuilt_image_is_meant_by_its_own_spec_only() {
        let image = entry("6.12.117-1~deb12u1", Provenance::AptImage { package: "linux-image".to_owned() });
        for (spec, yes) in [("image:6.12", true), ("image:", true), ("image:6.1", false), ("6.12", false)] {
            assert_eq!(included(spec, &image), yes, "{spec}");
        }
        assert!(!included("apt:6.12", &image) && !included("6.10..6.14", &image));
    }

    #[test]
    fn a_tree_is_known_by_its_place_and_its_release() {
        let of = |spec: &str, image: &str| {
            let identity = Identity { image: Path::new(image), release: Some("6.15.0-rc3+"), entry: None };
            spec.parse::<KernelSpec>().unwrap().includes(&identity)
        };
        let image = "/src/linux/arch/x86/boot/bzImage";
        assert!(of("/src/linux", image) && !of("/src/linux2", image) && !of("/src/lin", image));
        assert!(of("6.15", image) && of("6.15-rc3", image) && of("6.14..6.15", image));
        assert!(!of("6.15.0", image) && !of("6.15-rc2", image) && !of("6.14..6.15-rc2", image));
        assert!(!of("git+https://example.org/linux.git#v6.15", image));
        let commit = "0".repeat(40);
        let local = entry("6.15.0", Provenance::Local { path: "/src/linux".into(), commit });
        assert!(included("/src/linux", &local) && !included("/src", &local));
    }

    proptest! {
        #[test]
        fn a_range_includes_what_lies_between_its_ends(a in 0u32..40, b in 0u32..40, n in 0u32..40) {
            let (low, high) = (a.min(b), a.max(b));
            let package = "linux-source".to_owned();
            let built = entry(&format!("6.12.{n}-1"), Provenance::AptSource { package });
            prop_assert_eq!(included(&format!("6.12.{low}..6.12.{high}"), &built), (low..=high).contains(&n));
        }
    }
}
