//! Kernels out of Debian and Ubuntu packages.

mod names;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ktstr_kernel::ports::{Acquired, RemoteId, SourceError};
use ktstr_kernel::{Arch, Progress, Stage, VersionPrefix};
use nix::unistd::Uid;

use crate::command::{self, CommandError, Commands};
use crate::debversion;
use crate::{file_error, tree};
use names::ImageName;

/// How often a running download is measured.
const POLL: Duration = Duration::from_millis(100);

/// How to get what isn't in the package lists.
const UPDATE: &str = "run `apt-get update` as root to fetch the package lists, then try again";

/// Asks and uses apt, without root and without installing anything.
pub(crate) struct Apt<'a> {
    commands: &'a Commands,
}

/// One version of one package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Package {
    name: String,
    version: String,
}

impl<'a> Apt<'a> {
    pub(crate) fn new(commands: &'a Commands) -> Self {
        Self { commands }
    }

    /// The newest kernel source package whose version starts with `prefix`.
    pub(crate) fn find_source(&self, prefix: Option<&VersionPrefix>) -> Result<RemoteId, SourceError> {
        let names = self.names(names::SOURCE)?;
        let candidates: Vec<String> = names
            .into_iter()
            .filter(|name| names::source_version(name).is_some_and(|v| related(prefix, &v)))
            .collect();
        let newest = self
            .versions(&candidates)?
            .into_iter()
            .filter(|package| has_prefix(package, prefix))
            .max_by(|a, b| debversion::compare(&a.version, &b.version));
        match newest {
            Some(Package { name, version }) => Ok(RemoteId::AptSource { package: name, version }),
            None => Err(not_found("linux-source", prefix)),
        }
    }

    /// The best prebuilt kernel whose version starts with `prefix`: one for
    /// virtual machines before one for all, then the newest, then a signed one.
    pub(crate) fn find_image(
        &self,
        prefix: Option<&VersionPrefix>,
        arch: Arch,
    ) -> Result<RemoteId, SourceError> {
        let candidates: Vec<String> = self
            .names(names::IMAGE)?
            .into_iter()
            .filter(|name| ImageName::parse(name, arch).is_some_and(|image| related(prefix, &image.version)))
            .collect();
        let best = self
            .versions(&candidates)?
            .into_iter()
            .filter(|package| has_prefix(package, prefix))
            .filter_map(|package| ImageName::parse(&package.name, arch).map(|i| (i, package)))
            .max_by(|(a, p), (b, q)| {
                a.flavour
                    .cmp(&b.flavour)
                    .then_with(|| debversion::compare(&p.version, &q.version))
                    .then_with(|| a.signed.cmp(&b.signed))
            });
        match best {
            Some((_, Package { name, version })) => Ok(RemoteId::AptImage { package: name, version }),
            None => Err(not_found("linux-image", prefix)),
        }
    }

