//! Tests with stand-ins for apt and dpkg that serve a small archive.

use std::os::unix::fs::PermissionsExt;

use ktstr_kernel::{Event, Silent};
use tempfile::TempDir;

use super::*;

/// A directory with programs `apt-cache`, `apt-get` and `dpkg-deb`, and what
/// they serve: `names`, `madison`, and `debs/{name}` as unpacked packages.
struct Archive {
    dir: TempDir,
    commands: Commands,
}

const APT_CACHE: &str = r#"#!/bin/sh
here=$(dirname "$0")
case $1 in
pkgnames) grep "^$2" "$here/names" || true ;;
madison) shift; for p; do grep "^ *$p |" "$here/madison" || true; done ;;
show) echo "Package: x"; echo "Size: 4242" ;;
esac
"#;

const APT_GET: &str = r#"#!/bin/sh
here=$(dirname "$0")
package=${3%%=*}
echo "$@" >> "$here/asked"
if [ ! -d "$here/debs/$package" ]; then
    echo "E: Failed to fetch http://example.org/$package 404  Not Found" >&2
    exit 100
fi
echo deb > "${package}_version_all.deb"
"#;

const DPKG_DEB: &str = r#"#!/bin/sh
here=$(dirname "$0")
package=$(basename "$2"); package=${package%%_*}
cp -r "$here/debs/$package/." "$3"
"#;

impl Archive {
    fn new(names: &[&str], madison: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, script) in [("apt-cache", APT_CACHE), ("apt-get", APT_GET), ("dpkg-deb", DPKG_DEB)] {
            let path = dir.path().join(name);
            fs::write(&path, script).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        }
        let madison: String = madison
            .iter()
            .map(|(name, version)| format!("{name} | {version} | http://example.org Packages\n"))
            .collect();
        fs::write(dir.path().join("names"), names.join("\n")).expect("written");
        fs::write(dir.path().join("madison"), madison).expect("written");
        let mut path = dir.path().as_os_str().to_owned();
        path.push(":/usr/bin:/bin");
        let commands = Commands::searching(path);
        Self { dir, commands }
    }

    fn apt(&self) -> Apt<'_> {
        Apt::new(&self.commands)
    }

    fn file(&self, package: &str, path: &str) -> PathBuf {
        let file = self.dir.path().join("debs").join(package).join(path);
        fs::create_dir_all(file.parent().expect("a parent")).expect("made");
        fs::write(&file, path).expect("written");
        file
    }

    fn scratch(&self) -> PathBuf {
        let scratch = self.dir.path().join("scratch");
        fs::create_dir_all(&scratch).expect("made");
        scratch
    }
}

fn prefix(text: &str) -> VersionPrefix {
    text.parse().expect("a version")
}

fn debian() -> Archive {
    Archive::new(
        &[
            "linux-source",
            "linux-source-6.1",
            "linux-source-6.12",
            "linux-image-cloud-amd64",
            "linux-image-6.12-cloud-amd64",
            "linux-image-6.12.115+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-unsigned",
            "linux-image-6.12.118+deb12-amd64",
            "linux-image-6.1.0-47-cloud-amd64",
        ],
        &[
            ("linux-source-6.1", "6.1.192-2"),
            ("linux-source-6.12", "6.12.115-2~deb12u1"),
            ("linux-source-6.12", "6.12.117-1~deb12u1"),
            ("linux-image-6.12.115+deb12-cloud-amd64", "6.12.115-2~deb12u1"),
            ("linux-image-6.12.117+deb12-cloud-amd64", "6.12.117-1~deb12u1"),
            ("linux-image-6.12.117+deb12-cloud-amd64-unsigned", "6.12.117-1~deb12u1"),
            ("linux-image-6.12.118+deb12-amd64", "6.12.118-1~deb12u1"),
            ("linux-image-6.1.0-47-cloud-amd64", "6.1.170-3"),
        ],
    )
}

fn source(archive: &Archive, text: Option<&str>) -> (String, String) {
    let prefix = text.map(prefix);
    match archive.apt().find_source(prefix.as_ref()) {
        Ok(RemoteId::AptSource { package, version }) => (package, version),
        other => panic!("{other:?}"),
    }
}

