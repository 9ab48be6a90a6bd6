//! An index of a kernel's symbols and types, so that the next machine that runs it needs no more than a map of one file.
//!
//! A file holds what [`Kernel::open`] works out of a vmlinux or of guest memory: symbols at link addresses with their hash
//! chains, the BTF with where each type starts and its hash chains, the banner and the build id. It is used as it lies
//! in the file. It is written under a temporary name and renamed, so that no one ever sees half of one; a damaged one
//! is told by its checksum, another kernel's by the build id in guest memory, and both are as good as none.
//!
//! The types of variables, which take seconds to find in a vmlinux's DWARF and are seldom asked for, are in a file of
//! their own of the same make.

mod format;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ktstr_introspect_memory::{MapError, Mapping, PhysicalMemory};
use ktstr_introspect_symbols::{SymbolTable, Vmlinux};
use ktstr_introspect_types::{Btf, VariableTypes};

use crate::{Kernel, KernelError};

pub use format::FormatError;

/// An index couldn't be used or written.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The key can't be a file's name.
    #[error("{key:?} can't name an index: expected 1 to 128 letters, digits, dots, dashes or underscores")]
    Key {
        /// The key.
        key: String,
    },
    /// It can't be mapped; most often because there is none yet.
    #[error(transparent)]
    Map(#[from] MapError),
    /// It is damaged, or of another version of this library.
    #[error("{path} is no index that this version can use: {reason}; it will be written anew")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: FormatError,
    },
    /// The kernel can't be indexed.
    #[error("cannot index the kernel: {0}")]
    Kernel(#[from] Box<KernelError>),
    /// The kernel has no build id, or its types aren't its own.
    #[error("cannot index a kernel without {what}")]
    Lacks {
        /// What it lacks.
        what: &'static str,
    },
    /// Writing failed.
    #[error("cannot write the index {path}: {source}; check the folder's permissions and free space")]
    Write {
        /// The file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// A kernel's symbols and types, opened from an index or taken from a kernel.
#[derive(Debug, Clone)]
pub struct Index {
    build_id: String,
    banner: Vec<u8>,
    symbols: SymbolTable,
    types: Arc<Btf>,
}

impl Index {
    /// Opens the index at `path`.
    ///
    /// # Errors
    /// [`IndexError::Map`] when there is none, [`IndexError::Format`] when it is damaged.
    pub fn open(path: &Path) -> Result<Self, IndexError> {
        let mapping = Arc::new(Mapping::open(path)?);
        format::read(&mapping).map_err(|reason| IndexError::Format { path: path.into(), reason })
    }

    /// What there is to index of a kernel.
    ///
    /// # Errors
    /// [`IndexError`] when the kernel's notes or banner can't be read, or it has no build id.
    pub fn of(kernel: &Kernel) -> Result<Self, IndexError> {
        let build_id =
            kernel.build_id().map_err(Box::new)?.ok_or(IndexError::Lacks { what: "a build id" })?;
        let banner = kernel.banner().map_err(Box::new)?.into_bytes();
        let placement = kernel.placement();
        let symbols = match kernel.symbols().offset() {
            // Read at runtime addresses out of kallsyms.
            ktstr_introspect_memory::KernelOffset(0) => kernel.symbols().at_link_addresses(placement.kaslr),
            _ => kernel.symbols().clone().with_offset(ktstr_introspect_memory::KernelOffset(0)),
        };
        Ok(Self { build_id, banner, symbols, types: kernel.btf().clone() })
    }

    /// Writes the index to `path`, whole or not at all.
    ///
    /// # Errors
    /// [`IndexError::Write`], or [`IndexError::Lacks`] for split type information.
    pub fn write(&self, path: &Path) -> Result<(), IndexError> {
        let bytes = format::write(self).ok_or(IndexError::Lacks { what: "types of its own" })?;
        write_whole(path, &bytes)
    }

    /// The kernel's build id, in hexadecimal.
    #[must_use]
    pub fn build_id(&self) -> &str {
        &self.build_id
    }

    /// Its banner.
    #[must_use]
    pub fn banner(&self) -> &[u8] {
        &self.banner
    }

    /// Its symbols, at link addresses.
    #[must_use]
    pub fn symbols(&self) -> &SymbolTable {
        &self.symbols
    }

    /// Its types.
    #[must_use]
    pub fn types(&self) -> &Arc<Btf> {
        &self.types
    }
}

/// Writes a file whole or not at all.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), IndexError> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.{number}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        // Before the rename: after a power failure an empty file of the right name would be left.
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, path)).map_err(|source| {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        IndexError::Write { path: path.into(), source }
    })
}

/// A folder of indexes, one a key. It grows by some 6 to 16 MiB a kernel; deleting any file of it is always right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFolder {
    folder: PathBuf,
}

/// What came of an index while a kernel was opened.
#[derive(Debug)]
pub enum IndexUse {
    /// The kernel was opened from it.
    Used,
    /// There was none that could be used, for this reason; now there is.
    Written(Box<IndexMiss>),
    /// There was none that could be used, and writing one failed. The kernel is opened all the same.
    NotWritten(IndexError),
}