    /// Downloads and unpacks a source package.
    pub(crate) fn fetch_source(
        &self,
        package: &str,
        version: &str,
        scratch: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Acquired, SourceError> {
        let unpacked = self.unpack_package(package, version, scratch, progress)?;
        let archive = find_archive(&unpacked.join("usr/src"))?;
        progress.started(Stage::Unpack, format!("{package} {version}"), None);
        let source = scratch.join("source");
        make_dir(&source)?;
        let mut tar = self.commands.command("tar");
        tar.args(["--extract", "--no-same-owner", "--file"]).arg(&archive).arg("--directory").arg(&source);
        command::run("unpacking the kernel source", &mut tar).map_err(other)?;
        // 150 MB that nothing needs any more.
        fs::remove_dir_all(&unpacked).map_err(file_error("deleting", unpacked))?;
        progress.finished(Stage::Unpack);
        Ok(Acquired::Tree { dir: find_tree(&source)?, build_dir: scratch.join("build") })
    }

    /// Downloads and unpacks a prebuilt kernel.
    pub(crate) fn fetch_image(
        &self,
        package: &str,
        version: &str,
        arch: Arch,
        scratch: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Acquired, SourceError> {
        let unpacked = self.unpack_package(package, version, scratch, progress)?;
        let boot = unpacked.join("boot");
        let image = find_file(&boot, "vmlinuz-")?.ok_or_else(|| SourceError::NotFound {
            what: format!("boot/vmlinuz-* in the package {package} {version}"),
            remedy: "give another version, such as image:6.12".to_owned(),
        })?;
        let mut config = find_file(&boot, "config-")?;
        let mut modules = modules_dir(&unpacked)?;
        // Ubuntu has both in a package of their own.
        if config.is_none()
            && let Some(name) = ImageName::parse(package, arch)
        {
            let companion = format!("linux-modules-{}", name.release);
            match self.unpack_package(&companion, version, scratch, progress) {
                Ok(dir) => {
                    config = find_file(&dir.join("boot"), "config-")?;
                    modules = modules_dir(&dir)?;
                }
                Err(error) => {
                    progress.warn(format!("nothing is known of this kernel's configuration: {error}"));
                }
            }
        }
        Ok(Acquired::Prebuilt { image, config, vmlinux: None, modules })
    }

    /// `apt-get update`, see [`crate::Sources::refresh_package_lists`].
    pub(crate) fn refresh(&self) -> Result<(), SourceError> {
        let doing = "fetching the package lists";
        let update = ["apt-get", "-qq", "update"];
        let ran = if Uid::effective().is_root() {
            self.commands.run(doing, update[0], &update[1..])
        } else if self.commands.run(doing, "sudo", &["-n", "true"]).is_ok() {
            self.commands.run(doing, "sudo", &[&["-n"], &update[..]].concat())
        } else {
            return Err(SourceError::PackageNotFound {
                wanted: "the package lists".to_owned(),
                why: "we are not root and sudo asks for a password".to_owned(),
                remedy: UPDATE.to_owned(),
            });
        };
        ran.map(drop).map_err(other)
    }

    /// All package names that start with `prefix`.
    fn names(&self, prefix: &str) -> Result<Vec<String>, SourceError> {
        let doing = "listing the distribution's kernel packages";
        match self.commands.run(doing, "apt-cache", &["pkgnames", prefix]) {
            Ok(text) => Ok(text.lines().map(|line| line.trim().to_owned()).collect()),
            Err(CommandError::NotInstalled { program, .. }) => Err(SourceError::Unsupported {
                spec: "from distribution packages".to_owned(),
                why: format!("{program} is not installed, so this is not Debian or Ubuntu"),
                remedy: "give the path of a kernel tree".to_owned(),
            }),
            Err(error) => Err(other(error)),
        }
    }

    /// The versions of `packages` that can be downloaded.
    fn versions(&self, packages: &[String]) -> Result<Vec<Package>, SourceError> {
        if packages.is_empty() {
            return Ok(vec![]);
        }
        let mut args = vec!["madison"];
        args.extend(packages.iter().map(String::as_str));
        let doing = "listing the versions of kernel packages";
        let text = self.commands.run(doing, "apt-cache", &args).map_err(other)?;
        Ok(parse_madison(&text))
    }

    /// The package's length in bytes, for the progress; `None` if apt-cache
    /// doesn't say.
    fn size(&self, package: &str) -> Option<u64> {
        let args = ["show", "--no-all-versions", package];
        let text = self.commands.run("asking for the size", "apt-cache", &args).ok()?;
        text.lines().find_map(|line| line.strip_prefix("Size:")?.trim().parse().ok())
    }

    /// Downloads `package` and unpacks it, leaving out what installing it would
    /// do. Returns the directory.
    fn unpack_package(
        &self,
        package: &str,
        version: &str,
        scratch: &Path,
        progress: &mut dyn Progress,
    ) -> Result<PathBuf, SourceError> {
        let downloads = scratch.join(format!("download-{package}"));
        make_dir(&downloads)?;
        self.download(package, version, &downloads, progress)?;
        let deb = find_file(&downloads, package)?.ok_or_else(|| SourceError::NotFound {
            what: format!("the downloaded package in {}", downloads.display()),
            remedy: "try again".to_owned(),
        })?;
        let unpacked = scratch.join(format!("package-{package}"));
        make_dir(&unpacked)?;
        let mut dpkg = self.commands.command("dpkg-deb");
        dpkg.arg("--extract").arg(&deb).arg(&unpacked);
        command::run("unpacking the package", &mut dpkg).map_err(other)?;
        fs::remove_dir_all(&downloads).map_err(file_error("deleting", downloads))?;
        Ok(unpacked)
    }

    fn download(
        &self,
        package: &str,
        version: &str,
        dir: &Path,
        progress: &mut dyn Progress,
    ) -> Result<(), SourceError> {
        let exact = format!("{package}={version}");
        let doing = format!("downloading {package} {version}");
        progress.started(Stage::Download, format!("{package} {version}"), self.size(&exact));
        let mut apt = self.commands.command("apt-get");
        apt.args(["-qq", "download", &exact])
            // As root apt would download as the user _apt, who can't write here.
            .args(["-o", "APT::Sandbox::User=root"])
            .env("DEBIAN_FRONTEND", "noninteractive")
            .current_dir(dir);
        let mut running = command::start(&doing, &mut apt).map_err(other)?;
        let mut seen = 0;
        while !running.ended() {
            std::thread::sleep(POLL);
            let now = bytes_in(dir);
            if now > seen {
                seen = now;
                progress.advanced(Stage::Download, seen);
            }
        }
        command::finish(&doing, &apt, running).map_err(|error| outdated(&exact, error))?;
        progress.finished(Stage::Download);
        Ok(())
    }
}

/// A version that is in our lists and no longer on the server.
fn outdated(wanted: &str, error: CommandError) -> SourceError {
    match &error {
        CommandError::Failed { stderr, .. } if stderr.contains("404") => SourceError::PackageNotFound {
            wanted: wanted.to_owned(),
            why: format!("the package lists are out of date ({stderr})"),
            remedy: UPDATE.to_owned(),
        },
        _ => other(error),
    }
}

/// Could a package named after `version` have versions that start with
/// `prefix`? `linux-source-6.12` has 6.12.117.
fn related(prefix: Option<&VersionPrefix>, version: &VersionPrefix) -> bool {
    prefix.is_none_or(|prefix| prefix.covers(version) || version.covers(prefix))
}

fn has_prefix(package: &Package, prefix: Option<&VersionPrefix>) -> bool {
    let upstream = VersionPrefix::leading(debversion::upstream(&package.version));
    prefix.is_none_or(|prefix| upstream.is_some_and(|upstream| prefix.covers(&upstream)))
}

/// Reads `name | version | where it comes from` lines; a package that is also
/// in a source list appears twice.
fn parse_madison(text: &str) -> Vec<Package> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.split('|').map(str::trim);
            let (name, version, origin) = (fields.next()?, fields.next()?, fields.next()?);
            (!origin.ends_with("Sources"))
                .then(|| Package { name: name.to_owned(), version: version.to_owned() })
        })
        .collect()
}

