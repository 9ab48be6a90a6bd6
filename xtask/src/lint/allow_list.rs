//! The libraries that core crates may use.

use super::Finding;
use super::arrows::Room;
use super::metadata::{Kind, Package};

/// A library, who may use it (a crate of core, or `*` for all), and why.
type Entry = (&'static str, &'static str, &'static str);

/// Each is pure: it touches no file, process, thread, clock or socket. A user's
/// cold build pays for every line.
const ALLOWED: [Entry; 8] = [
    ("thiserror", "*", "error enums without boilerplate"),
    ("serde", "*", "data that crosses the wire or is written to a result file"),
    ("crc32fast", "*", "checksums of frames, hashes of names; no other hash is needed"),
    ("postcard", "*", "the compact encoding of frames and payloads"),
    ("regex-lite", "run", "patterns that a scheduler's error must match"),
    ("proc-macro2", "macros", "token streams that can be unit-tested"),
    ("quote", "macros", "writes the generated code"),
    ("syn", "macros", "reads the attribute's item"),
];

/// Checks core's (and kconfig's) dependencies outside the workspace. Tests may
/// use what they like.
pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let name = match Room::of(&package.dir) {
            Some(Room::Core(name)) => name,
            Some(Room::Kconfig) => "kconfig",
            _ => continue,
        };
        let external = package
            .dependencies
            .iter()
            .filter(|it| it.kind != Kind::Dev && it.dir.as_deref().and_then(Room::of).is_none());
        for dependency in external {
            if !permits(&ALLOWED, name, &dependency.name) {
                findings.push(Finding {
                    path: package.manifest(),
                    line: 0,
                    rule: "allow-list",
                    text: format!(
                        "{} uses {}, which is not on core's list; do without it, use it in an adapter behind a port, \
                         or, if it is pure and worth its build time, add it with the reason to \
                         xtask/src/lint/allow_list.rs",
                        package.name, dependency.name
                    ),
                });
            }
        }
    }
    findings
}

fn permits(list: &[Entry], user: &str, library: &str) -> bool {
    list.iter().any(|(name, who, _)| *name == library && (*who == "*" || *who == user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_libraries_pass_and_others_are_named_with_their_user() {
        let package = Package::at("core/run")
            .needs_external(Kind::Normal, "serde")
            .needs_external(Kind::Normal, "libc")
            .needs_external(Kind::Build, "cc")
            .needs_external(Kind::Dev, "tempfile");
        let findings = check(&[package]);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings[0].text.starts_with("core-run uses libc"), "{}", findings[0].text);
        assert!(findings[0].text.contains("allow_list.rs"));
        assert!(findings[1].text.contains("cc"));
    }

    #[test]
    fn a_library_for_one_crate_is_not_for_another() {
        let package = |dir| Package::at(dir).needs_external(Kind::Normal, "syn");
        assert!(check(&[package("core/macros")]).is_empty());
        assert_eq!(check(&[package("core/run")]).len(), 1);
    }

    #[test]
    fn adapters_choose_for_themselves_and_kconfig_does_not() {
        let package = |dir| Package::at(dir).needs_external(Kind::Normal, "nix");
        assert!(check(&[package("adapters/qemu")]).is_empty());
        assert_eq!(check(&[package("kconfig")]).len(), 1);
    }

    #[test]
    fn a_crate_beside_the_workspace_is_external_too() {
        let package = Package::at("core/run").needs(Kind::Normal, "vendored/tricks");
        assert_eq!(check(&[package]).len(), 1);
    }
}
