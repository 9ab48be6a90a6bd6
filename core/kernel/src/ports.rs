//! What getting a kernel needs of the world: a place to keep kernels, places
//! to get them from, something that builds them, and a look at host files.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::arch::Arch;
use crate::key::CacheKey;
use crate::metadata::{CacheEntry, CorruptKind, Provenance};
use crate::progress::Progress;
use crate::spec::{KernelSpec, SpecError};

/// An adapter's own error, whose message stands by itself.
pub type AdapterError = Box<dyn Error + Send + Sync>;

/// Keeps kernels. Every operation leaves the store valid even if the process
/// is killed in the middle of it.
#[cfg_attr(test, mockall::automock)]
pub trait KernelStore {
    /// The entry named `key`; `None` if there is none.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if it is there but can't be used.
    fn lookup(&self, key: &CacheKey) -> Result<Option<CacheEntry>, StoreError>;

    /// Every entry, newest first, unusable ones last.
    ///
    /// # Errors
    /// If the store as a whole can't be read.
    fn list(&self) -> Result<Vec<Listed>, StoreError>;

    /// Copies `files` in under `key`, in the place of an entry of that name.
    /// Readers see the old entry or the new one, never a mixture.
    ///
    /// # Errors
    /// If files can't be read or written, or another writer holds the key for
    /// too long.
    fn store(&self, key: &CacheKey, files: &NewEntry) -> Result<CacheEntry, StoreError>;

    /// Removes the entry; `false` if there was none.
    ///
    /// # Errors
    /// If it can't be removed or is in use for too long.
    fn remove(&self, key: &CacheKey) -> Result<bool, StoreError>;

    /// A new, empty directory on the store's disk for sources and build
    /// output. Dropping it deletes it; if we are killed, the next process that
    /// asks for one deletes it.
    ///
    /// # Errors
    /// If it can't be made.
    fn scratch(&self, label: &CacheKey) -> Result<Box<dyn Scratch>, StoreError>;

    /// Waits until no other process holds the lease `name`, then holds it
    /// until the value is dropped. Used to do long work once: two processes
    /// that need one kernel build it once.
    ///
    /// # Errors
    /// [`StoreError::Busy`] when the other one takes too long.
    fn lease(&self, name: &CacheKey, progress: &mut dyn Progress) -> Result<Box<dyn Lease>, StoreError>;
}

/// A directory that is deleted when this is dropped.
pub trait Scratch: Send {
    /// The directory.
    fn path(&self) -> &Path;
}

/// A lease on a piece of work; given back when dropped.
pub trait Lease: Send {}

/// One entry as found, usable or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// The entry's name.
    pub key: CacheKey,
    /// The entry, or what is wrong with it.
    pub state: Result<CacheEntry, Corrupt>,
}

/// Why an entry can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {detail}")]
pub struct Corrupt {
    /// By kind.
    pub kind: CorruptKind,
    /// With the file and what was seen.
    pub detail: String,
}

/// Files to be stored as one entry, and what to record about them. The store
/// adds what it knows itself: file sizes and the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    /// The bootable image.
    pub image: PathBuf,
    /// The name the image gets inside the entry.
    pub image_name: String,
    /// The ELF file with symbols and debug information.
    pub vmlinux: Option<PathBuf>,
    /// The final `.config`.
    pub config: Option<PathBuf>,
    /// The directory with its loadable modules.
    pub modules: Option<PathBuf>,
    /// Release, package version or `kernelrelease`.
    pub version: String,
    /// Where it came from.
    pub source: Provenance,
    /// What it runs on.
    pub arch: Arch,
    /// Hash of the fragment it was built with.
    pub ktstr_kconfig_hash: Option<String>,
    /// Hash of the user's own fragment.
    pub extra_kconfig_hash: Option<String>,
}

/// A failure of the kernel store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An entry is there but can't be used.
    #[error(
        "reading the cached kernel {key}: {corrupt}; remove it with `cargo ktstr kernel clean --corrupt-only`"
    )]
    Corrupt {
        /// The entry's name.
        key: CacheKey,
        /// What is wrong.
        corrupt: Corrupt,
    },
    /// Someone else holds a lock for too long.
    #[error("waiting for {what}: still held by {holder} after {waited_s} s; wait for it to end, or end it")]
    Busy {
        /// The entry or the work.
        what: String,
        /// The process that holds it.
        holder: String,
        /// How long we waited, in seconds.
        waited_s: u64,
    },
    /// Anything else, in the adapter's words.
    #[error(transparent)]
    Other(AdapterError),
}

