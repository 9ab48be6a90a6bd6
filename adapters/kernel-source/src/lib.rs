//! Where kernels come from: local trees, distribution packages.
//!
//! Packages are downloaded and unpacked into a scratch directory. Nothing is
//! installed, and no step needs root.

mod apt;
mod command;
mod debversion;
mod files;
mod tree;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use ktstr_kernel::ports::{Acquired, KernelSource, RemoteId, SourceError, SourceId};
use ktstr_kernel::{Arch, KernelSpec, Progress};

use apt::Apt;
pub use command::CommandError;
use command::Commands;
pub use files::OsFiles;

/// Every source of kernels that this crate knows.
#[derive(Debug, Clone)]
pub struct Sources {
    home: Option<PathBuf>,
    commands: Commands,
}

impl Sources {
    /// `home` is what `~` stands for in paths.
    #[must_use]
    pub fn new(home: Option<PathBuf>) -> Self {
        Self { home, commands: Commands::default() }
    }

    /// Takes the home directory from this process's environment.
    #[must_use]
    pub fn from_env() -> Self {
        let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
        Self::new(home.map(PathBuf::from))
    }

    /// Looks for `apt-get`, `git` and so on in `path`, a list of directories as
    /// in `PATH`, instead of this process's `PATH`.
    #[must_use]
    pub fn with_search_path(mut self, path: impl Into<OsString>) -> Self {
        self.commands = Commands::searching(path.into());
        self
    }

    /// Fetches the distribution's package lists anew (`apt-get update`), as
    /// root or through a `sudo` that asks no password. To be tried after
    /// [`SourceError::PackageNotFound`]: fresh containers come without lists.
    ///
    /// # Errors
    /// [`SourceError::PackageNotFound`] if we may not do that, with the command
    /// for somebody who may; or why it failed.
    pub fn refresh_package_lists(&self) -> Result<(), SourceError> {
        Apt::new(&self.commands).refresh()
    }
}

impl KernelSource for Sources {
    fn identify(&self, spec: &KernelSpec, arch: Arch) -> Result<SourceId, SourceError> {
        let apt = Apt::new(&self.commands);
        match spec {
            KernelSpec::Path(path) => {
                let dir = ktstr_kernel::expand_tilde(path, self.home.as_deref())?;
                Ok(SourceId::Tree(tree::identify(&self.commands, &dir)?))
            }
            KernelSpec::AptSource(prefix) => apt.find_source(prefix.as_ref()).map(SourceId::Remote),
            KernelSpec::AptImage(prefix) => apt.find_image(prefix.as_ref(), arch).map(SourceId::Remote),
            KernelSpec::Version(_) | KernelSpec::Series(..) | KernelSpec::Major(_) => {
                Err(unsupported(spec, NO_KERNEL_ORG))
            }
            KernelSpec::Git { .. } => {
                Err(unsupported(spec, "fetching from git repositories is not supported"))
            }
            KernelSpec::Range(..) | KernelSpec::Key(_) => {
                Err(unsupported(spec, "it does not name one kernel to fetch"))
            }
        }
    }

    fn acquire(
        &self,
        id: &RemoteId,
        arch: Arch,
        scratch: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Acquired, SourceError> {
        let apt = Apt::new(&self.commands);
        match id {
            RemoteId::AptSource { package, version } => apt.fetch_source(package, version, scratch, progress),
            RemoteId::AptImage { package, version } => {
                apt.fetch_image(package, version, arch, scratch, progress)
            }
            RemoteId::Tarball { version } => Err(SourceError::Unsupported {
                spec: version.clone(),
                why: NO_KERNEL_ORG.to_owned(),
                remedy: INSTEAD.to_owned(),
            }),
        }
    }
}

/// Why a bare version can only come out of the cache.
const NO_KERNEL_ORG: &str = "downloading from kernel.org is not supported";

/// What works in the place of a source that we don't have.
const INSTEAD: &str = "use apt:6.12 (the distribution's source, built here), image:6.12 (its prebuilt kernel) or the path of a kernel tree";

fn unsupported(spec: &KernelSpec, why: &str) -> SourceError {
    SourceError::Unsupported { spec: spec.to_string(), why: why.to_owned(), remedy: INSTEAD.to_owned() }
}

/// A failure of the file system while a kernel is fetched.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}: {error}", path = path.display())]
struct FileError {
    doing: &'static str,
    path: PathBuf,
    #[source]
    error: io::Error,
}

/// To be used with `map_err`.
fn file_error(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> SourceError {
    let path = path.into();
    move |error| SourceError::Other(Box::new(FileError { doing, path, error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_fetched_says_what_can() {
        let sources = Sources::new(None);
        for text in ["6.14.2", "6.14", "6", "git+https://example.org/l#x"] {
            let spec: KernelSpec = text.parse().expect("a spec");
            let error = sources.identify(&spec, Arch::X86_64).expect_err(text);
            assert!(error.to_string().contains("apt:6.12"), "{error}");
        }
    }

    #[test]
    fn a_tilde_needs_a_home() {
        let spec: KernelSpec = "~/linux".parse().expect("a spec");
        let error = Sources::new(None).identify(&spec, Arch::X86_64).expect_err("no home");
        assert!(error.to_string().contains("HOME is not set"), "{error}");
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("linux");
        std::fs::create_dir(&tree).expect("made");
        for name in ["Makefile", "Kconfig"] {
            std::fs::write(tree.join(name), "").expect("written");
        }
        let id = Sources::new(Some(dir.path().to_owned())).identify(&spec, Arch::X86_64).expect("a tree");
        assert!(matches!(id, SourceId::Tree(_)));
    }
}
