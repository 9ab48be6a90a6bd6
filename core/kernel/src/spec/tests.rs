//! Tests of spec parsing, printing and matching.

use proptest::prelude::*;

use super::*;
use crate::testing::{built, entry, prebuilt};
use crate::version::Point;

fn parse(text: &str) -> KernelSpec {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn error(text: &str) -> String {
    text.parse::<KernelSpec>().expect_err("must not parse").to_string()
}

fn version(text: &str) -> Version {
    Version::parse(text).expect("a version")
}

#[test]
fn versions_series_and_majors() {
    assert_eq!(parse("6.14.2"), KernelSpec::Version(Version { major: 6, minor: 14, point: Point::Patch(2) }));
    assert_eq!(
        parse(" 6.15-rc3\n"),
        KernelSpec::Version(Version { major: 6, minor: 15, point: Point::Candidate(3) })
    );
    assert_eq!(parse("6.14"), KernelSpec::Series(6, 14));
    assert_eq!(parse("6"), KernelSpec::Major(6));
}

#[test]
fn a_slash_a_dot_or_a_tilde_makes_a_path() {
    for text in ["../linux", "./linux", "/src/linux", "a/b", ".", "~/linux", "..6.14"] {
        assert_eq!(parse(text), KernelSpec::Path(text.into()), "{text}");
    }
    assert!(matches!(parse("linux"), KernelSpec::Key(_)));
}

#[test]
fn both_range_spellings_are_inclusive_and_equal() {
    let expected = KernelSpec::Range(RangeEnd::Series(6, 12), RangeEnd::Version(version("6.14.2")));
    assert_eq!(parse("6.12..6.14.2"), expected);
    assert_eq!(parse("6.12..=6.14.2"), expected);
}

#[test]
fn a_two_part_end_means_its_whole_series() {
    let start = RangeEnd::Series(6, 12);
    let end = RangeEnd::Series(6, 14);
    assert!(start.starts_at_or_before(version("6.12.0")));
    assert!(!start.starts_at_or_before(version("6.11.99")));
    assert!(end.ends_at_or_after(version("6.14.99")));
    assert!(!end.ends_at_or_after(version("6.15-rc1")));
    assert!(matches!(parse("6.14.2..6.14"), KernelSpec::Range(..)));
}

#[test]
fn an_inverted_range_says_swap() {
    let text = error("6.14..6.12.3");
    assert!(text.contains("swap the ends: 6.12.3..6.14"), "{text}");
    assert!(error("6.14..x").contains("\"x\" is not a version"));
    assert!(error("6.14..").contains("\"\" is not a version"));
}

#[test]
fn git_sources_name_what_to_check_out() {
    let KernelSpec::Git { url, reference } = parse("git+https://example.org/l.git#v6.14") else {
        panic!("not git");
    };
    assert_eq!(url, "https://example.org/l.git");
    assert_eq!(reference, GitRef::Name("v6.14".into()));
    let sha = "0123456789abcdef0123456789ABCDEF01234567";
    for (text, expected) in [
        ("tag=v6.14", GitRef::Tag("v6.14".into())),
        ("branch=for-next", GitRef::Branch("for-next".into())),
        ("sha=0123456789abcdef0123456789ABCDEF01234567", GitRef::Sha(sha.to_lowercase())),
    ] {
        let KernelSpec::Git { reference, .. } = parse(&format!("git+/srv/linux#{text}")) else {
            panic!("not git");
        };
        assert_eq!(reference, expected);
    }
    for bad in ["git+URL", "git+URL#", "git+#x", "git+URL#sha=12", "git+-u#x", "git+URL#-x"] {
        assert!(error(bad).contains("git+URL#REF"), "{bad}");
    }
}

#[test]
fn packages_take_a_version_or_the_newest() {
    assert_eq!(parse("apt:"), KernelSpec::AptSource(None));
    let KernelSpec::AptImage(Some(prefix)) = parse("image:6.12") else {
        panic!("not an image");
    };
    assert_eq!(prefix.numbers(), [6, 12]);
    assert!(error("apt:latest").contains("write apt:6.12, or apt:"));
}

#[test]
fn what_could_be_a_key_is_a_key_and_nothing_else_is() {
    let text = "6.12.117-1~deb12u1-apt-x86_64-kc0011aabb-xkc22334455";
    assert!(matches!(parse(text), KernelSpec::Key(key) if key.as_str() == text));
    assert!(error("").contains("empty"));
    assert!(error("  ").contains("empty"));
    assert!(error("6.12 6.13").contains("letters, digits"));
    assert!(error("--kernel").contains("starts with a letter or a digit"));
    assert!(error("v6.14.2").contains("write 6.14.2"));
    // Leading zeros are no version numbers.
    assert!(matches!(parse("6.012"), KernelSpec::Key(_)));
}

#[test]
fn ktstr_kernel_takes_no_range_and_no_git_source() {
    for text in ["6.12..6.14", "git+https://example.org/l.git#x"] {
        let error = KernelSpec::parse_single(text, "KTSTR_KERNEL").expect_err("refused").to_string();
        assert!(error.contains("KTSTR_KERNEL="), "{error}");
        assert!(error.contains("--kernel"), "{error}");
    }
    assert!(KernelSpec::parse_single("6.14.2", "KTSTR_KERNEL").is_ok());
}

#[test]
fn tilde_is_the_home_directory_and_no_one_elses() {
    let home = Path::new("/home/me");
    let expand = |text: &str, home| expand_tilde(Path::new(text), home);
    assert_eq!(expand("~/linux", Some(home)), Ok("/home/me/linux".into()));
    assert_eq!(expand("~", Some(home)), Ok("/home/me".into()));
    assert_eq!(expand("./~", Some(home)), Ok("./~".into()));
    assert!(expand("~/linux", None).is_err());
    assert!(expand("~you/linux", Some(home)).is_err());
}

#[test]
fn versions_match_kernels_that_were_built() {
    let apt = built("k", "6.12.117-1~deb12u1").metadata;
    let image = prebuilt("k", "6.12.117-1~deb12u1").metadata;
    for text in ["6.12.117", "6.12", "6", "apt:", "apt:6.12", "apt:6.12.117"] {
        assert!(parse(text).matches(&apt), "{text}");
        assert!(!parse(text).matches(&image), "{text}");
    }
    for text in ["image:", "image:6.12"] {
        assert!(parse(text).matches(&image), "{text}");
        assert!(!parse(text).matches(&apt), "{text}");
    }
    for text in ["6.12.11", "6.1", "5", "apt:6.1", "6.11..6.13", "./linux"] {
        assert!(!parse(text).matches(&apt), "{text}");
    }
    let candidate = entry("k", "6.15-rc3", Provenance::Tarball, None).metadata;
    assert!(parse("6.15-rc3").matches(&candidate));
    assert!(!parse("6.15.0").matches(&candidate));
}

fn any_version() -> impl Strategy<Value = Version> {
    let point = prop_oneof![(0..99u32).prop_map(Point::Patch), (1..12u32).prop_map(Point::Candidate)];
    (0..9u32, 0..30u32, point).prop_map(|(major, minor, point)| Version { major, minor, point })
}

fn any_end() -> impl Strategy<Value = RangeEnd> {
    prop_oneof![
        any_version().prop_map(RangeEnd::Version),
        (0..9u32, 0..30u32).prop_map(|(a, b)| RangeEnd::Series(a, b)),
    ]
}

proptest! {
    #[test]
    fn printing_and_parsing_are_inverse(text in "[ -~]{0,40}") {
        if let Ok(spec) = text.parse::<KernelSpec>() {
            let printed = spec.to_string();
            prop_assert_eq!(printed.parse::<KernelSpec>(), Ok(spec));
        }
    }

    #[test]
    fn a_range_parses_unless_inverted(start in any_end(), end in any_end()) {
        let text = format!("{start}..{end}");
        match text.parse::<KernelSpec>() {
            Ok(spec) => prop_assert_eq!(spec, KernelSpec::Range(start, end)),
            Err(SpecError::InvertedRange { swapped, .. }) => {
                prop_assert_eq!(
                    swapped.parse::<KernelSpec>(),
                    Ok(KernelSpec::Range(end, start))
                );
            }
            Err(other) => prop_assert!(false, "{}", other),
        }
    }

    #[test]
    fn order_of_versions_is_the_order_of_releases(a in any_version(), b in any_version()) {
        let rank = |v: Version| match v.point {
            Point::Candidate(n) => (v.major, v.minor, 0, n),
            Point::Patch(n) => (v.major, v.minor, 1, n),
        };
        prop_assert_eq!(a.cmp(&b), rank(a).cmp(&rank(b)));
        prop_assert_eq!(Version::parse(&a.to_string()), Some(a));
    }
}