fn image(archive: &Archive, text: Option<&str>) -> String {
    let prefix = text.map(prefix);
    match archive.apt().find_image(prefix.as_ref(), Arch::X86_64) {
        Ok(RemoteId::AptImage { package, .. }) => package,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_newest_source_of_a_version_is_found() {
    let archive = debian();
    for (text, package, version) in [
        (Some("6.12"), "linux-source-6.12", "6.12.117-1~deb12u1"),
        (Some("6.12.115"), "linux-source-6.12", "6.12.115-2~deb12u1"),
        (Some("6.1"), "linux-source-6.1", "6.1.192-2"),
        (Some("6"), "linux-source-6.12", "6.12.117-1~deb12u1"),
        (None, "linux-source-6.12", "6.12.117-1~deb12u1"),
    ] {
        let found = source(&archive, text);
        assert_eq!(found, (package.to_owned(), version.to_owned()), "{text:?}");
    }
}

#[test]
fn ubuntu_names_its_source_with_three_numbers() {
    let archive =
        Archive::new(&["linux-source", "linux-source-6.8.0"], &[("linux-source-6.8.0", "6.8.0-31.31")]);
    assert_eq!(source(&archive, Some("6.8")).0, "linux-source-6.8.0");
}

#[test]
fn cloud_images_come_before_newer_general_ones_and_signed_before_unsigned() {
    let archive = debian();
    let newest = "linux-image-6.12.117+deb12-cloud-amd64";
    assert_eq!(image(&archive, None), newest);
    assert_eq!(image(&archive, Some("6.12")), newest);
    let general = "linux-image-6.12.118+deb12-amd64";
    assert_eq!(image(&archive, Some("6.12.118")), general);
    let old = "linux-image-6.1.0-47-cloud-amd64";
    assert_eq!(image(&archive, Some("6.1")), old);
}

#[test]
fn what_is_not_there_says_apt_get_update() {
    let empty = Archive::new(&[], &[]);
    for error in [empty.apt().find_source(Some(&prefix("6.12"))), empty.apt().find_image(None, Arch::X86_64)]
    {
        let error = error.expect_err("nothing there");
        assert!(matches!(error, SourceError::PackageNotFound { .. }));
        assert!(error.to_string().contains("apt-get update"), "{error}");
    }
    let no_such = debian().apt().find_source(Some(&prefix("5.4")));
    assert!(no_such.expect_err("none").to_string().contains("5.4"));
}

#[test]
fn without_apt_the_reason_is_the_distribution() {
    let commands = Commands::searching("/nonexistent".into());
    let error = Apt::new(&commands).find_source(None).expect_err("no apt");
    assert!(error.to_string().contains("not Debian or Ubuntu"), "{error}");
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Progress for Events {
    fn report(&mut self, event: Event) {
        self.0.push(event);
    }
}

/// Packs a small kernel tree as `path` in the package.
fn pack(archive: &Archive, package: &str, path: &str) {
    let tree = archive.dir.path().join(package);
    fs::create_dir_all(&tree).expect("made");
    for name in ["Makefile", "Kconfig"] {
        fs::write(tree.join(name), "# kernel\n").expect("written");
    }
    let target = archive.file(package, path);
    let mut tar = archive.commands.command("tar");
    tar.arg("-C").arg(archive.dir.path()).arg("-czf").arg(target).arg(package);
    command::run("packing", &mut tar).expect("packed");
}

#[test]
fn source_packages_are_unpacked_to_a_tree() {
    for path in ["usr/src/linux-source-6.12.tar.gz", "usr/src/linux-source-6.12/linux-source-6.12.tar.gz"] {
        let archive = debian();
        pack(&archive, "linux-source-6.12", path);
        let scratch = archive.scratch();
        let mut events = Events::default();
        let acquired = archive
            .apt()
            .fetch_source("linux-source-6.12", "6.12.117-1", &scratch, &mut events)
            .expect("fetched");
        let Acquired::Tree { dir, build_dir } = acquired else {
            panic!("{acquired:?}");
        };
        assert!(dir.join("Kconfig").is_file() && dir.starts_with(&scratch));
        assert!(build_dir.starts_with(&scratch) && !build_dir.exists());
        let asked = fs::read_to_string(archive.dir.path().join("asked")).expect("asked");
        assert!(asked.contains("download linux-source-6.12=6.12.117-1"), "{asked}");
        let Event::Started { stage, total, .. } = &events.0[0] else {
            panic!("{:?}", events.0);
        };
        assert_eq!((*stage, *total), (Stage::Download, Some(4242)));
        let unpacked = Event::Finished { stage: Stage::Unpack };
        assert_eq!(events.0.last(), Some(&unpacked));
        // Only source is left of the download.
        let left: Vec<_> = entries(&scratch).expect("readable");
        assert_eq!(left, [scratch.join("source")]);
    }
}

#[test]
fn images_come_with_their_configuration_and_modules() {
    let archive = debian();
    let package = "linux-image-6.12.117+deb12-cloud-amd64";
    archive.file(package, "boot/vmlinuz-6.12.117");
    archive.file(package, "boot/config-6.12.117");
    archive.file(package, "lib/modules/6.12.117/kernel/a.ko.xz");
    let acquired = archive
        .apt()
        .fetch_image(package, "6.12.117-1", Arch::X86_64, &archive.scratch(), &mut Silent)
        .expect("fetched");
    let Acquired::Prebuilt { image, config: Some(config), modules: Some(modules), vmlinux: None } = acquired
    else {
        panic!("{acquired:?}");
    };
    assert!(image.ends_with("boot/vmlinuz-6.12.117"));
    assert!(config.ends_with("boot/config-6.12.117"));
    assert!(modules.join("kernel/a.ko.xz").is_file());
}

#[test]
fn ubuntus_configuration_is_in_the_modules_package() {
    let archive = debian();
    let package = "linux-image-unsigned-6.8.0-31-generic";
    archive.file(package, "boot/vmlinuz-6.8.0-31-generic");
    let fetch = |scratch: &str| {
        let mut events = Events::default();
        let scratch = archive.scratch().join(scratch);
        fs::create_dir(&scratch).expect("made");
        let acquired = archive
            .apt()
            .fetch_image(package, "6.8.0-31.31", Arch::X86_64, &scratch, &mut events)
            .expect("fetched");
        let Acquired::Prebuilt { config, .. } = acquired else {
            panic!("{acquired:?}");
        };
        (config, events.0)
    };
    let (config, events) = fetch("without");
    assert_eq!(config, None);
    assert!(events.iter().any(|e| matches!(e, Event::Warning(_))));
    archive.file("linux-modules-6.8.0-31-generic", "boot/config-6.8.0-31-generic");
    let (config, events) = fetch("with");
    assert!(config.is_some());
    assert!(!events.iter().any(|e| matches!(e, Event::Warning(_))));
}

#[test]
fn a_version_gone_from_the_server_says_apt_get_update() {
    let archive = debian();
    let error = archive
        .apt()
        .fetch_source("linux-source-6.12", "6.12.1-1", &archive.scratch(), &mut Silent)
        .expect_err("gone");
    assert!(matches!(error, SourceError::PackageNotFound { .. }), "{error}");
    assert!(error.to_string().contains("out of date"), "{error}");
}

#[test]
fn a_package_without_a_kernel_is_named() {
    let archive = debian();
    archive.file("linux-image-x", "usr/share/doc/readme");
    let error = archive
        .apt()
        .fetch_image("linux-image-x", "1", Arch::X86_64, &archive.scratch(), &mut Silent)
        .expect_err("no kernel");
    assert!(error.to_string().contains("linux-image-x 1"), "{error}");
}

#[test]
fn madison_lines_of_source_lists_are_passed_over() {
    let text = "linux-source-6.12 | 6.12.117-1~deb12u1 | http://deb bookworm/main amd64 Packages\n\
                linux-source-6.12 |  6.12.117-1 | http://deb bookworm/main Sources\n\
                garbage\n";
    let packages = parse_madison(text);
    assert_eq!(packages.len(), 1);
    assert_eq!(packages[0].version, "6.12.117-1~deb12u1");
}
