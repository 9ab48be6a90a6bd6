//! Configures and builds a kernel tree with make.
//!
//! - A tree without a `.config` starts from `allnoconfig` with the fragment on
//!   top (`KCONFIG_ALLCONFIG`), not from `defconfig`: everything that a guest
//!   needs is in the fragment, and 7 minutes on two cores beat 30.
//! - A tree with a `.config` keeps it: the fragment is appended and
//!   `olddefconfig` settles the rest.
//! - What did not stick is found before anything is compiled.
//! - make and all it started end when we do, whatever ends us.

mod build;
mod configure;
mod step;
mod tools;

use std::ffi::OsString;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use ktstr_kernel::ports::{BuildError, BuildJob, Built, KernelBuilder};
use ktstr_kernel::{Arch, Progress, UnsupportedArch};

/// Builds kernels with make.
#[derive(Debug, Clone)]
pub struct MakeBuilder {
    log_dir: PathBuf,
    jobs: NonZeroUsize,
    search_path: Option<OsString>,
}

impl MakeBuilder {
    /// Keeps the log of each build in `log_dir` (made if absent), and runs as
    /// many compilers at once as there are CPUs for us.
    pub fn new(log_dir: impl Into<PathBuf>) -> Self {
        Self {
            log_dir: log_dir.into(),
            jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            search_path: None,
        }
    }

    /// Runs `jobs` compilers at once.
    #[must_use]
    pub const fn with_jobs(mut self, jobs: NonZeroUsize) -> Self {
        self.jobs = jobs;
        self
    }

    /// Looks for make, the compiler and so on in `path`, a list of directories
    /// as in `PATH`, instead of this process's `PATH`.
    #[must_use]
    pub fn with_search_path(mut self, path: impl Into<OsString>) -> Self {
        self.search_path = Some(path.into());
        self
    }

    fn path(&self) -> OsString {
        self.search_path.clone().or_else(|| std::env::var_os("PATH")).unwrap_or_default()
    }
}

impl KernelBuilder for MakeBuilder {
    fn preflight(&self, arch: Arch) -> Result<(), BuildError> {
        check_arch(arch)?;
        tools::check(&self.path())
    }

    fn build(&self, job: &BuildJob, progress: &mut dyn Progress) -> Result<Built, BuildError> {
        check_arch(job.arch)?;
        build::Build::start(self, job)?.run(progress)
    }
}

fn check_arch(wanted: Arch) -> Result<(), MakeError> {
    let host = Arch::host()?;
    if host == wanted { Ok(()) } else { Err(MakeError::CrossBuild { host, wanted }) }
}

/// A failure to build that is not make's.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// The kernel would not run here.
    #[error(
        "building a kernel for {wanted}: this machine is {host} and guests run on their own kind; build it on {wanted}"
    )]
    CrossBuild {
        /// What this program was compiled for.
        host: Arch,
        /// What was asked for.
        wanted: Arch,
    },
    /// There are no guests for this machine.
    #[error(transparent)]
    Host(#[from] UnsupportedArch),
    /// The user's own fragment has bad lines.
    #[error("{0}; mend the file given to --extra-kconfig")]
    ExtraKconfig(#[source] ktstr_kconfig::ParseError),
    /// make said that it succeeded, and yet there is no such file.
    #[error(
        "building {tree}: make succeeded but did not write {missing}; see {log}",
        tree = tree.display(),
        missing = missing.display(),
        log = log.display()
    )]
    NoOutput {
        /// The tree.
        tree: PathBuf,
        /// The file.
        missing: PathBuf,
        /// What make printed.
        log: PathBuf,
    },
    /// The operating system refused.
    #[error("{doing} {path}: {error}", path = path.display())]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To which file or program.
        path: PathBuf,
        /// What went wrong.
        #[source]
        error: io::Error,
    },
}

impl MakeError {
    fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |error| Self::Io { doing, path, error }
    }
}

impl From<MakeError> for BuildError {
    fn from(error: MakeError) -> Self {
        Self::Other(Box::new(error))
    }
}
