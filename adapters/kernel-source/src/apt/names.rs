//! What the names of kernel packages say.

use ktstr_kernel::{Arch, VersionPrefix};

/// The start of a source package's name.
pub(crate) const SOURCE: &str = "linux-source-";
/// The start of an image package's name.
pub(crate) const IMAGE: &str = "linux-image-";

/// The version in `linux-source-6.12` (Debian) or `linux-source-6.8.0`
/// (Ubuntu); `None` for anything else.
pub(crate) fn source_version(name: &str) -> Option<VersionPrefix> {
    name.strip_prefix(SOURCE)?.parse().ok()
}

/// What kind of machine an image is made for. Later ones are preferred.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Flavour {
    /// Everything: Debian's plain one, Ubuntu's `generic`.
    General,
    /// Virtual machines only, which is smaller: Debian's `cloud`.
    Cloud,
}

/// The name of a package that holds one kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageName {
    /// The numbers at the start of the release.
    pub(crate) version: VersionPrefix,
    /// `uname -r` of the kernel: `6.12.117+deb12-cloud-amd64`.
    pub(crate) release: String,
    pub(crate) flavour: Flavour,
    /// Signed for secure boot. All the same to us; the unsigned twin is taken
    /// if the archive has no signed one yet.
    pub(crate) signed: bool,
}

impl ImageName {
    /// `None` for meta-packages (`linux-image-amd64`, `linux-image-6.12-amd64`),
    /// debug symbols, other architectures and flavours made for other ends
    /// (`rt`, `lowlatency`, one cloud vendor's).
    pub(crate) fn parse(name: &str, arch: Arch) -> Option<Self> {
        let rest = name.strip_prefix(IMAGE)?;
        let (rest, ubuntu_unsigned) = match rest.strip_prefix("unsigned-") {
            Some(rest) => (rest, true),
            None => (rest, false),
        };
        let (release, debian_unsigned) = match rest.strip_suffix("-unsigned") {
            Some(release) => (release, true),
            None => (rest, false),
        };
        let version = VersionPrefix::leading(release)?;
        if version.numbers().len() < 3 {
            return None;
        }
        Some(Self {
            version,
            release: release.to_owned(),
            flavour: flavour(release, arch)?,
            signed: !ubuntu_unsigned && !debian_unsigned,
        })
    }
}

/// The flavour is what follows the version and the ABI number, which has no
/// letter at the start of a part unless it is Debian's `+deb12`.
fn flavour(release: &str, arch: Arch) -> Option<Flavour> {
    let parts: Vec<&str> = release
        .split('-')
        .skip(1)
        .skip_while(|part| part.starts_with(|c: char| c.is_ascii_digit()))
        .collect();
    let arch = arch.debian_name();
    match parts[..] {
        ["cloud", a] if a == arch => Some(Flavour::Cloud),
        [a] if a == arch => Some(Flavour::General),
        ["generic"] => Some(Flavour::General),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str) -> Option<(String, Flavour, bool)> {
        let image = ImageName::parse(name, Arch::X86_64)?;
        Some((image.release, image.flavour, image.signed))
    }

    #[test]
    fn images_of_debian_and_ubuntu() {
        for (name, release, flavour, signed) in [
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.12.117+deb12-cloud-amd64", Flavour::Cloud, true),
            ("linux-image-6.1.0-47-cloud-amd64-unsigned", "6.1.0-47-cloud-amd64", Flavour::Cloud, false),
            ("linux-image-6.1.0-47-amd64", "6.1.0-47-amd64", Flavour::General, true),
            ("linux-image-6.1.0-0.deb11.5-cloud-amd64", "6.1.0-0.deb11.5-cloud-amd64", Flavour::Cloud, true),
            ("linux-image-6.8.0-31-generic", "6.8.0-31-generic", Flavour::General, true),
            ("linux-image-unsigned-6.8.0-31-generic", "6.8.0-31-generic", Flavour::General, false),
        ] {
            assert_eq!(parse(name), Some((release.to_owned(), flavour, signed)), "{name}");
        }
    }

    #[test]
    fn what_holds_no_kernel_or_one_for_other_ends() {
        for name in [
            "linux-image-amd64",
            "linux-image-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12-amd64-signed-template",
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
            "linux-image-6.12.117+deb12-rt-amd64",
            "linux-image-6.12.117+deb12-cloud-arm64",
            "linux-image-6.8.0-31-generic-dbgsym",
            "linux-image-6.8.0-31-generic-64k",
            "linux-image-6.8.0-31-lowlatency",
            "linux-image-6.8.0-1008-aws",
            "linux-image-generic",
            "linux-headers-6.8.0-31-generic",
        ] {
            assert_eq!(parse(name), None, "{name}");
        }
    }

    #[test]
    fn other_architectures_have_their_own_names() {
        let name = "linux-image-6.12.117+deb12-cloud-arm64";
        let image = ImageName::parse(name, Arch::Aarch64).expect("an image");
        assert_eq!(image.flavour, Flavour::Cloud);
    }

    #[test]
    fn source_packages_carry_their_version() {
        let version = |name| source_version(name).map(|v| v.to_string());
        assert_eq!(version("linux-source-6.12").as_deref(), Some("6.12"));
        assert_eq!(version("linux-source-6.8.0").as_deref(), Some("6.8.0"));
        assert_eq!(version("linux-source"), None);
        assert_eq!(version("linux-source-6.12-rt"), None);
    }
}