/// Finds and fetches kernels.
#[cfg_attr(test, mockall::automock)]
pub trait KernelSource {
    /// What `spec` means at this moment: cheap, no big download.
    ///
    /// # Errors
    /// If nothing of that name exists or this source knows no such specs.
    fn identify(&self, spec: &KernelSpec, arch: Arch) -> Result<SourceId, SourceError>;

    /// Gets what was identified. Everything fetched goes under `scratch`.
    ///
    /// # Errors
    /// If it can't be fetched or unpacked.
    fn acquire(
        &self,
        id: &RemoteId,
        arch: Arch,
        scratch: &Path,
        progress: &mut dyn Progress,
    ) -> Result<Acquired, SourceError>;
}

/// A kernel that exists somewhere, precisely named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceId {
    /// It has to be fetched.
    Remote(RemoteId),
    /// It lies in a directory of the user's.
    Tree(TreeId),
}

/// A kernel that has to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteId {
    /// A release on kernel.org.
    Tarball {
        /// `6.14.2`
        version: String,
    },
    /// A distribution's source package.
    AptSource {
        /// `linux-source-6.12`
        package: String,
        /// `6.12.117-1~deb12u1`
        version: String,
    },
    /// A distribution's prebuilt kernel.
    AptImage {
        /// `linux-image-6.12.117+deb12-cloud-amd64`
        package: String,
        /// `6.12.117-1~deb12u1`
        version: String,
    },
}

impl RemoteId {
    /// What to record as this kernel's origin.
    #[must_use]
    pub fn provenance(&self) -> Provenance {
        match self {
            Self::Tarball { .. } => Provenance::Tarball,
            Self::AptSource { package, .. } => Provenance::AptSource { package: package.clone() },
            Self::AptImage { package, .. } => Provenance::AptImage { package: package.clone() },
        }
    }

    /// Release or package version.
    #[must_use]
    pub fn version(&self) -> &str {
        match self {
            Self::Tarball { version } | Self::AptSource { version, .. } | Self::AptImage { version, .. } => {
                version
            }
        }
    }
}

impl std::fmt::Display for RemoteId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tarball { version } => write!(f, "linux {version}"),
            Self::AptSource { package, version } | Self::AptImage { package, version } => {
                write!(f, "{package} {version}")
            }
        }
    }
}

/// A kernel tree of the user's, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeId {
    /// The tree, absolute and without symbolic links.
    pub dir: PathBuf,
    /// What git says of it.
    pub state: TreeState,
    /// CRC32 of its `.config` (8 hexadecimal digits), if it has one.
    pub config_hash: Option<String>,
}

/// Can the contents of a tree be named?
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeState {
    /// Exactly this commit.
    Clean {
        /// The full hash.
        commit: String,
    },
    /// A commit and changes on top.
    Dirty {
        /// The full hash.
        commit: String,
    },
    /// No git repository, or none that git can read.
    NotGit,
}

/// What a source delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Acquired {
    /// Source to be built.
    Tree {
        /// Where `Makefile` and `Kconfig` are.
        dir: PathBuf,
        /// Where to build, apart from the source.
        build_dir: PathBuf,
    },
    /// A kernel that needs no build.
    Prebuilt {
        /// The bootable image.
        image: PathBuf,
        /// The configuration it was built with, if the package has it.
        config: Option<PathBuf>,
        /// The ELF file with symbols, if the package has it.
        vmlinux: Option<PathBuf>,
        /// The directory with its loadable modules (`lib/modules/{release}`).
        modules: Option<PathBuf>,
    },
}