/// Why an index wasn't used.
#[derive(Debug, thiserror::Error)]
pub enum IndexMiss {
    /// It isn't there or is damaged.
    #[error(transparent)]
    Index(IndexError),
    /// The kernel in memory isn't its kernel.
    #[error(transparent)]
    Kernel(KernelError),
}

impl IndexFolder {
    /// Indexes in `folder`, which is made when first written to.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The file for `key`.
    ///
    /// # Errors
    /// [`IndexError::Key`] when it can't be a file's name.
    pub fn path(&self, key: &str) -> Result<PathBuf, IndexError> {
        self.file(key, "ktx")
    }

    /// The file for the types of variables of the kernel with that build id.
    ///
    /// # Errors
    /// [`IndexError::Key`] when it can't be a file's name.
    pub fn variables_path(&self, build_id: &str) -> Result<PathBuf, IndexError> {
        self.file(build_id, "ktv")
    }

    fn file(&self, key: &str, end: &str) -> Result<PathBuf, IndexError> {
        let fits = (1..=128).contains(&key.len())
            && !key.starts_with('.')
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !fits {
            return Err(IndexError::Key { key: key.into() });
        }
        Ok(self.folder.join(format!("{key}.{end}")))
    }

    /// Opens the kernel in `physical` from the index under its build id or, when there is none that fits, from `vmlinux`,
    /// and then writes one.
    ///
    /// # Errors
    /// [`KernelError`] when the kernel can't be opened either way.
    pub fn open(
        &self,
        physical: Arc<dyn PhysicalMemory>,
        vmlinux: &Vmlinux,
    ) -> Result<(Kernel, IndexUse), KernelError> {
        match vmlinux.build_id() {
            Some(key) => self.open_keyed(physical, Some(vmlinux), &key),
            None => {
                let lacks = IndexError::Lacks { what: "a build id" };
                Kernel::open(physical, Some(vmlinux)).map(|kernel| (kernel, IndexUse::NotWritten(lacks)))
            }
        }
    }

    /// The same under a key of the caller's, for a kernel without a vmlinux (whose symbols and types are then searched
    /// for in guest memory, once) or when the build id is known already.
    ///
    /// # Errors
    /// As [`IndexFolder::open`].
    pub fn open_keyed(
        &self,
        physical: Arc<dyn PhysicalMemory>,
        vmlinux: Option<&Vmlinux>,
        key: &str,
    ) -> Result<(Kernel, IndexUse), KernelError> {
        let found = self.path(key).and_then(|path| Index::open(&path)).map_err(IndexMiss::Index);
        let opened =
            found.and_then(|index| Kernel::open_indexed(physical.clone(), &index).map_err(IndexMiss::Kernel));
        let reason = match opened {
            Ok(kernel) => return Ok((kernel, IndexUse::Used)),
            Err(reason) => reason,
        };
        let kernel = Kernel::open(physical, vmlinux)?;
        let used = match self.write(key, &kernel) {
            Ok(()) => IndexUse::Written(Box::new(reason)),
            Err(error) => IndexUse::NotWritten(error),
        };
        Ok((kernel, used))
    }

    /// The types of variables that were kept for the kernel with that build id, whose own types are `base`.
    ///
    /// # Errors
    /// [`IndexError::Map`] when there are none, [`IndexError::Format`] when the file is damaged.
    pub fn variables(&self, build_id: &str, base: &Arc<Btf>) -> Result<VariableTypes, IndexError> {
        let path = self.variables_path(build_id)?;
        let mapping = Arc::new(Mapping::open(&path)?);
        let (seen, variables) = format::read_variables(&mapping, base)
            .map_err(|reason| IndexError::Format { path: path.clone(), reason })?;
        match seen == build_id {
            true => Ok(variables),
            false => Err(IndexError::Format { path, reason: FormatError::Part { part: 0 } }),
        }
    }

    /// Keeps the types of variables of the kernel with that build id.
    ///
    /// # Errors
    /// [`IndexError::Write`], or [`IndexError::Key`] for a build id that is none.
    pub fn keep_variables(&self, build_id: &str, variables: &VariableTypes) -> Result<(), IndexError> {
        let path = self.variables_path(build_id)?;
        self.create(&path)?;
        write_whole(&path, &format::write_variables(build_id, variables))
    }

    fn write(&self, key: &str, kernel: &Kernel) -> Result<(), IndexError> {
        let path = self.path(key)?;
        let index = Index::of(kernel)?;
        self.create(&path)?;
        index.write(&path)
    }

    /// Makes the folder, for `path` to be written.
    fn create(&self, path: &Path) -> Result<(), IndexError> {
        fs::create_dir_all(&self.folder).map_err(|source| IndexError::Write { path: path.into(), source })
    }
}

#[cfg(test)]
mod tests;
