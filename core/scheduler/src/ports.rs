//! What finding a scheduler's program needs of the world.

use std::path::{Path, PathBuf};

/// Why a program could not be built or looked at.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The build failed; `tail` is the end of what it printed.
    #[error("building package {package:?} with profile {profile:?} in {workspace}: {status}{}", tail_of(.tail))]
    Build {
        /// The cargo package.
        package: String,
        /// The cargo profile.
        profile: String,
        /// Where it was built.
        workspace: PathBuf,
        /// How cargo ended.
        status: String,
        /// The end of what it printed; empty if nothing.
        tail: String,
    },
    /// cargo or the file system refused.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done and with what.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
    /// cargo's answer could not be understood.
    #[error("{doing}: {why}")]
    Answer {
        /// What was being done and with what.
        doing: String,
        /// What is wrong with the answer.
        why: String,
    },
}

fn tail_of(tail: &str) -> String {
    if tail.is_empty() { String::new() } else { format!("; it said:\n{}", tail.trim_end()) }
}

/// Programs on the host.
#[cfg_attr(test, mockall::automock)]
pub trait Programs {
    /// Is this an executable file?
    fn is_program(&self, path: &Path) -> bool;
    /// The program of that name on `$PATH`.
    fn on_path(&self, name: &str) -> Option<PathBuf>;
    /// True if the workspace around `dir` has a cargo package of that name.
    ///
    /// # Errors
    /// When cargo can't say.
    fn has_package(&self, dir: &Path, package: &str) -> Result<bool, ProgramError>;
    /// Builds that package and returns its program.
    ///
    /// # Errors
    /// When the build fails, or makes no program of that name.
    fn build(&self, dir: &Path, package: &str, profile: &str) -> Result<PathBuf, ProgramError>;
    /// Programs of an earlier build of that package, newest first.
    fn built_before(&self, dir: &Path, package: &str, profile: &str) -> Vec<PathBuf>;
}

/// A value's type, as far as a probe is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueType {
    /// `bool`.
    Truth,
    /// An integer of `size` bytes.
    Integer {
        /// Size in bytes.
        size: u8,
        /// Whether it is signed.
        signed: bool,
    },
    /// An enum of `size` bytes with its names.
    Enumeration {
        /// Size in bytes.
        size: u8,
        /// Values and names.
        names: Vec<(i64, String)>,
    },
    /// A `char *` or an array of `char`.
    Text,
    /// A pointer, to a struct or union of that name.
    Pointer(Option<String>),
    /// Anything else.
    Other,
}

/// What a kernel knows of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prototype {
    /// Its parameters: name and type.
    pub parameters: Vec<(String, ValueType)>,
    /// What it returns; `None` for nothing.
    pub returns: Option<ValueType>,
}

/// Where a member of a struct is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberPlace {
    /// Bytes from the struct's start, then, for each pointer on the way, bytes from where that points.
    pub offsets: Vec<u64>,
    /// First bit and width of a bit field.
    pub bits: Option<(u8, u8)>,
    /// Its type.
    pub ty: ValueType,
}

/// The types of a kernel.
#[cfg_attr(test, mockall::automock)]
pub trait KernelTypes {
    /// The prototype of that function; `None` if the kernel doesn't tell.
    fn prototype(&self, function: &str) -> Option<Prototype>;
    /// A member by its path from that struct, such as `scx.dsq->id`; `None` if this kernel has no such.
    fn member(&self, of: &str, path: &str) -> Option<MemberPlace>;
    /// The paths of the first few members of a struct that are numbers, or masks of CPUs (their first word).
    fn scalars(&self, of: &str, most: usize) -> Vec<String>;
    /// The callbacks of a scheduler (`struct sched_ext_ops`): their names, and where in a scheduler's map they stand.
    fn callbacks(&self) -> Vec<(String, u64)>;
    /// The number of that struct among the kernel's types.
    fn id(&self, of: &str) -> Option<u32>;
}