/// A failure of a kernel source.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The path has not what every kernel tree has.
    #[error(
        "opening {path}: not a kernel source tree: {missing} is missing; give the top directory of a kernel tree",
        path = path.display()
    )]
    NotATree {
        /// The directory given.
        path: PathBuf,
        /// The first file that was looked for in vain.
        missing: &'static str,
    },
    /// Nothing of that name exists.
    #[error("looking for {what}: not found; {remedy}")]
    NotFound {
        /// What was looked for and where.
        what: String,
        /// What to do next.
        remedy: String,
    },
    /// No package that the lists name and the server has. The lists may be old
    /// or, in a fresh container, absent: fetching them anew may help.
    #[error("getting {wanted}: {why}; {remedy}")]
    PackageNotFound {
        /// What was looked for.
        wanted: String,
        /// What the lists or the server said.
        why: String,
        /// What to do next.
        remedy: String,
    },
    /// This source can't fetch such specs.
    #[error("getting the kernel {spec}: {why}; {remedy}")]
    Unsupported {
        /// The spec.
        spec: String,
        /// Why not.
        why: String,
        /// What can be used instead.
        remedy: String,
    },
    /// The path could not be worked out.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Anything else, in the adapter's words.
    #[error(transparent)]
    Other(AdapterError),
}

/// Builds kernels from source.
#[cfg_attr(test, mockall::automock)]
pub trait KernelBuilder {
    /// Is everything installed that a build needs? Asked before a download.
    ///
    /// # Errors
    /// [`BuildError::MissingTools`], with one command that installs them.
    fn preflight(&self, arch: Arch) -> Result<(), BuildError>;

    /// Configures, compiles and validates.
    ///
    /// # Errors
    /// If a step fails, or what came out lacks a required option.
    fn build(&self, job: &BuildJob, progress: &mut dyn Progress) -> Result<Built, BuildError>;
}

/// One build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildJob {
    /// Where `Makefile` and `Kconfig` are.
    pub tree: PathBuf,
    /// Where to build; `None` is in the tree itself.
    pub build_dir: Option<PathBuf>,
    /// What for.
    pub arch: Arch,
    /// The user's own fragment, which wins over the embedded one.
    pub extra_kconfig: Option<String>,
    /// Throw away earlier build output and configuration first.
    pub clean: bool,
    /// Names the build in its log's file name and in messages.
    pub label: CacheKey,
}

/// What a build made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// The bootable image.
    pub image: PathBuf,
    /// The ELF file with symbols and debug information.
    pub vmlinux: PathBuf,
    /// The final `.config`.
    pub config: PathBuf,
    /// `make kernelrelease`
    pub release: String,
}

/// A failure to build.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Programs or headers that a build needs.
    #[error(
        "preparing to build a kernel: missing on this machine: {}; {remedy}",
        missing.join(", ")
    )]
    MissingTools {
        /// What is missing.
        missing: Vec<String>,
        /// One command that installs it.
        remedy: String,
    },
    /// A step of the build failed.
    #[error(
        "building {tree}: {step} failed with {status}; its last lines:\n{tail}\n(the whole log is {log})",
        tree = tree.display(),
        log = log.display()
    )]
    StepFailed {
        /// The tree.
        tree: PathBuf,
        /// The command.
        step: String,
        /// Exit status or signal.
        status: String,
        /// The end of its output.
        tail: String,
        /// Where all of its output is.
        log: PathBuf,
    },
    /// The kernel would be of no use.
    #[error(
        "checking the configuration of {tree}: required options did not stick:\n{}",
        options.join("\n"),
        tree = tree.display()
    )]
    RequiredOptions {
        /// The tree.
        tree: PathBuf,
        /// One line for each option: its name and a remedy.
        options: Vec<String>,
    },
    /// Anything else, in the adapter's words.
    #[error(transparent)]
    Other(AdapterError),
}

/// A look at the host's files, for discovery.
#[cfg_attr(test, mockall::automock)]
pub trait HostFiles {
    /// What is at `path`, symbolic links followed.
    fn probe(&self, path: &Path) -> Probe;

    /// The text of a small file; `None` if there is none.
    ///
    /// # Errors
    /// If it is there but can't be read or is bigger than 1 MiB.
    fn read(&self, path: &Path) -> Result<Option<String>, ReadError>;
}

/// A file of the host that is there but can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reading {path}: {reason}", path = path.display())]
pub struct ReadError {
    /// The file.
    pub path: PathBuf,
    /// What went wrong.
    pub reason: String,
}

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Nothing.
    Missing,
    /// A file that we may read.
    File,
    /// A directory.
    Directory,
    /// Something that we may not read, and why. Some distributions let only
    /// root read `/boot/vmlinuz-*`.
    Unreadable(String),
}
