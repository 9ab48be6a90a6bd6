//! Dependencies point down only: cli → adapters and their like → core.

use super::Finding;
use super::metadata::{Kind, Package};

/// A room of the workspace, told by the folder. The top level is fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Room<'a> {
    Core(&'a str),
    Kconfig,
    Adapter(&'a str),
    GuestInit,
    Vmm,
    Introspect,
    Cli,
    /// Schedulers to test with; separate programs.
    Fixture,
    Xtask,
}

impl<'a> Room<'a> {
    pub(super) fn of(dir: &'a str) -> Option<Self> {
        let (top, rest) = dir.split_once('/').unwrap_or((dir, ""));
        Some(match (top, rest.is_empty()) {
            ("core", false) => Self::Core(rest),
            ("adapters", false) => Self::Adapter(rest),
            ("vmm", _) => Self::Vmm,
            ("introspect", _) => Self::Introspect,
            ("kconfig", true) => Self::Kconfig,
            ("guest-init", true) => Self::GuestInit,
            ("cli", true) => Self::Cli,
            ("cli", false) if rest == "scx-fixture" => Self::Fixture,
            ("xtask", true) => Self::Xtask,
            _ => return None,
        })
    }

    /// Higher rooms may use lower ones in their tests.
    const fn height(self) -> u8 {
        match self {
            Self::Kconfig => 0,
            Self::Core(_) => 1,
            Self::Adapter(_) | Self::GuestInit | Self::Vmm | Self::Introspect => 2,
            Self::Cli | Self::Fixture | Self::Xtask => 3,
        }
    }

    /// The rule for this room, as the finding says it.
    const fn rule(self) -> &'static str {
        match self {
            Self::Kconfig => "kconfig stands alone",
            Self::Core(_) => {
                "core uses core and kconfig only; what it needs of the world is a trait in its ports.rs"
            }
            Self::Adapter(_) => {
                "an adapter uses core and kconfig, never another adapter; wire them together in cli"
            }
            Self::GuestInit => "guest-init uses core and kconfig only",
            Self::Vmm => "vmm uses vmm and core/topology only: it knows no tests",
            Self::Introspect => "introspect uses introspect and core/topology only: it knows no tests",
            Self::Cli => "cli uses everything but xtask and the programs in folders of its own",
            Self::Fixture => "a scheduler to test with uses nothing of the workspace: it could be anyone's",
            Self::Xtask => "xtask uses everything but cli: it runs what users run",
        }
    }
}

/// May `from` use `to` in what it ships? Nothing may use cli, what is in it, or xtask.
fn allowed(from: Room<'_>, to: Room<'_>) -> bool {
    use Room::{Adapter, Cli, Core, Fixture, GuestInit, Introspect, Kconfig, Vmm, Xtask};
    match (from, to) {
        (_, Cli | Fixture | Xtask) | (Kconfig | Fixture, _) => false,
        (Cli | Xtask, _) => true,
        (Core(_) | Adapter(_) | GuestInit, Core(_) | Kconfig) => true,
        (Vmm, Vmm) | (Introspect, Introspect) | (Vmm | Introspect, Core("topology")) => true,
        // The adapter that serves the hypervisor port with our own VMM.
        (Adapter("kvm"), Vmm) => true,
        // The adapter that serves the monitor's ports with our own readers.
        (Adapter("introspect"), Introspect) => true,
        _ => false,
    }
}

/// Checks every dependency between crates of the workspace.
pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let mut find = |text| {
            findings.push(Finding { path: package.manifest(), line: 0, rule: "arrows", text });
        };
        let Some(from) = Room::of(&package.dir) else {
            find(format!(
                "{} is in none of the rooms core/*, adapters/*, vmm/*, introspect/*, guest-init, kconfig, cli, \
                 cli/scx-fixture, xtask; \
                 move it, or make room in xtask/src/lint/arrows.rs",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let Some(to) = dependency.dir.as_deref().and_then(Room::of) else { continue };
            let in_tests = dependency.kind == Kind::Dev && to.height() < from.height();
            if !allowed(from, to) && !in_tests {
                let table = if dependency.kind == Kind::Dev { "its tests use" } else { "it uses" };
                find(format!("{table} {}; {}", dependency.name, from.rule()));
            }
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(kind: Kind, from: &str, to: &str) -> bool {
        check(&[Package::at(from).needs(kind, to)]).is_empty()
    }

    #[test]
    fn arrows_point_down() {
        for (from, to) in [
            ("core/run", "core/topology"),
            ("core/kernel", "kconfig"),
            ("adapters/qemu", "core/machine"),
            ("adapters/kernel-build", "kconfig"),
            ("guest-init", "core/wire"),
            ("adapters/kvm", "vmm/devices"),
            ("vmm/devices", "vmm/memory"),
            ("vmm/devices", "core/topology"),
            ("introspect/btf", "introspect/symbols"),
            ("cli", "adapters/qemu"),
            ("cli", "guest-init"),
            ("xtask", "adapters/kernel-cache"),
        ] {
            assert!(verdict(Kind::Normal, from, to), "{from} -> {to}");
            assert!(verdict(Kind::Build, from, to), "{from} -> {to}");
            assert!(verdict(Kind::Dev, from, to), "{from} -> {to}");
        }
    }

    #[test]
    fn no_arrow_points_up_or_sideways_not_even_in_tests() {
        for (from, to) in [
            ("core/run", "adapters/qemu"),
            ("core/run", "cli"),
            ("core/run", "guest-init"),
            ("kconfig", "core/kernel"),
            ("adapters/kernel-build", "adapters/kernel-cache"),
            ("adapters/qemu", "vmm/devices"),
            ("adapters/qemu", "introspect/btf"),
            ("guest-init", "adapters/cgroupfs"),
            ("vmm/devices", "introspect/btf"),
            ("introspect/btf", "adapters/qemu"),
            ("xtask", "cli"),
            ("cli", "xtask"),
            ("cli", "cli/scx-fixture"),
            ("cli/scx-fixture", "cli"),
        ] {
            for kind in [Kind::Normal, Kind::Build, Kind::Dev] {
                assert!(!verdict(kind, from, to), "{from} -> {to} ({kind:?})");
            }
        }
    }

    #[test]
    fn tests_may_look_further_down_than_what_ships() {
        assert!(!verdict(Kind::Normal, "vmm/devices", "core/machine"));
        assert!(verdict(Kind::Dev, "vmm/devices", "core/machine"));
        assert!(!verdict(Kind::Normal, "cli/scx-fixture", "adapters/qemu"));
        assert!(verdict(Kind::Dev, "cli/scx-fixture", "adapters/qemu"));
    }

    #[test]
    fn a_room_nobody_planned_is_named() {
        let findings = check(&[Package::at("helpers/strings")]);
        assert_eq!(findings.len(), 1);
        assert!(findings[0].text.contains("helpers-strings"), "{findings:?}");
        assert_eq!(check(&[Package::at("core")]).len(), 1);
        assert_eq!(check(&[Package::at("cli/other")]).len(), 1);
    }

    #[test]
    fn the_finding_names_both_ends_and_the_way_out() {
        let findings = check(&[Package::at("adapters/a").needs(Kind::Normal, "adapters/b")]);
        assert_eq!(findings[0].path, "adapters/a/Cargo.toml");
        assert!(
            findings[0].text.contains("adapters-b") && findings[0].text.contains("wire them together in cli")
        );
    }
}