fn not_found(kind: &str, prefix: Option<&VersionPrefix>) -> SourceError {
    let wanted = match prefix {
        Some(prefix) => format!("a {kind} package of version {prefix}"),
        None => format!("a {kind} package"),
    };
    SourceError::PackageNotFound {
        wanted,
        why: "the package lists do not have it".to_owned(),
        remedy: UPDATE.to_owned(),
    }
}

fn other(error: CommandError) -> SourceError {
    SourceError::Other(Box::new(error))
}

fn make_dir(dir: &Path) -> Result<(), SourceError> {
    fs::create_dir(dir).map_err(file_error("making the directory", dir))
}

/// How many bytes the files directly in `dir` have.
fn bytes_in(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|found| found.len())
        .sum()
}

/// The plain file in `dir` whose name starts with `start`; the last by name.
fn find_file(dir: &Path, start: &str) -> Result<Option<PathBuf>, SourceError> {
    let mut found: Vec<PathBuf> = entries(dir)?
        .into_iter()
        .filter(|path| is_plain_file(path) && name_of(path).starts_with(start))
        .collect();
    found.sort();
    Ok(found.pop())
}

/// The kernel's archive: `linux-source-*.tar.*` in `dir` (Debian) or in a
/// directory in it (Ubuntu).
fn find_archive(dir: &Path) -> Result<PathBuf, SourceError> {
    let mut paths = entries(dir)?;
    for below in paths.clone().iter().filter(|p| p.is_dir() && !p.is_symlink()) {
        paths.extend(entries(below)?);
    }
    let archive = |path: &PathBuf| {
        let name = name_of(path);
        is_plain_file(path) && name.starts_with("linux-source-") && name.contains(".tar.")
    };
    paths.into_iter().find(archive).ok_or_else(|| SourceError::NotFound {
        what: format!("the kernel's archive (linux-source-*.tar.*) in {}", dir.display()),
        remedy: "give another version, such as apt:6.12".to_owned(),
    })
}

/// The kernel tree in `dir`.
fn find_tree(dir: &Path) -> Result<PathBuf, SourceError> {
    let found = entries(dir)?.into_iter().find(|path| path.is_dir());
    let found = found.unwrap_or_else(|| dir.to_owned());
    tree::check(&found)?;
    Ok(found)
}

/// `lib/modules/{release}` of an unpacked package, if there are modules in it.
fn modules_dir(unpacked: &Path) -> Result<Option<PathBuf>, SourceError> {
    for parent in ["lib/modules", "usr/lib/modules"] {
        let releases = entries(&unpacked.join(parent))?;
        if let Some(dir) = releases.into_iter().find(|d| d.join("kernel").is_dir()) {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}

/// What is in `dir`, sorted; nothing if it isn't there.
fn entries(dir: &Path) -> Result<Vec<PathBuf>, SourceError> {
    if !dir.is_dir() {
        return Ok(vec![]);
    }
    let listed: std::io::Result<Vec<PathBuf>> =
        fs::read_dir(dir).and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect());
    let mut paths = listed.map_err(file_error("reading", dir))?;
    paths.sort();
    Ok(paths)
}

fn is_plain_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_file())
}

fn name_of(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
